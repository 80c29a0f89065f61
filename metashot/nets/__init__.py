"""Networks: layers, and backbones made of them. Nothing here knows what an episode is."""

from .backbones import MLP, Conv4, ConvBlock, conv4, from_flax, init_dense, init_with_head, mlp
from .layers import conv, dense, moments, norm_relu_pool, running, unit

__all__ = [
    "MLP",
    "Conv4",
    "ConvBlock",
    "conv",
    "conv4",
    "dense",
    "from_flax",
    "init_dense",
    "init_with_head",
    "mlp",
    "moments",
    "norm_relu_pool",
    "running",
    "unit",
]
