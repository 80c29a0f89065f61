"""Omniglot, 5-way and 20-way: memory matching networks and what they are compared with.

    METASHOT_DATA=DIR python benchmarks/omniglot_mmnet.py [ROW ...]

A row trains for its steps (or goes on with a run that was cut short), and is written at once to
results/TABLE.json. Rows that stand already are left alone unless they are named. Three tables:
omniglot_mmnet and omniglot_mixed test on 423 characters after training on 1,200;
omniglot_mmnet_ablations on validation characters. Rows of omniglot_meta_lstm are taken over.

Steps take 10 to 15 minutes of one core each; `mmnet` 60, and those of the ablations 4.
`--share 0.05` tries rows with a part of their steps, and writes nothing. `--repacked` accepts
archives other than the official ones.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import results

import metashot
from metashot import config, experiment, loading, runs
from metashot.config import Adam, MixedSizes, Redraw, Sizes
from metashot.learners.memory_matching import paper

RUNS = Path("runs") / "benchmarks" / "mmnet"
DISPATCH = 10  # steps
# As many classes as the tests at least: padding costs what pictures cost.
MIXED = MixedSizes(way=(20, 30), shot=(1, 5), query=3)
# The paper sees hardly a difference from 128 to 1,024; on a CPU the LSTMs of 512 are half a step.
MMNET = {"hidden": 128}
VARIED = config.read("omniglot_learnet").redraw


class Training(NamedTuple):
    config: str  # of which data, sizes and budget are those below
    steps: int
    sizes: Sizes | MixedSizes
    learner: dict[str, Any]  # fields that differ from the config's
    split: Literal["characters", "tuning"] = "characters"
    redraw: Redraw = Redraw()


class Row(NamedTuple):
    training: str
    tests: dict[str, tuple[int, int]]  # way and shot; the first is the row's figure
    paper: float | None = None
    prediction: str | None = None  # another rule by which it answers


TRAININGS = {
    "mmnet": Training("omniglot_mmnet", 10_000, MIXED, MMNET),
    "mmnet_varied": Training("omniglot_mmnet", 10_000, MIXED, MMNET, redraw=VARIED),
    "mmnet_scale10": Training("omniglot_mmnet", 10_000, MIXED, {**MMNET, "scale": 10.0}),
    "mmnet_10min": Training("omniglot_mmnet", 2500, MIXED, MMNET),
    **{
        f"{name}_{way}w{shot}s": Training(file, steps, Sizes(way, shot, query), learner)
        for name, file, learner, sizes in (
            (
                "mmnet_minus",
                "omniglot_mmnet",
                MMNET,
                ((5, 1, 15, 3000), (5, 5, 15, 3000), (20, 1, 5, 3700), (20, 5, 5, 2500)),
            ),
            (
                "fce",
                "omniglot_matching_fce",
                {"scale": 20.0},
                ((5, 1, 15, 2600), (5, 5, 15, 2000), (20, 1, 5, 2000)),
            ),
            ("matching", "omniglot_matching", {}, ((20, 1, 5, 2000),)),
            ("matching_scale10", "omniglot_matching", {"scale": 10.0}, ((20, 1, 5, 2000),)),
            ("prototypical", "omniglot_prototypical", {}, ((20, 1, 5, 2000),)),
        )
        for way, shot, query, steps in sizes
    },
    "mixed": Training("omniglot_mmnet", 2500, MixedSizes((2, 20), (1, 5), 5), MMNET),
    **{
        name: Training("omniglot_mmnet", 600, MIXED, {**MMNET, **learner}, split="tuning")
        for name, learner in {
            "as_it_is": {},
            "slots_20": {"slots": 20},
            "key_norm_paper": {"key_norm": "paper"},
            "key_norm_unit": {"key_norm": "unit"},
            "separate_trunks": {"share_trunk": False},
            "class_sum_loss": {"loss_form": "class_sum"},
            "scale_10": {"scale": 10.0},
            "scale_40": {"scale": 40.0},
            "filters_alone": {"residual": False},
            "nothing_predicted": {"contextual": False},
            "dot_product": {"similarity": "dot", "scale": 1.0},
            "paper": paper(),
        }.items()
    },
}
PAPER = (0.9928, 0.9977, 0.9716, 0.9893)
PUBLISHED = {  # 5-way 1-shot and 5-shot, 20-way 1-shot and 5-shot
    **dict.fromkeys(("mmnet", "mmnet_varied", "mmnet_scale10", "mmnet_10min"), PAPER),
    "matching": (0.981, 0.989, 0.938, 0.985),
}
TESTS = {"5w1s": (5, 1), "5w5s": (5, 5), "20w1s": (20, 1), "20w5s": (20, 5)}
TAKEN = [
    f"{method}_{test}"
    for method in ("prototypical", "matching", "matching_scale10", "maml", "meta_lstm")
    for test in ("5w1s", "5w5s")
]


def compared() -> Iterator[tuple[str, Row]]:
    """The rows of the comparison that are trained here."""
    methods = ("mmnet", "mmnet_varied", "mmnet_scale10", "mmnet_10min", "mmnet_minus", "fce")
    for method in (*methods, "matching", "matching_scale10", "prototypical"):
        for i, (test, size) in enumerate(TESTS.items()):
            name = f"{method}_{test}"
            if name not in TAKEN:
                training = next(n for n in (method, name, f"{method}_20w1s") if n in TRAININGS)
                yield name, Row(training, {test: size}, PUBLISHED.get(method, (None,) * 4)[i])


MANY = {f"{shot}-shot": (20, shot) for shot in range(1, 6)}
QUERIES, FEWER = 15, 5  # a class; fewer where it is 2,000 episodes at five sizes
HARD = {name: TESTS[name] for name in ("20w1s", "20w5s")}
ABLATIONS = [name for name in TRAININGS if TRAININGS[name].split == "tuning"]
TABLES: dict[str, dict[str, Row]] = {
    "omniglot_mmnet": dict(compared()),
    "omniglot_mixed": {
        "1shot": Row("mmnet_minus_20w1s", MANY),
        "5shot": Row("mmnet_minus_20w5s", MANY),
        "mixed": Row("mixed", MANY),
        "mixed_20_to_30way": Row("mmnet_10min", MANY),
    },
    "omniglot_mmnet_ablations": {
        **{name: Row(name, HARD) for name in ABLATIONS},
        "class_sum": Row("as_it_is", HARD, prediction="class_sum"),
        "class_sum_of_both": Row("class_sum_loss", HARD, prediction="class_sum"),
    },
}


def trained(name: str, share: float, repacked: bool) -> Path:
    """The folder of a training, which is finished."""
    training = TRAININGS[name]
    folder = RUNS / (name if share == 1 else f"{name}_{share}")
    begun = (folder / "config.py").exists()
    if begun:
        settings = loading.read_config(folder)
    else:
        settings = config.read(training.config)
        data: Any = config.Omniglot(split=training.split, repacked=repacked)
        learner = dataclasses.replace(settings.learner, **training.learner)
        rate = Adam(rate=2e-3, warmup=100, decay="cosine")
        settings = dataclasses.replace(
            settings,
            data=data,
            learner=learner,
            train=training.sizes,
            redraw=training.redraw,
            optimizer=rate,
        )
        steps = DISPATCH * max(1, round(share * training.steps / DISPATCH))
        each = DISPATCH * max(1, steps // (4 * DISPATCH))
        settings = dataclasses.replace(settings, steps=steps, validate_every=each)
    experiment.run(settings, folder, resume=begun)
    return folder


def measured(row: Row, count: int, query: int, share: float, repacked: bool) -> dict[str, Any]:
    folder = trained(row.training, share, repacked)
    settings, loaded = loading.read_config(folder), metashot.load(folder, way=20)
    splits = settings.data.load()
    dataset = splits.val or splits.test
    learner = settings.learner
    if row.prediction:
        learner = dataclasses.replace(learner, prediction=row.prediction)
    reached = {}
    for test, (way, shot) in row.tests.items():
        source = metashot.episodes(dataset, way=way, shot=shot, query=query)
        result = metashot.evaluate(learner.build(way), loaded.variables, source, count=count)
        reached[test] = result.summary["accuracy"]
    value, interval = next(iter(reached.values()))
    sizes = TRAININGS[row.training].sizes
    told = {
        "value": value,
        "interval": interval,
        "paper": row.paper,
        "trained": f"{_size(sizes.way)}-way {_size(sizes.shot)}-shot",
        "episodes": loaded.step * settings.meta_batch,
        "seconds": runs.read_history(folder)[-1]["seconds"],
        "seed": settings.seed,
    }
    return told if len(reached) == 1 else {**told, "reached": reached}


def _size(size: int | tuple[int, int]) -> str:
    return str(size) if isinstance(size, int) else f"{size[0]} to {size[1]}"


def take_over() -> None:
    """Rows of the same test characters, whose training left some characters for choosing."""
    done = {row["name"] for row in results.rows("omniglot_mmnet")}
    for row in results.rows("omniglot_meta_lstm"):
        if row["name"] in TAKEN and row["name"] not in done:
            way, shot = TESTS[row["name"].split("_")[-1]]
            if row["name"].startswith("prototypical"):
                way, shot = 60, 1
            trained = f"{way}-way {shot}-shot, 1,028 characters"
            kept = {k: v for k, v in row.items() if k != "curve"}
            results.add("omniglot_mmnet", {**kept, "trained": trained})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    every = {row: table for table, rows in TABLES.items() for row in rows}
    parser.add_argument("rows", nargs="*", choices=[*every, []], metavar="ROW")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--repacked", action="store_true")
    told = parser.parse_args()
    if told.share == 1:
        take_over()
    done = {(table, row["name"]) for table in TABLES for row in results.rows(table)}
    for name in told.rows or [row for row, table in every.items() if (table, row) not in done]:
        table = every[name]
        count, query = (2000, FEWER) if table == "omniglot_mixed" else (600, QUERIES)
        row = TABLES[table][name]
        count = max(8, round(told.share * count))
        figures = measured(row, count, query, told.share, told.repacked)
        if told.share == 1:
            command = f"python benchmarks/omniglot_mmnet.py {name}"
            results.add(table, {"name": name, **figures, "command": command})
        print(f"{name}: {figures}", flush=True)


if __name__ == "__main__":
    main()
