"""Episodes with masks: who is drawn how often, what is support and what is asked, fixed lists."""

from __future__ import annotations

import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot.base import Learner, Network
from metashot.data import (
    encoded,
    from_masks,
    joined,
    listed,
    mask_batches,
    mask_episodes,
    official_pairs,
    split_by_class,
)
from metashot.data.masks import MaskDataset, shuffled
from metashot.evaluation import evaluate
from metashot.metrics import mean_iou

pytestmark = pytest.mark.usefixtures("quick_compile")


def holding(*pictures: str, names: str = "AB") -> MaskDataset:
    """Pictures of 4x4 of which each has a pixel of each class named, and one that is void.

    Their first pixel says which they are.
    """
    images = np.zeros((len(pictures), 4, 4, 1), np.uint8)
    labels = np.zeros((len(pictures), 4, 4), np.uint8)
    labels[:, 3, 3] = 255
    for i, classes in enumerate(pictures):
        images[i, 0, 0] = i
        for c in classes:
            labels[i, 1, names.index(c)] = names.index(c) + 1
    return from_masks(images, labels, names)


def drawn(dataset: MaskDataset, n: int = 4000, **settings: Any) -> Any:
    source = mask_episodes(dataset, **settings)
    keys = jax.random.split(jax.random.key(0), n)
    return jax.jit(jax.vmap(lambda key: source.sample(key, source.arrays)))(keys)


def pictures(examples: Any) -> np.ndarray:
    return np.rint(np.asarray(examples.inputs)[..., 0, 0, 0] * 255).astype(int)


def test_items_are_pictures_and_classes() -> None:
    dataset = holding("A", "AB", "B")
    assert dataset.items.tolist() == [[0, 0], [1, 0], [1, 1], [2, 1]]
    assert (dataset.classes, dataset.shape) == (2, (4, 4, 1))


def test_the_papers_example_of_sampling() -> None:
    """Image 1 has A, image 2 has A and B, as often each; B's are in pairs of pictures."""
    dataset = holding("A", "AB", "A", "AB")
    shares = {
        sampling: (np.asarray(drawn(dataset, sampling=sampling).about["class"]) == 0).mean()
        for sampling in ("paper", "pairs", "classes")
    }
    assert shares["paper"] == pytest.approx(0.75, abs=0.03)
    assert shares["pairs"] == pytest.approx(2 / 3, abs=0.03)
    assert shares["classes"] == pytest.approx(0.5, abs=0.03)


def test_support_and_queries_are_different_pictures_of_the_class() -> None:
    episodes = drawn(holding("A", "A", "AB", "B", "B", "A"), n=300, shot=2, query=1)
    number = np.asarray(episodes.about["class"])
    asked, shown = pictures(episodes.query), pictures(episodes.support)
    np.testing.assert_array_equal(asked, episodes.about["pictures"])
    for c, q, s in zip(number, asked, shown, strict=True):
        members = [[0, 1, 2, 5], [2, 3, 4]][c]
        assert {*q, *s} <= set(members)
        assert len({*q, *s}) == 3
    targets = np.asarray(episodes.query.targets)[:, 0]
    assert (targets.sum((1, 2)) == 1).all()
    assert (targets[np.arange(300), 1, number] == 1).all()


def test_a_small_class_has_fewer_supports_and_masked_rows() -> None:
    episodes = drawn(holding("A", "A"), n=20, shot=4, query=2)
    assert np.asarray(episodes.support.mask).tolist() == [[True, False, False, False]] * 20
    assert np.asarray(episodes.query.mask).tolist() == [[True, False]] * 20


def test_void_is_background_or_not_counted() -> None:
    for void, value in (("background", 0), ("ignore", -1)):
        episodes = drawn(holding("A", "A"), n=2, void=void)
        assert (np.asarray(episodes.query.targets)[..., 3, 3] == value).all()


def test_pictures_of_a_class_for_testing_are_for_testing() -> None:
    dataset = holding("A", "AB", "B", "BC", "C", "AC", names="ABC")
    train, val, test = split_by_class(dataset, "C", "B")
    assert val is not None
    assert [part.names for part in (train, val, test)] == [("A",), ("B",), ("C",)]
    told = [np.asarray(part.arrays.images)[:, 0, 0, 0].tolist() for part in (train, val, test)]
    assert told == [[0], [1, 2], [3, 4, 5]]
    assert test.items.tolist() == [[0, 0], [1, 0], [2, 0]]
    assert np.asarray(test.arrays.value).tolist() == [3]
    with pytest.raises(ValueError, match="there is no class D; the data have A, B, C"):
        split_by_class(dataset, "D")


def test_joined_sets_keep_their_items() -> None:
    both = joined(holding("A", "AB"), holding("B"))
    assert both.items.tolist() == [[0, 0], [1, 0], [1, 1], [2, 1]]
    with pytest.raises(ValueError, match="load both with the same classes and size"):
        joined(both, holding("C", names="ABC"))


