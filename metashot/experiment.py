"""A configuration, run: its folder, and what can be got back from it."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import config as configs
from .base import Episode, Examples, Learner, Variables
from .checkpoints import Checkpoints
from .config import ConfigError, Experiment, Sizes
from .data import Dataset, Episodes, Splits, episodes
from .data.episodes import impossible_sizes
from .devices import episode_mesh
from .evaluation import Evaluation, evaluate
from .learners.baselines import nearest_neighbor
from .runs import write_atomically
from .training import Trained, chunk_size, train


class Loaded(NamedTuple):
    """A trained learner, ready for use: `learner, variables = load(folder)[:2]`."""

    learner: Learner
    variables: Variables
    step: int
    config: Experiment | None


class Parts(NamedTuple):
    """What a configuration names, made."""

    splits: Splits
    learner: Learner
    optimizer: Any
    train: Episodes
    validation: Episodes | None


def build(config: Experiment) -> Parts:
    """Make the data, the learner and the optimiser; refuse what cannot run.

    Raises:
        ValueError: naming the field and the remedy.
    """
    configs.check(config)
    try:
        splits = config.data.load()
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from error
    held_out = splits.train if splits.val is None else splits.val
    checks = (
        ("train.", config.train, splits.train),
        ("test.", config.test, held_out),
        ("test.", config.test, splits.test),
    )
    for part, sizes, dataset in checks:
        check_sizes(part, sizes, dataset)
    chunk_size(config.meta_batch, config.chunk, episode_mesh(config.meta_batch))
    try:
        learner = config.learner.build(max(config.train.way, config.test.way))
        optimizer = config.optimizer.build(config.steps)
        shapes_of(learner, splits.train.shape)
    except ConfigError:
        raise
    except (ValueError, TypeError, ZeroDivisionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"learner cannot be built for {splits.train.shape} pictures: {reason}"
        ) from error
    source = episodes(splits.train, **vars(config.train))
    validation = None if splits.val is None else episodes(splits.val, **vars(config.test))
    return Parts(splits, learner, optimizer, source, validation)


def check_sizes(prefix: str, sizes: Sizes, dataset: Dataset) -> None:
    """Refuse episodes that a data set cannot give, naming the field.

    Raises:
        ConfigError: more classes or images than there are.
    """
    problem = impossible_sizes(dataset, **vars(sizes))
    if problem:
        raise ConfigError(prefix + problem)


def run(
    config: Experiment, workdir: str | Path, *, resume: bool = False, progress: bool = True
) -> tuple[Trained, Parts]:
    """Meta-train what a configuration says, in a folder that holds all that is needed later.

    The folder gets config.py, run.json, metrics.jsonl and checkpoints/.

    Raises:
        ConfigError: before anything is written.
    """
    folder = Path(workdir)
    _refuse_folder(folder, resume)
    if resume:
        _refuse_changes(read_config(folder), config)
    text = configs.as_text(config)
    parts = build(config)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.py", text)
    trained = train(
        parts.learner,
        parts.train,
        parts.optimizer,
        steps=config.steps,
        meta_batch=config.meta_batch,
        chunk=config.chunk,
        seed=config.seed,
        validation=parts.validation,
        validation_episodes=config.validation_episodes,
        validate_every=config.validate_every,
        log_every=config.log_every,
        workdir=folder,
        resume=resume,
        progress=progress,
    )
    return trained, parts


def compare(
    config: Experiment, parts: Parts, variables: Variables
) -> tuple[Evaluation, Evaluation]:
    """The final figure of a run, and the nearest neighbour's on the pixels of the same episodes."""
    test = episodes(parts.splits.test, **vars(config.test))
    pixels = nearest_neighbor(way=config.test.way)
    untrained: Variables = {"params": {}, "state": {}}
    return (
        evaluate(parts.learner, variables, test, count=config.test_episodes, seed=config.seed),
        evaluate(pixels, untrained, test, count=config.test_episodes, seed=config.seed),
    )


def _refuse_folder(folder: Path, resume: bool) -> None:
    started = (folder / "config.py").exists()
    if resume and not started:
        raise ConfigError(f"{folder} holds no run to resume; leave --resume out to start one")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"workdir {folder} is a file; name a folder")
    if not resume and folder.exists() and any(folder.iterdir()):
        remedy = "--resume continues it, " if started else ""
        raise ConfigError(f"workdir {folder} is not empty; {remedy}--workdir names another")
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise ConfigError(f"workdir {folder} cannot be written; --workdir names another")


def _refuse_changes(before: Experiment, now: Experiment) -> None:
    """A run goes on as it began; only its length and how it is watched may change."""
    for name in ("data", "learner", "train", "meta_batch", "optimizer", "seed"):
        if getattr(before, name) != getattr(now, name):
            raise ConfigError(
                f"{name} is {getattr(now, name)}, but the run to resume has "
                f"{getattr(before, name)}; leave it as it was, or start another run"
            )


def shapes_of(learner: Learner, input_shape: tuple[int, ...]) -> Variables:
    """The shapes and dtypes of a learner's variables for inputs of this shape."""
    rows: Any = jax.ShapeDtypeStruct
    examples = Examples(
        rows((1, *input_shape), jnp.float32), rows((1,), jnp.int32), rows((1,), jnp.bool_)
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(learner.init, key, Episode(examples, examples))


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
        ValueError: no run, no such checkpoint, or parameters that depend on the way.
    """
    folder = Path(folder)
    if not (folder / "run.json").exists():
        raise ConfigError(f"{folder} holds no run of metashot (no run.json)")
    config = read_config(folder) if (folder / "config.py").exists() else None
    input_shape = tuple(json.loads((folder / "run.json").read_text())["input_shape"])
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
        variables = checkpoints.restore(step, {"variables": like})["variables"]
    return Loaded(made, variables, int(step), config)


def at_way(
    config: Experiment, way: int | None, input_shape: tuple[int, ...], folder: Path
) -> Learner:
    """The learner that was trained, for another length of the class axis if that can be."""
    trained = max(config.train.way, config.test.way)
    made = config.learner.build(way or trained)
    if shapes_of(made, input_shape) != shapes_of(config.learner.build(trained), input_shape):
        raise ConfigError(
            f"{folder} was trained for {trained}-way and its parameters depend on that; "
            f"train another for way {way}"
        )
    return made


def read_config(folder: str | Path) -> Experiment:
    """The configuration that a run was made with.

    Raises:
        ConfigError: a folder without a run.
    """
    path = Path(folder) / "config.py"
    if not path.exists():
        raise ConfigError(f"{folder} holds no run of metashot (no config.py)")
    return configs.read(path)


def _on_first_device(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
