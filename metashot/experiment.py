"""A configuration, run: its folder, and what can be got back from it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from . import config as configs
from . import metrics, pretrained
from .base import Array, Episode, Learner, Variables
from .config import (
    OSLSM,
    Batch,
    ConfigError,
    Experiment,
    FineTune,
    Imprinting,
    Learnet,
    MaskSizes,
    MixedSizes,
    Pairs,
    Segmentation,
    Siamese,
    Sizes,
)
from .data import Dataset, Episodes, Splits, batches, episodes, pairs
from .data.episodes import impossible_sizes, redrawn
from .data.pairs import impossible_pairs
from .devices import episode_mesh
from .evaluation import Evaluation, evaluate
from .learners.baselines import nearest_neighbor
from .learners.learnet import from_siamese
from .learners.segmentation import everything_marked
from .loading import CHOICE, as_chosen, load, read_config, shapes_of, trained_way, write_classes
from .nets import from_vgg16
from .recognition import Classifier, Pictures, stored_task
from .runs import write_atomically
from .selection import Choice, choose
from .similarities import similarities
from .training import Trained, chunk_size, train


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
    for dataset in (held_out(splits), splits.test):
        check_sizes(config, "test.", config.test, dataset)
    _check_training(config, splits.train)
    source = episodes_of(config, splits.train, config.train)
    if any(vars(config.redraw).values()):
        if isinstance(config.train, MaskSizes):
            raise ConfigError(f"redraw is {config.redraw}; it moves pictures, but not their masks")
        source = redrawn(source, **vars(config.redraw))
    shape = _input_shape(source)
    chunk_size(config.meta_batch, config.chunk, episode_mesh(config.meta_batch))
    try:
        learner = config.learner.build(trained_way(config))
        optimizer = config.optimizer.build(config.steps)
        shapes_of(learner, shape)
    except ConfigError:
        raise
    except (ValueError, TypeError, ZeroDivisionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"learner cannot be built for {shape} pictures: {reason}") from error
    if getattr(getattr(config.learner, "network", None), "pretrained", False):
        learner = starting_from(pretrained.efficientnet_lite0(), learner)
    if isinstance(config.learner, OSLSM) and config.learner.weights:
        learner = _begun_as_vgg(config.learner.weights, learner)
    validation = None if splits.val is None else episodes_of(config, splits.val, config.test)
    return Parts(splits, learner, optimizer, source, validation)


def episodes_of(config: Experiment, dataset: Any, sizes: Any) -> Episodes:
    """What a configuration draws from a part of its data, to train on or to be tested with."""
    if isinstance(sizes, MaskSizes):
        return config.data.episodes(dataset, **vars(sizes))
    draw = {Batch: batches, Pairs: pairs}.get(type(sizes), episodes)
    return draw(dataset, **vars(sizes))


def metric_of(config: Experiment) -> metrics.Metric:
    """What a configuration's checkpoints are compared by, and its final figure."""
    return metrics.mean_iou() if isinstance(config.test, MaskSizes) else metrics.accuracy


