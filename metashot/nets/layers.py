"""Layers: functions over arrays, each with the lowering that was measured to be fast.

The plain `lax` definition of each stands in its docstring and is the reference of its test.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from ..base import Array, PyTree


def conv(
    x: Array, kernel: Array, *, strides: tuple[int, int] = (1, 1), padding: str = "SAME"
) -> Array:
    """`lax.conv_general_dilated` of x [n, H, W, C] with kernel [h, w, C, F], NHWC.

    Odd kernels with stride 1 and SAME padding, the work of every backbone here, have gradients of
    their own: inside a loop on a CPU, JAX's are 20 to 40 times slower. Under `vmap` over kernels
    (own weights per episode) they become batched matrix products, not a grouped convolution.
    """
    odd = kernel.shape[0] % 2 == 1 and kernel.shape[1] % 2 == 1
    if strides == (1, 1) and padding == "SAME" and odd:
        return _conv_same(x, kernel)
    return _lax_conv(x, kernel, strides, padding)


def _lax_conv(x: Array, kernel: Array, strides: tuple[int, int], padding: str) -> Array:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _patches(x: Array, h: int, w: int) -> Array:
    """[n, H, W, C] to [n, H, W, h * w * C]: the neighbourhood of each pixel, zeros outside."""
    rows, cols = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (h // 2, h // 2), (w // 2, w // 2), (0, 0)))
    shifted = [x[:, i : i + rows, j : j + cols] for i in range(h) for j in range(w)]
    return jnp.concatenate(shifted, -1)


# `_conv_same` and `_kernel_grad` are each other's gradients, so that they can be differentiated
# again and again. Beneath the gradient rule of each lies a batching rule of its own.


@jax.custom_vjp
def _conv_same(x: Array, kernel: Array) -> Array:
    return _conv_forward(x, kernel)


def _conv_same_fwd(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _conv_same(x, kernel), (x, kernel)


def _conv_same_bwd(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return _conv_same(dy, _flip(kernel)), _kernel_grad(kernel.shape[:2], x, dy)


def _flip(kernel: Array) -> Array:
    """The kernel whose convolution is the gradient with respect to the input."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


