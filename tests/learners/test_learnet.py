"""Learnets: the paper's counts, numbers worked out by hand, and a siamese network as a learnet."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets
from metashot.base import Episode, Examples
from metashot.learners.learnet import filter_responses, from_siamese, learnet
from metashot.learners.siamese import siamese
from metashot.nets import Layer

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]

SMALL = (
    Layer("conv1", 3, window=3, pool=True),
    Layer("conv2", 4, window=2),
    Layer("out", 5, relu=False),
)
SHAPES = Examples(
    jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32),
    jax.ShapeDtypeStruct((1,), jnp.int32),
    jax.ShapeDtypeStruct((1,), bool),
)


def examples(inputs: Any, targets: Any) -> Examples:
    targets = np.asarray(targets, np.int32)
    return Examples(np.asarray(inputs, float), targets, np.ones(targets.shape, bool))


def pairs(seed: int, p: int = 3, q: int = 2, shape: tuple[int, ...] = (8, 8, 1)) -> Episode:
    rng = np.random.default_rng(seed)
    query = examples(rng.normal(size=(p, q, *shape)), rng.integers(0, 2, (p, q)))
    return Episode(examples(rng.normal(size=(p, *shape)), np.zeros(p)), query)


def start(learner: Any, episode: Episode) -> Any:
    """Variables of the right shapes, at random."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(learner.init, jax.random.key(0), episode)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) / 2), shapes)


def scores(learner: Any, variables: Any, episode: Episode) -> jax.Array:
    def run(variables: Any, episode: Episode) -> jax.Array:
        task = learner.adapt(variables, episode.support)
        return learner.predict(variables, task, episode.query.inputs)

    return jax.jit(run)(variables, episode)


# Sizes


def count(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("options", "parameters", "numbers"),
    [
        ({"single_stream": False}, 2_196_480, 1600),
        ({"single_stream": False, "inner_width": 16}, 962_640, 400),
        ({}, 2_721_280, 1600),
        ({"inner_width": 16}, 1_487_440, 400),
        ({"gamma_head": "from_filters"}, 2_196_480 + 819_712, 1600),
        ({"gamma_head": "own_net"}, 2_196_480 + 550_880, 1600),
        ({"gamma_predicts": "centre_and_weights"}, 2_721_280 + 524_800, 1600),
        ({"predict_bias": True}, 2_721_280 + 64 * 1025 - 64, 1664),
        ({"factorised": False}, 2_721_280 + 1025 * (25_600 - 1600) - 5120, 25_600),
    ],
)
def test_counts(options: dict[str, Any], parameters: int, numbers: int) -> None:
    """Without the comparison's 513; the plain layer's numbers grow with the square of its width."""
    learner = learnet(**options)
    variables = jax.eval_shape(learner.init, jax.random.key(0), Episode(SHAPES, SHAPES))
    assert count(variables["params"]) == parameters + 513
    if options == {"single_stream": False}:
        assert count(variables["params"]["omega"]) == 1_666_080
    task = jax.eval_shape(learner.adapt, variables, SHAPES)
    assert count(task["layers"]) == numbers


# By hand


def test_a_learnet_of_single_numbers() -> None:
    """phi(x; w) = 3 w 2 x at x = 1.5, with w = 3 z - 2: 1 and 4, so that the metric follows z."""
    layers = (Layer("phi", 1, relu=False),)
    learner = learnet(
        layers=layers, way=2, predicts=["phi"], single_stream=False, comparison="weighted_l1"
    )
    one = jnp.ones(1)
    params = {
        "phi": {"phi": {"first": 2 * one[None], "last": 3 * one[None], "bias": 0 * one}},
        "omega": {"trunk": {}, "heads": {"phi": {"kernel": 3 * one[None], "bias": -2 * one}}},
        "comparison": {"weights": one, "offset": jnp.zeros(())},
    }
    picture = lambda *values: np.reshape(values, (-1, 1, 1, 1))
    support = examples(picture(1.0, 2.0), [0, 1])
    query = examples(picture(1.5), [0])
    variables = {"params": params, "state": {}}
    told = scores(learner, variables, Episode(support, query))
    assert told.tolist() == [[-3, -12]]
    init = jax.eval_shape(learner.init, jax.random.key(0), Episode(support, query))
    assert jax.tree.map(jnp.shape, init) == jax.tree.map(jnp.shape, variables)


