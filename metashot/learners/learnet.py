"""Learnets (Bertinetto, Henriques, Valmadre, Torr & Vedaldi, NIPS 2016): one network predicts
another's weights, in one forward pass, from one exemplar.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..base import Array, Aux, Episode, Examples, Learner, PyTree, Variables
from ..losses import members
from ..nets import assembled, calibrated, compare, depthwise, init_comparison
from ..nets.streams import (
    CHARACTERS,
    Layer,
    apply_layer,
    apply_stream,
    init_stream,
    refuse_unknown,
    stream_shapes,
)
from .pairs import answers, pair_loss, refuse_rules

GAMMA_HEAD = ("shared_trunk", "from_filters", "own_net")
GAMMA_PREDICTS = ("centre", "centre_and_weights")
W_BIAS_INIT = ("zeros", "centre")


def learnet(
    *,
    layers: Sequence[Layer] = CHARACTERS,
    way: int = 5,
    single_stream: bool = True,
    comparison: str = "weighted_l1",
    predicts: Sequence[str] = ("conv2",),
    factorised: bool = True,
    inner_width: int | None = None,
    predict_bias: bool = False,
    gamma_head: str = "shared_trunk",
    gamma_predicts: str = "centre",
    head_scale: float = 1.0,
    init_std: float | None = None,
    w_bias_init: str = "zeros",
    learn_gain: bool = True,
    learn_offset: bool = True,
    calibrate: bool = False,
    kshot: str = "mean",
    episode_loss: str = "softmax",
) -> Learner:
    """A score of how well a query matches an exemplar z: g s(phi(x; w(z)), v(z)) + c.

    phi is a stream of layers, of which those in `predicts` get their weights w(z) from the
    learnet omega: layers as phi's but for the last, and a linear head for each thing predicted. In
    a single stream (equation 2) v(z) is a head's output too; in a siamese learnet (section 3.1) it
    is phi(z; w(z)). All else, also in the layers that are predicted, is learned as usual. Training,
    answers and comparisons are those of `siamese`.

    A Task is {"layers": {name: weights [p, ...]}, "exemplars" [p, d], "member" [p, way]}, with
    "weights" [p, d] where these are predicted.

    Args:
        layers: of phi, the paper's for pictures of 28x28 by default.
        way: length of the class axis; a class without support has logit -inf.
        single_stream: predict what a query is compared with, or embed it.
        comparison: as of `siamese`.
        predicts: names of the layers whose weights are predicted.
        factorised: predict a filter for each inner channel of a factorised layer (equation 8), or
            all of a plain layer's kernel (equation 5), which takes far more numbers.
        inner_width: of the factorised layers; None is as many as a layer has outputs, 64 for the
            paper's second one, where the text prints both that (1600 numbers) and 16.
        predict_bias: predict the layers' biases too.
        gamma_head: where v(z) comes from: a head on omega's "shared_trunk", a linear map
            "from_filters", the numbers predicted for the layers, or a net of its "own_net".
        gamma_predicts: "centre", v(z) alone, or "centre_and_weights" of the weighted l1 as well.
        head_scale: what the heads of the layers' weights are multiplied by, before their bias.
        init_std: of all weights; None is sqrt(2 / fan-in).
        w_bias_init: bias of the predicted filters at the start: "zeros", or 1 at the "centre".
        learn_gain, learn_offset, calibrate, kshot, episode_loss: as of `siamese`.

    Raises:
        ValueError: an argument outside its values, a name of no layer.
    """
    for name, value, valid in (
        ("gamma_head", gamma_head, GAMMA_HEAD),
        ("gamma_predicts", gamma_predicts, GAMMA_PREDICTS),
        ("w_bias_init", w_bias_init, W_BIAS_INIT),
    ):
        if value not in valid:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(valid)}")
    refuse_rules(kshot, episode_loss)
    refuse_unknown(layers, predicts, "predicts")
    both = gamma_predicts == "centre_and_weights"
    if both and not (single_stream and comparison == "weighted_l1"):
        raise ValueError(
            f"gamma_predicts is {gamma_predicts!r}, but only weighted_l1 of a single stream has "
            "weights to predict: set it to 'centre'"
        )
    init_scores = lambda size: init_comparison(
        comparison, size, learn_gain=learn_gain, learn_offset=learn_offset
    )
    init_scores(1)  # an unknown comparison is refused here
    trunk = tuple(layers[:-1])
    entries = ("kernel", "bias") if predict_bias else ("kernel",)
    form: Any = {"factorised": predicts if factorised else (), "inner_width": inner_width}

    def predicted_of(x: Array) -> Shapes:
        shapes = stream_shapes(layers, x, **form)
        return {name: {k: shapes[name][k].shape for k in entries} for name in predicts}

    def gamma_layers(size: int) -> tuple[Layer, ...]:
        last = Layer("gamma", (1 + both) * size, relu=False)
        return (*trunk, last) if gamma_head == "own_net" else (last,)

    def told_by(omega: PyTree, z: Array) -> tuple[dict[str, Array], Array]:
        """Numbers [p, n] for each layer, and what v(z) is made of."""
        features, heads = apply_stream(trunk, omega["trunk"], z), omega["heads"]
        numbers = {
            head.name: apply_layer(head, heads[head.name], head_scale * features)
            for head in _heads(predicted_of(z))
        }
        together = lambda: jnp.concatenate(list(numbers.values()), axis=1)
        seen = {"shared_trunk": lambda: features, "from_filters": together, "own_net": lambda: z}
        return numbers, seen[gamma_head]()

    def init(key: Array, episode: Episode) -> Variables:
        x = episode.support.inputs
        phi_key, trunk_key, heads_key, gamma_key = jax.random.split(key, 4)
        phi, shapes = init_stream(phi_key, layers, x, std=init_std, **form), predicted_of(x)
        size = jax.eval_shape(lambda x: apply_stream(layers, phi, x)[0], x).size
        omega: PyTree = {"trunk": init_stream(trunk_key, trunk, x, std=init_std), "heads": {}}
        features = jax.eval_shape(lambda x: apply_stream(trunk, omega["trunk"], x), x)
        for head, own in zip(_heads(shapes), jax.random.split(heads_key, len(shapes)), strict=True):
            omega["heads"] |= init_stream(own, [head], features, std=init_std)
            if w_bias_init == "centre":
                omega["heads"][head.name]["bias"] = _centred(shapes[head.name])
        if single_stream:
            _, seen = jax.eval_shape(told_by, omega, x)
            omega["gamma"] = init_stream(gamma_key, gamma_layers(size), seen, std=init_std)
            if both:  # weights start at 1
                start = omega["gamma"]["gamma"]
                start["bias"] = start["bias"].at[size:].set(1)
        kept = {
            name: {k: v for k, v in own.items() if k not in shapes.get(name, ())}
            for name, own in phi.items()
        }
        params = {"phi": kept, "omega": omega, "comparison": init_scores(size)}
        if calibrate:
            task = read(params, x)
            a, b = task["exemplars"][:, None], embed(params, task, episode.query.inputs)
            params["comparison"] = calibrated(comparison, params["comparison"], a, b)
        return {"params": params, "state": {}}

    def read(params: PyTree, z: Array) -> PyTree:
        """The task that exemplars [p, H, W, C] make, but for their classes."""
        numbers, seen = told_by(params["omega"], z)
        shapes = predicted_of(z)
        task: PyTree = {"layers": {name: _unpacked(numbers[name], shapes[name]) for name in shapes}}
        if not single_stream:
            return {**task, "exemplars": embed(params, task, z[:, None])[:, 0]}
        gamma = params["omega"]["gamma"]
        size = gamma["gamma"]["bias"].size // (1 + both)
        told = apply_stream(gamma_layers(size), gamma, seen)
        task["exemplars"] = told[:, :size]
        return {**task, "weights": told[:, size:]} if both else task

    def embed(params: PyTree, task: PyTree, x: Array) -> Array:
        """[p, q, d] of queries [q, H, W, C], or [p, q, H, W, C] for each exemplar's own."""
        y = apply_stream(layers, params["phi"], x, task["layers"])
        return y.reshape(*y.shape[:2], -1)

    def scores(params: PyTree, task: PyTree, x: Array) -> Array:
        own = params["comparison"]
        if both:
            own = {**own, "weights": own["weights"] * task["weights"][:, None]}
        return compare(comparison, own, task["exemplars"][:, None], embed(params, task, x))

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        return {**read(variables["params"], support.inputs), "member": members(support, way)}

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        found = scores(variables["params"], task, inputs)
        return answers(found, inputs, task["member"], kshot)

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        task = read(variables["params"], episode.support.inputs)
        found = scores(variables["params"], task, episode.query.inputs)
        return pair_loss(found, episode, way, kshot, episode_loss)

    return Learner(init, adapt, predict, loss)


