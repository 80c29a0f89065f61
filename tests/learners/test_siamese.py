"""Siamese networks: numbers worked out by hand, in double precision."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets
from metashot.base import Episode, Examples, Network
from metashot.learners.siamese import siamese
from metashot.losses import logistic_loss

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]

IDENTITY = Network(
    init=lambda key, x: {"params": {}, "state": {}},
    apply=lambda variables, x, *, train=False, mask=None, key=None: (x.reshape(len(x), -1), {}),
)


def pictures(*vectors: Any) -> np.ndarray:
    """[..., 1, 1, d]: their embedding is the vector itself."""
    return np.asarray(vectors, float)[..., None, None, :]


def examples(inputs: np.ndarray, targets: Any) -> Examples:
    targets = np.asarray(targets, np.int32)
    return Examples(inputs, targets, np.ones(targets.shape, bool))


def variables_of(**comparison: Any) -> Any:
    own = {name: jnp.asarray(value, float) for name, value in comparison.items()}
    return {"params": {"networks": {"both": {}}, "comparison": own}, "state": {"both": {}}}


@functools.partial(jax.jit, static_argnums=0)
def scores(learner: Any, variables: Any, support: Examples, queries: Any) -> jax.Array:
    return learner.predict(variables, learner.adapt(variables, support), queries)


KOCH = variables_of(weights=[-1, -2], offset=1)
Z, X = pictures([0, 1]), pictures([1, 1], [0, 1], [2, 0])


def test_pairs_are_scored_one_by_one() -> None:
    """Chances of a match 0.5, 0.731 and 0.047; each query belongs to its own exemplar."""
    learner = siamese(network=IDENTITY, comparison="signed_l1")
    exemplars = examples(np.concatenate([Z, Z + 1]), [0, 1])
    told = scores(learner, KOCH, exemplars, np.stack([X, X + 1]))
    assert told.tolist() == [[0, 1, -3]] * 2
    chances = 1 / (1 + np.exp(-told[0]))
    np.testing.assert_allclose(chances, [0.5, 0.7310585786, 0.0474258732], rtol=0, atol=1e-9)


def test_the_loss_of_pairs_is_the_logistic_one() -> None:
    """At a chance of 1/2 either label costs log 2; padding and -1 cost nothing."""
    learner = siamese(network=IDENTITY, comparison="signed_l1")

    run = jax.jit(learner.loss)

    def loss(targets: Any, mask: Any = True) -> tuple[float, float]:
        query = examples(X[None], [targets])
        query = query._replace(mask=query.mask & np.asarray(mask))
        episode = Episode(examples(Z, [0]), query)
        value, aux = run(KOCH, episode, jax.random.key(0))
        return float(value), float(aux.metrics["accuracy"])

    close = {"rel": 0, "abs": 1e-9}
    for label in (0, 1):
        assert loss([label, -1, -1])[0] == pytest.approx(0.6931471806, **close)
    each = [0.6931471806, 0.3132616875, 0.0485873516]
    assert loss([1, 1, 0]) == pytest.approx((sum(each) / 3, 2 / 3), **close)
    assert loss([1, 1, 0], [[True, True, False]])[0] == pytest.approx(sum(each[:2]) / 2, **close)


@pytest.mark.parametrize(("kshot", "winner"), [("mean", 1), ("max", 0)])
def test_several_exemplars_of_a_class(kshot: str, winner: int) -> None:
    """Chances 0.9 and 0.1 of one class, 0.6 and 0.5 of the other: means 0.5 and 0.55."""
    chances = np.array([0.9, 0.1, 0.6, 0.5])
    odds = np.log(chances / (1 - chances))
    learner = siamese(network=IDENTITY, way=3, comparison="inner_product", kshot=kshot)
    variables = variables_of(log_gain=0, offset=0)
    exemplars = examples(pictures(*odds[:, None]), [0, 0, 1, 1])
    logits = np.asarray(scores(learner, variables, exemplars, pictures([1.0]))[0])
    assert logits.argmax() == winner
    assert np.isneginf(logits[2])
    if kshot == "mean":
        np.testing.assert_allclose(1 / (1 + np.exp(-logits[:2])), [0.5, 0.55], atol=1e-12)


def test_ordinary_episodes_are_trained_by_the_softmax_over_classes() -> None:
    """One exemplar a class: the logits are the scores, 0 and 1."""
    learner = siamese(network=IDENTITY, way=2, comparison="signed_l1")
    episode = Episode(examples(X[:2], [0, 1]), examples(Z, [1]))
    value, aux = jax.jit(learner.loss)(KOCH, episode, jax.random.key(0))
    assert float(value) == pytest.approx(np.log1p(np.exp(-1)), rel=1e-12)
    assert float(aux.metrics["accuracy"]) == 1


def test_ordinary_episodes_are_trained_by_the_logistic_loss_of_all_pairs() -> None:
    """Scores 0, 1 and -3, of which 1 is that of a match: it counts as much as the other two."""
    learner = siamese(network=IDENTITY, way=3, comparison="signed_l1", episode_loss="logistic")
    query = examples(np.concatenate([Z, Z]), [1, 0])._replace(mask=np.array([True, False]))
    episode = Episode(examples(X, [0, 1, 2]), query)
    value, aux = jax.jit(learner.loss)(KOCH, episode, jax.random.key(0))
    wanted = (0.3132616875 + (0.6931471806 + 0.0485873516) / 2) / 2
    assert float(value) == pytest.approx(wanted, rel=0, abs=1e-9)
    assert float(aux.metrics["accuracy"]) == 1


def test_the_unshared_streams_have_weights_and_statistics_of_their_own() -> None:
    learner = siamese(network=nets.conv4(2, blocks=1), shared=False, bn_new_weight=1.0)
    rng = np.random.default_rng(0)
    support = examples(rng.normal(size=(2, 4, 4, 1)), [0, 1])
    query = examples(5 + rng.normal(size=(2, 3, 4, 4, 1)), np.zeros((2, 3)))
    episode = Episode(support, query)
    variables = jax.jit(learner.init)(jax.random.key(0), episode)
    networks = variables["params"]["networks"]
    assert set(networks) == {"exemplar", "query"}
    kernels = [networks[role]["ConvBlock_0"]["kernel"] for role in networks]
    assert np.any(kernels[0] != kernels[1])
    _, aux = jax.jit(learner.loss)(variables, episode, jax.random.key(0))
    means = [aux.state[role]["ConvBlock_0"]["mean"] for role in networks]
    assert np.abs(means[1] - means[0]).max() > 0.5


def test_the_logistic_loss_and_its_gradient() -> None:
    run = jax.jit(jax.value_and_grad(lambda s, query: logistic_loss(s, query)[0]))

    def loss(score: float, target: int) -> tuple[float, float]:
        value, grad = run(jnp.full((1, 1), score), examples(np.zeros((1, 1)), [[target]]))
        return float(value), float(grad[0, 0])

    close = {"rel": 0, "abs": 1e-6}
    assert loss(0.0, 1) == pytest.approx((0.693147, -0.5), **close)
    assert loss(0.0, 0) == pytest.approx((0.693147, 0.5), **close)
    assert loss(2.0, 1) == pytest.approx((0.126928, -0.119203), **close)
    assert loss(2.0, 0)[0] == pytest.approx(2.126928, **close)
    assert loss(-3.0, 1)[0] == pytest.approx(3.048587, **close)
    assert loss(-1000.0, 1) == (1000, -1)
    assert loss(5.0, -1) == (0, 0)


def test_the_default_networks_count_as_in_the_paper() -> None:
    part = Examples(
        jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32),
        jax.ShapeDtypeStruct((1,), jnp.int32),
        jax.ShapeDtypeStruct((1,), bool),
    )
    factorised = nets.stream(factorised=["conv2"])
    narrow = nets.stream(factorised=["conv2"], inner_width=16)
    for options, parameters in (
        ({"comparison": "euclidean"}, 550_880 + 2),
        ({"shared": False}, 1_101_760 + 513),
        ({"shared": False, "network": factorised}, 1_064_000 + 513),
        ({"shared": False, "network": narrow}, 1_053_920 + 513),
    ):
        shapes = jax.eval_shape(siamese(**options).init, jax.random.key(0), Episode(part, part))
        assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == parameters


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"comparison": "cosine"}, "comparison is 'cosine'; it is one of inner_product, euclidean"),
        ({"kshot": "median"}, "kshot is 'median'; it is one of mean, max"),
        ({"episode_loss": "l2"}, "episode_loss is 'l2'; it is one of softmax, logistic"),
    ],
)
def test_arguments_outside_their_values_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        siamese(**wrong)