def _input_shape(source: Episodes) -> tuple[int, ...]:
    """Of a picture of an episode."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    episode = jax.eval_shape(source.sample, key, source.arrays)
    return episode.support.inputs.shape[1:]


def starting_from(body: Variables, learner: Learner) -> Learner:
    """The learner whose network starts with these variables; what else it has is drawn."""

    def init(key: Array, episode: Episode) -> Variables:
        made = learner.init(key, episode)
        return {
            "params": {**made["params"], "network": body["params"]},
            "state": {**made["state"], "network": body["state"]},
        }

    return learner._replace(init=init)


def _begun_as_vgg(path: str, learner: Learner) -> Learner:
    """The learner whose two networks begin as a file says."""
    try:
        vgg = pretrained.vgg16(path)
    except FileNotFoundError as error:
        raise ConfigError(f"learner.weights: {error}") from error
    return learner._replace(init=lambda key, episode: from_vgg16(learner.init(key, episode), vgg))


def held_out(splits: Splits) -> Dataset:
    """The classes for choosing, which are those for training where there are no others."""
    return splits.train if splits.val is None else splits.val


def check_sizes(config: Experiment, prefix: str, sizes: Any, dataset: Any) -> None:
    """Refuse episodes that a data set cannot give, naming the field.

    Raises:
        ConfigError: more classes or images than there are; masks of data that have none.
    """
    if isinstance(sizes, MaskSizes):
        if not hasattr(config.data, "episodes"):
            name = type(config.data).__name__
            raise ConfigError(f"data is {name}, which has no masks: take GlyphScenes, or Sizes()")
        try:
            episodes_of(config, dataset, sizes)
        except ValueError as error:
            raise ConfigError(f"{prefix}{error}") from error
        return
    impossible = impossible_pairs if isinstance(sizes, Pairs) else impossible_sizes
    if problem := impossible(dataset, **vars(sizes)):
        raise ConfigError(prefix + problem)


def _check_training(config: Experiment, dataset: Dataset) -> None:
    """Refuse training that does not fit the learner, or the data."""
    train, learner = config.train, config.learner
    classes = getattr(learner, "classes", None)
    kinds: Any = Sizes | MixedSizes
    needs = "episodes, train=Sizes()"
    if classes is not None:
        kinds, needs = Batch, "plain batches, train=Batch()"
    elif isinstance(learner, Segmentation | OSLSM):
        kinds, needs = MaskSizes, "masks, train=MaskSizes()"
    elif isinstance(learner, Learnet | Siamese):
        kinds |= Pairs
    if not isinstance(train, kinds):
        raise ConfigError(f"train is {train}; {type(learner).__name__} needs {needs}")
    if classes is None:
        return check_sizes(config, "train.", train, dataset)
    if classes != dataset.classes:
        raise ConfigError(
            f"learner.classes is {classes}, but the training data have {dataset.classes} classes"
        )


def run(
    config: Experiment,
    workdir: str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
    profile: bool = False,
) -> tuple[Trained, Parts]:
    """Meta-train what a configuration says, in a folder that holds all that is needed later.

    The folder gets config.py, run.json, metrics.jsonl and checkpoints/; of a learner that stores
    classes also classes.json, to which the end adds `similarities` of the classes for choosing;
    where fine-tuning's rate and decay are chosen choice.json, and with `profile` profile/.

    Raises:
        ConfigError: before anything is written.
    """
    folder = Path(workdir)
    refuse_folder(folder, resume)
    if resume:
        refuse_changes(read_config(folder), config)
    text = configs.as_text(config)
    parts = build(config)
    if isinstance(config.learner, Learnet) and config.learner.start and not resume:
        parts = parts._replace(learner=_begun(config.learner, parts))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.py", text)
    if isinstance(config.learner, Imprinting):  # answers by its stored classes
        write_classes(folder, parts.splits.train.names)
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
        metric=metric_of(config),
        workdir=folder,
        resume=resume,
        progress=progress,
        profile=folder / "profile" if profile else None,
    )
    if isinstance(config.learner, Imprinting):
        found = similarities(_classifier(config, parts, trained.variables), held_out(parts.splits))
        write_classes(folder, parts.splits.train.names, found, trained.step)
    if isinstance(config.learner, FineTune) and config.learner.rates and parts.validation:
        way = trained_way(config)
        choice = choose_rate(config.learner, way, parts.validation, trained.variables, config.seed)
        write_atomically(folder / CHOICE, json.dumps(choice._asdict(), indent=1) + "\n")
        learner = as_chosen(config, folder).learner.build(way)
        parts = parts._replace(learner=learner)
    return trained, parts


def _begun(learner: Learnet, parts: Parts) -> Learner:
    """A learnet whose first variables are those of the siamese network that another run trained."""
    assert learner.start is not None
    fresh, layers = parts.learner, learner.stream.layers()
    trained = load(learner.start).variables

    def init(key: Array, episode: Episode) -> Variables:
        return from_siamese(fresh.init(key, episode), trained, layers)

    begun = fresh._replace(init=init)
    try:
        shapes_of(begun, parts.splits.train.shape)
    except ValueError as error:
        raise ConfigError(f"learner.start is {learner.start}: {error}") from error
    return begun


def _classifier(config: Experiment, parts: Parts, variables: Variables) -> Classifier:
    """Of the classes that it was trained on."""
    train = parts.splits.train
    height, width, channels = train.shape
    pictures = Pictures((height, width, channels), train.prepare)
    task = stored_task(parts.learner, variables, pictures)
    return Classifier(parts.learner, variables, task, train.names, pictures, config)


def choose_rate(
    learner: FineTune, way: int, validation: Episodes, variables: Variables, seed: int
) -> Choice:
    """The rate and decay of the fine-tuning that do best on validation episodes."""
    settings = [{"rate": r, "decay": d} for r in learner.rates for d in learner.decays]
    make = lambda rate, decay: learner.at(way, rate, decay)
    return choose(make, settings, variables, validation, looks=learner.looks, seed=seed)


def compare(
    config: Experiment, parts: Parts, variables: Variables
) -> tuple[Evaluation, Evaluation]:
    """The final figure of a run, and the nearest neighbour's on the pixels of the same episodes;
    with masks, that of marking everything.

    The episodes are those of `metashot evaluate`, whatever the seed of the run.
    """
    test = episodes_of(config, parts.splits.test, config.test)
    if isinstance(config.test, MaskSizes):
        other = everything_marked()
    else:
        other = nearest_neighbor(way=config.test.way)
    untrained: Variables = {"params": {}, "state": {}}
    settings: Any = {"count": config.test_episodes, "metric": metric_of(config)}
    return (
        evaluate(parts.learner, variables, test, **settings),
        evaluate(other, untrained, test, **settings),
    )


def refuse_folder(folder: Path, resume: bool) -> None:
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


def refuse_changes(before: Experiment, now: Experiment) -> None:
    """A run goes on as it began; only its length and how it is watched may change."""
    for name in ("data", "learner", "train", "redraw", "meta_batch", "optimizer", "seed"):
        if getattr(before, name) != getattr(now, name):
            raise ConfigError(
                f"{name} is {getattr(now, name)}, but the run to resume has "
                f"{getattr(before, name)}; leave it as it was, or start another run"
            )


class Member(NamedTuple):
    """One seed of a sweep."""

    seed: int
    folder: Path
    step: int  # of the variables that were tested
    reached: Evaluation


def sweep(
    config: Experiment,
    workdir: str | Path,
    *,
    seeds: int = 3,
    resume: bool = False,
    progress: bool = True,
) -> Iterator[Member]:
    """Meta-train and test one run a seed, from config.seed on, in workdir/seed0 and so on.

    Members differ in what they draw to train; all are tested on the same episodes, those of
    `metashot evaluate`. On `resume` a finished member is tested again, not trained.

    Raises:
        ConfigError: before anything is written.
    """
    folder = Path(workdir)
    refuse_folder(folder, resume)
    if resume:
        refuse_changes(read_config(folder), config)
    test = episodes_of(config, build(config).splits.test, config.test)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.py", configs.as_text(config))
    for seed in range(config.seed, config.seed + seeds):
        member, own = dataclasses.replace(config, seed=seed), folder / f"seed{seed}"
        begun = (own / "config.py").exists()
        trained, parts = run(member, own, resume=begun, progress=progress)
        settings: Any = {"count": config.test_episodes, "metric": metric_of(config)}
        reached = evaluate(parts.learner, trained.variables, test, **settings)
        yield Member(seed, own, trained.step, reached)
