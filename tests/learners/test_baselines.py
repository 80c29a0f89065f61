"""What every learner should beat: nearest neighbour."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot.base import Episode, Examples, Network
from metashot.learners.baselines import nearest_neighbor

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]

NOTHING = {"params": {}, "state": {}}


def examples(inputs: Any, targets: Any) -> Examples:
    targets = jnp.asarray(targets, jnp.int32)
    return Examples(jnp.asarray(inputs, float), targets, jnp.ones(len(targets), bool))


def logits(
    support: Examples, queries: Any, way: int, variables: Any = NOTHING, **options: Any
) -> Any:
    learner = nearest_neighbor(way=way, **options)

    @jax.jit
    def run(variables: Any, support: Examples, queries: jax.Array) -> jax.Array:
        return learner.predict(variables, learner.adapt(variables, support), queries)

    return np.asarray(run(variables, support, jnp.asarray(queries, float)))


def test_the_nearest_is_the_most_similar_by_cosine() -> None:
    """By Euclidean distance it would be the other class: 9.22 against 0.71."""
    support = examples([[10, 2], [0.5, 0.5]], [0, 1])
    scores = logits(support, [[1, 0]], way=2)
    np.testing.assert_allclose(scores, [[0.9805806757, 0.7071067812]], rtol=0, atol=1e-9)


def test_one_neighbour_decides_at_any_shot() -> None:
    """Neither the mean of a class (0.5 against 0.6 here) nor a vote."""
    support = examples([[1, 0], [0, 1], [0.6, 0.8], [0.6, -0.8]], [0, 0, 1, 1])
    scores = logits(support, [[1, 0]], way=2)
    np.testing.assert_allclose(scores, [[1, 0.6]], rtol=0, atol=1e-9)


def test_a_class_without_support_has_no_chance() -> None:
    support = examples([[-1, 0], [1, 1]], [2, 0])
    support = support._replace(mask=jnp.array([True, False]))
    scores = logits(support, [[1, 0]], way=3)
    assert np.isneginf(scores[0, :2]).all()
    assert scores[0, 2] == pytest.approx(-1, abs=1e-9)


def test_a_zero_vector_is_similar_to_nothing_and_has_a_finite_gradient() -> None:
    learner = nearest_neighbor(way=2)
    support = examples([[1, 0], [0, 0]], [0, 1])

    @jax.jit
    def run(query: jax.Array) -> Any:
        episode = Episode(support, examples(query, [0]))
        loss = lambda query: learner.loss(
            NOTHING, episode._replace(query=episode.query._replace(inputs=query)), jax.random.key(0)
        )[0]
        task = learner.adapt(NOTHING, support)
        return learner.predict(NOTHING, task, query), jax.grad(loss)(query)

    scores, grad = run(jnp.zeros((1, 2)))
    assert scores.tolist() == [[0, 0]]
    assert np.isfinite(grad).all()


def test_a_network_embeds_what_is_compared() -> None:
    swap = Network(
        init=lambda key, x: {"params": {"sign": jnp.array(-1.0)}, "state": {}},
        apply=lambda variables, x, *, train=False, mask=None: (
            x[:, ::-1] * jnp.array([variables["params"]["sign"], 1.0]),
            {},
        ),
    )
    support = examples([[0, 1], [1, 0]], [0, 1])  # embedded at (-1, 0) and (0, 1)
    variables = jax.jit(nearest_neighbor(network=swap).init)(
        jax.random.key(0), Episode(support, support)
    )
    scores = logits(support, [[0.6, 0.8]], way=2, variables=variables, network=swap)
    np.testing.assert_allclose(scores, [[0.8, 0.6]], rtol=0, atol=1e-9)
    changed = {"params": {"sign": jnp.array(1.0)}, "state": {}}
    same = logits(support, [[0.6, -0.8]], way=2, variables=changed, network=swap)
    np.testing.assert_allclose(same, [[-0.8, 0.6]], rtol=0, atol=1e-9)


def test_pixels_are_compared_flattened() -> None:
    pictures = np.random.default_rng(0).normal(size=(3, 2, 2, 1))
    support = examples(pictures, [0, 1, 2])
    assert logits(support, pictures, way=3).argmax(1).tolist() == [0, 1, 2]
    flat = logits(examples(pictures.reshape(3, 4), [0, 1, 2]), pictures.reshape(3, 4), way=3)
    np.testing.assert_allclose(logits(support, pictures, way=3), flat, rtol=1e-12)
