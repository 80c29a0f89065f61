"""Two branches of a network: one turns a picture and its mask into a classifier of the pixels whose
features the other makes (Shaban et al., BMVC 2017, and what became of it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ..base import Array, Network, PyTree, Variables
from .backbones import from_flax
from .efficientnet import efficientnet_lite0
from .hashing import hashed, init_hash
from .layers import dense, unit
from .resampling import area_means, transposed_bilinear
from .vgg import centred_bgr, fcn32s, vgg16

Size = Sequence[int]


def pixels_of(pictures: Array) -> Size:
    """The size of pictures [n, H, W, C]."""
    return pictures.shape[1:3]


class Branches(NamedTuple):
    """Pure functions over pictures [n, H, W, C]; `apply`'s settings are those of a `Network`.

    Statistics are {name: of a network}, for the entries of that name in the state.
    """

    init: Callable[[Array, Array], Variables]  # (key, pictures)
    classifiers: Callable[..., tuple[tuple[Array, Array], PyTree]]
    # (variables, pictures, masks [n, H, W] of 0 and 1) -> (weights [n, D], bias [n]), stats
    features: Callable[..., tuple[Array, PyTree]]  # (variables, pictures) -> [n, h, w, D], stats
    enlarged: Callable[[Array, Size], Array]  # [..., h, w] -> [..., H, W]
    size: Callable[[Any], Size] = pixels_of  # of the answers (H, W), for the inputs


def two_networks(
    *,
    conditioning: Network,
    segmentation: Network,
    enlarged: Callable[[Array, Size], Array],
    centred: Callable[[Array], Array] = lambda pictures: pictures,
    size: int | None = None,
    hash_scale: float = 1.0,
) -> Branches:
    """The paper's form: a network of its own reads the masked picture, and hashing does the rest.

    (w, b) = hash(g(mask * picture)). The hash is drawn by `init` and kept in the state.

    Args:
        conditioning: g, [k, size, size, C] -> [k, m].
        segmentation: the pixels' features, [q, H, W, C] -> [q, h, w, D].
        enlarged: brings maps [..., h, w] to a size (H, W).
        centred: makes 0 the mean of pictures before they are masked: what is masked out has the
            mean colour.
        size: to which support pictures are stretched, bilinearly, and masks by the nearest pixel;
            None leaves them.
        hash_scale: what weights and bias are multiplied by. 1 in the paper; 1 / sqrt(D) keeps
            logits small where both networks start from nothing.
    """

    def masked(pictures: Array, masks: Array) -> Array:
        x = centred(pictures)
        if size is not None:
            n, _, _, c = x.shape
            x = jax.image.resize(x, (n, size, size, c), "linear", antialias=False)
            masks = jax.image.resize(masks, (n, size, size), "nearest")
        return x * masks[..., None]

    def init(key: Array, pictures: Array) -> Variables:
        conditioning_key, segmentation_key, hash_key = jax.random.split(key, 3)
        x = masked(pictures, jnp.zeros_like(pictures[..., 0]))
        one = conditioning.init(conditioning_key, x)
        two = segmentation.init(segmentation_key, centred(pictures))
        codes = jax.eval_shape(lambda: conditioning.apply(one, x)[0]).shape[-1]
        maps = jax.eval_shape(lambda: segmentation.apply(two, pictures)[0])
        hash = init_hash(hash_key, codes, maps.shape[-1] + 1, maps.dtype)
        return {
            "params": {"conditioning": one["params"], "segmentation": two["params"]},
            "state": {"conditioning": one["state"], "segmentation": two["state"], "hash": hash},
        }

    def classifiers(
        variables: Variables, pictures: Array, masks: Array, **settings: Any
    ) -> tuple[tuple[Array, Array], PyTree]:
        own = part_of(variables, "conditioning")
        codes, stats = conditioning.apply(own, masked(pictures, masks), **settings)
        theta = hash_scale * hashed(variables["state"]["hash"], codes)  # [k, D + 1]
        return (theta[:, :-1], theta[:, -1]), {"conditioning": stats}

    def features(variables: Variables, pictures: Array, **settings: Any) -> tuple[Array, PyTree]:
        own = part_of(variables, "segmentation")
        maps, stats = segmentation.apply(own, centred(pictures), **settings)
        return maps, {"segmentation": stats}

    return Branches(init, classifiers, features, enlarged)


def part_of(variables: Variables, name: str) -> Variables:
    """The variables of the network that has this name among them."""
    return {"params": variables["params"][name], "state": variables["state"][name]}


def vgg_branches(
    *, pad: int = 121, dilated: bool = False, scale: float = 1.0, offset: float = 0.0
) -> Branches:
    """OSLSM at the size of the paper: VGG-16 and FCN-32s, 272,618,088 parameters.

    Pictures are RGB, of any size that 224 x 224 can be made of. Both branches start from weights of
    VGG-16 in the paper (`from_vgg16`).

    Args:
        pad: zeros around a query: 121 in the release, 100 in the first FCN-32s.
        dilated: features at stride 8 instead of 32.
        scale, offset: pictures are scale * pixel + offset, of pixels 0..255.
    """
    pools = 3 if dilated else 5
    stride = 2**pools
    # Cell x looks at stride * (x + 3 * 32 / stride) + (stride - 1) / 2 - (pad - 1).
    offset = pad - 97 + stride // 2
    return two_networks(
        conditioning=vgg16(),
        segmentation=fcn32s(pad=pad, pools=pools),
        enlarged=lambda maps, size: transposed_bilinear(maps, stride, size, offset),
        centred=lambda pictures: centred_bgr((pictures - offset) / scale),
        size=224,
    )


def from_vgg16(fresh: Variables, vgg: Variables) -> Variables:
    """`vgg_branches` that begin as VGG-16, the hash as it was drawn.

    Args:
        fresh: variables of `vgg_branches`.
        vgg: variables of `vgg16`, such as `metashot.pretrained.vgg16` reads.
    """
    own = dict(vgg["params"])
    outputs = own.pop("fc8")
    as_convolutions = {
        name: {
            **own[name],
            "kernel": own[name]["kernel"].reshape(*window, -1, own[name]["bias"].size),
        }
        for name, window in (("fc6", (7, 7)), ("fc7", (1, 1)))
    }
    params = {"conditioning": {**own, "fc8": outputs}, "segmentation": {**own, **as_convolutions}}
    return {**fresh, "params": params}


def tied_branches(
    *,
    network: Network | None = None,
    size: int = 256,
    hashed_from: int | None = None,
    frozen: bool = True,
    scale: float = 10.0,
    bias: float = -1.0,
    answers: Size | None = None,
) -> Branches:
    """One network's maps for both, and a classifier that starts as the mean of masked features.

    A query's features are F = sum over maps v of up(W_v n(v)) + c, at length one, with n(v) each
    cell at length sqrt(C). Of the support, z are the means of its maps inside the mask, n(v) each,
    side by side; w = A z + a, at length one, with A at the start all W_v: the first logits are
    s cos(w, F) + b0, of features under a random projection. A, W, c, a, s and b0 are trained.

    Args:
        network: pictures to a tuple of maps [n, h, w, C], the finest first; the default is
            `efficientnet_lite0(endpoints=(16, 32))`.
        size: of the features F.
        hashed_from: w is hashed of that many numbers, as in the paper; None has a matrix of its
            own for it. A then starts as W times the hash, so that first logits are of this form.
        frozen: the network's parameters are not trained, and its statistics are as they came.
        scale: s at the start; bias: b0 at the start.
        answers: size (H, W) of the answers, where inputs are not pictures (`stored_maps`).
    """
    body = efficientnet_lite0(endpoints=(16, 32)) if network is None else network

    def maps_of(
        variables: Variables, pictures: Array, train: bool = False, **settings: Any
    ) -> tuple[Any, PyTree]:
        own = part_of(variables, "network")
        if frozen:
            maps, _ = body.apply(jax.lax.stop_gradient(own), pictures)
            return maps, {}
        maps, stats = body.apply(own, pictures, train=train, **settings)
        return maps, {"network": stats}

    def init(key: Array, pictures: Array) -> Variables:
        body_key, project_key, hash_key = jax.random.split(key, 3)
        made = body.init(body_key, pictures)
        maps = jax.eval_shape(lambda: body.apply(made, pictures)[0])
        widths = [m.shape[-1] for m in maps]
        keys = jax.random.split(project_key, len(maps))
        project = [
            jax.random.normal(one, (c, size), m.dtype) / (len(maps) * c) ** 0.5
            for one, c, m in zip(keys, widths, maps, strict=True)
        ]
        start, state = jnp.concatenate(project), {"network": made["state"]}
        if hashed_from is not None:
            state["hash"] = init_hash(hash_key, hashed_from, size, start.dtype)
            start = hashed_back(state["hash"], start, hashed_from)
        params = {
            "network": made["params"],
            "project": {str(i): kernel for i, kernel in enumerate(project)},
            "shift": jnp.zeros(size, start.dtype),
            "condition": {"kernel": start, "bias": jnp.zeros(start.shape[1], start.dtype)},
            "log_scale": jnp.log(jnp.asarray(scale, start.dtype)),
            "bias": jnp.asarray(bias, start.dtype),
        }
        return {"params": params, "state": state}

    def classifiers(
        variables: Variables, pictures: Array, masks: Array, **settings: Any
    ) -> tuple[tuple[Array, Array], PyTree]:
        params = variables["params"]
        maps, stats = maps_of(variables, pictures, **settings)
        z = jnp.concatenate([evened(masked_mean_of(m, masks)) for m in maps], -1)
        w = dense(params["condition"], z)
        if hashed_from is not None:
            w = hashed(variables["state"]["hash"], w)
        bias = jnp.broadcast_to(params["bias"], w.shape[:1])
        return (jnp.exp(params["log_scale"]) * unit(w), bias), stats

    def features(variables: Variables, pictures: Array, **settings: Any) -> tuple[Array, PyTree]:
        params = variables["params"]
        maps, stats = maps_of(variables, pictures, **settings)
        n, h, w, _ = maps[0].shape
        total = params["shift"]
        for i, m in enumerate(maps):
            projected = evened(m) @ params["project"][str(i)]
            total += jax.image.resize(projected, (n, h, w, size), "linear", antialias=False)
        return unit(total), stats

    size_of = pixels_of if answers is None else lambda _: answers
    return Branches(init, classifiers, features, half_pixel_bilinear, size_of)


def half_pixel_bilinear(maps: Array, size: Size) -> Array:
    """[..., H, W] of maps [..., h, w], cell i over the pixels that are its share of the picture."""
    return jax.image.resize(maps, (*maps.shape[:-2], *size), "linear", antialias=False)


def evened(x: Array) -> Array:
    """x [..., C] at length sqrt(C); zero stays zero."""
    return unit(x) * x.shape[-1] ** 0.5


def masked_mean_of(maps: Array, masks: Array) -> Array:
    """[n, C]: means of maps [n, h, w, C] inside masks [n, H, W]; 0 where a mask is empty."""
    share = area_means(masks.astype(maps.dtype), maps.shape[1:3])
    total = jnp.einsum("nhw,nhwc->nc", share, maps)
    return total / jnp.maximum(share.sum((1, 2)), 1e-6)[:, None]


def hashed_back(code: PyTree, theta: Array, inputs: int) -> Array:
    """[n, inputs]: the transpose of `hashed`, of theta [n, outputs]."""
    return (
        jnp.zeros((len(theta), inputs), theta.dtype).at[:, code["index"]].add(code["sign"] * theta)
    )


class Pyramid(nn.Module):
    """Maps of pictures [n, H, W, C], each after two 3x3 convolutions at half the size of the last.

    Group norm is of a picture alone; an episode of one support picture and one query has too few
    for a batch norm.
    """

    stem: int = 32  # at stride 2, of which there is no map
    widths: Sequence[int] = (64, 128, 192)  # at strides 4, 8, 16

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:
        x = nn.relu(nn.GroupNorm(8)(nn.Conv(self.stem, (3, 3), (2, 2), use_bias=False)(x)))
        maps: list[Array] = []
        for width in self.widths:
            if min(x.shape[1:3]) < 2:
                size = " x ".join(map(str, x.shape[1:3]))
                raise ValueError(f"a group cannot halve {size} cells; give larger pictures")
            x = nn.max_pool(x, (2, 2), (2, 2))
            for _ in range(2):
                x = nn.relu(nn.GroupNorm(8)(nn.Conv(width, (3, 3), use_bias=False)(x)))
            maps.append(x)
        return tuple(maps)


def pyramid(*, stem: int = 32, widths: Sequence[int] = (64, 128, 192)) -> Network:
    """`Pyramid` as a `Network`: pictures [n, H, W, C] to maps at strides 4, 8, ....

    Args:
        stem: channels at stride 2, of which there is no map.
        widths: channels of each map.
    """
    return from_flax(Pyramid(stem, tuple(widths)))


def small_branches(*, size: int = 256, hashed_from: int | None = None) -> Branches:
    """`tied_branches` that train from nothing on a CPU, on pictures of 128 pixels or so.

    1,029,026 parameters for RGB.

    Args:
        size, hashed_from: as of `tied_branches`.
    """
    network = pyramid()
    return tied_branches(network=network, size=size, hashed_from=hashed_from, frozen=False)
