"""Sampling episodes: what is drawn, how evenly, and on what it depends."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metashot.base import Episode
from metashot.data import (
    INK,
    Dataset,
    batches,
    episode_key,
    episodes,
    from_arrays,
    pairs,
    redrawn,
)

pytestmark = pytest.mark.usefixtures("quick_compile")

COUNTS = (7, 4, 9, 5, 4, 6)  # ragged: images of each class


def dataset(counts: tuple[int, ...] = COUNTS, **options: Any) -> Dataset:
    """Each 1x1 picture is its own row number, so that an episode tells what was drawn."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return from_arrays(
        np.arange(len(labels), dtype=np.uint8)[:, None, None, None], labels, **options
    )


CLASS_OF_ROW = np.repeat(np.arange(len(COUNTS)), COUNTS)


def rows(inputs: Any) -> np.ndarray:
    return np.rint(np.asarray(inputs)[..., 0, 0, 0] * 255).astype(int)


def many(count: int, **sizes: Any) -> Episode:
    source = episodes(dataset(), **sizes)
    draw = lambda i: source.sample(episode_key(0, 0, i), source.arrays)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(jnp.arange(count)))


@pytest.fixture(scope="module")
def drawn(quick_compile: None) -> Episode:
    """3,000 episodes of 3 classes, one support image and two queries each; class axis first."""
    return many(3000, way=3, shot=1, query=2)


def test_shapes_and_dtypes(drawn: Episode) -> None:
    support, query = drawn.support, drawn.query
    assert support.inputs.shape == (3000, 3, 1, 1, 1)
    assert query.inputs.shape == (3000, 6, 1, 1, 1)
    assert support.inputs.dtype == query.inputs.dtype == np.float32
    assert support.targets.dtype == query.targets.dtype == np.int32
    assert support.mask.all()
    assert query.mask.all()
    assert drawn.about["classes"].shape == (3000, 3)


def test_classes_of_an_episode_are_distinct(drawn: Episode) -> None:
    classes = np.sort(drawn.about["classes"], axis=1)
    assert (np.diff(classes) > 0).all()
    assert classes.min() >= 0
    assert classes.max() < len(COUNTS)


def test_no_image_occurs_twice_in_an_episode(drawn: Episode) -> None:
    used = np.concatenate([rows(drawn.support.inputs), rows(drawn.query.inputs)], 1)
    assert (np.diff(np.sort(used, axis=1)) > 0).all()


def test_targets_are_positions_in_the_draw_of_classes(drawn: Episode) -> None:
    for part in (drawn.support, drawn.query):
        claimed = np.take_along_axis(drawn.about["classes"], part.targets, axis=1)
        np.testing.assert_array_equal(claimed, CLASS_OF_ROW[rows(part.inputs)])


def test_each_class_has_its_share(drawn: Episode) -> None:
    for part, share in ((drawn.support, 1), (drawn.query, 2)):
        assert (np.sort(part.targets, 1) == np.repeat(np.arange(3), share)).all()


def test_the_support_comes_in_random_order(drawn: Episode) -> None:
    first = np.bincount(drawn.support.targets[:, 0], minlength=3)
    assert stats.chisquare(first).pvalue > 1e-4


def test_every_class_is_drawn_equally_often_at_every_place(drawn: Episode) -> None:
    for place in range(3):
        assert stats.chisquare(np.bincount(drawn.about["classes"][:, place])).pvalue > 1e-4
    orders = drawn.about["classes"] @ [36, 6, 1]
    counts = np.unique(orders, return_counts=True)[1]
    assert len(counts) == 6 * 5 * 4
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("part", ["support", "query"])
def test_every_image_of_a_class_is_drawn_equally_often(drawn: Episode, part: str) -> None:
    """Also the last of the largest class and of the smallest: counts are ragged."""
    used = np.bincount(rows(getattr(drawn, part).inputs).ravel(), minlength=sum(COUNTS))
    for c in range(len(COUNTS)):
        assert stats.chisquare(used[c == CLASS_OF_ROW]).pvalue > 1e-4


def test_a_class_may_be_used_up() -> None:
    drawn = many(20, way=6, shot=2, query=2)
    used = np.concatenate([rows(drawn.support.inputs), rows(drawn.query.inputs)], 1)
    assert (np.diff(np.sort(used, axis=1)) > 0).all()
    for c in (1, 4):  # four images each
        assert (np.isin(np.flatnonzero(c == CLASS_OF_ROW), used).all()).all()


