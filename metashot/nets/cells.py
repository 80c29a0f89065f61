"""Features of the cells of pictures, and how cells and pixels belong together: what methods that
classify pixels one by one start from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..base import Array, Network, Variables
from .backbones import init_dense
from .branches import Size, half_pixel_bilinear, pixels_of
from .efficientnet import efficientnet_lite0
from .layers import dense, unit
from .norms import batch_norm
from .resampling import area_means, patch_means, transposed_bilinear
from .vgg import centred_bgr, fcn32s


class Cells(NamedTuple):
    """A network of cells, and the way from masks to cells and back."""

    network: Network  # pictures to features [n, h, w, D]
    shares: Callable[[Array, Size], Array]  # masks [n, H, W] -> [n, h, w], of each cell
    enlarged: Callable[[Array, Size], Array]  # maps [..., h, w] -> [..., H, W]
    size: Callable[[Any], Size]  # of the answers (H, W), for the inputs


def joined_cells(network: Network | None = None, *, answers: Size | None = None) -> Cells:
    """A network's maps as one: each cell of each at length one, side by side at the finest's size.

    Args:
        network: pictures to a tuple of maps [n, h, w, C], the finest first; the default is
            `efficientnet_lite0(endpoints=(16, 32))`. It is not trained.
        answers: size of the answers, where inputs are not pictures (`stored_maps`).
    """
    body = efficientnet_lite0(endpoints=(16, 32)) if network is None else network

    def apply(variables: Variables, x: Any, **settings: Any) -> tuple[Array, Any]:
        maps = body.apply(jax.lax.stop_gradient(variables), x)[0]
        n, h, w, _ = maps[0].shape
        bigger = lambda m: jax.image.resize(m, (n, h, w, m.shape[-1]), "linear", antialias=False)
        return jnp.concatenate([bigger(unit(m)) for m in maps], -1), {}

    size = pixels_of if answers is None else lambda _: answers
    return Cells(Network(body.init, apply), area_means, half_pixel_bilinear, size)


def fcn_cells(*, pad: int = 121) -> Cells:
    """FCN-32s, as the paper's baselines use it: a cell is a patch of 32 x 32 pixels.

    Args:
        pad: zeros around a picture.
    """
    body = fcn32s(pad=pad)
    first = 97 - pad  # pixel of the first cell's patch: its centre is 112.5 - pad

    def apply(variables: Variables, x: Array, **settings: Any) -> tuple[Array, Any]:
        return body.apply(variables, centred_bgr(x), **settings)

    return Cells(
        Network(body.init, apply),
        lambda masks, cells: patch_means(masks, 32, cells, first),
        lambda maps, size: transposed_bilinear(maps, 32, size, pad - 81),
        pixels_of,
    )


def stored_maps() -> Network:
    """A network of inputs that are maps already, as `metashot.data.encoded` stores them."""
    nothing: Variables = {"params": {}, "state": {}}
    return Network(lambda key, x: nothing, lambda variables, x, **settings: (x, {}))


def projected(cells: Cells, width: int = 256) -> Cells:
    """With a layer that is trained on top: linear, batch norm over cells, ReLU.

    Args:
        cells: whose network is not trained.
        width: of the features.
    """

    def init(key: Array, x: Any) -> Variables:
        body_key, own_key = jax.random.split(key)
        body = cells.network.init(body_key, x)
        maps = jax.eval_shape(lambda: cells.network.apply(body, x)[0])
        own = init_dense(own_key, maps.shape[-1], width)
        ones, zeros = jnp.ones(width), jnp.zeros(width)
        return {
            "params": {"body": body["params"], "project": own | {"scale": ones, "shift": zeros}},
            "state": {"body": body["state"], "project": {"mean": zeros, "var": ones}},
        }

    def apply(
        variables: Variables, x: Any, train: bool = False, mask: Array | None = None, **_: Any
    ) -> tuple[Array, Any]:
        params, state = variables["params"], variables["state"]
        maps, _ = cells.network.apply({"params": params["body"], "state": state["body"]}, x)
        own, kept = params["project"], state["project"]
        statistics = None if train else (kept["mean"], kept["var"])
        y, seen = batch_norm(
            dense(own, maps), own["scale"], own["shift"], statistics=statistics, mask=mask
        )
        stats = {} if seen is None else {"project": seen._asdict()}
        return jax.nn.relu(y), stats

    return cells._replace(network=Network(init, apply))
