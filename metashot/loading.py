"""What can be got back from a run's folder: its configuration, its learner, its variables."""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import config as configs
from .base import Episode, Examples, Learner, Variables
from .checkpoints import Checkpoints
from .config import ConfigError, Experiment, MaskSizes, MixedSizes, Sizes
from .runs import write_atomically

CLASSES = "classes.json"  # what `write_classes` writes
CHOICE = "choice.json"  # what a run chose on validation episodes, and all it tried

# Quantiles, at equal steps from 0 to 1, of the cosine between a picture and its class's column, by
# the number of examples that made the column (metashot.similarities).
Similarities = dict[int, list[float]]


class Loaded(NamedTuple):
    """A trained learner, ready for use: `learner, variables = load(folder)[:2]`."""

    learner: Learner
    variables: Variables
    step: int
    config: Experiment | None


def load(
    folder: str | Path,
    *,
    checkpoint: str | int = "best",
    way: int | None = None,
    learner: Learner | None = None,
) -> Loaded:
    """A trained learner from the folder of its run.

    Args:
        folder: what `metashot train` or `metashot.train(workdir=...)` wrote.
        checkpoint: "best" by validation, "last", or a step.
        way: build the learner for another length of the class axis.
        learner: what was trained, where the run has no config.py.

    Raises:
        ValueError: no run, no such checkpoint, a damaged one, or parameters that depend on the way.
    """
    folder = Path(folder)
    input_shape = tuple(read_facts(folder)["input_shape"])
    has_config = (folder / "config.py").exists()
    config = as_chosen(read_config(folder), folder) if has_config else None
    if learner is not None:
        made = learner
    elif config is not None:
        made = at_way(config, way, input_shape, folder)
    else:
        raise ConfigError(f"{folder} has no config.py; say which learner was trained, learner=")
    if checkpoint not in ("best", "last") and not isinstance(checkpoint, int):
        raise ConfigError(f"checkpoint is {checkpoint!r}; it is best, last or a step")
    if not (folder / "checkpoints").is_dir():
        raise ConfigError(f"{folder} has no checkpoint yet")
    like = jax.tree.map(_on_first_device, shapes_of(made, input_shape))
    with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        named = {"best": checkpoints.best(), "last": checkpoints.last()}
        step = named[checkpoint] if isinstance(checkpoint, str) else checkpoint
        if step is None or step not in checkpoints.steps():
            raise ConfigError(
                f"{folder} has no checkpoint {checkpoint}; there are best, last and the steps "
                f"{', '.join(map(str, checkpoints.steps()))}"
            )
        try:
            variables = checkpoints.restore(step, {"variables": like})["variables"]
        except Exception as error:  # a reader of damaged files may raise anything
            raise ConfigError(
                f"checkpoint {step} of {folder} is damaged, or was not made by this learner: "
                "choose another, or restore it from a copy of the run"
            ) from error
    return Loaded(made, variables, int(step), config)


def read_config(folder: str | Path) -> Experiment:
    """The configuration that a run was made with.

    Raises:
        ConfigError: a folder without a run.
    """
    path = Path(folder) / "config.py"
    if not path.exists():
        raise ConfigError(f"{folder} holds no run of metashot (no config.py)")
    return configs.read(path)


def read_facts(folder: Path) -> dict[str, Any]:
    """What a run's run.json tells.

    Raises:
        ConfigError: a folder without a run.
    """
    path = folder / "run.json"
    if not path.exists():
        raise ConfigError(f"{folder} holds no run of metashot (no run.json)")
    return _read_json(path, "input_shape")


def class_names(folder: Path) -> tuple[str, ...] | None:
    """The names of the classes that a run stores, by label; None where it stores none."""
    path = folder / CLASSES
    return tuple(_read_json(path, "names")["names"]) if path.exists() else None


def _read_json(path: Path, needed: str) -> dict[str, Any]:
    """What a file of a run tells, `needed` among it."""
    try:
        facts = json.loads(path.read_text())
    except ValueError as error:
        message = f"{path} is damaged: restore it from a copy of the run ({error})"
        raise ConfigError(message) from error
    if not isinstance(facts, dict) or needed not in facts:
        raise ConfigError(f"{path} is damaged: restore it from a copy of the run (no {needed})")
    return facts


def write_classes(
    folder: Path, names: tuple[str, ...], similarities: Similarities | None = None, step: int = 0
) -> None:
    """Say what a run's classes are called, by label, and how similar pictures are to theirs.

    Args:
        folder: of the run.
        names: of the classes that it stores.
        similarities: where they are known.
        step: of the checkpoint that they are of.
    """
    facts: dict[str, Any] = {"names": names}
    if similarities:
        facts["similarities"] = {"step": step, "quantiles": similarities}
    write_atomically(folder / CLASSES, json.dumps(facts) + "\n")


def read_similarities(folder: Path, step: int) -> Similarities | None:
    """What a run's classes.json says of the checkpoint of this step; None where it says nothing."""
    path = folder / CLASSES
    found = _read_json(path, "names").get("similarities") if path.exists() else None
    if not found or found["step"] != step:
        return None
    return {int(shot): quantiles for shot, quantiles in found["quantiles"].items()}


def as_chosen(config: Experiment, folder: Path) -> Experiment:
    """The configuration with what its run chose at the end."""
    if not (folder / CHOICE).exists():
        return config
    chosen = _read_json(folder / CHOICE, "setting")["setting"]
    return dataclasses.replace(config, learner=dataclasses.replace(config.learner, **chosen))


def trained_way(config: Experiment) -> int:
    """The length of the class axis that training needs."""
    train, test = config.train, config.test
    if isinstance(test, MaskSizes):
        return 1
    if isinstance(train, MixedSizes):
        return max(train.way[1], test.way)
    return max(train.way, test.way) if isinstance(train, Sizes) else test.way


def at_way(
    config: Experiment, way: int | None, input_shape: tuple[int, ...], folder: Path
) -> Learner:
    """The learner that was trained, for another length of the class axis if that can be."""
    trained = trained_way(config)
    made = config.learner.build(way or trained)
    if way is None:
        return made
    if shapes_of(made, input_shape) != shapes_of(config.learner.build(trained), input_shape):
        raise ConfigError(
            f"{folder} was trained for {trained}-way and its parameters depend on that; "
            f"train another for way {way}"
        )
    return made


def shapes_of(learner: Learner, input_shape: tuple[int, ...]) -> Variables:
    """The shapes and dtypes of a learner's variables for inputs of this shape."""
    rows: Any = jax.ShapeDtypeStruct
    examples = Examples(
        rows((1, *input_shape), jnp.float32), rows((1,), jnp.int32), rows((1,), jnp.bool_)
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(learner.init, key, Episode(examples, examples))


def _on_first_device(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
