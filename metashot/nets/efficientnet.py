"""EfficientNet-Lite0: inverted bottlenecks without squeeze-and-excite.

Tan and Le (2019), "EfficientNet", in the variant that Google released for small devices. Padding is
TensorFlow's SAME: of a picture H x W, a map of stride s has ceil(H / s) x ceil(W / s) cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from ..base import Array, Network
from . import norms
from .backbones import from_flax
from .convolutions import conv, depthwise


class Group(NamedTuple):
    """Blocks in a row; the first has the stride and changes the width, the others keep both."""

    blocks: int
    window: int
    stride: int
    expand: int  # the width inside a block, in widths of its input
    filters: int


LITE0 = (
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24),
    Group(2, 5, 2, 6, 40),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
)
ENDPOINTS = (2, 4, 8, 16, 32, "head")


def pointwise(x: Array, kernel: Array) -> Array:
    """A 1x1 convolution of x [n, H, W, C] with kernel [C, F], as the matrix product that it is."""
    return x @ kernel


class Layer(nn.Module):
    """A convolution, batch norm and, if `active`, ReLU6: [n, H, W, C] to [n, H', W', shape[-1]].

    `shape` is that of the kernel. Parameters and statistics are float32 at least.
    """

    convolve: Callable[[Array, Array], Array]
    shape: tuple[int, ...]
    active: bool = True

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        channels, stored = self.shape[-1:], norms.at_least_float32(x)
        kernel = self.param("kernel", nn.initializers.he_normal(), self.shape, stored)
        scale = self.param("scale", nn.initializers.ones, channels, stored)
        shift = self.param("shift", nn.initializers.zeros, channels, stored)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, stored)
        var = self.variable("batch_stats", "var", jnp.ones, channels, stored)
        y, stats = norms.batch_norm(
            self.convolve(x, kernel.astype(x.dtype)),
            scale,
            shift,
            statistics=None if train else (mean.value, var.value),
            mask=mask,
            eps=1e-3,
        )
        if stats is not None:
            for name, value in stats._asdict().items():
                self.variable("stats", name, lambda v=value: v).value = value
        return nn.relu6(y) if self.active else y


class Block(nn.Module):
    """An inverted bottleneck: wider, each channel by itself, narrow; added to x where it fits."""

    window: int
    stride: int
    expand: int
    filters: int

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        y, c, k = x, x.shape[-1], self.window
        inside = self.expand * c
        each = partial(depthwise, strides=(self.stride, self.stride))
        if self.expand > 1:
            y = Layer(pointwise, (c, inside), name="expand")(y, train, mask)
        y = Layer(each, (k, k, inside), name="depthwise")(y, train, mask)
        y = Layer(pointwise, (inside, self.filters), active=False, name="project")(y, train, mask)
        return x + y if self.stride == 1 and c == self.filters else y


class EfficientNetLite(nn.Module):
    """`groups` of blocks between a stem and a head: [n, H, W, C] to [n, head], or to maps."""

    groups: Sequence[Group] = LITE0
    stem: int = 32
    head: int = 1280
    endpoints: Sequence[int | str] = ()
    dtype: Any = None
    power: float = 1.0

    @nn.compact
    def __call__(
        self, x: Array, train: bool = False, mask: Array | None = None
    ) -> Array | tuple[Array, ...]:
        stored = norms.at_least_float32(x)
        x = x.astype(self.dtype or x.dtype)
        shape = (3, 3, x.shape[-1], self.stem)
        x = Layer(partial(conv, strides=(2, 2)), shape, name="stem")(x, train, mask)
        maps: dict[int | str, Array] = {}
        count, stride = 0, 2
        for blocks, window, first, expand, filters in self.groups:
            stride *= first
            for step in (first, *[1] * (blocks - 1)):
                block = Block(window, step, expand, filters, name=f"block_{count}")
                x, count = block(x, train, mask), count + 1
            maps[stride] = x  # the last one at a stride stays
        x = Layer(pointwise, (x.shape[-1], self.head), name="head")(x, train, mask)
        maps["head"] = x
        if self.endpoints:
            return tuple(maps[name].astype(stored) for name in self.endpoints)
        x = x.astype(stored).mean((1, 2))
        if self.power == 1:
            return x
        # A root has no slope at zero, where gradients stop.
        return jnp.where(x > 0, jnp.where(x > 0, x, 1) ** self.power, 0)


def efficientnet_lite0(
    *, endpoints: Sequence[int | str] = (), power: float = 1.0, dtype: Any = None
) -> Network:
    """EfficientNet-Lite0 without its classifier as a `Network`: 3,371,008 parameters.

    Pictures are [n, H, W, 3] float, prepared as (pixel - 127) / 128 for pixels 0..255. The outputs
    are the head's maps averaged, [n, 1280], or the maps that `endpoints` names.
    `metashot.pretrained.efficientnet_lite0` reads variables trained on ImageNet.

    Args:
        endpoints: strides of maps, in any order: 2 (16 channels), 4 (24), 8 (40), 16 (112), 32
            (320), or "head" (1280, at stride 32). The outputs are then a tuple of [n, H', W', C],
            H' = ceil(H / stride). Variables are the same whatever is asked for; in evaluation, a
            jitted program computes the layers below the last map only.
        power: to which the averages are raised, none of which is negative; one below 1 evens out
            how much strong features weigh in a cosine.
        dtype: of the maps inside, "bfloat16" for speed on GPUs and TPUs; None is that of the
            inputs. Parameters, statistics and outputs are float32 at least.

    Raises:
        ValueError: an endpoint that is none of these.
    """
    for name in endpoints:
        if name not in ENDPOINTS:
            known = ", ".join(map(repr, ENDPOINTS))
            raise ValueError(f"{name!r} is no endpoint of EfficientNet-Lite0; they are {known}")
    dtype = None if dtype is None else jnp.dtype(dtype)
    return from_flax(EfficientNetLite(endpoints=tuple(endpoints), power=power, dtype=dtype))
