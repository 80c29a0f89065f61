"""Metrics: exact counters inside jit, honest intervals outside."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import metrics
from metashot.base import Examples


def test_interval_of_two_accuracies_has_ddof_one() -> None:
    mean, half = metrics.mean_and_interval(np.array([40.0, 60.0]))
    assert mean == 50
    assert half == pytest.approx(19.6, abs=1e-9)
    assert half != pytest.approx(13.8592929, abs=1e-3)  # ddof 0


def test_interval_shrinks_with_the_root_of_the_count() -> None:
    values = np.random.default_rng(0).normal(size=600)
    mean, half = metrics.mean_and_interval(values)
    assert mean == pytest.approx(values.mean())
    assert half == pytest.approx(1.96 * values.std(ddof=1) / np.sqrt(600), rel=1e-9)


def test_one_figure_has_no_interval() -> None:
    mean, half = metrics.mean_and_interval(np.array([0.25]))
    assert mean == 0.25
    assert np.isnan(half)


def test_accuracy_counts_integers_per_episode_and_averages_the_shares() -> None:
    logits = jnp.array([[[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]], [[0.0, 1.0], [0.0, 1.0], [0.0, 9.0]]])
    targets = jnp.array([[0, 0, 0], [1, 0, -1]])
    mask = jnp.array([[True, True, True], [True, True, True]])
    query = Examples(jnp.zeros((2, 3, 1)), targets, mask)
    measures = jax.jit(jax.vmap(metrics.accuracy.measure))(logits, query, ())
    assert measures["correct"].dtype == measures["counted"].dtype == jnp.int32
    assert measures["correct"].tolist() == [2, 1]
    assert measures["counted"].tolist() == [3, 2]
    mean, half = metrics.accuracy.summary(measures)["accuracy"]
    assert mean == pytest.approx(7 / 12)
    assert half == pytest.approx(1.96 * np.std([2 / 3, 1 / 2], ddof=1) / np.sqrt(2))


def test_masked_queries_are_not_counted() -> None:
    query = Examples(jnp.zeros((2, 1)), jnp.array([0, 0]), jnp.array([True, False]))
    measures = jax.jit(metrics.accuracy.measure)(jnp.array([[1.0, 0.0]] * 2), query, ())
    assert (int(measures["correct"]), int(measures["counted"])) == (1, 1)


def test_an_episode_without_queries_scores_zero_not_nan() -> None:
    measures = {"correct": np.array([0]), "counted": np.array([0])}
    assert metrics.accuracy.summary(measures)["accuracy"][0] == 0


def test_a_trial_is_an_exemplar_of_a_paired_episode() -> None:
    """Right, wrong, one of two equal ones, all four equal; queries that don't count are no rivals.

    Without ties and with as many trials the interval is that of a share.
    """
    outputs = jnp.array([[3.0, 1, 2, 0], [3, 1, 2, 9], [1, 4, 4, 0], [5, 5, 5, 5], [7, 1, 0, 9]])
    targets = jnp.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]])
    mask = jnp.ones((5, 4), bool).at[4, 3].set(False)
    measures = metrics.one_shot.measure(outputs, Examples(outputs, targets, mask), ())
    assert measures["right"].tolist() == [1, 0, 0.5, 0.25, 1]
    stacked = jax.tree.map(lambda x: np.asarray(x)[None], measures)
    accuracy, error = metrics.one_shot.summary(stacked).values()
    assert accuracy[0] == pytest.approx(2.75 / 5)
    assert error == pytest.approx((2.25 / 5, accuracy[1]))
    nobody = Examples(outputs, targets, mask.at[0].set(False))
    told = metrics.one_shot.measure(outputs, nobody, ())
    assert told["trial"].tolist() == [False, True, True, True, True]


def test_a_trial_is_a_query_of_an_ordinary_episode() -> None:
    """A scorer to whom all classes are alike is wrong in 19 of 20 trials, whoever comes first."""
    targets = jnp.array([0, 7, 19, -1])
    query = Examples(targets, targets, jnp.array([True, True, False, True]))
    measures = metrics.one_shot.measure(jnp.zeros((4, 20)), query, ())
    assert measures["trial"].tolist() == [True, True, False, False]
    error = metrics.one_shot.summary(jax.tree.map(np.asarray, measures))["error"]
    assert error == pytest.approx((0.95, 0.0), abs=1e-6)
    unknown = jnp.full((4, 20), -jnp.inf).at[:, 7].set(0)
    told = metrics.one_shot.measure(unknown, query, ())
    assert told["right"].tolist()[:2] == [0, 1]
