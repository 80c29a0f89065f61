"""Seconds of a query with its support, all methods in turn, from frozen maps; queries a second.

    METASHOT_DATA=DIR python benchmarks/segmentation_speed.py

Methods are those of benchmarks/segmentation.py, trained on the first fold of PASCAL-5i in small.
`--share 0.05` trains for a part of their steps, and writes nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import results
from segmentation import METHODS, SIZE, Bench, fold_of

from metashot import pretrained
from metashot.base import Learner, Variables
from metashot.data import mask_episodes, official_pairs
from metashot.devices import compiler_options
from metashot.nets import efficientnet_lite0

ROUNDS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0)
    bench = Bench(parser.parse_args().share)
    fold = fold_of("pascal", 0, False, bench)
    names = [name for name in METHODS if name not in ("oslsm_paper", "oslsm_mean")]
    made = {name: METHODS[name](fold) for name in names}
    taken: dict[tuple[str, int], list[float]] = {}
    calls: dict[tuple[str, int], Callable[[], Any]] = {}
    for shot in (1, 5):
        source = official_pairs(fold.test, shot=shot)
        assert source.listed
        episode = jax.jit(source.listed)(0, source.arrays)
        for name, (learner, variables, *_) in made.items():
            calls[name, shot] = compiled(answer(learner), variables, episode)
    backbone = efficientnet_lite0(endpoints=(16, 32))
    body, picture = pretrained.efficientnet_lite0(), jnp.zeros((1, SIZE, SIZE, 3))
    calls["backbone", 1] = compiled(lambda v, x: backbone.apply(v, x)[0], body, picture)
    for _ in range(ROUNDS):
        for key, call in calls.items():
            taken.setdefault(key, []).append(seconds_of(call))
    for (name, shot), seconds in taken.items():
        ratios = [a / b for a, b in zip(taken["logistic", shot], taken["oslsm", shot], strict=True)]
        row = {"name": f"{name}_{shot}shot_seconds", "value": statistics.median(seconds)}
        row |= {"range": [min(seconds), max(seconds)], "chosen": ""}
        if name == "oslsm":
            row |= {"ratio": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)]}
        write_seconds(row, bench)
    learner, variables, *_ = made["oslsm"]
    for count in (1, 8, 32):
        source = mask_episodes(fold.test, query=count, sampling="classes")
        episode = jax.jit(source.sample)(jax.random.key(0), source.arrays)
        task = jax.jit(learner.adapt)(variables, episode.support)
        call = compiled(learner.predict, variables, task, episode.query.inputs)
        seconds = statistics.median(seconds_of(call) for _ in range(ROUNDS))
        write_seconds({"name": f"oslsm_{count}_queries", "value": count / seconds}, bench)


def answer(learner: Learner) -> Callable[..., Any]:
    def both(variables: Variables, episode: Any) -> Any:
        task = learner.adapt(variables, episode.support, jax.random.key(0))
        return learner.predict(variables, task, episode.query.inputs)

    return both


def compiled(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    program = jax.jit(function, compiler_options=compiler_options())
    jax.block_until_ready(program(*arguments))
    return lambda: jax.block_until_ready(program(*arguments))


def seconds_of(call: Callable[[], Any], repeats: int = 5) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def write_seconds(row: dict[str, Any], bench: Bench) -> None:
    print(row, flush=True)
    if bench.share == 1:
        command = "python benchmarks/segmentation_speed.py"
        results.add("segmentation_speed", row | {"command": command})


if __name__ == "__main__":
    main()