Shapes = dict[str, dict[str, tuple[int, ...]]]  # of what is predicted, by layer and entry


def _heads(shapes: Shapes) -> list[Layer]:
    """A linear layer for all that is predicted of each layer."""
    count = lambda entries: sum(map(math.prod, entries.values()))
    return [Layer(name, count(entries), relu=False) for name, entries in shapes.items()]


def _unpacked(numbers: Array, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """[p, numbers] as the entries of a layer, one after another."""
    ends = list(itertools.accumulate(map(math.prod, shapes.values())))
    parts = jnp.split(numbers, ends[:-1], axis=1)
    named = zip(shapes.items(), parts, strict=True)
    return {name: part.reshape(len(numbers), *shape) for (name, shape), part in named}


def _centred(shapes: dict[str, tuple[int, ...]]) -> Array:
    """Numbers of filters that pass on what they see: 1 in the middle, 0 elsewhere."""
    start = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    middle = tuple(side // 2 for side in shapes["kernel"][:-1])
    start["kernel"] = start["kernel"].at[middle].set(1)
    return jnp.concatenate([entry.ravel() for entry in start.values()])


def filter_responses(
    variables: Variables, task: PyTree, name: str, x: Array, layers: Sequence[Layer] = CHARACTERS
) -> Array:
    """What each exemplar's predicted filters of a factorised layer see: w(z) * (M x).

    Args:
        variables: of a `learnet`.
        task: what it made of p exemplars.
        name: of the layer, a convolution that is predicted.
        x: one picture [H, W, C].
        layers: of the learnet.

    Returns:
        [p, H', W', D], a map for each filter.

    Raises:
        ValueError: a layer whose filters are not predicted one for each inner channel.
    """
    phi, told = variables["params"]["phi"], task["layers"]
    if name not in told or "first" not in phi[name] or told[name]["kernel"].ndim != 4:
        raise ValueError(f"{name} is no factorised convolution whose filters are predicted")
    before = tuple(itertools.takewhile(lambda layer: layer.name != name, layers))
    earlier = {layer.name: told[layer.name] for layer in before if layer.name in told}
    seen = apply_stream(before, phi, x[None], earlier)  # [1, H, W, d], or [p, 1, H, W, d]
    own = lambda x, kernel: depthwise(x @ phi[name]["first"], kernel, padding="VALID")[0]
    return jax.vmap(own, (0 if earlier else None, 0))(seen, told[name]["kernel"])


def from_siamese(
    fresh: Variables, trained: Variables, layers: Sequence[Layer] = CHARACTERS
) -> Variables:
    """A learnet that begins where a siamese network ended, both of the same layers.

    phi is its stream of queries; omega's trunk and the head of v(z) are its stream of exemplars,
    factorised layers assembled; its static filters become the bias of the heads. What the heads'
    kernels say of an exemplar comes on top: where they are zero, scores are those of the siamese
    network. A small `head_scale` leaves them near.

    Args:
        fresh: variables of a `learnet` whose v(z), if there is one, comes from the shared trunk.
        trained: variables of a `siamese` on a `nets.stream` with the predicted layers factorised.
        layers: of both.

    Raises:
        ValueError: variables that do not fit each other.
    """
    try:
        params = _begun(fresh["params"], trained["params"], layers)
        fits = jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh["params"])
    except KeyError:
        fits, params = False, {}
    if not fits:
        raise ValueError(
            "the siamese network's layers are not the learnet's: take the same layers and "
            "comparison, with those factorised that are predicted"
        )
    return {**fresh, "params": params}


def _begun(fresh: PyTree, trained: PyTree, layers: Sequence[Layer]) -> PyTree:
    networks, phi = trained["networks"], fresh["phi"]
    exemplar, query = (networks.get("both", networks.get(role)) for role in ("exemplar", "query"))
    plain = {name: _plain(entries) for name, entries in exemplar.items()}
    omega = {
        "trunk": {layer.name: plain[layer.name] for layer in layers[:-1]},
        "heads": {
            name: {**head, "bias": _numbers_of(query[name], phi[name])}
            for name, head in fresh["omega"]["heads"].items()
        },
    }
    if "gamma" in fresh["omega"]:
        omega["gamma"] = {"gamma": plain[layers[-1].name]}
    kept = {name: {k: query[name][k] for k in entries} for name, entries in phi.items()}
    return {"phi": kept, "omega": omega, "comparison": trained["comparison"]}


def _plain(entries: PyTree) -> PyTree:
    """A layer as a plain one."""
    if "first" not in entries:
        return entries
    kernel = assembled(entries["first"], entries["kernel"], entries["last"])
    return {"kernel": kernel, "bias": entries["bias"]}


def _numbers_of(whole: PyTree, kept: PyTree) -> Array:
    """What is predicted of a layer in the order of its head: all that phi does not keep."""
    return jnp.concatenate([whole[k].ravel() for k in ("kernel", "bias") if k not in kept])
