"""Paired episodes and episodes within an alphabet: what is drawn, how evenly, and from where."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metashot.base import Episode
from metashot.data import (
    Dataset,
    Episodes,
    episode_key,
    episodes,
    from_arrays,
    paired,
    pairs,
    problems,
)

pytestmark = pytest.mark.usefixtures("quick_compile")

COUNTS = (3, 2, 4, 3, 5, 2, 3)  # images of each class
GROUPS = ("b", "a", "b", "a", "a", "b", "alone")


def dataset(counts: tuple[int, ...] = COUNTS, groups: tuple[str, ...] = GROUPS) -> Dataset:
    """Each 1x1 picture is its own row number, so that an episode tells what was drawn."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    return from_arrays(images, labels, groups=groups)


CLASS_OF_ROW = np.repeat(np.arange(len(COUNTS)), COUNTS)


def rows(inputs: Any) -> np.ndarray:
    return np.rint(np.asarray(inputs)[..., 0, 0, 0] * 255).astype(int)


def many(source: Episodes, count: int) -> Episode:
    draw = lambda i: source.sample(episode_key(0, 0, i), source.arrays)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(jnp.arange(count)))


@pytest.fixture(scope="module", params=["alphabet", "all"])
def drawn(request: pytest.FixtureRequest, quick_compile: None) -> tuple[str, Episode]:
    """500 episodes of 4 exemplars with 4 queries each."""
    source = pairs(dataset(), exemplars=4, queries=4, scope=request.param)
    return request.param, many(source, 500)


def evenly(values: np.ndarray, among: list[int]) -> bool:
    return stats.chisquare([(values == value).sum() for value in among]).pvalue > 1e-4


def test_half_of_the_pairs_match_and_targets_say_which(drawn: tuple[str, Episode]) -> None:
    _, episode = drawn
    z, x = rows(episode.support.inputs), rows(episode.query.inputs)
    assert (z.shape, x.shape) == ((500, 4), (500, 4, 4))
    alike = CLASS_OF_ROW[z][..., None] == CLASS_OF_ROW[x]
    np.testing.assert_array_equal(alike, episode.query.targets == 1)
    assert (episode.query.targets.sum(-1) == 2).all()
    assert episode.query.mask.all()
    assert not np.any(z[..., None] == x), "an image is its own match"
    np.testing.assert_array_equal(episode.about["classes"], CLASS_OF_ROW[z])
    np.testing.assert_array_equal(episode.about["candidates"], CLASS_OF_ROW[x])


def test_pairs_are_drawn_evenly(drawn: tuple[str, Episode]) -> None:
    """A class alone in its alphabet has no others there, so that it takes no part."""
    scope, episode = drawn
    own, theirs = episode.about["classes"], episode.about["candidates"]
    assert evenly(own, list(range(7 if scope == "all" else 6)))
    other = episode.query.targets == 0
    for c in range(6):
        mates = [d for d in range(7) if d != c and (scope == "all" or GROUPS[d] == GROUPS[c])]
        found = theirs[(own[..., None] == c) & other]
        assert set(found) == set(mates)
        assert evenly(found, mates)
    z, x = rows(episode.support.inputs), rows(episode.query.inputs)
    fourth = np.flatnonzero(CLASS_OF_ROW == 4).tolist()
    assert evenly(z[own == 4], fourth)
    assert evenly(x[(theirs == 4) & other], fourth)
    for row in fourth:
        assert evenly(x[(z == row)[..., None] & ~other], [r for r in fourth if r != row])


def test_problems_have_one_match_anywhere_among_classes_of_the_alphabet() -> None:
    episode = many(problems(dataset(), way=3, exemplars=5), 600)
    z, x = rows(episode.support.inputs), rows(episode.query.inputs)
    own, theirs = CLASS_OF_ROW[z], CLASS_OF_ROW[x]
    assert x.shape == (600, 5, 3)
    np.testing.assert_array_equal(own[..., None] == theirs, episode.query.targets == 1)
    assert (episode.query.targets.sum(-1) == 1).all()
    assert not np.any(z[..., None] == x)
    groups = np.array(GROUPS)
    assert (groups[own][..., None] == groups[theirs]).all()
    assert (np.diff(np.sort(theirs, -1)) > 0).all(), "a class comes twice"
    assert evenly(own, list(range(6)))
    assert evenly(episode.query.targets.argmax(-1), [0, 1, 2])
    larger = many(problems(dataset(), way=2, exemplars=5, scope="all"), 400)
    others = larger.about["candidates"][larger.query.targets == 0]
    assert set(others) == set(range(7))


def test_episodes_within_an_alphabet() -> None:
    episode = many(episodes(dataset(), way=3, shot=1, query=1, scope="alphabet"), 600)
    classes = episode.about["classes"]
    groups = np.array(GROUPS)[classes]
    assert (groups == groups[:, :1]).all()
    for place in range(3):
        assert evenly(classes[:, place], list(range(6)))
    claimed = np.take_along_axis(classes, episode.query.targets, 1)
    np.testing.assert_array_equal(claimed, CLASS_OF_ROW[rows(episode.query.inputs)])


def test_small_alphabets_are_left_out() -> None:
    two_and_three = dataset((2,) * 5, ("a", "a", "b", "b", "b"))
    drawn = many(problems(two_and_three, way=3, exemplars=2), 30)
    assert set(drawn.about["classes"].ravel()) == {2, 3, 4}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: pairs(dataset(), queries=0), "queries is 0; it is at least 1"),
        (lambda: problems(dataset(), way=0), "way is 0; it is at least 1"),
        (lambda: pairs(dataset((2, 1), ("a", "a"))), "the smallest class has only 1"),
        (lambda: pairs(dataset(groups=())), "the data name no groups of classes; scope 'all'"),
        (
            lambda: problems(dataset(), way=4),
            "scope is 'alphabet', which gives at most 3 classes where 4 are needed",
        ),
        (
            lambda: pairs(dataset((2,), ("a",)), scope="all"),
            "scope is 'all', which gives at most 1",
        ),
        (
            lambda: episodes(dataset(), way=4, query=1, scope="alphabet"),
            "at most 3 classes where 4",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"queries": np.zeros((2, 3, 5, 4, 1))}, r"exemplars \[2, 4, 4, 1\] and queries \[2, 3, 5"),
        ({"queries": np.zeros((2, 3, 4, 4, 3))}, "number of channels"),
        ({"exemplars": np.stack([np.eye(4), np.ones((4, 4))])[..., None]}, "exemplar 1 is empty"),
        ({"match": np.full((2, 3), 2)}, r"holds \[2\]; give \[2, 3\] labels, 1 \(match\)"),
        ({"match": np.zeros((2, 2))}, r"give \[2, 3\] labels"),
    ],
)
def test_pictures_of_ones_own_make_a_paired_episode(changes: dict[str, Any], said: str) -> None:
    given: Any = {
        "exemplars": np.stack([np.eye(4)] * 2)[..., None],
        "queries": np.zeros((2, 3, 4, 4, 1)),
        "match": np.array([[1, 0, -1]] * 2),
    }
    episode = paired(**given)
    np.testing.assert_array_equal(episode.query.targets, given["match"])
    with pytest.raises(ValueError, match=said):
        paired(**{**given, **changes})
