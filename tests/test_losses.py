"""Losses over padded rows and a padded class axis."""

from __future__ import annotations

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
    masked_accuracy,
    masked_mean,
    masked_nll,
)

LOGITS = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0], [9.0, -9.0, 0.0], [2.0, 2.0, 1.0]])
TARGETS = np.array([1, 0, -1, 1])
MASK = np.array([True, True, True, False])

nll = jax.jit(jax.value_and_grad(masked_nll))


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
