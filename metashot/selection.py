"""Choosing what gradients don't reach, on validation episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from .base import Array, Examples, Learner, PyTree, Variables
from .data.episodes import Episodes
from .evaluation import VALIDATION, evaluator


class Choice(NamedTuple):
    """What was chosen, and the accuracy of all that was tried."""

    setting: dict[str, float]
    tried: list[dict[str, float]]  # a row a trial: the setting, "episodes" and "accuracy"


def choose(
    make: Callable[..., Learner],
    settings: Sequence[dict[str, float]],
    variables: Variables,
    episodes: Episodes,
    *,
    looks: Sequence[tuple[int, int]] = ((20, 4), (100, 1)),
    seed: int = 0,
) -> Choice:
    """The setting whose learner does best on validation episodes; the first one on a tie.

    Args:
        make: a learner of the settings' names as keywords. Its numbers are traced: one program
            serves all settings.
        settings: what to try.
        variables: of every such learner.
        episodes: validation episodes; all settings see the same ones.
        looks: (episodes, how many settings stay) of each look: the default tries all settings on
            20 episodes and the best 4 of them on 100.
        seed: of the list of episodes.

    Raises:
        ValueError: nothing to choose from.
    """
    if not settings:
        raise ValueError("settings is empty; there is nothing to choose from")

    # The setting travels as a part of the variables, so that `evaluator` compiles once.
    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        both = variables["state"]
        return make(**both["setting"]).adapt(both["own"], support, key)

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        both = variables["state"]
        return make(**both["setting"]).predict(both["own"], task, inputs)

    first = make(**settings[0])
    learner = Learner(first.init, adapt, predict, first.loss)
    left, tried = list(settings), []
    for count, stay in looks:
        score = evaluator(learner, episodes, count=count, seed=seed, stream=VALIDATION)
        scores: list[float] = []
        for setting in left:
            traced: Any = {name: jnp.asarray(value) for name, value in setting.items()}
            state = {"setting": traced, "own": variables}
            scores.append(score({"params": {}, "state": state}).score)
            tried.append({**setting, "episodes": count, "accuracy": scores[-1]})
        order = sorted(range(len(left)), key=lambda i: -scores[i])
        left = [left[i] for i in order[:stay]]
    return Choice(left[0], tried)
