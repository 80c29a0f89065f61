"""Choosing settings on validation episodes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from metashot.base import Aux, Episode, Examples, Learner
from metashot.data import Episodes
from metashot.evaluation import VALIDATION, evaluate
from metashot.selection import choose

pytestmark = pytest.mark.usefixtures("quick_compile")


def threshold(cut: float, sign: float = 1.0) -> Learner:
    """Says class 1 above the cut; nothing to learn."""

    def predict(variables, task, inputs):
        return jnp.stack([jnp.zeros(len(inputs)), sign * (inputs[:, 0] - cut - task)], 1)

    init = lambda key, episode: {"params": {}, "state": {}}
    adapt = lambda variables, support, key=None: variables["params"]["shift"]
    return Learner(init, adapt, predict, lambda *_: (jnp.zeros(()), Aux({})))


def numbers() -> Episodes:
    """Class 1 is what lies above 0.5."""

    def sample(key, arrays):
        import jax

        x = jax.random.uniform(key, (40, 1))
        part = Examples(x, (x[:, 0] > 0.5).astype(jnp.int32), jnp.ones(40, bool))
        return Episode(part, part)

    return Episodes((), sample)


VARIABLES = {"params": {"shift": jnp.zeros(())}, "state": {}}
CUTS = [{"cut": c} for c in (0.0, 0.3, 0.45, 0.52, 0.9, 1.0)]


def test_the_best_stay_and_are_looked_at_again():
    choice = choose(threshold, CUTS, VARIABLES, numbers(), looks=((5, 2), (30, 1)), seed=3)
    assert choice.setting == {"cut": 0.52}
    first, second = choice.tried[:6], choice.tried[6:]
    assert [row["cut"] for row in first] == [c["cut"] for c in CUTS]
    assert {row["episodes"] for row in first} == {5}
    assert [(row["cut"], row["episodes"]) for row in second] == [(0.52, 30), (0.45, 30)]


def test_figures_are_those_of_evaluation_on_the_validation_stream():
    choice = choose(threshold, CUTS, VARIABLES, numbers(), looks=((7, 1),), seed=3)
    for row in choice.tried:
        alone = evaluate(
            threshold(row["cut"]), VARIABLES, numbers(), count=7, seed=3, stream=VALIDATION
        )
        assert row["accuracy"] == pytest.approx(alone.score, abs=1e-12)


def test_settings_of_several_names_and_ties():
    settings = [{"cut": 0.5, "sign": s} for s in (-1.0, 1.0, 1.0)]
    choice = choose(threshold, settings, VARIABLES, numbers(), looks=((4, 1),))
    assert choice.setting is settings[1]  # the first of the two
    assert np.isclose(choice.tried[1]["accuracy"], 1.0)


def test_the_variables_are_those_given():
    moved = {"params": {"shift": jnp.asarray(0.4)}, "state": {}}
    assert choose(threshold, CUTS, moved, numbers(), looks=((5, 1),)).setting == {"cut": 0.0}


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(ValueError, match="settings is empty"):
        choose(threshold, [], VARIABLES, numbers())
