"""`metashot plot RUN`: pictures of a run, of its gates, and of an episode with its answers."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from ..config import (
    Experiment,
    Learnet,
    MaskSizes,
    Matching,
    MemoryMatching,
    MetaLSTM,
    Siamese,
    Sizes,
)
from .main import CallError, parse
from .run import checkpoint_of, dataset_of

if TYPE_CHECKING:
    from ..base import Array, Episode, Learner, Variables
    from ..data import Dataset, Episodes

EXAMPLE = "metashot plot runs/glyphs_meta_lstm --episode 3"
GATE_EPISODES = 5  # whose gates are drawn
MASK_EPISODES, SHOTS = 6, 5
PROBLEMS = 8  # whose candidates are drawn
FILTERS = 5  # exemplars whose predicted filters are drawn
SHOT = 10  # support images a class, and queries, of which embeddings and similarities are drawn


@dataclass(frozen=True)
class Options:
    """Draw a run: its curves, and an episode with its answers.

    Of a Meta-Learner LSTM also the gates; of a learner that compares queries with support examples
    also the embeddings of test classes, by t-SNE, and all similarities; of a siamese network or a
    learnet matching problems with their scores, and the filters that a learnet predicts.
    """

    run: tyro.conf.Positional[Path]
    """folder of the run"""
    out: Path | None = None
    """folder of the pictures; RUN/plots by default"""
    episode: int = 0
    """which of the list of episodes is drawn; the gates are of this one and the next four"""
    seed: int = 0
    """of the list of episodes, as in metashot evaluate"""
    split: Literal["train", "val", "test"] = "test"
    """whose classes"""
    checkpoint: str = "best"
    """best by validation, last, or a step"""
    beside: Path | None = None
    """another run whose embeddings and similarities are drawn beside this one's"""
    beside_checkpoint: str = "best"
    """of that run"""
    source: str | None = None
    """folder of the data, where it has moved"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = parse(Options, arguments, command="plot", example=EXAMPLE)
    run: Path = options.run
    if options.episode < 0:
        raise CallError(f"--episode is {options.episode}; the first is 0")
    if not (run / "run.json").exists():
        raise CallError(f"{run} holds no run of metashot (no run.json)")

    from .. import plots, runs  # from here on, jax

    if not plots.available():
        raise CallError("metashot plot needs matplotlib: pip install 'metashot[plots]'")
    folder: Path = options.out or run / "plots"
    print(plots.save(plots.curves(runs.read_history(run)), folder / "curves.png"))
    if (run / "config.py").exists():
        _draw_episodes(options, folder)
    else:
        print(f"only curves: {run} has no config.py to name data and learner", file=sys.stderr)
    return 0


def _draw_episodes(options: Options, folder: Path) -> None:
    import jax
    import jax.numpy as jnp

    from .. import loading, plots
    from ..data import episode_key, episodes
    from ..evaluation import TEST

    run = options.run
    config = loading.read_config(run)
    if isinstance(config.test, MaskSizes):
        return _draw_masks(options, config, folder)
    way = config.test.way
    if options.beside:
        for one, its in ((run, config), (options.beside, loading.read_config(options.beside))):
            if not _compares(its):
                kind = type(its.learner).__name__
                raise CallError(
                    f"--beside draws embeddings of Matching and MemoryMatching; {one} is a {kind}"
                )
    dataset = dataset_of(run, config, options.split, options.source)
    source = episodes(dataset, **vars(config.test))
    tracing = _telling_gates(config)
    learner, variables, *_ = loading.load(
        run, checkpoint=checkpoint_of(options.checkpoint), learner=tracing
    )

    @jax.jit
    def answered(index: int, arrays: Any) -> tuple[Any, Any, Any]:
        """An episode of the list that `evaluate` draws, its task, and the answers."""
        sample_key, adapt_key = jax.random.split(episode_key(options.seed, TEST, index))
        example = source.sample(sample_key, arrays)
        task = learner.adapt(variables, example.support, adapt_key)
        answers = learner.predict(variables, task, example.query.inputs)
        # A classifier of all the data's classes knows only these.
        return example, task, answers[:, :way]

    example, task, logits = answered(options.episode, source.arrays)
    if tracing:
        others = range(options.episode + 1, options.episode + GATE_EPISODES)
        all_gates = [task["gates"], *(answered(i, source.arrays)[1]["gates"] for i in others)]
        stacked = jax.tree.map(lambda *gates: jnp.stack(gates), *all_gates)
        print(plots.save(plots.gates(stacked), folder / "gates.png"))
    picture = plots.episode(example, logits, prepare=dataset.prepare)
    print(plots.save(picture, folder / "episode.png"))
    if _compares(config):
        _draw_matches(options, dataset, folder)
    if isinstance(config.learner, Learnet | Siamese):
        _draw_problems(options, config, learner, variables, dataset, folder)


def _draw_masks(options: Options, config: Experiment, folder: Path) -> None:
    """Answers to one picture and to five, and to what another class's picture shows."""
    import jax
    import jax.numpy as jnp

    from .. import experiment, loading, plots

    dataset = dataset_of(options.run, config, options.split, options.source)
    learner, variables, *_ = loading.load(options.run, checkpoint=checkpoint_of(options.checkpoint))

    @jax.jit
    def answered(support: Any, query: Any) -> Any:
        """[n, H, W], of n episodes in turn."""
        one = lambda both: learner.predict(
            variables, learner.adapt(variables, both[0]), both[1].inputs
        )
        return jax.lax.map(one, (support, query))[:, 0]

    def episodes_of(shot: int) -> Any:
        size = dataclasses.replace(config.test, shot=shot, query=1)
        source = experiment.episodes_of(config, dataset, size)
        numbers = range(options.episode, options.episode + MASK_EPISODES)
        return jax.tree.map(lambda *x: jnp.stack(x), *(_drawn(options, source, i) for i in numbers))

    shown: dict[str, tuple[Array, Array]] = {}
    support, query, _ = episodes_of(1)
    asked = query.inputs[:, 0]
    others = jax.tree.map(lambda x: jnp.roll(x, 1, 0), support)
    shown["support"] = support.inputs[:, 0], support.targets[:, 0]
    shown["what is asked for"] = asked, query.targets[:, 0]
    shown["answer"] = asked, answered(support, query)
    shown["to the support above"] = asked, answered(others, query)
    try:
        support, query, _ = episodes_of(SHOTS)
    except ValueError:
        pass  # classes have too few pictures
    else:
        asked, first = query.inputs[:, 0], jax.tree.map(lambda x: x[:, :1], support)
        shown["another query"] = asked, query.targets[:, 0]
        shown["by 1 picture"] = asked, answered(first, query)
        shown[f"by {SHOTS} pictures"] = asked, answered(support, query)
    print(plots.save(plots.masks(shown, prepare=dataset.prepare), folder / "masks.png"))


