"""Streams: layers one after another, that go by names and of which some may be given from outside.

What a layer's parameters hold says what it is: "kernel" and "bias" are a plain layer, "first" and
"last" beside them a factorised one (`factorised_conv`, `factorised_dense`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..base import Array, Network, PyTree, Variables
from .convolutions import conv
from .factorised import factorised_conv, factorised_dense
from .norms import max_pool


class Layer(NamedTuple):
    """A convolution without padding or, without a window, a linear map of all that is left."""

    name: str
    outputs: int
    window: int | None = None  # side of its filters
    pool: bool = False  # 2x2 afterwards
    relu: bool = True  # last


# Of Bertinetto et al. (2016), section 3.2: 28x28 by 24, 12, 8, 4 to 1.
CHARACTERS = (
    Layer("conv1", 16, window=5, pool=True),
    Layer("conv2", 64, window=5, pool=True),
    Layer("conv3", 512, relu=False),
)


def stream_shapes(
    layers: Sequence[Layer],
    x: Any,
    *,
    factorised: Sequence[str] = (),
    inner_width: int | None = None,
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes and dtypes of what `init_stream` makes, {name: entries}.

    Raises:
        ValueError: a name of no layer, pictures that are too small, a width under 1.
    """
    refuse_unknown(layers, factorised, "factorised")
    if inner_width is not None and inner_width < 1:
        raise ValueError(f"inner_width is {inner_width}; it is at least 1")
    shapes: dict[str, dict[str, jax.ShapeDtypeStruct]] = {}
    for layer in layers:
        width = (inner_width or layer.outputs) if layer.name in factorised else None
        entries = {**_weights(layer, x.shape[1:], width), "bias": (layer.outputs,)}
        own = {name: jax.ShapeDtypeStruct(shape, x.dtype) for name, shape in entries.items()}
        shapes[layer.name], x = own, jax.eval_shape(partial(apply_layer, layer), own, x)
    return shapes


def _weights(layer: Layer, picture: tuple[int, ...], width: int | None) -> dict[str, Any]:
    """Shapes of a layer's weights for such pictures, factorised to this inner width if given."""
    if layer.window is None:
        window, inputs = (), math.prod(picture)
    else:
        if min(picture[:2]) < layer.window + layer.pool:
            raise ValueError(
                f"{picture[0]} x {picture[1]} pixels are left for layer {layer.name}, whose "
                f"filters have {layer.window} x {layer.window}: give larger pictures or leave a "
                "layer out"
            )
        window, inputs = (layer.window, layer.window), picture[-1]
    if width is None:
        return {"kernel": (*window, inputs, layer.outputs)}
    return {"first": (inputs, width), "kernel": (*window, width), "last": (width, layer.outputs)}


def init_stream(
    key: Array,
    layers: Sequence[Layer],
    x: Any,
    *,
    factorised: Sequence[str] = (),
    inner_width: int | None = None,
    std: float | None = None,
) -> PyTree:
    """Parameters {name: entries} for pictures x; weights are Gaussian, biases 0.

    Args:
        key: a random key.
        layers: in their order.
        x: [n, H, W, C]; only its shape and dtype matter.
        factorised: names of the layers that are products.
        inner_width: channels within these, D; None is as many as the layer's outputs.
        std: of all weights; None is sqrt(2 / fan-in) of each tensor (He et al., 2015).

    Raises:
        ValueError: as `stream_shapes`.
    """
    shapes = stream_shapes(layers, x, factorised=factorised, inner_width=inner_width)
    leaves, tree = jax.tree.flatten(shapes)
    if not leaves:
        return {}
    ends = list(itertools.accumulate(leaf.size for leaf in leaves))
    # One draw for everything: each call of a generator costs a second of compiling.
    parts = jnp.split(jax.random.normal(key, (ends[-1],), x.dtype), ends[:-1])
    spread = lambda leaf: math.sqrt(2 / math.prod(leaf.shape[:-1])) if std is None else std
    drawn = [
        spread(leaf) * part.reshape(leaf.shape) for leaf, part in zip(leaves, parts, strict=True)
    ]
    params = jax.tree.unflatten(tree, drawn)
    return {name: {**own, "bias": jnp.zeros_like(own["bias"])} for name, own in params.items()}


