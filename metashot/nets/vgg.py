"""VGG-16 (Simonyan & Zisserman, 2015), and FCN-32s made of it (Long et al., 2015), as in Caffe."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from ..base import Array, Network
from .backbones import from_flax
from .norms import max_pool

MEAN_BGR = (104.00699, 116.66877, 122.678919)  # of ImageNet's pixels, 0..255
WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)


def centred_bgr(pictures: Array) -> Array:
    """What VGG was trained on: RGB pictures [..., 3] of 0..255 as BGR, without their mean."""
    return pictures[..., ::-1] - jnp.asarray(MEAN_BGR, pictures.dtype)


def ceil_max_pool(x: Array) -> Array:
    """2x2 max pooling as in Caffe: [n, H, W, C] to [n, ceil(H / 2), ceil(W / 2), C]."""
    odd = [(0, side % 2) for side in x.shape[1:3]]
    return max_pool(jnp.pad(x, ((0, 0), *odd, (0, 0)), constant_values=-jnp.inf))


class Convolutions(nn.Module):
    """Groups of 3x3 convolutions with ReLU, the first `pools` of which end in a pooling.

    Where a group has no pooling before it, its filters are spread instead, and keep what they see.
    """

    widths: Sequence[int] = WIDTHS
    depths: Sequence[int] = DEPTHS
    pad: int = 1  # of the first layer
    pools: int = 5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for group, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            spread = 2 ** max(0, group - self.pools)
            for layer in range(depth):
                pad = self.pad if group == layer == 0 else spread
                name = f"conv{group + 1}_{layer + 1}"
                both = (spread, spread)
                x = nn.relu(nn.Conv(width, (3, 3), padding=pad, kernel_dilation=both, name=name)(x))
            if group < self.pools:
                x = ceil_max_pool(x)
        return x


class VGG16(nn.Module):
    """[n, H, W, C] to scores [n, outputs]."""

    outputs: int = 1000
    widths: Sequence[int] = WIDTHS
    hidden: int = 4096

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = Convolutions(self.widths, name="convolutions")(x)
        x = x.reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            x = nn.relu(nn.Dense(self.hidden, name=name)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.outputs, name="fc8")(x)


class FCN(nn.Module):
    """[n, H, W, C] to features [n, h, w, hidden], a cell for each place where VGG-16 would fit."""

    widths: Sequence[int] = WIDTHS
    hidden: int = 4096
    pad: int = 121
    pools: int = 5

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = Convolutions(self.widths, pad=self.pad, pools=self.pools, name="convolutions")(x)
        spread = 2 ** (5 - self.pools)
        for name, window, dilation in (("fc6", 7, spread), ("fc7", 1, 1)):
            both = (dilation, dilation)
            layer = nn.Conv(
                self.hidden, (window, window), padding="VALID", kernel_dilation=both, name=name
            )
            x = nn.Dropout(0.5, deterministic=not train)(nn.relu(layer(x)))
        return x


def vgg16(*, outputs: int = 1000) -> Network:
    """VGG-16 as a `Network`: pictures [n, 224, 224, 3] (`centred_bgr`) to scores [n, outputs].

    138,357,544 parameters with ImageNet's 1000 outputs. Caffe's fc6 reads channels before places:
    its kernel, as [512, 7, 7, 4096], is ours after `transpose(1, 2, 0, 3).reshape(25088, 4096)`.
    """
    return from_flax(VGG16(outputs))


def fcn32s(*, pad: int = 121, pools: int = 5) -> Network:
    """FCN-32s without its last layer: pictures (`centred_bgr`) to features [n, h, w, 4096].

    134,260,544 parameters. The centre of cell x is pixel 32 x + 112.5 - pad.

    Args:
        pad: zeros around the picture, 121 in OSLSM's release and 100 in the first FCN-32s.
        pools: 5 for stride 32; 3 for stride 8 with spread filters, as Yu and Koltun (2016) have it,
            where the centre of cell x is pixel 8 x + 100.5 - pad.
    """
    return from_flax(FCN(pad=pad, pools=pools))