@pytest.fixture(scope="module")
def variable(quick_compile: None) -> Episode:
    """1,800 episodes of 2 to 4 classes with 1 to 3 support images each."""
    return many(1800, way=(2, 4), shot=(1, 3), query=1)


def test_masks_of_variable_sizes_leave_the_first_classes_with_equal_shots(
    variable: Episode,
) -> None:
    support, query = variable.support, variable.query
    assert support.mask.shape == (1800, 12)
    assert query.mask.shape == (1800, 4)
    for e in range(200):
        way = int(query.mask[e].sum())
        assert query.targets[e][query.mask[e]].tolist() == list(range(way))
        shots = np.bincount(support.targets[e][support.mask[e]], minlength=4)
        assert 1 <= shots[0] <= 3
        assert shots.tolist() == [shots[0]] * way + [0] * (4 - way)


def test_variable_sizes_all_occur_evenly_and_apart(variable: Episode) -> None:
    way = variable.query.mask.sum(1)
    shot = variable.support.mask.sum(1) / way
    table = [[((way == w) & (shot == s)).sum() for s in (1, 2, 3)] for w in (2, 3, 4)]
    assert np.sum(table) == 1800
    assert stats.chisquare(np.ravel(table)).pvalue > 1e-4


def test_an_episode_depends_on_its_key_alone(drawn: Episode) -> None:
    """Not on what is drawn beside it: one by itself has the bits that it has among 3,000."""
    source = episodes(dataset(), way=3, shot=1, query=2)
    sample = jax.jit(source.sample)
    for i in (0, 1234):
        alone = sample(episode_key(0, 0, i), source.arrays)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a, b[i]), alone, drawn)


def test_an_episodes_key_depends_on_seed_stream_and_index() -> None:
    triples = [(s, t, i) for s in (0, 1) for t in (0, 1, 2) for i in (0, 1, 2)]
    keys = {tuple(jax.random.key_data(episode_key(*triple)).tolist()) for triple in triples}
    assert len(keys) == len(triples)
    traced = jax.jit(lambda seed, index: jax.random.key_data(episode_key(seed, 2, index)))
    expected = jax.random.key_data(episode_key(1, 2, 5))
    np.testing.assert_array_equal(traced(1, 5), expected)


def test_pictures_are_prepared_as_the_data_set_says(drawn: Episode) -> None:
    """Dark ink on white paper becomes 1 on 0, in the same episode."""
    source = episodes(dataset(prepare=INK), way=3, shot=1, query=2)
    inked = jax.jit(source.sample)(episode_key(0, 0, 3), source.arrays)
    np.testing.assert_allclose(inked.query.inputs, 1 - drawn.query.inputs[3], atol=1e-6)
    np.testing.assert_allclose(inked.support.inputs, 1 - drawn.support.inputs[3], atol=1e-6)


