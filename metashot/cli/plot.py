"""`metashot plot RUN`: pictures of a run, of its gates, and of an episode with its answers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from ..config import Experiment, MetaLSTM
from .main import CallError, parse
from .run import checkpoint_of, dataset_of

if TYPE_CHECKING:
    from ..base import Learner

EXAMPLE = "metashot plot runs/glyphs_meta_lstm --episode 3"
GATE_EPISODES = 5  # whose gates are drawn


@dataclass(frozen=True)
class Options:
    """Draw a run: its curves, the gates of a Meta-Learner LSTM, and an episode with its answers."""

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
        return example, task, answers[:, : config.test.way]

    example, task, logits = answered(options.episode, source.arrays)
    if tracing:
        others = range(options.episode + 1, options.episode + GATE_EPISODES)
        all_gates = [task["gates"], *(answered(i, source.arrays)[1]["gates"] for i in others)]
        stacked = jax.tree.map(lambda *gates: jnp.stack(gates), *all_gates)
        print(plots.save(plots.gates(stacked), folder / "gates.png"))
    picture = plots.episode(example, logits, prepare=dataset.prepare)
    print(plots.save(picture, folder / "episode.png"))


def _telling_gates(config: Experiment) -> Learner | None:
    """A Meta-Learner LSTM that also tells its gates; None for other learners."""
    if not isinstance(config.learner, MetaLSTM):
        return None

    from ..learners.meta_lstm import meta_lstm
    from ..loading import trained_way

    network, way = config.learner.network.build(), trained_way(config)
    return meta_lstm(**dict(vars(config.learner), network=network, way=way, trace=True))
