"""Losses over padded rows and a padded class axis."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from metashot.base import Examples
from metashot.losses import (
    classification_loss,
    counted,
    known_classes,
    lifted_structured,
    masked_accuracy,
    masked_mean,
    masked_nll,
    nca,
    pair_nll,
    proxy_nca,
)

LOGITS = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0], [9.0, -9.0, 0.0], [2.0, 2.0, 1.0]])
TARGETS = np.array([1, 0, -1, 1])
MASK = np.array([True, True, True, False])

nll = jax.jit(jax.value_and_grad(masked_nll))
paired = jax.jit(jax.value_and_grad(pair_nll))


def examples(targets: np.ndarray = TARGETS, mask: np.ndarray = MASK) -> Examples:
    return Examples(
        jnp.zeros((len(targets), 1)), jnp.asarray(targets, jnp.int32), jnp.asarray(mask)
    )


def test_rows_that_are_masked_or_without_target_do_not_count() -> None:
    assert counted(examples()).tolist() == [True, True, False, False]


def test_known_classes_are_those_with_an_example_that_counts() -> None:
    support = examples(np.array([0, 3, -1, 2]), MASK)
    known = jax.jit(known_classes, static_argnums=1)(support, 5)
    assert known.tolist() == [True, False, False, True, False]


def test_masked_mean_ignores_what_it_hides_even_infinities() -> None:
    values = jnp.array([1.0, 4.0, jnp.inf, jnp.nan])
    mean = jax.jit(jax.value_and_grad(masked_mean))
    value, grad = mean(values, jnp.array([True, True, False, False]))
    assert value == 2.5
    assert grad.tolist() == [0.5, 0.5, 0, 0]
    assert mean(values, jnp.zeros(4, bool))[0] == 0


def test_nll_is_the_mean_log_softmax_of_the_rows_that_count(float64: None) -> None:
    by_hand = -log_softmax(LOGITS, axis=1)[[0, 1], [1, 0]].mean()
    assert nll(jnp.asarray(LOGITS), examples())[0] == pytest.approx(by_hand, abs=1e-12)


def test_a_class_at_minus_infinity_takes_no_part(float64: None) -> None:
    wider = jnp.asarray(np.insert(LOGITS, 1, -np.inf, axis=1))
    shifted = examples(np.where(TARGETS > 0, TARGETS + 1, TARGETS))
    value, grad = nll(wider, shifted)
    plain, plain_grad = nll(jnp.asarray(LOGITS), examples())
    assert value == pytest.approx(float(plain), abs=1e-12)
    np.testing.assert_allclose(np.delete(grad, 1, axis=1), plain_grad, atol=1e-12)
    assert not np.asarray(grad)[:, 1].any()


def test_rows_that_do_not_count_pass_no_gradient_whatever_they_hold() -> None:
    logits = np.concatenate([LOGITS[:2], [[np.nan] * 3, [-np.inf] * 3]])
    value, grad = map(np.asarray, nll(jnp.asarray(logits), examples()))
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
    assert grad[:2].any()
    assert not grad[2:].any()


def test_with_nothing_to_count_loss_and_gradient_are_zero() -> None:
    nothing = examples(mask=np.zeros(4, bool))
    value, grad = nll(jnp.asarray(LOGITS), nothing)
    assert value == 0
    assert not np.asarray(grad).any()


def test_huge_logits_stay_finite() -> None:
    value, grad = nll(jnp.asarray(LOGITS * 1e30), examples())
    assert np.isfinite(value)
    assert np.isfinite(grad).all()


def test_accuracy_takes_the_first_of_equal_logits() -> None:
    tied = jnp.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    three = examples(np.array([0, 1, 1]), np.ones(3, bool))
    assert jax.jit(masked_accuracy)(tied, three) == pytest.approx(2 / 3)


def test_classification_loss_gives_loss_accuracy_and_state() -> None:
    state = {"mean": jnp.ones(2)}
    loss, aux = jax.jit(classification_loss)(jnp.asarray(LOGITS), examples(), state)
    assert loss == pytest.approx(float(nll(jnp.asarray(LOGITS), examples())[0]), rel=1e-6)
    assert aux.metrics == {"accuracy": 0.5}
    assert aux.state["mean"].tolist() == [1, 1]
    assert not jax.jit(classification_loss)(jnp.asarray(LOGITS), examples())[1].state


X, PROXIES = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8], [0.0, 1.0]])  # 0.8 and 2 apart


@pytest.mark.parametrize(
    ("include_positive", "loss"),
    [(False, -1.2), (True, 0.263282)],
    ids=["equation 2", "equation 4"],
)
def test_proxy_nca(float64: None, include_positive: bool, loss: float) -> None:
    """With the positive it is the softmax of cosines at scale 2, which equation 4 drops."""
    of = jax.jit(proxy_nca, static_argnames="include_positive")
    one = examples(np.array([0]), np.array([True]))
    assert of(X, PROXIES, one, include_positive=include_positive) == pytest.approx(loss, abs=1e-6)
    padded = examples(np.array([-1, 0, 1]), np.array([True, True, False]))
    rows = np.concatenate([X + 7, X, X - 7])
    assert of(rows, PROXIES, padded, include_positive=include_positive) == pytest.approx(
        loss, abs=1e-6
    )
    for scale, desired in ((2, 0.263282), (1, 0.437488)):
        softmax = nll(jnp.asarray(scale * X @ PROXIES.T), one)[0]
        assert float(softmax) == pytest.approx(desired, abs=1e-6)


def test_nca_is_against_the_examples_of_other_classes(float64: None) -> None:
    among = np.array([[True, False, True]])
    others = np.array([[0.0, 1.0], [9.0, 9.0], [-1.0, 0.0]])  # 2, far and 4 apart
    by_hand = 0.8 + np.log(np.exp(-2) + np.exp(-4))
    assert jax.jit(nca)(X, PROXIES[:1], others, among).tolist() == pytest.approx([by_hand])


lifted = jax.jit(jax.value_and_grad(lifted_structured))


def test_lifted_structured_loss_on_a_line(float64: None) -> None:
    """a at 0 and 1, b at 3: J = log(exp(-2) + exp(-1)) + 1 = 0.313262, the loss half its square."""
    batch = examples(np.array([0, 0, 1, 1, -1]), np.array([True, True, True, False, True]))
    value, grad = lifted(jnp.array([[0.0], [1], [3], [5], [2]]), batch)
    assert float(value) == pytest.approx(0.0490664, abs=1e-7)
    assert not grad[3:].any()
    # dJ / d(a at 0): -1 of the pair, and the pull of b, weighed by its share.
    share = np.exp(-2) / (np.exp(-2) + np.exp(-1))
    assert float(grad[0, 0]) == pytest.approx(0.313262 * (share - 1), abs=1e-6)


def test_lifted_structured_loss_counts_each_pair_once(float64: None) -> None:
    """A loop over the pairs of a random batch."""
    rng = np.random.default_rng(0)
    z, targets = rng.normal(size=(9, 3)), np.arange(9) % 3
    d = np.linalg.norm(z[:, None] - z, axis=-1)
    terms = []
    for i in range(9):
        for j in range(i + 1, 9):
            if targets[i] == targets[j]:
                pulls = [np.exp(1 - d[k, targets != targets[k]]).sum() for k in (i, j)]
                terms.append(max(0, np.log(sum(pulls)) + d[i, j]) ** 2)
    assert len(terms) == 9
    value, _ = lifted(z, examples(targets, np.ones(9, bool)))
    assert float(value) == pytest.approx(np.mean(terms) / 2, abs=1e-9)


@pytest.mark.parametrize("targets", [[0, 1, 2], [0, 0, 0], [0, 0, 1], [-1, -1, -1]])
def test_lifted_structured_loss_is_finite_where_it_is_degenerate(targets: list[int]) -> None:
    """Without pairs, without negatives, at one point, without rows."""
    value, grad = lifted(jnp.ones((3, 2)), examples(np.array(targets), np.ones(3, bool)))
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
    assert (value > 0) == (targets == [0, 0, 1])


# Pairs of a query and a support example


def pairs(
    similar: list[list[float]], support: list[int], queries: list[int]
) -> tuple[float, np.ndarray]:
    """The sum over all pairs, as the paper has it, and its gradient."""
    way = 1 + max(support)
    member = jax.nn.one_hot(jnp.array(support), way, dtype=bool)
    query = examples(np.array(queries), np.ones(len(queries), bool))
    count = sum(support.count(c) for c in queries)
    value, grad = paired(jnp.array(similar, float), member, query)
    return count * float(value), count * np.asarray(grad)


@pytest.mark.parametrize(
    ("similar", "support", "queries", "expected"),
    [
        ([[2, 0]], [0, 1], [0], 0.126928),
        ([[2, 0], [1, 3]], [0, 1], [0, 1], 0.253856),
        ([[1.731059, 0.268941], [0.588259, 1.611741]], [0, 1], [0, 1], 0.515432),
        ([[2, 1, 0, 0]], [0, 0, 1, 1], [0], 1.987623),
        ([[0] * 25], [*range(5)] * 5, [3], 16.094379),  # 5-way 5-shot
        ([[0] * 5], [*range(5)], [3], 1.609438),
    ],
)
def test_pairs_by_hand(similar: Any, support: Any, queries: Any, expected: float) -> None:
    assert pairs(similar, support, queries)[0] == pytest.approx(expected, abs=2e-6)


def test_an_example_with_more_than_its_share_is_pushed_down() -> None:
    """Where the class alone is asked for, all its examples are pulled."""
    _, grad = pairs([[2, 1, 0, 0]], [0, 0, 1, 1], [0])
    assert grad[0].tolist() == pytest.approx([0.220591, -0.550970, 0.165189, 0.165189], abs=2e-6)

    @jax.jit
    @jax.value_and_grad
    def class_sum(similar: jax.Array) -> jax.Array:
        by_class = jax.nn.logsumexp(similar.reshape(1, 2, 2), axis=2)
        return masked_nll(by_class, examples(np.array([0]), np.ones(1, bool)))

    value, grad = class_sum(jnp.array([2.0, 1, 0, 0]))
    assert float(value) == pytest.approx(0.180550, abs=2e-6)
    assert grad.tolist() == pytest.approx([-0.120763, -0.044426, 0.082595, 0.082595], abs=2e-6)


def test_pairs_of_what_does_not_count_are_left_out() -> None:
    """A support row, a query, a class without support; and all of them."""
    member = jnp.array([[1, 0], [0, 1], [0, 0]], bool)
    query = examples(np.array([0, 1, -1, 1]), np.array([True, True, True, False]))
    rows = [[2.0, 0, 9], [1, 3, 9], [5, 5, 5], [5, 5, 5]]
    value, grad = paired(jnp.array(rows), member, query)
    assert float(value) == pytest.approx(0.126928, abs=2e-6)
    assert not np.any(grad[:, 2])
    assert not np.any(grad[2:])
    value, grad = paired(jnp.array(rows), member & False, query)
    assert value == 0
    assert not np.any(grad)
