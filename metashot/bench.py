"""Speed: how long the work of a row takes, and a peer at the same work.

Ours and the peer take turns, A B A B, on the same number of threads. A row's ratio is the median
over these rounds of peer / ours: a machine that others use changes its speed from minute to
minute, so that only figures taken side by side can be compared.
"""

from __future__ import annotations

import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from . import metrics, runs, yardstick
from .base import Array, Episode, Learner, PyTree
from .config import Adam
from .data import from_arrays
from .data.episodes import Episodes, episode_key, episodes
from .devices import cores, episode_mesh, replicate
from .evaluation import TEST, evaluator, make_measure_all
from .learners.meta_lstm import meta_lstm
from .learners.prototypical import prototypical
from .meta_step import TRAINING, init_state, make_meta_steps
from .nets import conv
from .training import chunk_size

LEAST = 0.5  # seconds that a repeat lasts, in as many dispatches as that takes
EVALUATED = 600  # episodes
SAMPLED = 100  # episodes a dispatch
VARIANTS = ("channels-last", "fastest")  # further switches of the PyTorch yardsticks, a row each


class Setting(NamedTuple):
    """Random pictures, and the episodes drawn from them."""

    size: int  # pixels
    channels: int
    classes: int
    images: int  # a class
    way: int
    query: int
    shot: int = 1

    def source(self) -> Episodes:
        """Episodes of pictures that are always the same."""
        shape = (self.classes * self.images, self.size, self.size, self.channels)
        pictures = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        dataset = from_arrays(pictures, np.repeat(np.arange(self.classes), self.images))
        return episodes(dataset, way=self.way, shot=self.shot, query=self.query)

    def arguments(self, **more: Any) -> tuple[str, ...]:
        """For a yardstick of the same sizes."""
        sizes = {name: getattr(self, name) for name in ("size", "channels", "way", "shot", "query")}
        return tuple(f"--{name}={value}" for name, value in {**sizes, **more}.items())


# Classes as in training on Omniglot with rotations, and on miniImageNet (there 600 pictures each).
CHARACTERS_20 = Setting(28, 1, classes=4112, images=20, way=20, query=5)
CHARACTERS = CHARACTERS_20._replace(way=5, query=15)
PHOTOGRAPHS = Setting(84, 3, classes=64, images=100, way=5, query=15)


class Work(NamedTuple):
    """Something to time."""

    run: Callable[[], Any]  # one dispatch; gives what to wait for
    steps: int  # of a dispatch
    made: dict[str, float]  # how long compiling took, and what the program takes


class Row(NamedTuple):
    """What is timed, and against what."""

    build: Callable[[], Work]
    episodes: int | None = None  # of a step
    torch: tuple[str, ...] = ()  # what the PyTorch yardsticks are called with
    peer: tuple[str, Callable[[], Work]] | None = None  # of our own: what it is, and how to make it
    share: bool = False  # whether ours is a part of that peer


def _compile(function: Any, *arguments: Any) -> tuple[Any, dict[str, float]]:
    """The compiled program; how long tracing and compiling took, and its temporary memory."""
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    took = time.perf_counter() - start
    size = compiled.memory_analysis().temp_size_in_bytes
    return compiled, {"compile_seconds": took, "temporary_bytes": size}


def training(
    learner: Learner, optimizer: Any, setting: Setting, *, meta_batch: int = 1, steps: int = 1
) -> Work:
    """The meta-steps of `train`, so many a dispatch, sampling included."""
    source = setting.source()
    mesh = episode_mesh(meta_batch)
    arrays = replicate(source.arrays, mesh)
    chunk = chunk_size(meta_batch, None, mesh)
    meta_steps = make_meta_steps(
        learner, optimizer, source.sample, mesh, meta_batch=meta_batch, chunk=chunk, seed=0
    )
    first = jax.jit(source.sample)(episode_key(0, TRAINING, 0), arrays)
    state = jax.jit(lambda episode: init_state(learner, optimizer, episode, 0))(first)
    state = replicate(state, mesh)
    compiled, made = _compile(meta_steps, state, arrays, steps)

    def run() -> PyTree:
        nonlocal state
        state, told = compiled(state, arrays)
        return told

    return Work(run, steps, made)


def conv4_step(setting: Setting, steps: int) -> Work:
    """Training steps of a prototypical Conv4-64."""
    return training(prototypical(way=setting.way), optax.adam(1e-3), setting, steps=steps)


