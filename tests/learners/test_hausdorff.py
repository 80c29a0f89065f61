"""The modified Hausdorff distance: by hand, against scipy, and on Omniglot's official runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from metashot.base import Examples
from metashot.data import omniglot_runs
from metashot.evaluation import evaluate
from metashot.learners.hausdorff import hausdorff
from metashot.metrics import one_shot

pytestmark = pytest.mark.usefixtures("quick_compile")

NOTHING = {"params": {}, "state": {}}
REAL = Path(os.environ.get("METASHOT_DATA", "nowhere")) / "omniglot" / "all_runs.zip"


def picture(*ink: tuple[int, int]) -> np.ndarray:
    pixels = np.zeros((5, 5, 1))
    for place in ink:
        pixels[place] = 1
    return pixels


def examples(inputs: np.ndarray) -> Examples:
    n = inputs.shape[0]
    return Examples(inputs, np.arange(n, dtype=np.int32), np.ones(n, bool))


@jax.jit
def scores(support: Examples, inputs: Any) -> jax.Array:
    learner = hausdorff(points=200, way=2)
    return learner.predict(NOTHING, learner.adapt(NOTHING, support), inputs)


def test_by_hand(float64: None) -> None:
    """Squares that are but moved are no way apart: each is about its own mean."""
    a = np.stack([picture((0, 0), (0, 2)), picture((0, 0))])
    b = np.stack([picture((3, 0), (3, 2)), picture((0, 0), (0, 3), (4, 0))])
    told = scores(examples(a), b)
    assert float(told[0, 0]) == 0
    assert float(told[1, 1]) == pytest.approx(-2.306123, abs=1e-6)
    assert float(scores(examples(b), a)[1, 1]) == pytest.approx(-2.306123, abs=1e-6)


def expected(a: np.ndarray, b: np.ndarray) -> float:
    one, other = (np.argwhere(x[..., 0] > 0.5) for x in (a, b))
    apart = cdist(one - one.mean(0), other - other.mean(0))
    return -max(apart.min(0).mean(), apart.min(1).mean())


def test_it_equals_scipys_distances_on_pairs_and_on_classes(float64: None) -> None:
    """Of 60 to 190 pixels, more than are compared at once."""
    rng = np.random.default_rng(0)
    inputs = (rng.random((6, 15, 16, 1)) < rng.uniform(0.3, 0.75, (6, 1, 1, 1))).astype(float)
    z, x = inputs[:2], inputs[2:]
    told = scores(examples(z), x.reshape(2, 2, 15, 16, 1))
    wanted = [[expected(z[i], x[2 * i + j]) for j in range(2)] for i in range(2)]
    np.testing.assert_allclose(told, wanted, rtol=1e-12)
    wanted = [[expected(a, b) for a in z] for b in x]
    np.testing.assert_allclose(scores(examples(z), x), wanted, rtol=1e-12)


def test_more_ink_than_there_is_room_for_is_not_a_number() -> None:
    told = scores(examples(np.ones((2, 15, 16, 1))), np.ones((1, 15, 16, 1)))
    assert np.isnan(told).all()


@pytest.mark.skipif(not REAL.is_file(), reason="METASHOT_DATA has no official runs")
def test_the_official_runs() -> None:
    """The first of 20, of whose trials 45 % are wrong; of all it is 38.75, published as 38.8."""
    runs = omniglot_runs(size=105)
    first = [np.asarray(part.inputs[0]) for part in runs.arrays[:2]]
    ink = max(int((x > 0.5).sum((1, 2, 3)).max()) for x in first)
    told = evaluate(hausdorff(points=ink, way=20), NOTHING, runs, count=1, metric=one_shot)
    assert told.summary["error"][0] == pytest.approx(0.45, abs=1e-6)
