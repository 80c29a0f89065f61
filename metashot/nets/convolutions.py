"""Convolutions: dense, with weights of each episode's own, depthwise.

Each equals its `lax` definition, and has gradients written as convolutions and matrix products:
JAX's own gradients of a convolution are 20 to 40 times slower inside a loop on a CPU.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..base import Array

Pads = tuple[tuple[int, int], tuple[int, int]]
LAYOUT = ("NHWC", "HWIO", "NHWC")


class Geometry(NamedTuple):
    """How a window moves over a picture; all of it is known when a program is compiled."""

    window: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads  # (above, below), (left, right); may be negative
    spread: tuple[int, int] = (1, 1)  # from pixel to pixel, zeros between; as lax's lhs_dilation


def conv(
    x: Array,
    kernel: Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: str | Pads = "SAME",
) -> Array:
    """`lax.conv_general_dilated` of x [n, H, W, C] with kernel [h, w, C, F], NHWC.

    Under `vmap` over kernels (own weights per episode) it is done in turn on a CPU and as batched
    matrix products elsewhere, not as a grouped convolution.

    Args:
        padding: "SAME", "VALID", or (above, below), (left, right).
    """
    return _conv(_geometry(x, kernel, strides, padding), x, kernel)


def depthwise(
    x: Array,
    kernel: Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: str | Pads = "SAME",
) -> Array:
    """Each channel of x [n, H, W, C] with the filter of its own in kernel [h, w, C].

    Equals `lax.conv_general_dilated` with C groups, kernel [h, w, 1, C]. On a CPU it is a sum of
    h * w shifted products, which XLA makes one loop of.
    """
    return _depthwise(_geometry(x, kernel, strides, padding), x, kernel)


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **others: Any,
) -> Array:
    """`lax.conv_general_dilated`, by `conv` or `depthwise` where they can do it.

    For `flax.linen.Conv(conv_general_dilated=...)`, which `from_flax` sets.
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    plain = (
        lhs.ndim == 4
        and numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, LAYOUT)
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and all(value is None for value in others.values())
        and lhs.dtype == rhs.dtype
    )
    options = {"strides": tuple(window_strides), "padding": padding}
    if plain and feature_group_count == 1:
        return conv(lhs, rhs, **options)
    if plain and feature_group_count == lhs.shape[-1] == rhs.shape[-1]:
        return depthwise(lhs, rhs[:, :, 0], **options)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        **others,
    )


def _geometry(x: Array, kernel: Array, strides: tuple[int, int], padding: str | Pads) -> Geometry:
    window = kernel.shape[0], kernel.shape[1]
    pads: Any = padding
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    (above, below), (left, right) = pads
    return Geometry(window, strides, ((int(above), int(below)), (int(left), int(right))))


def _back(g: Geometry, size: tuple[int, ...], seen: tuple[int, ...]) -> Geometry:
    """The convolution from outputs [n, *seen, F] to the gradient of inputs [n, *size, C].

    Strides and spread change places, and the window is flipped.
    """
    pads: list[tuple[int, int]] = []
    for n, m, k, (low, _), stride, spread in zip(
        size, seen, g.window, g.pads, g.strides, g.spread, strict=True
    ):
        pads.append((k - 1 - low, (n - 1) * spread + low - (m - 1) * stride))
    return Geometry(g.window, g.spread, (pads[0], pads[1]), g.strides)


