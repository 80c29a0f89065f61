"""Batch norm and max pooling, apart and as one function with ReLU between.

Statistics are float32 at least, whatever the pictures are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from ..base import Array, PyTree


def at_least_float32(x: Array) -> Any:
    """The dtype of statistics and parameters for pictures x."""
    return jnp.promote_types(x.dtype, jnp.float32)


class Moments(NamedTuple):
    """Batch statistics of each channel, over rows that count and all pixels."""

    mean: Array  # [C]
    var: Array  # [C], biased
    count: Array  # [], of pixels averaged  # pyright: ignore[reportIncompatibleMethodOverride]


def moments(x: Array, mask: Array | None = None) -> Moments:
    """Mean and biased variance of x [n, ..., C] over all axes but the last, in one pass.

    Statistics are float32 at least, whatever x is.

    Args:
        mask: [n] bool, the rows that count; None counts all.
    """
    x = x.astype(at_least_float32(x))
    pixels = math.prod(x.shape[1:-1])
    inner = tuple(range(1, x.ndim - 1))
    rows = (x.sum(inner), (x * x).sum(inner))  # [n, C] each: a mask of x itself would be a copy
    count = jnp.asarray(x.shape[0] * pixels, x.dtype)
    if mask is not None:
        rows = tuple(jnp.where(mask[:, None], row, 0) for row in rows)
        count = jnp.maximum(mask.sum() * pixels, 1).astype(x.dtype)
    first, second = (row.sum(0) for row in rows)
    mean = first / count
    var = second / count - mean * mean
    # Rounding may make it negative; its gradients stay those of a variance, where it is zero too.
    return Moments(mean, var + lax.stop_gradient(jnp.maximum(var, 0) - var), count)


def running(state: PyTree, stats: PyTree, new_weight: float = 0.1, unbiased: bool = True) -> PyTree:
    """Running statistics after one more batch: (1 - new_weight) * old + new_weight * batch.

    Args:
        state: a network's state, {"mean", "var"} at each normalising layer.
        stats: what `Network.apply(..., train=True)` returned, {"mean", "var", "count"} likewise.
        new_weight: the weight of the new value (Torch's momentum; one minus flax's).
        unbiased: store n / (n - 1) times the batch's variance, as Torch does.
    """
    if not isinstance(stats, dict) or "count" not in stats:
        return {name: running(state[name], stats[name], new_weight, unbiased) for name in state}
    n = stats["count"]
    correction = n / jnp.maximum(n - 1, 1) if unbiased else 1.0
    batch = {"mean": stats["mean"], "var": stats["var"] * correction}
    return jax.tree.map(lambda old, new: (1 - new_weight) * old + new_weight * new, state, batch)


def batch_norm(
    x: Array,
    scale: Array | None = None,
    shift: Array | None = None,
    *,
    statistics: tuple[Array, Array] | None = None,
    mask: Array | None = None,
    eps: float = 1e-3,
) -> tuple[Array, Moments | None]:
    """scale * (x - mean) / sqrt(var + eps) + shift for x [n, ..., C], in the dtype of x.

    Args:
        scale: [C]; None is one. shift: [C]; None is zero.
        statistics: (mean [C], var [C]) to normalise by; None takes the unmasked batch's own.
        mask: [n] bool, the rows that count in the batch's statistics.

    Returns:
        y, and the batch's statistics (without a gradient) where they were used.
    """
    stats = moments(x, mask) if statistics is None else None
    mean, var = stats[:2] if stats else cast(tuple[Array, Array], statistics)
    a = lax.rsqrt(var + eps)
    a = a if scale is None else a * scale
    b = -a * mean if shift is None else shift - a * mean
    return (a * x + b).astype(x.dtype), lax.stop_gradient(stats)


def norm_relu_pool(
    x: Array,
    scale: Array,
    shift: Array,
    *,
    statistics: tuple[Array, Array] | None = None,
    mask: Array | None = None,
    eps: float = 1e-3,
) -> tuple[Array, Moments | None]:
    """`max_pool(relu(batch_norm(x, scale, shift)))` of x [n, H, W, C], as one function.

    Arguments and results are those of `batch_norm`, y [n, H // 2, W // 2, C].
    """
    y, stats = batch_norm(x, scale, shift, statistics=statistics, mask=mask, eps=eps)
    return max_pool(jax.nn.relu(y)), stats


def _quarters(x: Array) -> list[Array]:
    """The four strided slices that a 2x2 pool looks at; an odd last row or column is left out."""
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]


def _from_quarters(parts: list[Array], shape: tuple[int, ...]) -> Array:
    """The inverse of `_quarters`, zeros where it left out."""
    n, h, w, c = parts[0].shape
    rows = [jnp.stack(pair, 3).reshape(n, h, 2 * w, c) for pair in (parts[:2], parts[2:])]
    whole = jnp.stack(rows, 2).reshape(n, 2 * h, 2 * w, c)
    return jnp.pad(whole, ((0, 0), (0, shape[1] - 2 * h), (0, shape[2] - 2 * w), (0, 0)))


def _largest(parts: list[Array]) -> Array:
    a, b, c, d = parts
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _to_the_first(parts: list[Array], dy: Array) -> list[Array]:
    """The gradient of `_largest` as `lax.reduce_window` has it: to the first that is largest.

    By order and not by equality: XLA may make a part again with another rounding.
    """
    a, b, c, d = parts
    left, right = a >= b, c >= d
    upper = jnp.maximum(a, b) >= jnp.maximum(c, d)
    reached = (upper & left, upper & ~left, ~upper & right, ~upper & ~right)
    return [jnp.where(hit, dy, 0) for hit in reached]


# On a CPU the gradient of `reduce_window` takes three quarters of a whole block's time.
@jax.custom_vjp
def max_pool(x: Array) -> Array:
    """The largest of each 2x2 of x [n, H, W, C]: [n, H // 2, W // 2, C].

    Equals `lax.reduce_window` with stride 2 and VALID padding, ties included.
    """
    return _largest(_quarters(x))


def _max_pool_fwd(x: Array) -> tuple[Array, Array]:
    return max_pool(x), x


def _max_pool_bwd(x: Array, dy: Array) -> tuple[Array]:
    return (_from_quarters(_to_the_first(_quarters(x), dy), x.shape),)


max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)
