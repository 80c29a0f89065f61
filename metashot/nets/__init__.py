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
from .comparisons import COMPARISONS, calibrated, compare, init_comparison
from .convolutions import conv, conv_general_dilated, depthwise
from .efficientnet import EfficientNetLite, efficientnet_lite0
from .factorised import assembled, factorised_conv, factorised_dense
from .layers import dense, unit
from .norms import batch_norm, max_pool, moments, norm_relu_pool, running
from .recurrent import attention_lstm, init_lstm, lstm
from .streams import (
    CHARACTERS,
    Layer,
    apply_layer,
    apply_stream,
    init_stream,
    stream,
    stream_shapes,
)

__all__ = [
    "CHARACTERS",
    "COMPARISONS",
    "MLP",
    "Conv4",
    "ConvBlock",
    "EfficientNetLite",
    "Layer",
    "apply_layer",
    "apply_stream",
    "assembled",
    "attention_lstm",
    "batch_norm",
    "calibrated",
    "compare",
    "conv",
    "conv4",
    "conv_general_dilated",
    "dense",
    "depthwise",
    "efficientnet_lite0",
    "factorised_conv",
    "factorised_dense",
    "from_flax",
    "init_comparison",
    "init_dense",
    "init_lstm",
    "init_stream",
    "init_with_head",
    "lstm",
    "max_pool",
    "mlp",
    "moments",
    "norm_relu_pool",
    "running",
    "stream",
    "stream_shapes",
    "unit",
    "with_embedding",
]