def _compares(config: Experiment) -> bool:
    """Whether the learner's Task holds embeddings, with which it compares queries."""
    return isinstance(config.learner, Matching | MemoryMatching)


def _draw_matches(options: Options, dataset: Dataset, folder: Path) -> None:
    """Embeddings of a large support, and similarities of queries with them."""
    from .. import loading, plots
    from ..data import episodes

    runs = [(options.run, options.checkpoint)]
    runs += [(options.beside, options.beside_checkpoint)] if options.beside else []
    test, shot = loading.read_config(options.run).test, min(SHOT, dataset.smallest // 2)
    assert isinstance(test, Sizes)
    way = test.way
    source = episodes(dataset, way=way, shot=shot, query=shot)
    example = _drawn(options, source)
    classes = example.support.targets
    embedded, similar = {}, {}
    for run, checkpoint in runs:
        loaded = loading.load(run, checkpoint=checkpoint_of(checkpoint), way=way)
        title = f"{run}, step {loaded.step:,}"
        z, similar[title] = _matches(loaded.learner, loaded.variables, example)
        embedded[title] = z, classes
    if plots.available("sklearn"):
        print(plots.save(plots.embeddings(embedded), folder / "embeddings.png"))
    else:
        need = "no embeddings.png, which needs scikit-learn: pip install 'metashot[plots]'"
        print(need, file=sys.stderr)
    picture = plots.similarities(similar, classes, example.query.targets)
    print(plots.save(picture, folder / "similarities.png"))


def _drawn(options: Options, source: Episodes, index: int | None = None) -> Episode:
    """An episode as `evaluate` draws it, the one that the options name by default."""
    import jax

    from ..data import episode_key
    from ..evaluation import TEST

    index = options.episode if index is None else index
    if source.listed:
        return jax.jit(source.listed)(index, source.arrays)
    key, _ = jax.random.split(episode_key(options.seed, TEST, index))
    return jax.jit(source.sample)(key, source.arrays)


def _matches(learner: Learner, variables: Variables, example: Episode) -> tuple[Array, Array]:
    """Embeddings of the support [n, d], and similarities [q, n] of the queries with it."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def run(variables: Variables) -> tuple[Array, Array]:
        task = learner.adapt(variables, example.support)
        # Where each example is a class of its own, the logits are similarities.
        alone = {**task, "member": jnp.eye(len(example.support.mask), dtype=bool)}
        return task["embeddings"], learner.predict(variables, alone, example.query.inputs)

    return run(variables)


def _draw_problems(
    options: Options,
    config: Experiment,
    learner: Learner,
    variables: Variables,
    dataset: Dataset,
    folder: Path,
) -> None:
    """Problems with the scores of their candidates, and what a learnet made of the exemplars."""
    import jax

    from .. import plots
    from ..data import problems
    from ..learners.learnet import filter_responses

    test = config.test
    assert isinstance(test, Sizes)
    source = problems(dataset, way=test.way, exemplars=PROBLEMS, scope=test.scope)
    example = _drawn(options, source)

    @jax.jit
    def scored(variables: Variables) -> tuple[Any, Any]:
        task = learner.adapt(variables, example.support)
        return task, learner.predict(variables, task, example.query.inputs)

    task, scores = scored(variables)
    picture = plots.matches(example, scores, prepare=dataset.prepare)
    print(plots.save(picture, folder / "matches.png"))
    shown, made = example.support.inputs, config.learner
    if "layers" not in task or not made.factorised:
        return
    task = jax.tree.map(lambda x: x[:FILTERS], task)
    for name in made.predicts:
        kernel = task["layers"][name]["kernel"]
        if kernel.ndim == 4:  # of a convolution
            maps = filter_responses(variables, task, name, shown[0], made.stream.layers())
            picture = plots.predicted_filters(
                shown[:FILTERS], shown[0], kernel, maps, prepare=dataset.prepare
            )
            print(plots.save(picture, folder / f"filters_{name}.png"))


def _telling_gates(config: Experiment) -> Learner | None:
    """A Meta-Learner LSTM that also tells its gates; None for other learners."""
    if not isinstance(config.learner, MetaLSTM):
        return None

    from ..learners.meta_lstm import meta_lstm
    from ..loading import trained_way

    network, way = config.learner.network.build(), trained_way(config)
    return meta_lstm(**dict(vars(config.learner), network=network, way=way, trace=True))