def test_filters_that_are_1_at_the_centre_pass_their_pictures_on() -> None:
    """6x6 of 10 r + c, 2 and 3 times, cropped by 2. So it starts, but for the heads' kernels."""
    layers = (Layer("conv", 1, window=5, relu=False), Layer("out", 2, relu=False))
    learner = learnet(layers=layers, predicts=["conv"], w_bias_init="centre")
    x = np.add.outer(10 * np.arange(6.0), np.arange(6))[None, ..., None]
    episode = Episode(examples(x, [0]), examples(x, [0]))
    params = jax.jit(learner.init)(jax.random.key(0), episode)["params"]
    params["phi"]["conv"] = {
        "first": jnp.full((1, 1), 2.0),
        "last": jnp.full((1, 1), 3.0),
        "bias": jnp.zeros(1),
    }
    params["omega"]["heads"]["conv"]["kernel"] *= 0
    task = jax.jit(learner.adapt)({"params": params, "state": {}}, episode.support)
    y = jax.jit(lambda x: nets.apply_stream(layers[:1], params["phi"], x, task["layers"]))(x)
    assert y[0, 0, ..., 0].tolist() == [[132, 138], [192, 198]]


def test_the_order_of_the_numbers_is_that_of_the_filters() -> None:
    layers = (Layer("conv1", 64, window=5), Layer("out", 2, relu=False))
    learner = learnet(layers=layers, predicts=["conv1"])
    episode = pairs(0)
    params = start(learner, episode)["params"]
    head = params["omega"]["heads"]["conv1"]
    params["omega"]["heads"]["conv1"] = {"kernel": 0 * head["kernel"], "bias": jnp.arange(1600.0)}
    task = jax.jit(learner.adapt)({"params": params, "state": {}}, episode.support)
    assert task["layers"]["conv1"]["kernel"].shape == (3, 5, 5, 64)
    assert task["layers"]["conv1"]["kernel"][0, 1, 2, 3] == 451


def test_where_all_is_zero_no_pair_is_nearer_than_another() -> None:
    """All scores are the offset, 0; the loss is log 2, and gradients are finite."""
    learner = learnet(layers=SMALL, single_stream=False, comparison="euclidean")
    episode = pairs(1)
    variables = jax.tree.map(jnp.zeros_like, start(learner, episode))
    run = jax.value_and_grad(lambda v: learner.loss(v, episode, jax.random.key(0))[0])
    value, grads = jax.jit(run)(variables)
    assert float(value) == pytest.approx(0.693147, abs=1e-6)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


# Against the same, written exemplar by exemplar


def embedded(params: Any, given: Any, x: np.ndarray) -> jax.Array:
    """Pictures through SMALL, with plain kernels, by `lax`."""
    for layer in SMALL:
        own = {**params[layer.name], **given.get(layer.name, {})}
        kernel = own["kernel"]
        if "first" in own:
            kernel = jnp.einsum("ij,...j,jk->...ik", own["first"], kernel, own["last"])
        if layer.window:
            dimensions = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=dimensions
            )
        else:
            x = x.reshape(len(x), -1) @ kernel
        x = x + own["bias"]
        x = jnp.maximum(x, 0) if layer.relu else x
        x = nets.max_pool(x) if layer.pool else x
    return x