def _padded(g: Geometry, x: Array, axis: int = 1) -> Array:
    """Pictures on axes axis, axis + 1 with the zeros that the window sees around and between."""
    config = [(0, 0, 0)] * x.ndim
    config[axis : axis + 2] = [(*p, s - 1) for p, s in zip(g.pads, g.spread, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _taps(g: Geometry, x: Array, axis: int = 1) -> list[Array]:
    """What each of the h * w places of the window sees, for pictures on axes axis, axis + 1."""
    x = _padded(g, x, axis)
    sizes = zip(x.shape[axis : axis + 2], g.window, g.strides, strict=True)
    last = [(size - k) // s for size, k, s in sizes]
    every = [slice(None)] * axis

    def tap(*first: int) -> Array:
        spans = zip(first, last, g.strides, strict=True)
        return x[(*every, *(slice(at, at + n * s + 1, s) for at, n, s in spans))]

    return [tap(i, j) for i in range(g.window[0]) for j in range(g.window[1])]


def _with_gradients(forward: Any, correlate: Any, turn: Any) -> Any:
    """forward(g, x, kernel) with gradients made of itself and of `correlate`, any number of times.

    Args:
        correlate: (g, x, dy) -> the kernel's gradient.
        turn: a kernel -> the kernel of the convolution that gives the input's gradient.
    """
    conv = jax.custom_vjp(forward, nondiff_argnums=(0,))
    kernel_grad = jax.custom_vjp(correlate, nondiff_argnums=(0,))

    def input_grad(g: Geometry, x: Array, dy: Array, kernel: Array) -> Array:
        return conv(_back(g, x.shape[1:3], dy.shape[1:3]), dy, turn(kernel))

    def conv_bwd(g: Geometry, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
        x, kernel = saved
        return input_grad(g, x, dy, kernel), kernel_grad(g, x, dy)

    def kernel_grad_bwd(g: Geometry, saved: tuple[Array, Array], dk: Array) -> tuple[Array, Array]:
        x, dy = saved
        return input_grad(g, x, dy, dk), conv(g, x, dk)

    conv.defvjp(lambda g, *a: (conv(g, *a), a), conv_bwd)
    kernel_grad.defvjp(lambda g, *a: (kernel_grad(g, *a), a), kernel_grad_bwd)
    return conv


def _lax_conv(g: Geometry, x: Array, kernel: Array, groups: int = 1) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        g.strides,
        g.pads,
        lhs_dilation=g.spread,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


_MOST_IN_A_ROW = 8


def _each(one: Any, product: Any, a: Array, b: Array) -> Array:
    """one(a[i], b[i]) for all i, where each has weights of its own.

    Eight kernels on 5x14x14x32 pictures each, forward and both gradients, on a core: a loop 8.4
    ms, eight calls 8.3, products of patches 16.6, `vmap` of `lax` (a grouped convolution) 559. On
    two cores, where XLA runs some of eight in a row side by side: a loop 9.9, in a row 8.5, eight
    calls 8.6.
    """

    def in_turn(a: Array, b: Array) -> Array:
        if len(a) > _MOST_IN_A_ROW:
            return lax.map(lambda ab: one(*ab), (a, b))
        return jnp.stack([one(*ab) for ab in zip(a, b, strict=True)])

    return lax.platform_dependent(a, b, cpu=in_turn, default=jax.vmap(product))


# 3 x 3 of grey: 120x28x28x1 to 64 in 3.4 ms, by `lax` in 11.5; 5 x 5, 128x28x28x1 to 16: 8 and 27.
# With three channels XLA makes the sum again for each of its readers: a whole step at 84x84x3 took
# 1,660 ms in place of 1,290.
_MOST_SHIFTS = 25


def _forward(g: Geometry) -> Any:
    """(x [n, H, W, C], kernel [h, w, C, F]) -> [n, H', W', F]."""

    def shifted(x: Array, kernel: Array) -> Array:
        taps = jnp.concatenate(_taps(g, x), -1)
        weights = kernel.reshape(-1, kernel.shape[-1])
        zero = jnp.zeros((), x.dtype)
        return sum((taps[..., i : i + 1] * weights[i] for i in range(len(weights))), zero)

    def by_patches(x: Array, kernel: Array) -> Array:
        patches = jnp.concatenate(_taps(g, x), -1)
        return patches @ kernel.reshape(-1, kernel.shape[-1])

    @jax.custom_batching.custom_vmap
    def forward(x: Array, kernel: Array) -> Array:
        by_lax = partial(_lax_conv, g)
        if kernel.shape[2] > 1 or math.prod(g.window) > _MOST_SHIFTS:
            return by_lax(x, kernel)
        return lax.platform_dependent(x, kernel, cpu=shifted, default=by_lax)

    def batching(
        size: int, batched: tuple[bool, bool], x: Array, kernel: Array
    ) -> tuple[Array, bool]:
        if not batched[1]:  # shared weights: one convolution over all images
            y = forward(x.reshape(-1, *x.shape[2:]), kernel)
            return y.reshape(*x.shape[:2], *y.shape[1:]), True
        if size == 1:
            return forward(x[0] if batched[0] else x, kernel[0])[None], True
        x = x if batched[0] else jnp.broadcast_to(x, (size, *x.shape))
        return _each(forward, by_patches, x, kernel), True

    forward.def_vmap(batching)
    return forward


_CHUNK_BYTES = 4e6  # of patches; a step at 28x28 by MB: 2 124 ms, 3 121, 4 119, 6 124, 9 125


def _correlate(g: Geometry) -> Any:
    """(x [n, H, W, C], dy [n, H', W', F]) -> the kernel's gradient [h, w, C, F]."""

    def by_patches(x: Array, dy: Array) -> Array:
        # Channels first: patches as [h * w * C, pixels] make the better matrix product.
        patches = jnp.stack(_taps(g, x.transpose(3, 0, 1, 2), 2))
        pixels = dy.reshape(-1, dy.shape[-1])
        return (patches.reshape(-1, len(pixels)) @ pixels).reshape(*g.window, x.shape[-1], -1)

    def in_chunks(x: Array, dy: Array) -> Array:
        """80x42x42x64 pictures: 110 GFLOP/s; all at once 35 to 50, XLA's own gradient 34."""
        n, c = len(x), x.shape[-1]
        bytes_each = g.window[0] * g.window[1] * c * dy[0, ..., 0].size * x.dtype.itemsize
        most = _CHUNK_BYTES / bytes_each
        m = max((m for m in range(1, n + 1) if n % m == 0 and m <= most), default=1)
        if m == n or c == 1:
            return by_patches(x, dy)
        chunks = jax.tree.map(lambda a: a.reshape(n // m, m, *a.shape[1:]), (x, dy))
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        total = jnp.zeros((*g.window, c, dy.shape[-1]), dtype)
        total, _ = lax.scan(lambda total, ab: (total + by_patches(*ab), None), total, chunks)
        return total.astype(x.dtype)

    def transposed(x: Array, dy: Array) -> Array:
        kernel = jax.ShapeDtypeStruct((*g.window, x.shape[-1], dy.shape[-1]), x.dtype)
        return jax.linear_transpose(lambda kernel: _lax_conv(g, x, kernel), kernel)(dy)[0]

    @jax.custom_batching.custom_vmap
    def correlate(x: Array, dy: Array) -> Array:
        return lax.platform_dependent(x, dy, cpu=in_chunks, default=transposed)

    def batching(size: int, batched: tuple[bool, bool], x: Array, dy: Array) -> tuple[Array, bool]:
        x = x if batched[0] else jnp.broadcast_to(x, (size, *x.shape))
        dy = dy if batched[1] else jnp.broadcast_to(dy, (size, *dy.shape))
        if size == 1:
            return correlate(x[0], dy[0])[None], True
        return _each(correlate, by_patches, x, dy), True

    correlate.def_vmap(batching)
    return correlate


@partial(jax.jit, static_argnums=0)  # traced once: a fifth of what starting EfficientNet takes
def _forward_depthwise(g: Geometry, x: Array, kernel: Array) -> Array:
    def shifted(x: Array, kernel: Array) -> Array:
        weights = kernel.reshape(-1, kernel.shape[-1])
        products = (tap * weight for tap, weight in zip(_taps(g, x), weights, strict=True))
        return sum(products, jnp.zeros((), x.dtype))

    def grouped(x: Array, kernel: Array) -> Array:
        return _lax_conv(g, x, kernel[:, :, None], groups=x.shape[-1])

    return lax.platform_dependent(x, kernel, cpu=shifted, default=grouped)


_MOST_PIXELS = 64  # of an output that is gone through pixel by pixel, not column by column


def _correlate_depthwise(g: Geometry, x: Array, dy: Array) -> Array:
    """(x [n, H, W, C], dy [n, H', W', C]) -> the kernel's gradient [h, w, C].

    On a CPU windows of x are added up, each times what its pixel of dy is, in loops over channels.
    The kernels of 16 x 8 pictures of 12x12x64, 5 x 5 in 8x8 outputs: 8 ms, by columns 19, as the
    25 sums of products of taps 190. 32x28x28x64, 3 x 3: by columns 24 ms, sums 200.
    """

    def by_taps(x: Array, dy: Array) -> Array:
        sums = [(tap * dy).sum((0, 1, 2)) for tap in _taps(g, x)]
        return jnp.stack(sums).reshape(*g.window, x.shape[-1])

    def by_windows(x: Array, dy: Array) -> Array:
        (h, w), (down, right) = g.window, g.strides
        x = _padded(g, x)
        rows, columns = dy.shape[1:3]
        zero = jnp.zeros((), x.dtype)
        if rows * columns <= _MOST_PIXELS:
            places = [(i, j) for i in range(rows) for j in range(columns)]
            windows = (
                x[:, i * down : i * down + h, j * right : j * right + w] * dy[:, i, None, j, None]
                for i, j in places
            )
            return _sum_of_rows(sum(windows, zero))
        lines = [x[:, i : i + (rows - 1) * down + 1 : down] for i in range(h)]
        spans = lambda line: (
            line[:, :, j * right : j * right + w] * dy[:, :, j, None] for j in range(columns)
        )
        return jnp.stack([_sum_of_rows(sum(spans(line), zero)).sum(0) for line in lines])

    return lax.platform_dependent(x, dy, cpu=by_windows, default=by_taps)


def _sum_of_rows(x: Array) -> Array:
    """x.sum(0) as a loop: XLA would make one slow program of a sum and what is summed.

    A row of zeros beside a single one, as a loop of one round is none to XLA.
    """
    x = x if len(x) > 1 else jnp.concatenate([x, jnp.zeros_like(x)])
    return lax.scan(lambda total, row: (total + row, None), jnp.zeros_like(x[0]), x)[0]


_conv = _with_gradients(
    lambda g, x, kernel: _forward(g)(x, kernel),
    lambda g, x, dy: _correlate(g)(x, dy),
    turn=lambda kernel: kernel[::-1, ::-1].swapaxes(2, 3),
)
_depthwise = _with_gradients(
    _forward_depthwise, _correlate_depthwise, turn=lambda kernel: kernel[::-1, ::-1]
)