def apply_layer(layer: Layer, params: PyTree, x: Array) -> Array:
    """A layer of pictures x [n, H, W, C]: [n, H', W', outputs], or [n, outputs] without a window.

    Raises:
        ValueError: pictures of another size or number of channels than the parameters are for.
    """
    kernel, matrices = params["kernel"], [params[k] for k in ("first", "last") if k in params]
    x = x if layer.window else x.reshape(x.shape[0], -1)
    inputs = matrices[0].shape[0] if matrices else kernel.shape[-2]
    if x.shape[-1] != inputs:
        what = "channels" if layer.window else "numbers"
        raise ValueError(
            f"layer {layer.name} was made for {inputs} {what}, and gets {x.shape[-1]}: give "
            "pictures of the size and channels that it was made for"
        )
    if matrices:
        product = partial(factorised_conv, padding="VALID") if layer.window else factorised_dense
        y = product(x, matrices[0], kernel, matrices[1])
    else:
        y = conv(x, kernel, padding="VALID") if layer.window else x @ kernel
    # What follows keeps the order of numbers: pooling comes first, as it leaves a quarter of them.
    y = (max_pool(y) if layer.pool else y) + params["bias"]
    return jax.nn.relu(y) if layer.relu else y


def apply_stream(
    layers: Sequence[Layer], params: PyTree, x: Array, predicted: PyTree | None = None
) -> Array:
    """Pictures through all layers.

    Args:
        params: {name: entries}, of `init_stream`.
        x: [n, H, W, C]; where layers are predicted also [p, n, H, W, C], for each exemplar its own.
        predicted: {name: entries [p, ...]}, weights that each exemplar has of its own; they go
            before what `params` has.

    Returns:
        What the last layer gives, [n, ...]; where layers are predicted, [p, n, ...].
    """
    given = predicted or {}
    shared = not given or x.ndim == 4  # by all exemplars, up to the first layer of their own
    for layer in layers:
        own, run = params.get(layer.name, {}), partial(apply_layer, layer)
        if layer.name in given:
            each = lambda entries, x, own=own, run=run: run({**own, **entries}, x)
            over = _over_exemplars if shared else jax.vmap
            x, shared = over(each)(given[layer.name], x), False
        elif shared:
            x = run(own, x)
        else:
            y = run(own, x.reshape(-1, *x.shape[2:]))
            x = y.reshape(*x.shape[:2], *y.shape[1:])
    return x


def _over_exemplars(each: Callable[[PyTree, Array], Array]) -> Callable[[PyTree, Array], Array]:
    """each(entries [p, ...], x) for all p, of the same pictures x.

    On a CPU in turn: the gradient of x is a sum over exemplars, which XLA makes one program of with
    what is summed. 400 pairs through a learnet of the paper's layers and back: 127 ms, at once 519.
    """

    def in_turn(entries: PyTree, x: Array) -> Array:
        return lax.map(lambda own: each(own, x), entries)

    together = jax.vmap(each, (0, None))
    return lambda entries, x: lax.platform_dependent(entries, x, cpu=in_turn, default=together)


def stream(
    layers: Sequence[Layer] = CHARACTERS,
    *,
    factorised: Sequence[str] = (),
    inner_width: int | None = None,
    std: float | None = None,
) -> Network:
    """A stream as a `Network`, its last layer flattened; the arguments are `init_stream`'s.

    Example:
        >>> network, x = stream(), jax.ShapeDtypeStruct((3, 28, 28, 1), jnp.float32)
        >>> variables = jax.eval_shape(network.init, jax.random.key(0), x)
        >>> jax.eval_shape(network.apply, variables, x)[0].shape
        (3, 512)
    """

    def init(key: Array, x: Array) -> Variables:
        settings: Any = {"factorised": factorised, "inner_width": inner_width, "std": std}
        return {"params": init_stream(key, layers, x, **settings), "state": {}}

    def apply(
        variables: Variables,
        x: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        key: Array | None = None,
    ) -> tuple[Array, PyTree]:
        return apply_stream(layers, variables["params"], x).reshape(x.shape[0], -1), {}

    return Network(init, apply)


def refuse_unknown(layers: Sequence[Layer], names: Sequence[str], argument: str) -> None:
    """
    Raises:
        ValueError: a name of no layer; it lists those there are.
    """
    known = [layer.name for layer in layers]
    for name in names:
        if name not in known:
            raise ValueError(f"{argument} names {name!r}; the layers are {', '.join(known)}")
