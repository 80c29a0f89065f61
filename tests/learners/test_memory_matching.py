"""Memory matching networks: numbers worked out by hand, and what is refused."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot.base import Episode, Examples, Learner
from metashot.learners.memory_matching import memory_matching, paper, writing_order

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = {"filters": 2, "blocks": 2, "key_size": 3, "hidden": 2}


def pictures(seed: int, targets: Any) -> Examples:
    targets = np.asarray(targets, np.int32)
    inputs = np.random.default_rng(seed).normal(size=(len(targets), 4, 4, 1))
    return Examples(inputs.astype(np.float32), targets, np.ones(len(targets), bool))


class Small(NamedTuple):
    """A learner of three classes, of which its episode shows two."""

    learner: Learner
    variables: Any
    adapt: Any  # jitted
    predict: Any
    episode: Episode


def made(**options: Any) -> Small:
    learner = memory_matching(way=3, **{**SMALL, **options})
    episode = Episode(pictures(0, [0, 1, 0, 1]), pictures(1, [1, 0]))
    variables = jax.jit(learner.init)(jax.random.key(0), episode)
    return Small(learner, variables, jax.jit(learner.adapt), jax.jit(learner.predict), episode)


@pytest.fixture(scope="module")
def small(quick_compile: None) -> Small:
    return made()


@pytest.mark.parametrize(
    ("picture", "options", "count"),
    [
        ((28, 28, 1), paper(), 4_679_104),
        ((84, 84, 3), paper(), 6_253_120),
        ((28, 28, 1), {**paper(), "share_trunk": False}, 4_753_984),
        ((84, 84, 3), {**paper(), "share_trunk": False}, 6_329_152),
        ((28, 28, 1), {}, 4_715_968),  # and a convolution's 9 * 64 * 64
    ],
)
def test_counts_of_parameters(picture: Any, options: Any, count: int) -> None:
    rows: Any = jax.ShapeDtypeStruct
    part = Examples(rows((5, *picture), jnp.float32), rows((5,), jnp.int32), rows((5,), bool))
    learner = memory_matching(**options)
    variables = jax.eval_shape(learner.init, jax.random.key(0), Episode(part, part))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == count
    task = jax.eval_shape(learner.adapt, variables, part)
    assert task["embeddings"].shape == (5, 64 if picture[0] == 28 else 1600)
    assert task["filters"].shape == (3, 3, 64)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("nearest", [2, 1.9]), ("class_sum", np.log([8.389056, 13.371789]))],
)
def test_the_nearest_example_and_the_largest_sum_may_disagree(
    prediction: str, expected: Any
) -> None:
    """A query that is 1 everywhere: similarities are the embeddings."""
    one = made(filters=1, contextual=False, prediction=prediction, **paper())
    block = one.variables["params"]["query"]["ConvBlock_0"]
    block |= {"scale": jnp.zeros(1), "shift": jnp.ones(1)}
    task = {
        "embeddings": jnp.array([[2], [0], [1.9], [1.9]]),
        "member": jnp.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], bool),
    }
    logits = one.predict(one.variables, task, pictures(0, [0]).inputs)
    np.testing.assert_allclose(logits[0], [*expected, -np.inf], rtol=1e-6)


@pytest.mark.parametrize(
    ("order", "rows"),
    [
        ("class_major", [1, 4, 2, 6, 0, 5]),
        ("round_robin", [1, 2, 0, 4, 6, 5]),
        ("given", [0, 1, 2, 4, 5, 6]),
    ],
)
def test_the_order_of_writing(order: str, rows: list[int]) -> None:
    """Of the fourth row, which does not count, nothing is asked."""
    labels = jnp.array([2, 0, 1, 0, 0, 2, 1])
    counts = jnp.arange(7) != 3
    told = writing_order(labels, counts, order)
    assert [i for i in told.tolist() if i != 3] == rows


def test_queries_pass_through_the_filters_that_the_support_predicts() -> None:
    one = made(**paper())
    task, other = (one.adapt(one.variables, pictures(seed, [0, 1, 0, 1])) for seed in (0, 1))
    assert np.abs(task["filters"] - other["filters"]).max() > 1e-3
    swapped = {**task, "filters": other["filters"]}
    query = one.episode.query.inputs
    logits = [one.predict(one.variables, told, query)[:, :2] for told in (task, swapped)]
    assert np.abs(logits[0] - logits[1]).max() > 1e-4


def test_both_roles_begin_with_one_embedding(small: Small) -> None:
    """A support picture that comes back as a query has a cosine of 1 with itself, at scale 20."""
    support = pictures(3, [0, 1, 2])
    without = lambda path, x: 0 * x if path[-1].key == "bias" else x  # as training takes it out
    for one in (small, made(contextual=False)):
        variables = jax.tree_util.tree_map_with_path(without, one.variables)
        logits = one.predict(variables, one.adapt(variables, support), support.inputs)
        np.testing.assert_allclose(np.diag(logits), 20, rtol=1e-5)


def test_what_is_predicted_is_added_to_a_convolution(small: Small) -> None:
    """Filters of 1 in the middle and 0 around it: the product of the two matrices is added."""
    params = small.variables["params"]
    query = params["query"]
    task = small.adapt(small.variables, small.episode.support)
    task = {**task, "filters": jnp.zeros((3, 3, 2)).at[1, 1].set(1)}
    middle = query["kernel"].at[1, 1].add(query["first"] @ query["last"])
    moved = {**params, "query": {**query, "kernel": middle}}
    inputs = small.episode.query.inputs
    without = {**task, "filters": jnp.zeros((3, 3, 2))}
    np.testing.assert_allclose(
        small.predict(small.variables, task, inputs)[:, :2],
        small.predict({**small.variables, "params": moved}, without, inputs)[:, :2],
        rtol=1e-5,
    )
    assert np.abs(task["filters"] - without["filters"]).max() == 1


def test_all_that_starts_at_zero_is_learned(small: Small) -> None:
    grad = jax.jit(jax.grad(small.learner.loss, has_aux=True))
    told, _ = grad(small.variables, small.episode, jax.random.key(0))
    assert np.any(told["params"]["values"])
    assert np.any(told["params"]["context"]["filters"])


def test_too_few_slots_blur_the_keys_and_keep_the_labels() -> None:
    """A class without a slot of its own is answered all the same."""
    one = made(slots=1)
    task = one.adapt(one.variables, pictures(5, [0, 1, 2]))
    assert task["member"].tolist() == np.eye(3, dtype=bool).tolist()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(task))


def test_the_loss_of_uniform_similarities_is_log_of_the_examples(small: Small) -> None:
    params = small.variables["params"]
    blank = {**params["query"], "scale": jnp.zeros(2), "shift": jnp.zeros(2)}
    variables = {**small.variables, "params": {**params, "query": blank}}
    loss, _ = jax.jit(small.learner.loss)(variables, small.episode, jax.random.key(0))
    assert float(loss) == pytest.approx(np.log(4), rel=1e-6)


# Bad input


@pytest.mark.parametrize(
    ("targets", "mask", "message"),
    [
        ([], [], "the support has no examples, so there is nothing to match with"),
        ([0, 1], [False, False], "no example of the support counts"),
        ([0, 3], [True, True], "the support has label 3, but way=3 ends at 2"),
        ([0, -2], [True, True], "the support has label -2; only -1 marks what does not count"),
    ],
)
def test_a_support_that_cannot_be_is_refused(
    small: Small, targets: Any, mask: Any, message: str
) -> None:
    support = pictures(0, targets)._replace(mask=np.asarray(mask, bool))
    with pytest.raises(ValueError, match=message):
        small.learner.adapt(small.variables, support)
    episode = small.episode._replace(support=support)
    with pytest.raises(ValueError, match=message):
        small.learner.loss(small.variables, episode, jax.random.key(0))


def test_query_labels_beyond_the_last_class_are_refused(small: Small) -> None:
    episode = small.episode._replace(query=pictures(1, [0, 3]))
    with pytest.raises(ValueError, match="the queries have label 3, but way=3 ends at 2"):
        small.learner.loss(small.variables, episode, jax.random.key(0))


def test_a_support_that_a_jitted_function_closes_over_has_values(small: Small) -> None:
    wrong = pictures(0, [0, 3])
    adapt = lambda support: jax.eval_shape(lambda: small.learner.adapt(small.variables, support))
    assert adapt(small.episode.support)["member"].shape == (4, 3)
    with pytest.raises(ValueError, match="the support has label 3"):
        adapt(wrong)


def test_labels_beyond_the_last_class_do_not_count_under_jit(small: Small) -> None:
    support = pictures(0, [0, 1, 2, 3])
    far = support.inputs.copy()
    far[3] = 1e3
    told = small.adapt(small.variables, support)
    moved = small.adapt(small.variables, support._replace(inputs=far))
    assert told["member"].tolist() == np.eye(4, 3, dtype=bool).tolist()
    np.testing.assert_array_equal(told["filters"], moved["filters"])


def test_a_class_without_examples_is_never_answered(small: Small) -> None:
    task = small.adapt(small.variables, small.episode.support)
    logits = small.predict(small.variables, task, small.episode.query.inputs)
    assert np.isneginf(logits[:, 2]).all()
    assert np.isfinite(logits[:, :2]).all()


def test_no_queries_are_refused(small: Small) -> None:
    none = jax.tree.map(lambda x: x[:0], small.episode.query)
    said = "there are no queries: there is nothing to answer"
    with pytest.raises(ValueError, match=said):
        small.learner.loss(small.variables, small.episode._replace(query=none), jax.random.key(0))
    task = small.adapt(small.variables, small.episode.support)
    with pytest.raises(ValueError, match=said):
        small.learner.predict(small.variables, task, none.inputs)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"support_order": "sorted"},
            "support_order is 'sorted'; it is one of class_major, round_",
        ),
        ({"similarity": "l2"}, "similarity is 'l2'; it is one of cosine, dot"),
        ({"loss_form": "mean"}, "loss_form is 'mean'; it is one of per_sample, class_sum"),
        ({"prediction": "mean"}, "prediction is 'mean'; it is one of nearest, class_sum"),
        ({"blocks": 1}, "blocks is 1; it is at least 2"),
        ({"slots": 0}, "slots is 0; it is at least 1"),
        ({"hidden": 0}, "hidden is 0; it is at least 1"),
        ({"key_norm": "raw"}, "key_norm is 'raw'; it is one of paper, store, unit"),
    ],
)
def test_arguments_outside_their_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        memory_matching(**wrong)
