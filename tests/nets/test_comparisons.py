"""Comparisons of embeddings: numbers worked out by hand, in double precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets
from metashot.nets import comparisons

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]


def gradients(f: Any, *args: Any) -> list[list[float]]:
    grad = jax.grad(f, argnums=tuple(range(len(args))))
    return [x.tolist() for x in grad(*(jnp.asarray(a, float) for a in args))]


def test_weighted_l1() -> None:
    """The entries that are alike have no gradient, where `jnp.abs` would have one."""
    a, b, w = [1, 2, 3], [1, 0, 5], [2, -1, 0.5]
    distance = lambda a, b, w: -comparisons.weighted_l1(a, b, w)
    assert float(distance(*map(jnp.asarray, (a, b, w)))) == 3
    assert gradients(distance, a, b, w) == [[0, 1, -0.5], [0, -1, 0.5], [0, -2, 2]]


def test_euclidean_also_where_both_are_the_same() -> None:
    distance = lambda a, b: -comparisons.euclidean(a, b)
    assert float(distance(jnp.array([3.0, 0]), jnp.array([0.0, 4]))) == 5
    away, towards = gradients(distance, [3, 0], [0, 4])
    assert away == pytest.approx([0.6, -0.8], rel=1e-12)
    assert towards == pytest.approx([-0.6, 0.8], rel=1e-12)
    assert float(distance(jnp.ones(2), jnp.ones(2))) == 0
    assert gradients(distance, [1, 1], [1, 1]) == [[0, 0], [0, 0]]


def test_the_comparison_decides_who_is_nearest() -> None:
    z, candidates = jnp.ones(2), jnp.array([[1, 0], [0.6, 0.8], [2, 2]])
    l1 = lambda w: comparisons.weighted_l1(z, candidates, jnp.array(w)).tolist()
    close = {"rel": 0, "abs": 1e-6}
    assert comparisons.inner_product(z, candidates).tolist() == pytest.approx([1, 1.4, 4], **close)
    distances = comparisons.euclidean(z, candidates).tolist()
    assert distances == pytest.approx([-1, -0.447214, -1.414214], **close)
    assert l1([3, 0.1]) == pytest.approx([-0.1, -1.22, -3.1], **close)
    assert l1([1.0, 1]) == pytest.approx([-1, -0.6, -2], **close)


def test_kochs_weights_have_a_sign() -> None:
    weights, offset = jnp.array([-1.0, -2]), jnp.ones(())
    others = jnp.array([[1.0, 1], [0, 1], [2, 0]])
    params = {"weights": weights, "offset": offset}
    scores = nets.compare("signed_l1", params, jnp.array([0.0, 1]), others)
    chances = jax.nn.sigmoid(scores)
    np.testing.assert_allclose(chances, [0.5, 0.7310585786, 0.0474258732], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", nets.COMPARISONS)
def test_a_score_starts_as_the_similarity(kind: str) -> None:
    a, b = jnp.array([1.0, 2]), jnp.array([3.0, -1])
    expected = {"inner_product": 1, "euclidean": -(13**0.5), "weighted_l1": -5, "signed_l1": -2.5}
    params = nets.init_comparison(kind, 2)
    assert float(nets.compare(kind, params, a, b)) == pytest.approx(expected[kind], rel=1e-12)
    assert sum(x.size for x in jax.tree.leaves(params)) == (3 if "l1" in kind else 2)
    fixed = nets.init_comparison(kind, 2, learn_gain=False, learn_offset=False)
    assert float(nets.compare(kind, fixed, a, b)) == pytest.approx(expected[kind], rel=1e-12)
    assert set(fixed) == ({"weights"} if "l1" in kind else set())


@pytest.mark.parametrize("kind", ["euclidean", "weighted_l1"])
def test_a_calibrated_start_scores_0_in_the_mean_and_2_where_nothing_differs(kind: str) -> None:
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.normal(size=(5, 1, 8))), jnp.asarray(rng.normal(size=(7, 8)))
    params = nets.calibrated(kind, nets.init_comparison(kind, 8), a, b)
    assert float(nets.compare(kind, params, a, b).mean()) == pytest.approx(0, abs=1e-6)
    assert float(nets.compare(kind, params, a, a).mean()) == pytest.approx(2, abs=1e-6)
    same = nets.init_comparison("inner_product", 8)
    assert nets.calibrated("inner_product", same, a, b) is same


def test_an_unknown_comparison_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="comparison is 'cosine'; it is one of inner_product, euc"):
        nets.init_comparison("cosine", 3)
