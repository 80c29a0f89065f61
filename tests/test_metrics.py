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


# Masks


def asked(*parts: tuple[int, int, list, list]) -> dict:
    """What is measured of (class, picture, truth, answer), each an episode of one query."""
    measured = []
    for number, picture, truth, answer in parts:
        logits = jnp.where(jnp.array([answer]) > 0, 0.5, 0.0)  # zero is background
        query = Examples(jnp.zeros((1, 1)), jnp.array([truth]), jnp.ones(1, bool))
        about = {"class": jnp.array(number), "pictures": jnp.array([picture])}
        measured.append(metrics.count_pixels(logits, query, about))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *measured)


TWO_CLASSES = (
    (0, 0, [[1, 1], [0, 0]], [[1, 0], [1, 0]]),
    (0, 1, [[1, 1], [1, 1]], [[1, 1], [1, 0]]),
    (3, 2, [[0, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]]),
)


def test_intersection_over_union_by_each_name() -> None:
    measures = asked(*TWO_CLASSES)
    assert measures["counts"].dtype == np.int32
    assert measures["counts"][:, 0].tolist() == [[1, 1, 1, 1], [3, 0, 1, 0], [0, 0, 1, 5]]
    assert metrics.class_iou(measures) == {0: pytest.approx(4 / 7), 3: 0}
    score = lambda metric: next(iter(metric.summary(measures).values()))[0]
    assert score(metrics.mean_iou()) == pytest.approx(0.285714, abs=1e-6)
    assert score(metrics.mean_iou(5)) == pytest.approx(0.114286, abs=1e-6)
    assert score(metrics.binary_iou) == pytest.approx(0.55)
    assert score(metrics.image_iou) == pytest.approx(0.361111, abs=1e-6)


def test_void_is_background_or_does_not_count() -> None:
    answer = [[1, 1, 0, 1]]
    background, ignored = [[1, 0, 0, 0]], [[1, -1, 0, 0]]
    found = [metrics.class_iou(asked((0, 0, truth, answer)))[0] for truth in (background, ignored)]
    assert found == pytest.approx([1 / 3, 1 / 2])


def test_padding_and_unknown_classes_count_no_foreground() -> None:
    query = Examples(jnp.zeros((2, 1)), jnp.ones((2, 1, 3), int), jnp.array([True, False]))
    about = {"class": 0, "pictures": jnp.arange(2)}
    counts = metrics.count_pixels(jnp.full((2, 1, 3), -jnp.inf), query, about)["counts"]
    assert counts.tolist() == [[0, 0, 3, 0], [0, 0, 0, 0]]


def test_sums_are_exact_beyond_single_precision() -> None:
    counts = np.tile(np.array([[[2**24 + 1, 0, 1, 0]]], np.int32), (99, 1, 1))
    measures = {"counts": counts, "class": np.zeros(99, int), "pictures": np.arange(99)[:, None]}
    assert metrics.class_iou(measures)[0] == (2**24 + 1) / (2**24 + 2)


def test_the_interval_is_a_bootstrap_over_pictures() -> None:
    """Equal pictures leave none; repeated queries of a picture do not narrow it."""
    rng = np.random.default_rng(0)
    hits = rng.integers(1, 10, 40)
    counts = np.stack([hits, 10 - hits, 0 * hits, 0 * hits], -1)[:, None].astype(np.int32)
    pictures = np.arange(40)[:, None]
    once = {"counts": counts, "class": np.zeros(40, int), "pictures": pictures}
    twice = {name: np.concatenate([value, value]) for name, value in once.items()}
    value, half = metrics.mean_iou().summary(once)["mean_iou"]
    assert value == pytest.approx(hits.mean() / 10)
    # All unions are 10: a mean of 40 numbers, whose spread is known.
    assert half == pytest.approx(1.96 * hits.std() / 10 / 40**0.5, rel=0.1)
    assert metrics.mean_iou().summary(twice)["mean_iou"] == pytest.approx((value, half))
    assert metrics.mean_iou().summary(once) == metrics.mean_iou().summary(once)
    same = {**once, "counts": np.repeat(counts[:1], 40, 0)}
    assert metrics.binary_iou.summary(same)["binary_iou"][1] == 0
