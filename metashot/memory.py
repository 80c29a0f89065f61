"""The key-value memory of memory matching networks (Cai et al., CVPR 2018, section 3.2).

A support set is written into slots, an example at a time; reading mixes the slots' keys by their
similarity. An episode has a memory of its own: nothing is kept from the last.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .base import Array
from .nets import unit

KEY_NORM = ("paper", "store", "unit")
OVERFLOW = ("merge_keep_value", "skip")


class Memory(NamedTuple):
    """M slots, of which the first `used` hold something."""

    keys: Array  # [M, d], zeros where empty
    values: Array  # [M] int32, a slot's label; -1 where empty
    used: Array  # [] int32


def write(
    examples: Array,
    labels: Array,
    mask: Array | None = None,
    *,
    slots: int,
    key_norm: str = "paper",
    overflow: str = "merge_keep_value",
    stop_gradient: bool = False,
) -> Memory:
    """Write examples into an empty memory, one after another; the order matters.

    The slot whose key m has the largest product with the example z is looked at, the first one on a
    tie. If it has the example's label, m becomes (m + z) / |m + z| (equation 4). If not, the
    example takes the next empty slot. Labels are only compared: renaming them changes no key.

    With all slots taken, an example whose nearest slot has another label is merged into that slot
    all the same, and the slot keeps its label.

    Args:
        examples: z [n, d].
        labels: [n] int32, of 0 or more.
        mask: [n] bool, the rows that are written; None writes all.
        slots: M. With as many slots as rows, none is ever missing.
        key_norm: "paper" stores a first example as it is, so that its key is much longer than
            those of merged ones; "store" brings it to length one; "unit" does so with all z, which
            `read` must be told too.
        overflow: "merge_keep_value", or "skip" for leaving out what finds no slot.
        stop_gradient: pass no gradient through the keys.

    Raises:
        ValueError: an argument outside its values.

    Example:
        >>> z, labels = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]), jnp.array([0, 1, 0])
        >>> memory = write(z, labels, slots=3)
        >>> [[round(entry, 4) for entry in key] for key in memory.keys.tolist()]
        [[0.9487, 0.3162], [0.0, 1.0], [0.0, 0.0]]
        >>> memory.values.tolist(), int(memory.used)
        ([0, 1, -1], 2)
    """
    refuse(slots, key_norm, overflow)
    z = unit(examples) if key_norm == "unit" else examples
    first = unit(z) if key_norm == "store" else z
    mask = jnp.ones(len(z), bool) if mask is None else mask

    def one(memory: Memory, row: tuple[Array, Array, Array, Array]) -> tuple[Memory, None]:
        z, first, label, counts = row
        keys, values, used = memory
        nearest = jnp.where(jnp.arange(slots) < used, keys @ z, -jnp.inf).argmax()
        merges = values[nearest] == label
        opens = ~merges & (used < slots)
        if overflow == "skip":
            counts &= merges | opens
        # What is not written goes beyond the last slot, where it is dropped.
        slot = jnp.where(counts, jnp.where(opens, used, nearest), slots)
        key = jnp.where(opens, first, unit(keys[nearest] + z))
        value = jnp.where(opens, label, values[nearest])
        written = keys.at[slot].set(key, mode="drop"), values.at[slot].set(value, mode="drop")
        return Memory(*written, used + (counts & opens)), None

    empty = Memory(
        jnp.zeros((slots, z.shape[1]), z.dtype),
        jnp.full(slots, -1, labels.dtype),
        jnp.zeros((), jnp.int32),
    )
    memory, _ = lax.scan(one, empty, (z, first, labels, mask))
    return memory._replace(keys=lax.stop_gradient(memory.keys)) if stop_gradient else memory


def read(memory: Memory, queries: Array, *, key_norm: str = "paper") -> Array:
    """sum over the used slots i of softmax_i(z . m_i) m_i, for each query z (equation 5).

    Args:
        memory: from `write`, of all examples; an empty one reads as zeros.
        queries: z [n, d].
        key_norm: as of `write`.

    Returns:
        [n, d].
    """
    z = unit(queries) if key_norm == "unit" else queries
    # Not -inf: an empty memory would leave NaN in the gradient.
    similar = jnp.where(used_slots(memory), z @ memory.keys.T, -1e30)
    return jax.nn.softmax(similar) @ memory.keys


def used_slots(memory: Memory) -> Array:
    """[M] bool: the slots that hold something."""
    return jnp.arange(len(memory.values)) < memory.used


def refuse(slots: int, key_norm: str, overflow: str) -> None:
    """
    Raises:
        ValueError: an argument of `write` outside its values.
    """
    if slots < 1:
        raise ValueError(f"slots is {slots}; it is at least 1")
    for name, value, valid in (("key_norm", key_norm, KEY_NORM), ("overflow", overflow, OVERFLOW)):
        if value not in valid:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(valid)}")
