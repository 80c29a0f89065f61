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
from .branches import (
    Branches,
    from_vgg16,
    pyramid,
    small_branches,
    tied_branches,
    two_networks,
    vgg_branches,
)
from .cells import Cells, fcn_cells, joined_cells, projected, stored_maps
from .comparisons import COMPARISONS, calibrated, compare, init_comparison
from .convolutions import conv, conv_general_dilated, depthwise
from .efficientnet import EfficientNetLite, efficientnet_lite0
from .factorised import assembled, factorised_conv, factorised_dense
from .hashing import hashed, init_hash
from .layers import dense, unit
from .norms import batch_norm, max_pool, moments, norm_relu_pool, running
from .recurrent import attention_lstm, init_lstm, lstm
from .resampling import area_means, bilinear_taps, patch_means, transposed_bilinear
from .streams import (
    CHARACTERS,
    Layer,
    apply_layer,
    apply_stream,
    init_stream,
    stream,
    stream_shapes,
)
from .vgg import ceil_max_pool, centred_bgr, fcn32s, vgg16

__all__ = [
    "CHARACTERS",
    "COMPARISONS",
    "MLP",
    "Branches",
    "Cells",
    "Conv4",
    "ConvBlock",
    "EfficientNetLite",
    "Layer",
    "apply_layer",
    "apply_stream",
    "area_means",
    "assembled",
    "attention_lstm",
    "batch_norm",
    "bilinear_taps",
    "calibrated",
    "ceil_max_pool",
    "centred_bgr",
    "compare",
    "conv",
    "conv4",
    "conv_general_dilated",
    "dense",
    "depthwise",
    "efficientnet_lite0",
    "factorised_conv",
    "factorised_dense",
    "fcn32s",
    "fcn_cells",
    "from_flax",
    "from_vgg16",
    "hashed",
    "init_comparison",
    "init_dense",
    "init_hash",
    "init_lstm",
    "init_stream",
    "init_with_head",
    "joined_cells",
    "lstm",
    "max_pool",
    "mlp",
    "moments",
    "norm_relu_pool",
    "patch_means",
    "projected",
    "pyramid",
    "running",
    "small_branches",
    "stored_maps",
    "stream",
    "stream_shapes",
    "tied_branches",
    "transposed_bilinear",
    "two_networks",
    "unit",
    "vgg16",
    "vgg_branches",
    "with_embedding",
]