def meta_lstm_step(setting: Setting, meta_batch: int = 1, steps: int = 1) -> Work:
    """Meta-steps of the Meta-Learner LSTM, clipped as in the configs."""
    optimizer = Adam(clip=0.25).build(steps=1)
    learner = meta_lstm(way=setting.way)
    return training(learner, optimizer, setting, meta_batch=meta_batch, steps=steps)


def evaluation(setting: Setting) -> Work:
    """One call of `evaluator` for a prototypical Conv4-64."""
    source, learner = setting.source(), prototypical(way=setting.way)
    variables = learner.init(jax.random.key(0), source.sample(jax.random.key(0), source.arrays))
    run = partial(evaluator(learner, source, count=EVALUATED), variables)
    settings: Any = {"count": EVALUATED, "seed": 0, "stream": TEST, "chunk": None}
    program = make_measure_all(
        learner, source.sample, episode_mesh(EVALUATED), **settings, metric=metrics.accuracy
    )
    _, made = _compile(program, variables, source.arrays)
    return Work(lambda: run().measures, 1, made)


def sampling(setting: Setting) -> Work:
    """Draws of single episodes, as a step makes them."""
    source = setting.source()
    arrays = replicate(source.arrays, episode_mesh(1))
    draw = lambda i, arrays: source.sample(episode_key(0, TRAINING, i), arrays)

    @jax.jit
    def draw_all(first: Episode, arrays: PyTree) -> Episode:
        # Each episode replaces the last one in the loop's state: all of it is made, in memory.
        return jax.lax.scan(lambda _, i: (draw(i, arrays), None), first, jnp.arange(SAMPLED))[0]

    first = jax.jit(draw)(0, arrays)
    compiled, made = _compile(draw_all, first, arrays)
    return Work(lambda: compiled(first, arrays), SAMPLED, made)


def own_weights(count: int = 8, *, together: bool) -> Work:
    """`conv` with a kernel for each of `count` episodes, forward and both gradients.

    One vmapped call, or as many single calls in a row.
    """
    image_key, kernel_key = jax.random.split(jax.random.key(0))
    images = jax.random.normal(image_key, (count, 5, 14, 14, 32))
    kernels = jax.random.normal(kernel_key, (count, 3, 3, 32, 32))

    def one(images: Array, kernel: Array) -> tuple[Array, ...]:
        y, gradients = jax.vjp(conv, images, kernel)
        return y, *gradients(y)

    if together:
        compiled, made = _compile(jax.jit(jax.vmap(one)), images, kernels)
        return Work(lambda: compiled(images, kernels), 1, made)
    pairs = list(zip(images, kernels, strict=True))
    compiled, made = _compile(jax.jit(one), *pairs[0])
    return Work(lambda: [compiled(*pair) for pair in pairs], 1, made)


def _conv4_row(setting: Setting, steps: int) -> Row:
    return Row(partial(conv4_step, setting, steps), 1, ("conv4_step", *setting.arguments()))


def _meta_lstm_row(setting: Setting, meta_batch: int = 1, steps: int = 1) -> Row:
    arguments = setting.arguments(episodes=meta_batch)
    build = partial(meta_lstm_step, setting, meta_batch, steps)
    return Row(build, meta_batch, ("meta_lstm", *arguments))


def _sampling_row(setting: Setting, step: Row) -> Row:
    peer = ("the step that it is part of", step.build)
    return Row(partial(sampling, setting), 1, peer=peer, share=True)


ROWS = {
    "conv4_step_28": _conv4_row(CHARACTERS_20, steps=10),
    "conv4_step_84": _conv4_row(PHOTOGRAPHS, steps=2),
    "meta_lstm_28": _meta_lstm_row(CHARACTERS, steps=5),
    "meta_lstm_28_e8": _meta_lstm_row(CHARACTERS, 8),
    "meta_lstm_28_e32": _meta_lstm_row(CHARACTERS, 32),
    "meta_lstm_84": _meta_lstm_row(PHOTOGRAPHS, steps=2),
    "meta_lstm_84_e8": _meta_lstm_row(PHOTOGRAPHS, 8),
    "meta_lstm_84_e32": _meta_lstm_row(PHOTOGRAPHS, 32),
    "evaluate_600": Row(
        partial(evaluation, CHARACTERS),
        EVALUATED,
        ("evaluate", *CHARACTERS.arguments(episodes=EVALUATED)),
    ),
    "vmap_own_weights_8": Row(
        partial(own_weights, together=True),
        peer=("eight single calls", partial(own_weights, together=False)),
    ),
}
ROWS["sampling_share"] = _sampling_row(CHARACTERS, ROWS["meta_lstm_28"])
ROWS["sampling_share_20way"] = _sampling_row(CHARACTERS_20, ROWS["conv4_step_28"])


