"""Meta-training: one compiled function runs many meta-steps; Python looks on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from . import metrics
from .base import Array, Episode, Learner, PyTree, Variables
from .data.episodes import Episodes, episode_key
from .devices import divide, episode_mesh, replicate
from .evaluation import VALIDATION, evaluator
from .progress import Progress

TRAINING, INITIAL = 0, 3  # streams of keys: training episodes, first variables


class TrainState(NamedTuple):
    """All that a run needs to go on."""

    variables: Variables
    opt_state: PyTree
    step: Array  # [] int32, meta-steps done


class Trained(NamedTuple):
    """What `train` returns."""

    variables: Variables  # of the best checkpoint by validation; without validation, the last
    step: int  # at which they were
    history: list[dict[str, float]]  # what went to metrics.jsonl


def init_state(
    learner: Learner, optimizer: optax.GradientTransformation, episode: Episode, seed: int
) -> TrainState:
    """Fresh variables and optimiser state for episodes of this shape."""
    variables = learner.init(episode_key(seed, INITIAL, 0), episode)
    return TrainState(variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32))


def make_meta_steps(
    learner: Learner,
    optimizer: optax.GradientTransformation,
    sample: Callable[[Array, Any], Any],
    mesh: Mesh,
    *,
    meta_batch: int,
    chunk: int,
    seed: int,
) -> Callable[[TrainState, PyTree, int], tuple[TrainState, PyTree]]:
    """A jitted (state, arrays, k) -> (state, metrics [k]) that takes k meta-steps.

    Gradients are averaged over the meta-batch here and nowhere else: `vmap` over the `chunk`
    episodes that each device of the mesh holds at once, `scan` over rounds of these with the
    gradient taken inside and added up.
    """
    width = mesh.size * chunk
    rounds = meta_batch // width

    def chunk_loss(
        params: PyTree, state: PyTree, arrays: PyTree, keys: Array
    ) -> tuple[Array, PyTree]:
        def one(key: Array) -> tuple[Array, Any]:
            sample_key, loss_key = jax.random.split(key)
            return learner.loss(
                {"params": params, "state": state}, sample(sample_key, arrays), loss_key
            )

        losses, aux = jax.vmap(one)(keys)
        told = {"loss": losses, **aux.metrics}
        return losses.mean(), jax.tree.map(lambda x: x.mean(0), (told, aux.state))

    def meta_step(state: TrainState, arrays: PyTree) -> tuple[TrainState, PyTree]:
        variables = state.variables
        params = variables["params"]
        index = state.step * meta_batch + jnp.arange(meta_batch)
        keys = jax.vmap(lambda i: episode_key(seed, TRAINING, i))(index)
        keys = divide(keys.reshape(rounds, width), mesh)

        def one_round(keys: Array) -> PyTree:
            grad = jax.value_and_grad(chunk_loss, has_aux=True)
            (_, told), grads = grad(params, variables["state"], arrays, keys)
            return grads, told

        shapes = jax.eval_shape(one_round, keys[0])
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        add = lambda total, keys: (jax.tree.map(jnp.add, total, one_round(keys)), None)
        total, _ = jax.lax.scan(add, zeros, keys)
        grads, (told, moved) = jax.tree.map(lambda x: x / rounds, total)

        updates, opt_state = optimizer.update(grads, state.opt_state, params)
        new: Variables = {
            "params": optax.apply_updates(params, updates),
            "state": _merge(variables["state"], moved),
        }
        told["grad_norm"] = optax.global_norm(grads)
        return TrainState(new, opt_state, state.step + 1), told

    def meta_steps(state: TrainState, arrays: PyTree, k: int) -> tuple[TrainState, PyTree]:
        return jax.lax.scan(lambda state, _: meta_step(state, arrays), state, length=k)

    return jax.jit(meta_steps, static_argnums=2, donate_argnums=0)


def _merge(old: PyTree, new: PyTree) -> PyTree:
    """The old state with the entries that changed, in the old dtypes."""
    if isinstance(old, dict):
        return {k: _merge(v, new[k]) if k in new else v for k, v in old.items()}
    return jnp.asarray(new, old.dtype)


def train(
    learner: Learner,
    episodes: Episodes,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
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
) -> Trained:
    """Meta-train a learner.

    Args:
        learner: what is trained.
        episodes: training episodes (`metashot.data.episodes`).
        optimizer: any optax transformation, applied to the gradient averaged over the meta-batch.
        steps: meta-steps in all, counted from the start of the run also when it is resumed.
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

    Raises:
        ValueError: an argument outside its values.
        FloatingPointError: a loss or gradient that is not finite; it names the step.
        KeyboardInterrupt: passed on, after the state was saved.
    """
    for name, value in {"steps": steps, "meta_batch": meta_batch, "log_every": log_every}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it is at least 1")
    if validate_every % log_every:
        raise ValueError(
            f"validate_every is {validate_every}; it must be a multiple of log_every, {log_every}"
        )
    mesh = episode_mesh(meta_batch)
    share = meta_batch // mesh.size
    chunk = chunk or (1 if jax.default_backend() == "cpu" else share)
    if share % chunk:
        raise ValueError(
            f"chunk is {chunk}; it divides a device's share of the meta-batch, "
            f"{meta_batch} / {mesh.size} devices = {share}"
        )
    arrays = replicate(episodes.arrays, mesh)
    first = jax.jit(episodes.sample)(episode_key(seed, TRAINING, 0), arrays)
    state = jax.jit(lambda episode: init_state(learner, optimizer, episode, seed))(first)
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
    run = _Run(state, None if workdir is None else Path(workdir), resume)
    run.describe(input_shape=first.support.inputs.shape[1:])
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
        try:
            while run.step < steps:
                k = min(log_every, steps - run.step)
                run.state, told = meta_steps(run.state, arrays, k)
                if pending:  # look at the last dispatch while this one runs
                    look(*pending)
                run.step += k
                pending = run.step, told
                if run.step % validate_every == 0 or run.step == steps:
                    look(*pending)
                    pending = None
                    score = float(run.step)
                    if validate:
                        bar.say("validating")
                        result = validate(run.state.variables)
                        score = result.score
                        for name, (value, half) in result.summary.items():
                            run.note(run.step, **{f"val_{name}": value, "val_interval": half})
                            bar.show(run.step, **{f"val_{name}": value})
                    run.save(score)
        except KeyboardInterrupt:
            run.save(float("-inf"))
            raise
        return run.result()


def _refuse_non_finite(step: int, told: PyTree, run: _Run) -> None:
    finite = np.isfinite(told["loss"]) & np.isfinite(told["grad_norm"])
    if finite.all():
        return
    first = step - len(finite) + int(np.argmin(finite)) + 1
    last = run.checkpoints.last() if run.checkpoints else None
    good = f"the checkpoint of step {last} is good" if last else "there is no checkpoint yet"
    raise FloatingPointError(
        f"the loss or its gradient is not finite at step {first}; {good}; "
        "try a lower learning rate or a smaller clip"
    )


class _Run:
    """What a run keeps: the state, its history, and both on disk where there is a workdir."""

    def __init__(self, state: TrainState, workdir: Path | None, resume: bool) -> None:
        self.state = state
        self.step = 0
        self._workdir = workdir
        self.history: list[dict[str, float]] = []
        self.checkpoints = None
        self._best: tuple[float, int, Variables] | None = None
        self._log = None
        self._clock = time.perf_counter()
        if workdir is None:
            if resume:
                raise ValueError("resume needs the workdir of the run that is to go on")
            return
        from .checkpoints import Checkpoints  # orbax costs half a second: only where it is used

        workdir.mkdir(parents=True, exist_ok=True)
        self.checkpoints = Checkpoints(workdir / "checkpoints")
        last = self.checkpoints.last() if resume else None
        if last is not None:
            saved = self.checkpoints.restore(last, self._items())
            self.state = TrainState(saved["variables"], *saved["training"])
            self.step = last
            self.history = [row for row in read_history(workdir) if row["step"] <= last]
            self._clock -= max((row.get("seconds", 0.0) for row in self.history), default=0.0)
        path = workdir / "metrics.jsonl"
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in self.history))
        self._log = path.open("a", buffering=1)

    def _items(self) -> dict[str, PyTree]:
        """What a checkpoint holds; who only uses a learner reads its variables alone."""
        state = self.state
        return {"variables": state.variables, "training": (state.opt_state, state.step)}

    def describe(self, **facts: Any) -> None:
        """Write run.json: what a reader of the checkpoints must know, and what made them."""
        if self._workdir:
            text = json.dumps({**facts, "versions": versions()}, indent=2) + "\n"
            write_atomically(self._workdir / "run.json", text)

    def note(self, step: int, **values: float) -> None:
        """Add a row to the history."""
        row = {"step": step, **values, "seconds": round(time.perf_counter() - self._clock, 3)}
        self.history.append(row)
        if self._log:
            self._log.write(json.dumps(row) + "\n")

    def save(self, score: float) -> None:
        """Keep the state; it becomes the best one if no score was higher."""
        if self.checkpoints:
            if self.checkpoints.last() != self.step:
                self.checkpoints.save(self.step, self._items(), score)
        elif self._best is None or score > self._best[0]:
            self._best = score, self.step, jax.tree.map(jnp.copy, self.state.variables)

    def result(self) -> Trained:
        """The best variables, once all is on disk."""
        best, variables = self.step, self.state.variables
        if self.checkpoints:
            self.checkpoints.wait()
            best = self.checkpoints.best() or self.step
            if best != self.step:
                variables = self.checkpoints.restore(best, {"variables": variables})["variables"]
        elif self._best:
            _, best, variables = self._best
        return Trained(variables, best, self.history)

    def close(self) -> None:
        if self.checkpoints:
            self.checkpoints.close()
        if self._log:
            self._log.close()


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is never seen half written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def versions() -> dict[str, str]:
    """Of Python, of the libraries that decide results, and of the device."""
    names = ("metashot", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    device = jax.devices()[0].device_kind
    return {"python": platform.python_version(), **found, "device": device}


def read_history(workdir: str | Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl; a last line that was cut short is left out."""

    def rows(path: Path) -> Iterator[dict[str, float]]:
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return

    return list(rows(Path(workdir) / "metrics.jsonl"))
