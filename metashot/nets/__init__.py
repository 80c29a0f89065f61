"""Networks: layers, and backbones made of them. Nothing here knows what an episode is."""

from .backbones import (
    MLP,
    Conv4,
    ConvBlock,
    conv4,
    from_flax,
    init_dense,
    init_with_head,
    mlp,
    with_embedding,
)
from .convolutions import conv, conv_general_dilated, depthwise, factorised_conv
from .efficientnet import EfficientNetLite, efficientnet_lite0
from .layers import dense, unit
from .norms import batch_norm, max_pool, moments, norm_relu_pool, running
from .recurrent import attention_lstm, init_lstm, lstm

__all__ = [
    "MLP",
    "Conv4",
    "ConvBlock",
    "EfficientNetLite",
    "attention_lstm",
    "batch_norm",
    "conv",
    "conv4",
    "conv_general_dilated",
    "dense",
    "depthwise",
    "efficientnet_lite0",
    "factorised_conv",
    "from_flax",
    "init_dense",
    "init_lstm",
    "init_with_head",
    "lstm",
    "max_pool",
    "mlp",
    "moments",
    "norm_relu_pool",
    "running",
    "unit",
    "with_embedding",
]