def measure(
    name: str, *, repeats: int = 7, torch: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Measure a row; gives it, and with PyTorch also NAME_channels_last and the like.

    Args:
        repeats: rounds.
        torch: the command of the PyTorch yardsticks; None measures rows that have no peer of our
            own alone.

    Raises:
        ChildProcessError: a yardstick stopped by itself.
    """
    row = ROWS[name]
    work = row.build()
    ours, steps = _repeat(work)

    def told(suffix: str, peer: str | None, theirs: Callable[[], float] | None) -> dict[str, Any]:
        found = figures(*alternate(ours, theirs, repeats))
        if row.episodes:
            found["episodes_per_second"] = row.episodes / found["seconds"]
        if row.share:
            found["share"] = 1 / found["ratio"]
        return {"name": name + suffix, **found, "steps": steps, "peer": peer, **work.made}

    if row.peer:
        peer, build = row.peer
        yield told("", peer, _repeat(build())[0])
    elif torch:
        command = [*torch, *row.torch, f"--threads={cores()}"]
        for variant in ("", *VARIANTS):
            switch = [f"--{variant}"] if variant else []
            with yardstick.running([*command, *switch]) as seconds:
                theirs = lambda seconds=seconds: seconds(steps) / steps
                suffix = f"_{variant}".replace("-", "_") if variant else ""
                yield told(suffix, "PyTorch" + suffix.replace("_", " "), theirs)
    else:
        yield told("", None, None)


def alternate(
    ours: Callable[[], float], theirs: Callable[[], float] | None, repeats: int
) -> tuple[list[float], list[float]]:
    """The seconds of each round: ours, then theirs where there is such."""
    rounds = [(ours(), theirs() if theirs else None) for _ in range(repeats)]
    return [a for a, _ in rounds], [b for _, b in rounds if b is not None]


def figures(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """What rounds come to: medians, their spread, and the ratio theirs / ours round by round.

    Example:
        >>> found = figures([1.0, 2.0, 4.0], [3.0, 4.0, 4.0])
        >>> found["seconds"], found["ratio"], found["ratio_low"], found["ratio_high"]
        (2.0, 2.0, 1.0, 3.0)
    """
    found = {"seconds": statistics.median(ours), "spread": _spread(ours), "repeats": len(ours)}
    if theirs:
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        found |= {"peer_seconds": statistics.median(theirs), "peer_spread": _spread(theirs)}
        found |= {"ratio": statistics.median(ratios)}
        found |= {"ratio_low": min(ratios), "ratio_high": max(ratios)}
    return found


def _spread(seconds: list[float]) -> dict[str, float]:
    names = ("min", "lower_quartile", "upper_quartile", "max")
    return dict(zip(names, np.percentile(seconds, (0, 25, 75, 100)).tolist(), strict=True))


def _repeat(work: Work) -> tuple[Callable[[], float], int]:
    """A function that runs warm work for a while and gives the seconds of a step; and its steps."""

    def seconds(dispatches: int) -> float:
        start = time.perf_counter()
        for _ in range(dispatches):
            jax.block_until_ready(work.run())
        return time.perf_counter() - start

    took = seconds(1)
    if took < LEAST:  # the first time takes longer than others
        took = seconds(1)
    dispatches = max(math.ceil(LEAST / took), 1)
    steps = dispatches * work.steps
    return lambda: seconds(dispatches) / steps, steps


def about() -> dict[str, Any]:
    """Where figures are from."""
    versions = runs.versions()
    facts = {"platform": jax.default_backend(), "device": versions["device"]}
    return {**facts, "threads": cores(), "versions": versions}


def memory() -> dict[str, int | None]:
    """The most bytes that this process held so far, and of the device's memory where it tells."""
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    device = jax.devices()[0].memory_stats() or {}
    return {"peak_bytes": resident, "device_peak_bytes": device.get("peak_bytes_in_use")}
