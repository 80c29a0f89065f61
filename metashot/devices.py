"""One mesh over all devices; whatever has an axis of episodes is divided along it."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from .base import Array, PyTree


def episode_mesh(episodes: int) -> Mesh:
    """A mesh with the axis "episodes" over as many devices as divide that many episodes evenly.

    One device is a mesh of size 1, not another code path. The axis type is Auto: under the default
    the sampler's gather from replicated images by sharded indices is refused.
    """
    devices = jax.devices()
    size = max(d for d in range(1, len(devices) + 1) if episodes % d == 0)
    return Mesh(devices[:size], ("episodes",), axis_types=(AxisType.Auto,))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """The same arrays on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def divide(keys: Array, mesh: Mesh) -> Array:
    """Inside jit: divide [rounds, devices * chunk] over the mesh along its second axis.

    Loops run over the first axis: a scan over a divided axis has every device compute all of it.
    """
    return jax.lax.with_sharding_constraint(
        keys, NamedSharding(mesh, PartitionSpec(None, "episodes"))
    )


def over_episodes(one: Callable[[Array], PyTree], keys: Array) -> PyTree:
    """Inside jit: `one` for each of keys [n], as `vmap` has it; a single one without that axis.

    Around an axis of length one XLA transposes what the Meta-Learner LSTM multiplies.
    """
    if len(keys) == 1:
        return jax.tree.map(lambda x: x[None], one(keys[0]))
    return jax.vmap(one)(keys)