def test_the_generator_of_the_release() -> None:
    draw = random.Random(1385).random
    floats = [draw() for _ in range(4)]
    assert floats == pytest.approx(
        [0.153253749121, 0.213146896413, 0.563389879421, 0.663791436661], abs=1e-12
    )
    draw = random.Random(1385).random
    assert shuffled(range(10), draw) == [8, 5, 3, 6, 0, 2, 7, 4, 9, 1]
    assert shuffled(range(6), draw) == [1, 0, 4, 3, 5, 2]


def test_the_releases_list_is_gone_through_in_its_order() -> None:
    """Items by picture, then class; each support by the same generator; again when it ends."""
    dataset = holding("A", "AB", "B", "AB")
    order = [(0, 0), (1, 0), (1, 1), (2, 1), (3, 0), (3, 1)]
    draw, desired = random.Random(1385).random, []
    while len(desired) < 8:
        for i in shuffled(range(6), draw):
            picture, c = order[i]
            others = [p for p, d in order if d == c and p != picture]
            desired.append((c, picture, shuffled(others, draw)[0]))
    learner = Learner(
        init=lambda key, episode: {"params": {}, "state": {}},
        adapt=lambda variables, support, key=None: support.inputs[0, 0, 0, 0],
        predict=lambda variables, task, inputs: jnp.broadcast_to(task, inputs.shape[:3]),
        loss=lambda variables, episode, key: (jnp.zeros(()), ()),  # type: ignore[arg-type]
    )
    metric = mean_iou()._replace(
        measure=lambda outputs, query, about: {
            **mean_iou().measure(outputs, query, about),
            "shown": outputs[0, 0, 0],
        }
    )
    for seed in (0, 1):
        source = official_pairs(dataset)
        nothing: Any = {"params": {}, "state": {}}
        told = evaluate(learner, nothing, source, count=8, seed=seed, metric=metric).measures
        shown = np.rint(told["shown"] * 255).astype(int)
        found = zip(told["class"], told["pictures"][:, 0], shown, strict=True)
        assert list(map(tuple, found)) == desired[:8]


def test_a_list_of_ones_own() -> None:
    source = listed(holding("A", "A", "A"), np.array([[0, 2, -1], [1, 0, 2]]))
    episode = source.listed(1, source.arrays)  # type: ignore[misc]
    assert pictures(episode.query).tolist() == [1]
    assert pictures(episode.support).tolist() == [0, 2]
    first = source.listed(0, source.arrays)  # type: ignore[misc]
    assert np.asarray(first.support.mask).tolist() == [True, False]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"shot": 0}, "shot is 0; it is at least 1"),
        ({"sampling": "all"}, "sampling is 'all'; it is one of paper, pairs, classes"),
        ({"void": "keep"}, "void is 'keep'; it is one of background, ignore"),
    ],
)
def test_arguments_outside_their_values_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mask_episodes(holding("A", "A"), **wrong)


def test_data_that_make_no_episode_are_refused() -> None:
    with pytest.raises(ValueError, match="no class has two items"):
        mask_episodes(holding("A", "B"))
    with pytest.raises(ValueError, match=r"need label maps \[1, 4, 4\] uint8"):
        from_masks(np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 4, 5), np.uint8), "A")


def test_maps_in_the_place_of_pictures_give_the_same_episodes() -> None:
    """The network tells a picture's number, and half of it at half the size."""
    dataset = holding("AB", "A", "B", "AB", "B")
    number = Network(
        lambda key, x: {"params": {}, "state": {}},
        lambda variables, x, **settings: ((255 * x, 128 * x[:, ::2, ::2]), {}),
    )
    maps = encoded(dataset, number, {"params": {}, "state": {}}, together=2)
    np.testing.assert_array_equal(maps.items, dataset.items)
    for made in (maps, split_by_class(maps, ["B"]).train):
        assert [x.dtype for x in made.arrays.images] == [np.float16] * 2
    source, plain = (mask_episodes(d, shot=2) for d in (maps, dataset))
    for seed in range(5):
        key = jax.random.key(seed)
        told, expected = source.sample(key, source.arrays), plain.sample(key, plain.arrays)
        np.testing.assert_array_equal(told.support.targets, expected.support.targets)
        fine, rough = told.support.inputs
        np.testing.assert_array_equal(np.rint(fine[:, 0, 0, 0]), pictures(expected.support))
        np.testing.assert_allclose(rough[:, 0, 0], fine[:, 0, 0] * 128 / 255, rtol=1e-3)


def test_batches_for_ordinary_segmentation_have_label_maps() -> None:
    """Of two classes the second alone: the first is background, and pictures without it are out."""
    dataset = split_by_class(holding("A", "AB", "B", "B"), ["A"]).train
    source = mask_batches(dataset, size=50)
    batch = source.sample(jax.random.key(0), source.arrays)
    assert batch.support.inputs.shape == (0, 4, 4, 1)
    assert set(pictures(batch.query).tolist()) == {2, 3}
    expected = np.zeros((4, 4), int)
    expected[1, 1], expected[3, 3] = 1, -1
    np.testing.assert_array_equal(batch.query.targets, np.broadcast_to(expected, (50, 4, 4)))