_conv_same.defvjp(_conv_same_fwd, _conv_same_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_grad(window: tuple[int, int], x: Array, dy: Array) -> Array:
    return _correlate(window)(x, dy)


def _kernel_grad_fwd(
    window: tuple[int, int], x: Array, dy: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _kernel_grad(window, x, dy), (x, dy)


def _kernel_grad_bwd(
    window: tuple[int, int], saved: tuple[Array, Array], dk: Array
) -> tuple[Array, Array]:
    x, dy = saved
    return _conv_same(dy, _flip(dk)), _conv_same(x, dk)


_kernel_grad.defvjp(_kernel_grad_fwd, _kernel_grad_bwd)


@jax.custom_batching.custom_vmap
def _conv_forward(x: Array, kernel: Array) -> Array:
    return _lax_conv(x, kernel, (1, 1), "SAME")


def _conv_forward_vmap(
    size: int, batched: tuple[bool, bool], x: Array, kernel: Array
) -> tuple[Array, bool]:
    if not batched[1]:  # shared weights: one convolution over all images
        y = _conv_forward(x.reshape(-1, *x.shape[2:]), kernel)
        return y.reshape(*x.shape[:2], *y.shape[1:]), True
    if size == 1:
        return _conv_forward(x[0] if batched[0] else x, kernel[0])[None], True
    if not batched[0]:
        x = jnp.broadcast_to(x, (size, *x.shape))
    h, w, c, f = kernel.shape[1:]
    patches = jax.vmap(partial(_patches, h=h, w=w))(x).reshape(size, -1, h * w * c)
    y = jnp.matmul(patches, kernel.reshape(size, h * w * c, f))
    return y.reshape(*x.shape[:-1], f), True


_conv_forward.def_vmap(_conv_forward_vmap)


_CHUNK_BYTES = 6e6  # of patches: 15 MB took 1.5 times as long at 28x28, and no less at 84x84


def _correlate(window: tuple[int, int]) -> Any:
    """(x [n, H, W, C], dy [n, H, W, F]) -> the kernel's gradient [h, w, C, F]."""
    h, w = window

    def at_once(x: Array, dy: Array) -> Array:
        m, rows, cols, c = x.shape
        # Channels first: patches as [h * w * C, pixels] make the better matrix product.
        x = jnp.pad(x.transpose(3, 0, 1, 2), ((0, 0), (0, 0), (h // 2,) * 2, (w // 2,) * 2))
        shifted = [x[:, :, i : i + rows, j : j + cols] for i in range(h) for j in range(w)]
        patches = jnp.stack(shifted).reshape(h * w * c, m * rows * cols)
        return (patches @ dy.reshape(m * rows * cols, -1)).reshape(h, w, c, -1)

    def in_chunks(x: Array, dy: Array) -> Array:
        n, rows, cols, c = x.shape
        most = _CHUNK_BYTES / (h * w * c * rows * cols * x.dtype.itemsize)
        m = max((m for m in range(1, n + 1) if n % m == 0 and m <= most), default=1)
        if m == n or c == 1:
            return at_once(x, dy)
        chunks = jax.tree.map(lambda a: a.reshape(n // m, m, *a.shape[1:]), (x, dy))
        total = jnp.zeros((h, w, c, dy.shape[-1]), jnp.result_type(x, dy))
        return lax.scan(lambda total, chunk: (total + at_once(*chunk), None), total, chunks)[0]

    @jax.custom_batching.custom_vmap
    def correlate(x: Array, dy: Array) -> Array:
        return lax.platform_dependent(x, dy, cpu=in_chunks, default=at_once)

    def batching(size: int, batched: tuple[bool, bool], x: Array, dy: Array) -> tuple[Array, bool]:
        x = x if batched[0] else jnp.broadcast_to(x, (size, *x.shape))
        dy = dy if batched[1] else jnp.broadcast_to(dy, (size, *dy.shape))
        if size == 1:
            return correlate(x[0], dy[0])[None], True
        return jax.vmap(at_once)(x, dy), True

    correlate.def_vmap(batching)
    return correlate


def dense(params: PyTree, x: Array) -> Array:
    """x [n, d] times "kernel" [d, outputs] plus "bias" [outputs]."""
    return x @ params["kernel"] + params["bias"]


def unit(x: Array, eps: float = 1e-12) -> Array:
    """x [..., d] at length one, x / sqrt(|x|^2 + eps); zero stays zero, with a finite gradient."""
    return x * lax.rsqrt((x * x).sum(-1, keepdims=True) + eps)


class Moments(NamedTuple):
    """Batch statistics of each channel, over rows that count and all pixels."""

    mean: Array  # [C]
    var: Array  # [C], biased
    count: Array  # [], of pixels averaged  # pyright: ignore[reportIncompatibleMethodOverride]


def moments(x: Array, mask: Array | None = None) -> Moments:
    """Mean and biased variance of x [n, ..., C] over all axes but the last, in one pass.

    Args:
        mask: [n] bool, the rows that count; None counts all.
    """
    axes = tuple(range(x.ndim - 1))
    pixels = 1
    for size in x.shape[1:-1]:
        pixels *= size
    if mask is None:
        count = jnp.asarray(x.shape[0] * pixels, x.dtype)
        first, second = x.sum(axes), (x * x).sum(axes)
    else:
        count = jnp.maximum(mask.sum() * pixels, 1).astype(x.dtype)
        kept = jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, 0)
        first, second = kept.sum(axes), (kept * kept).sum(axes)
    mean = first / count
    return Moments(mean, jnp.maximum(second / count - mean * mean, 0), count)


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


def _rows(mask: Array | None, x: Array) -> Array | float:
    return 1.0 if mask is None else mask.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)


def norm_relu_pool(
    x: Array,
    scale: Array,
    shift: Array,
    *,
    statistics: tuple[Array, Array] | None = None,
    mask: Array | None = None,
    eps: float = 1e-3,
) -> tuple[Array, Moments | None]:
    """Batch norm, ReLU and 2x2 max pooling (stride 2, floor) of x [n, H, W, C], as one function.

    y = relu(maxpool(scale * (x - mean) / sqrt(var + eps) + shift)).

    Args:
        statistics: (mean [C], var [C]) to normalise by; None takes the unmasked batch's own.
        mask: [n] bool, the rows that count in the batch's statistics.

    Returns:
        y [n, H // 2, W // 2, C], and the batch's statistics where they were used.
    """
    if statistics is not None:
        mean, var = statistics
        a = scale * lax.rsqrt(var + eps)
        return jax.nn.relu(_max_of_four(a * x + (shift - a * mean))), None
    y, stats = cast(tuple[Array, Moments], _norm_relu_pool(eps, x, scale, shift, mask))
    return y, lax.stop_gradient(stats)


def _quarters(x: Array) -> tuple[Array, Array, Array, Array]:
    """The four strided slices that a 2x2 pool looks at; an odd last row or column is left out."""
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return x[:, ::2, ::2], x[:, ::2, 1::2], x[:, 1::2, ::2], x[:, 1::2, 1::2]


def _max_of_four(x: Array) -> Array:
    a, b, c, d = _quarters(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _plain(
    eps: float, x: Array, scale: Array, shift: Array, mask: Array | None
) -> tuple[Array, Moments]:
    stats = moments(x, mask)
    a = scale * lax.rsqrt(stats.var + eps)
    return jax.nn.relu(_max_of_four(a * x + (shift - a * stats.mean))), stats


# 67 ms forward and backward on 80x84x84x64 images with this gradient, 99 with JAX's own, and 567
# with `reduce_window` and a two-pass batch norm. Saves x and three vectors.
_norm_relu_pool = jax.custom_vjp(_plain, nondiff_argnums=(0,))


def _norm_relu_pool_fwd(
    eps: float, x: Array, scale: Array, shift: Array, mask: Array | None
) -> Any:
    # The plain function, so that a second differentiation sees how the statistics depend on x.
    y, stats = _plain(eps, x, scale, shift, mask)
    return (y, stats), (x, scale, shift, mask, stats)


def _norm_relu_pool_bwd(eps: float, saved: Any, cotangents: tuple[Array, Moments]) -> Any:
    x, scale, shift, mask, (mean, var, n) = saved
    r = lax.rsqrt(var + eps)
    a = scale * r
    q = [a * part + (shift - a * mean) for part in _quarters(x)]
    best = jnp.maximum(jnp.maximum(q[0], q[1]), jnp.maximum(q[2], q[3]))
    dz = jnp.where(best > 0, cotangents[0], 0)
    # The gradient goes to the first of the four that reaches the maximum.
    taken = jnp.zeros_like(best, bool)
    routed: list[Array] = []
    for part in q:
        hit = (part == best) & ~taken
        taken |= hit
        routed.append(jnp.where(hit, dz, 0))
    dy = _from_quarters(routed, x.shape)
    centred = x - mean
    dshift = dz.sum((0, 1, 2))
    reached = zip(routed, _quarters(x), strict=True)
    dscale = r * sum((g * (part - mean)).sum((0, 1, 2)) for g, part in reached)
    dx = a * (dy - _rows(mask, x) * (dshift / n + centred * (r * dscale / n)))
    return dx, dscale, dshift, None


def _from_quarters(parts: list[Array], shape: tuple[int, ...]) -> Array:
    """The inverse of `_quarters`, zeros where it left out."""
    n, h, w, c = parts[0].shape
    rows = [jnp.stack(pair, 3).reshape(n, h, 2 * w, c) for pair in (parts[:2], parts[2:])]
    whole = jnp.stack(rows, 2).reshape(n, 2 * h, 2 * w, c)
    return jnp.pad(whole, ((0, 0), (0, shape[1] - 2 * h), (0, shape[2] - 2 * w), (0, 0)))


_norm_relu_pool.defvjp(_norm_relu_pool_fwd, _norm_relu_pool_bwd)
