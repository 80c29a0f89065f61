"""The trace of a training: what is left behind, what it says, and that it changes nothing."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import metashot
from metashot import nets, profiling
from metashot.data import from_arrays

pytestmark = pytest.mark.usefixtures("quick_compile")

PICTURES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), np.uint8)
EPISODES = metashot.episodes(from_arrays(PICTURES, np.arange(12) // 4), way=2, shot=1, query=2)


def train(steps: int, profile: Path | None) -> metashot.Variables:
    learner = metashot.prototypical(network=nets.conv4(2, blocks=1), way=2)
    settings = {"steps": steps, "log_every": 2, "validate_every": 2, "progress": False}
    return metashot.train(
        learner, EPISODES, optax.adam(1e-2), **settings, profile=profile
    ).variables


def traces(folder: Path) -> list[Path]:
    return list(folder.rglob("*.xplane.pb"))


def test_a_trace_changes_nothing_and_says_how_busy_the_device_was(tmp_path: Path):
    plain, profiled = train(12, None), train(12, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, plain, profiled)
    assert len(traces(tmp_path)) == 1
    share = profiling.busy_share(tmp_path)
    assert share is not None
    assert 0 < share <= 1
    said = profiling.report(tmp_path)
    assert f"{100 * share:.1f} %" in said
    assert str(tmp_path) in said
    assert "perfetto" in said


def test_a_training_may_end_while_it_is_traced(tmp_path: Path):
    train(4, tmp_path)
    assert len(traces(tmp_path)) == 1
    train(4, tmp_path / "again")  # no trace is left running


def test_the_first_dispatch_is_left_out(tmp_path: Path):
    train(2, tmp_path)
    assert traces(tmp_path) == []
    assert profiling.busy_share(tmp_path) is None
    assert "no profile" in profiling.report(tmp_path)


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(0, 2), (5, 6)], 3),
        ([(5, 6), (0, 2)], 3),
        ([(0, 2), (2, 4)], 4),  # end to end
        ([(0, 10), (1, 2), (3, 4)], 10),  # one holds the others
        ([(0, 3), (2, 5)], 5),
        ([(3, 1), (7, 8)], 1),  # clipped away
    ],
)
def test_the_length_of_a_union(intervals: list[tuple[float, float]], length: float):
    assert profiling.covered(intervals) == length