@pytest.mark.parametrize(
    "options",
    [
        {"single_stream": False, "predict_bias": True},
        {"predicts": ["conv1", "out"], "inner_width": 2, "gamma_predicts": "centre_and_weights"},
        {"factorised": False, "comparison": "euclidean", "gamma_head": "own_net"},
    ],
)
def test_scores_are_those_of_each_exemplars_own_network(options: dict[str, Any]) -> None:
    """Paired, and with queries that all exemplars share."""
    learner = learnet(layers=SMALL, way=3, **options)
    episode = pairs(2)
    variables = start(learner, episode)

    @jax.jit
    def run(variables: Any, episode: Episode) -> Any:
        z, x = episode.support.inputs, episode.query.inputs
        params = variables["params"]
        task = learner.adapt(variables, episode.support)
        paired = learner.predict(variables, task, x)
        of_classes = {**task, "member": jnp.eye(3, dtype=bool)}
        shared = learner.predict(variables, of_classes, x[0])
        rows = []
        for i in range(3):
            given = jax.tree.map(lambda w, i=i: w[i], task["layers"])
            a = task["exemplars"][i]
            if options.get("single_stream") is False:
                a = embedded(params["phi"], given, z[i : i + 1])[0]
            own = params["comparison"]
            if "weights" in task:
                own = {**own, "weights": own["weights"] * task["weights"][i]}
            kind = options.get("comparison", "weighted_l1")
            rows.append(
                [
                    nets.compare(kind, own, a, embedded(params["phi"], given, y))
                    for y in (x[i], x[0])
                ]
            )
        return (paired, shared.T), tuple(map(jnp.stack, zip(*rows, strict=True)))

    ours, desired = run(variables, episode)
    for a, b in zip(ours, desired, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


# Where a siamese network ended


@pytest.mark.parametrize(("shared", "single_stream"), [(False, True), (True, False)])
def test_a_learnet_that_begins_as_a_siamese_network_scores_as_it_does(
    shared: bool, single_stream: bool
) -> None:
    factorised = nets.stream(SMALL, factorised=["conv2"])
    trained = siamese(network=factorised, shared=shared)
    learner = learnet(layers=SMALL, single_stream=single_stream, head_scale=0.0)
    episode = pairs(3)
    before = start(trained, episode)
    variables = from_siamese(start(learner, episode), before, SMALL)
    ours, desired = scores(learner, variables, episode), scores(trained, before, episode)
    np.testing.assert_allclose(ours, desired, rtol=1e-9, atol=1e-9)
    other = siamese(network=nets.stream(SMALL))
    with pytest.raises(ValueError, match="the siamese network's layers are not the learnet's"):
        from_siamese(variables, start(other, episode), SMALL)


# What is refused


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"predicts": ["conv9"]}, "predicts names 'conv9'; the layers are conv1, conv2, conv3"),
        ({"gamma_head": "none"}, "gamma_head is 'none'; it is one of shared_trunk, from_filters"),
        ({"gamma_predicts": "all"}, "gamma_predicts is 'all'; it is one of centre, centre_and_w"),
        (
            {"gamma_predicts": "centre_and_weights", "comparison": "euclidean"},
            "only weighted_l1 of a single stream has weights to predict: set it to 'centre'",
        ),
        ({"w_bias_init": "ones"}, "w_bias_init is 'ones'; it is one of zeros, centre"),
        ({"comparison": "cosine"}, "comparison is 'cosine'; it is one of inner_product"),
        ({"kshot": "median"}, "kshot is 'median'; it is one of mean, max"),
        ({"inner_width": 0}, "inner_width is 0; it is at least 1"),
    ],
)
def test_arguments_outside_their_values_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(learnet(**wrong).init, jax.random.key(0), Episode(SHAPES, SHAPES))


def test_pictures_of_another_size_are_refused() -> None:
    learner = learnet()
    variables = jax.eval_shape(learner.init, jax.random.key(0), Episode(SHAPES, SHAPES))
    larger = SHAPES._replace(inputs=jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32))
    with pytest.raises(ValueError, match="give pictures of the size and channels that it was"):
        jax.eval_shape(learner.adapt, variables, larger)


def test_responses_are_what_the_layer_adds_up() -> None:
    """Through the last matrix they are the layer's outputs of each exemplar, before its bias."""
    episode = pairs(3)
    made = learnet(layers=SMALL, way=2, predicts=("conv1", "conv2"))
    variables = made.init(jax.random.key(0), episode)
    task = made.adapt(variables, episode.support)
    x, phi = episode.query.inputs[0, 0], variables["params"]["phi"]
    for name, upto in (("conv1", 0), ("conv2", 1)):
        found = filter_responses(variables, task, name, x, SMALL) @ phi[name]["last"]
        for i in range(3):
            told = jax.tree.map(lambda w, i=i: w[i], task["layers"])
            own = {layer: {**phi[layer], **told[layer]} for layer in told}
            seen = nets.apply_stream(SMALL[:upto], own, x[None])
            kernel = nets.assembled(own[name]["first"], own[name]["kernel"], own[name]["last"])
            np.testing.assert_allclose(found[i], nets.conv(seen, kernel, padding="VALID")[0])
    with pytest.raises(ValueError, match="out is no factorised convolution"):
        filter_responses(variables, task, "out", x, SMALL)
