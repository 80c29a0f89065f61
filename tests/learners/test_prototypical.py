"""Prototypical networks: numbers worked out by hand, in double precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets
from metashot.base import Episode, Examples, Network
from metashot.learners.prototypical import prototypical

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]

IDENTITY = Network(
    init=lambda key, x: {"params": {}, "state": {}},
    apply=lambda variables, x, *, train=False, mask=None: (x, {}),
)
NOTHING = {"params": {}, "state": {}}


def examples(inputs: Any, targets: Any) -> Examples:
    inputs = inputs if isinstance(inputs, jax.Array) else np.asarray(inputs, float)
    return Examples(inputs, np.asarray(targets, np.int32), np.ones(len(targets), bool))


# Class A lies at (0, 0) and (2, 0), class B at (0, 2) and (0, 4); the query is (1, 1), of A.
EPISODE = Episode(examples([[0, 0], [2, 0], [0, 2], [0, 4]], [0, 0, 1, 1]), examples([[1, 1]], [0]))


@pytest.fixture(scope="module")
def answer() -> Any:
    learner = prototypical(network=IDENTITY, way=3)

    def run(episode: Episode) -> Any:
        def loss(support: jax.Array, query: jax.Array) -> jax.Array:
            moved = Episode(
                episode.support._replace(inputs=support), episode.query._replace(inputs=query)
            )
            return learner.loss(NOTHING, moved, jax.random.key(0))[0]

        value, grads = jax.value_and_grad(loss, argnums=(0, 1))(
            episode.support.inputs, episode.query.inputs
        )
        task = learner.adapt(NOTHING, episode.support)
        return task, learner.predict(NOTHING, task, episode.query.inputs), value, grads

    with jax.enable_x64(True):
        return jax.jit(run)(EPISODE)


def test_prototypes_are_the_means_of_their_classes(answer: Any) -> None:
    task = answer[0]
    assert task["prototypes"][:2].tolist() == [[1, 0], [0, 3]]
    assert task["known"].tolist() == [True, True, False]


def test_logits_are_negative_squared_distances(answer: Any) -> None:
    logits = answer[1]
    assert logits.tolist() == [[-1, -5, -np.inf]]
    p = np.exp(logits[0]) / np.exp(logits[0]).sum()
    assert p.tolist() == pytest.approx([0.9820137900, 0.0179862100, 0], abs=1e-9)


def test_the_linear_form_gives_the_same_probabilities(answer: Any) -> None:
    """2 p . q - |p|^2 differs from -|q - p|^2 by |q|^2, the same for every class."""
    task, logits = answer[:2]
    p, q = np.asarray(task["prototypes"][:2]), np.array([1.0, 1.0])
    linear = 2 * p @ q - (p**2).sum(1)
    assert linear.tolist() == [1, -3]
    assert (linear - np.asarray(logits[0, :2])).tolist() == [2, 2]


def test_loss_and_gradients(answer: Any) -> None:
    _, _, loss, (by_support, by_query) = answer
    assert float(loss) == pytest.approx(0.0181499279, abs=1e-9)
    a, b = [0, -0.0179862100], [0.0179862100, -0.0359724199]
    np.testing.assert_allclose(by_support, [a, a, b, b], rtol=0, atol=1e-9)
    np.testing.assert_allclose(by_query, [[-0.0359724199, 0.1079172598]], rtol=0, atol=1e-9)


def test_the_gradient_is_finite_where_a_query_is_its_prototype() -> None:
    learner = prototypical(network=IDENTITY, way=2)
    support = examples([[1, 1], [1, 1]], [0, 1])

    @jax.jit
    def grad(query: jax.Array) -> jax.Array:
        loss = lambda query: learner.loss(
            NOTHING, Episode(support, examples(query, [0])), jax.random.key(0)
        )[0]
        return jax.grad(loss)(query)

    assert grad(jnp.ones((1, 2))).tolist() == [[0, 0]]


def test_support_and_query_share_one_batch_norm_in_training() -> None:
    """The loss is what joint statistics give, and the state moves by these, unbiased."""
    network = nets.conv4(2, blocks=1)
    rng = np.random.default_rng(0)
    support = examples(rng.normal(size=(4, 4, 4, 1)), [0, 1, 0, 1])
    query = examples(rng.normal(size=(2, 4, 4, 1)) * 3 + 1, [1, 0])
    learner = prototypical(network=network, way=2, bn_new_weight=0.3)
    variables = network.init(jax.random.key(0), support.inputs)

    @jax.jit
    def run(variables: Any) -> Any:
        loss, aux = learner.loss(variables, Episode(support, query), jax.random.key(0))
        x = jnp.concatenate([support.inputs, query.inputs])
        z, stats = network.apply(variables, x, train=True)
        return loss, aux.state, z, stats

    loss, state, z, stats = run(variables)
    z = np.asarray(z)
    means = np.stack([z[[0, 2]].mean(0), z[[1, 3]].mean(0)])
    logits = -((z[4:, None] - means) ** 2).sum(-1)
    by_hand = np.mean(np.log(np.exp(logits).sum(1)) - logits[[0, 1], [1, 0]])
    assert float(loss) == pytest.approx(by_hand, abs=1e-9)
    batch, moved = stats["ConvBlock_0"], state["ConvBlock_0"]
    n = 6 * 4 * 4
    np.testing.assert_allclose(moved["mean"], 0.3 * batch["mean"], atol=1e-12)
    np.testing.assert_allclose(moved["var"], 0.7 + 0.3 * batch["var"] * n / (n - 1), atol=1e-12)