def test_arrays_on_the_host_may_be_closed_over(drawn: Episode) -> None:
    source = episodes(dataset(), way=3, shot=1, query=2)
    shapes = jax.eval_shape(lambda key: source.sample(key, source.arrays), jax.random.key(0))
    assert shapes.query.inputs.shape == drawn.query.inputs.shape[1:]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"way": 7}, "way is 7, but the data have only 6 classes"),
        ({"way": (2, 7)}, "way is 7, but the data have only 6 classes"),
        (
            {"shot": 3, "query": 2},
            "shot + query is 3 + 2, but the smallest class has only 4 images",
        ),
        ({"shot": (1, 3), "query": 2}, "shot + query is 3 + 2, but the smallest class has only 4"),
        ({"way": 0}, "way is 0; it is at least 1, or a pair (smallest, largest)"),
        ({"shot": 0}, "shot is 0; it is at least 1"),
        ({"query": 0}, "query is 0; it is at least 1"),
        ({"way": (3, 2)}, "way is (3, 2); it is at least 1, or a pair (smallest, largest)"),
        ({"shot": (0, 2)}, "shot is (0, 2); it is at least 1, or a pair (smallest, largest)"),
    ],
)
def test_impossible_sizes_are_refused_in_a_sentence(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        episodes(dataset(), **{"way": 3, "shot": 1, "query": 1, **sizes})
    assert str(refused.value).startswith(message)


def test_a_pair_of_queries_is_refused() -> None:
    """Queries have one size: a pair is for way and shot."""
    with pytest.raises(ValueError, match="query is"):
        episodes(dataset(), way=3, shot=1, query=(1, 2))


class TestBatches:
    def test_rows_carry_the_global_label_and_no_support(self) -> None:
        source = batches(dataset(), size=50)
        drawn = jax.jit(source.sample)(jax.random.key(0), source.arrays)
        assert drawn.support.inputs.shape == (0, 1, 1, 1)
        assert drawn.query.mask.all()
        np.testing.assert_array_equal(drawn.query.targets, CLASS_OF_ROW[rows(drawn.query.inputs)])

    def test_classes_count_alike_and_so_do_the_images_of_a_class(self) -> None:
        source = batches(dataset(), size=6000)
        drawn = jax.jit(source.sample)(jax.random.key(1), source.arrays)
        classes = np.bincount(drawn.query.targets, minlength=len(COUNTS))
        assert stats.chisquare(classes).pvalue > 1e-3
        seen = np.bincount(rows(drawn.query.inputs), minlength=sum(COUNTS))
        for c in range(len(COUNTS)):
            assert stats.chisquare(seen[c == CLASS_OF_ROW]).pvalue > 1e-3

    def test_a_class_of_one_image_is_drawn_as_often_as_one_of_thirty(self) -> None:
        """Two classes of 30 images and one of 1: an image's share is 1/90, 1/90 or 1/3."""
        source = batches(dataset((30, 30, 1)), size=9000)
        drawn = jax.jit(source.sample)(jax.random.key(2), source.arrays)
        seen = np.bincount(rows(drawn.query.inputs), minlength=61)
        shares = np.array([1 / 90] * 60 + [1 / 3])
        assert stats.chisquare(seen, 9000 * shares).pvalue > 1e-3

    def test_varied_batches_hold_views_of_the_same_draw(self) -> None:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (12, 6, 6, 1), np.uint8)
        data = from_arrays(images, np.arange(12) % 3)
        plain, varied = batches(data, size=20), batches(data, size=20, flip=True)
        key = jax.random.key(3)
        before = plain.sample(key, plain.arrays).query
        after = varied.sample(key, varied.arrays).query
        np.testing.assert_array_equal(before.targets, after.targets)
        same = np.all(np.asarray(before.inputs) == after.inputs, axis=(1, 2, 3))
        mirrored = np.all(np.asarray(before.inputs)[:, :, ::-1] == after.inputs, axis=(1, 2, 3))
        assert (same ^ mirrored).all()
        assert 0 < same.sum() < 20

    @pytest.mark.parametrize(("name", "value"), [("size", 0), ("shift", -1)])
    def test_sizes_that_cannot_be_are_refused(self, name: str, value: int) -> None:
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            batches(dataset(), **{name: value})


class TestRedrawn:
    """A point of ink that is moved tells by how much."""

    POINTS = np.zeros((12, 9, 9, 1), np.uint8)
    POINTS[:, 4, 4] = 255
    DATA = from_arrays(POINTS, np.arange(12) % 3)

    @pytest.mark.parametrize("draw", [episodes, pairs, batches])
    def test_each_picture_moves_by_itself_and_nothing_else_changes(self, draw: Any) -> None:
        sizes: dict[Any, Any] = {
            episodes: {"way": 3, "query": 3},
            pairs: {"exemplars": 3, "queries": 4, "scope": "all"},
            batches: {"size": 6},
        }
        source = draw(self.DATA, **sizes[draw])
        moved = redrawn(source, shift=0.3)
        key = jax.random.key(0)
        before, after = (jax.jit(s.sample)(key, s.arrays) for s in (source, moved))
        for part in ("support", "query"):
            old, new = getattr(before, part), getattr(after, part)
            np.testing.assert_array_equal(old.targets, new.targets)
            np.testing.assert_array_equal(old.mask, new.mask)
            assert old.inputs.shape == new.inputs.shape
        inputs = [np.reshape(part.inputs, (-1, 9, 9)) for part in (after.support, after.query)]
        every = np.concatenate(inputs)
        np.testing.assert_allclose(every.sum((1, 2)), 1, atol=1e-4)  # all of the ink
        rows = every.sum(2) @ np.arange(9)
        assert abs(rows - 4).max() <= 0.3 * 9
        assert len(np.unique(rows.round(4))) == len(rows)
