"""Meta-training: one compiled function runs many meta-steps; Python looks on."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from . import metrics
from .base import Learner, PyTree, Variables
from .data.episodes import Episodes, episode_key
from .devices import episode_mesh, replicate
from .evaluation import VALIDATION, Evaluation, evaluator
from .meta_step import TRAINING, init_state, make_meta_steps
from .profiling import traced
from .progress import Progress
from .runs import Run

DECISIVE = ("loss", "grad_norm", "update_norm")  # that are not finite stop a run


class Trained(NamedTuple):
    """What `train` returns."""

    variables: Variables  # of the best checkpoint by validation; without validation, the last
    step: int  # at which they were
    history: list[dict[str, float]]  # what went to metrics.jsonl


def train(
    learner: Learner,
    episodes: Episodes,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    variables: Variables | None = None,
    meta_batch: int = 1,
    chunk: int | None = None,
    seed: int = 0,
    validation: Episodes | None = None,
    validation_episodes: int = 100,
    validate_every: int = 1000,
    log_every: int = 10,
    metric: metrics.Metric = metrics.accuracy,
    workdir: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    profile: Path | None = None,
) -> Trained:
    """Meta-train a learner.

    Args:
        learner: what is trained.
        episodes: training episodes (`metashot.data.episodes`).
        optimizer: any optax transformation, applied to the gradient averaged over the meta-batch.
        steps: meta-steps in all, counted from the start of the run also when it is resumed.
        variables: where to start, such as trained or imprinted ones; by default fresh ones.
        meta_batch: episodes a meta-step; they are divided among the devices.
        chunk: episodes that a device holds at once; None is 1 on a CPU, elsewhere a device's
            whole share of the meta-batch.
        seed: of the first variables and of all episodes.
        validation: episodes on which checkpoints are compared, `validation_episodes` of them
            every `validate_every` steps and at the end.
        log_every: steps that run in one dispatch, between looks at the loss.
        metric: of the validation.
        workdir: folder for checkpoints and metrics.jsonl; None keeps nothing on disk.
        resume: go on from the last checkpoint in `workdir`: the result is bit-identical to an
            uninterrupted run on the same machine with the same devices.
        progress: show a bar on a terminal, a line now and then elsewhere (stderr).
        profile: folder for a profiler's trace of some dispatches after the first.

    Raises:
        ValueError: an argument outside its values.
        FloatingPointError: a loss or gradient that is not finite; it names the step.
        KeyboardInterrupt: on Ctrl-C, at the end of the dispatch and after the state was saved.
    """
    for name, value in {"steps": steps, "meta_batch": meta_batch, "log_every": log_every}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it is at least 1")
    if validate_every % log_every:
        raise ValueError(
            f"validate_every is {validate_every}; it must be a multiple of log_every, {log_every}"
        )
    kept = jax.config.values["jax_compilation_cache_dir"]
    if kept and progress:
        print(f"compiled programs are kept in {kept}", file=sys.stderr)
    mesh = episode_mesh(meta_batch)
    chunk = chunk_size(meta_batch, chunk, mesh)
    arrays = replicate(episodes.arrays, mesh)
    first = jax.jit(episodes.sample)(episode_key(seed, TRAINING, 0), arrays)
    start = jax.jit(lambda *given: init_state(learner, optimizer, *given))
    state = start(first, seed, variables)
    state = replicate(state, mesh)
    meta_steps = make_meta_steps(
        learner, optimizer, episodes.sample, mesh, meta_batch=meta_batch, chunk=chunk, seed=seed
    )
    validate = validation and evaluator(
        learner,
        validation,
        count=validation_episodes,
        seed=seed,
        stream=VALIDATION,
        metric=metric,
    )
    run = Run(state, None if workdir is None else Path(workdir), resume)
    input_shape = jax.tree.map(lambda x: x.shape[1:], first.support.inputs)
    run.describe(input_shape=input_shape, prepare=episodes.prepare)
    bar = Progress(steps, start=run.step, shown=progress)
    with closing(run), closing(bar):

        def look(step: int, told: PyTree) -> None:
            """Fetch the metrics up to `step`, stop if they are not finite, note them."""
            told = jax.tree.map(np.asarray, told)
            _refuse_non_finite(step, told, run)
            means = {name: float(value.mean()) for name, value in told.items()}
            run.note(step, episodes=step * meta_batch, **means)
            bar.show(step, episodes=len(told["loss"]) * meta_batch, **means)

        pending: tuple[int, PyTree] | None = None
        with _ctrl_c() as asked, traced(profile) as dispatching:
            while run.step < steps:
                k = min(log_every, steps - run.step)
                dispatching(run.state)
                run.state, told = meta_steps(run.state, arrays, k)
                if pending:  # look at the last dispatch while this one runs
                    look(*pending)
                run.step += k
                pending = run.step, told
                due = run.step % validate_every == 0 or run.step == steps
                if due or asked:
                    look(*pending)
                    pending = None
                if due:
                    run.save(_validated(run, bar, validate))
                if asked:
                    run.save(float("-inf"))
                    raise KeyboardInterrupt
        variables, step = run.best()
        return Trained(variables, step, run.history)


def chunk_size(meta_batch: int, chunk: int | None, mesh: Mesh) -> int:
    """The episodes that a device holds at once; None is 1 on a CPU, elsewhere its whole share.

    Raises:
        ValueError: a chunk that does not divide a device's share of the meta-batch.
    """
    share = meta_batch // mesh.size
    chunk = chunk or (1 if jax.default_backend() == "cpu" else share)
    if share % chunk:
        raise ValueError(
            f"chunk is {chunk}; it divides a device's share of the meta-batch, "
            f"{meta_batch} / {mesh.size} devices = {share}"
        )
    return chunk


def _validated(
    run: Run, bar: Progress, validate: Callable[[Variables], Evaluation] | None
) -> float:
    """The score of the state as it is; without validation, later is better."""
    if validate is None:
        return float(run.step)
    bar.say("validating")
    result = validate(run.state.variables)
    for name, (value, half) in result.summary.items():
        run.note(run.step, **{f"val_{name}": value, "val_interval": half})
        bar.show(run.step, **{f"val_{name}": value})
    return result.score


@contextmanager
def _ctrl_c() -> Generator[list[int]]:
    """A list that is empty until Ctrl-C; a second one interrupts at once.

    A state is donated while a dispatch starts: an exception there would leave none to save.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _refuse_non_finite(step: int, told: PyTree, run: Run) -> None:
    # A finite update keeps the parameters finite: what is saved can be relied on.
    finite = np.logical_and.reduce([np.isfinite(told[name]) for name in DECISIVE])
    if finite.all():
        return
    first = step - len(finite) + int(np.argmin(finite)) + 1
    last = run.checkpoints.last() if run.checkpoints else None
    good = f"the checkpoint of step {last} is good" if last else "there is no checkpoint yet"
    raise FloatingPointError(
        f"the loss or its gradient is not finite at step {first}; {good}; "
        "try a lower learning rate or a smaller clip"
    )
