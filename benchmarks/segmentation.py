"""One-shot segmentation beside what it is compared with, on the frozen maps of EfficientNet-Lite0.

    METASHOT_DATA=DIR python benchmarks/segmentation.py [TABLE ...] [OPTIONS]

TABLE is pascal (PASCAL-5i in small), fashion, or davis. Each method trains on the classes of
a fold's training pictures, and is tested on 1,000 pairs of new classes at 1 and at 5 shots, the
release's list; figures are written at once to results/segmentation_TABLE.json, and those that stand
are left alone unless their method is named (`--methods`, and `--folds`). Pictures pass the network
once: their maps are kept in runs/benchmarks/segmentation. `--share 0.05` tries a part of all that,
and writes nothing.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import results

import metashot
from metashot import config, metrics, pretrained
from metashot.base import Learner, Variables
from metashot.data import (
    VOC,
    Episodes,
    MaskDataset,
    MaskSplits,
    davis,
    encoded,
    first_frame_episodes,
    fold_classes,
    mask_batches,
    mask_episodes,
    official_pairs,
    split_by_class,
    voc_layout,
)
from metashot.nets import (
    Branches,
    Cells,
    dense,
    efficientnet_lite0,
    hashed,
    init_hash,
    joined_cells,
    projected,
    stored_maps,
    tied_branches,
)
from metashot.nets.branches import half_pixel_bilinear

RUNS = Path("runs") / "benchmarks" / "segmentation"
SIZE = 288  # pixels along a side
NOTHING: Variables = {"params": {}, "state": {}}
PAIRS, TUNING = 1000, 100  # pairs of new classes, and of training classes for choosing
FEW = 10  # items; a mean without classes of fewer stands beside
PAPER = {  # PASCAL-5i, mean IoU of one shot and of five
    "nearest": {1: 0.326, 5: 0.400},
    "logistic": {1: 0.314, 5: 0.393},
    "fine_tune": {1: 0.326},
    "siamese": {1: 0.314},
    "oslsm_paper": {1: 0.408, 5: 0.439},
}
BASELINES = ("nearest", "logistic", "fine_tune", "siamese")  # the paper's


class Method(NamedTuple):
    """What is made of a fold's training pictures."""

    learner: Learner
    variables: Variables
    seconds: float = 0.0  # of training
    chosen: str = ""  # of what was tried on training classes


class Bench(NamedTuple):
    """How much of everything."""

    share: float

    def some(self, count: int, least: int = 10) -> int:
        return max(least, round(count * self.share / 10) * 10)


# What several methods share.


def cells() -> Cells:
    return joined_cells(stored_maps(), answers=(SIZE, SIZE))


def adamw(rate: float, steps: int) -> Any:
    return optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=1e-4)


def fitted(learner: Learner, source: Episodes, rate: float, steps: int, meta_batch: int) -> Method:
    """Trained on the maps of a fold."""
    trained = metashot.train(
        learner,
        source,
        adamw(rate, steps),
        steps=steps,
        meta_batch=meta_batch,
        chunk=meta_batch,
        progress=False,
    )
    return Method(learner, trained.variables, trained.history[-1]["seconds"])


def best_of(made: dict[str, Method], train: MaskDataset, bench: Bench) -> Method:
    """The method that does best on pairs of training classes."""
    source = mask_episodes(train, sampling="classes")
    settings: Any = {"count": bench.some(TUNING), "metric": metrics.mean_iou()}
    told = {
        name: metashot.evaluate(m.learner, m.variables, source, **settings).score
        for name, m in made.items()
    }
    shown = {name: f"{100 * score:.1f}" for name, score in told.items()}
    print(f"  on training classes: {shown}", flush=True)
    best = max(told, key=lambda name: told[name])
    return made[best]._replace(chosen=best)


class Fold:
    """A fold, and what several methods learn of it."""

    def __init__(self, splits: MaskSplits, bench: Bench) -> None:
        self.train, _, self.test = splits
        self.bench = bench

    @functools.cached_property
    def base(self) -> Method:
        """Ordinary segmentation of the training classes."""
        learner = metashot.pixel_classifier(cells=projected(cells()), way=len(self.train.names) + 1)
        return fitted(learner, mask_batches(self.train), 1e-3, self.bench.some(600), 1)

    def features(self) -> dict[str, tuple[Cells, Variables, float]]:
        """What a classifier of cells may start from."""
        params, state = self.base.variables["params"], self.base.variables["state"]
        body: Variables = {"params": params["network"], "state": state["network"]}
        return {
            "ImageNet": (cells(), NOTHING, 0.0),
            "trained": (projected(cells()), body, self.base.seconds),
        }

    @functools.cached_property
    def tied(self) -> Method:
        branches = tied_branches(network=stored_maps(), answers=(SIZE, SIZE))
        return self.one_shot(branches, foreground_weight=3.0)

    def one_shot(self, branches: Branches, **settings: Any) -> Method:
        learner = metashot.one_shot_segmentation(
            branches=branches, reduction="mean", loss_at="cells", **settings
        )
        source = mask_episodes(self.train, sampling="classes")
        return fitted(learner, source, 1e-3, self.bench.some(250), 16)


# The methods.


def nearest(fold: Fold) -> Method:
    made = {
        name: Method(metashot.nearest_cell(cells=own), variables, seconds)
        for name, (own, variables, seconds) in fold.features().items()
    }
    return best_of(made, fold.train, fold.bench)


def logistic(fold: Fold) -> Method:
    made = {}
    for name, (own, variables, seconds) in fold.features().items():
        for threshold in (0.5, 0.2):
            learner = metashot.logistic_cells(cells=own, c=100.0, threshold=threshold)
            made[f"{name}, p > {threshold}"] = Method(learner, variables, seconds)
    return best_of(made, fold.train, fold.bench)


def fine_tune(fold: Fold) -> Method:
    made = {}
    for rate in (1e-2, 1e-1):
        tuned = metashot.fine_tune(fold.base.learner, optax.sgd(rate, momentum=0.9), 50, way=2)
        made[f"rate {rate}"] = Method(tuned, fold.base.variables, fold.base.seconds)
    return best_of(made, fold.train, fold.bench)


def siamese(fold: Fold) -> Method:
    source, made = mask_episodes(fold.train, sampling="classes"), {}
    for name, balanced in (("pairs as they come", False), ("balanced pairs", True)):
        learner = metashot.siamese_cells(cells=projected(cells(), 64), balanced=balanced)
        made[name] = fitted(learner, source, 1e-3, fold.bench.some(300), 8)
    return best_of(made, fold.train, fold.bench)


def masked_average(fold: Fold) -> Method:
    return Method(metashot.masked_average(cells=cells()), NOTHING)


def oslsm(fold: Fold) -> Method:
    """Tied branches: a classifier starts as the mean of masked features."""
    return fold.tied


def oslsm_mean(fold: Fold) -> Method:
    """The same, with the mean of the classifiers' logits for their largest."""
    branches = tied_branches(network=stored_maps(), answers=(SIZE, SIZE))
    learner = metashot.one_shot_segmentation(branches=branches, kshot="mean")
    return fold.tied._replace(learner=learner)


def oslsm_hashed(fold: Fold) -> Method:
    """Tied branches whose classifier is hashed."""
    branches = tied_branches(network=stored_maps(), answers=(SIZE, SIZE), size=512, hashed_from=128)
    return fold.one_shot(branches, foreground_weight=3.0)


def oslsm_paper(fold: Fold) -> Method:
    """The paper's form: the ImageNet scores of a masked picture are hashed to a classifier."""
    return fold.one_shot(literal_branches())


METHODS: dict[str, Callable[[Fold], Method]] = {
    "nearest": nearest,
    "logistic": logistic,
    "fine_tune": fine_tune,
    "siamese": siamese,
    "masked_average": masked_average,
    "oslsm_paper": oslsm_paper,
    "oslsm_hashed": oslsm_hashed,
    "oslsm": oslsm,
    "oslsm_mean": oslsm_mean,
}
ONE_SHOT_ONLY = ("fine_tune", "siamese")  # as in the paper


def literal_branches(width: int = 256) -> Branches:
    """Two branches on frozen maps: of the query joined, of the support its masked pixels' scores.

    Inputs are maps at strides 16 and 32, and pixels of 0..255.
    """
    embedding, joined = efficientnet_lite0(), cells().network

    def init(key: Any, x: Any) -> Variables:
        hash_key, own_key = jax.random.split(key)
        fc = pretrained.efficientnet_lite0_classifier()
        maps = jax.eval_shape(lambda: joined.apply(NOTHING, x[:2])[0])
        kernel = jax.random.normal(own_key, (maps.shape[-1], width)) / maps.shape[-1] ** 0.5
        project = {"kernel": kernel, "bias": jnp.zeros(width)}
        body = pretrained.efficientnet_lite0()
        return {
            "params": {"conditioning": fc, "segmentation": project},
            "state": {"body": body, "hash": init_hash(hash_key, 1000, width + 1, jnp.float32)},
        }

    def classifiers(variables: Variables, x: Any, masks: Any, **settings: Any) -> Any:
        masked = (x[2] - 127) / 128 * masks[..., None]  # what is left out has the mean colour
        small = jax.image.resize(masked, (len(masked), 224, 224, 3), "linear", antialias=False)
        body = jax.lax.stop_gradient(variables["state"]["body"])
        codes = dense(variables["params"]["conditioning"], embedding.apply(body, small)[0])
        theta = hashed(variables["state"]["hash"], codes) / width**0.5
        return (theta[:, :-1], theta[:, -1]), {}

    def features(variables: Variables, x: Any, **settings: Any) -> Any:
        maps = joined.apply(NOTHING, x[:2])[0]
        return jax.nn.relu(dense(variables["params"]["segmentation"], maps)), {}

    size = lambda x: x[2].shape[1:3]
    return Branches(init, classifiers, features, half_pixel_bilinear, size)


# The data.


def given() -> Path:
    folder = os.environ.get("METASHOT_DATA")
    if not folder:
        raise SystemExit("METASHOT_DATA is not set: name the folder of the data sets with it")
    return Path(folder)


def with_maps(name: str, dataset: MaskDataset) -> MaskDataset:
    """Frozen maps in the place of pictures, computed once."""
    path = RUNS / f"{name}_{SIZE}.npz"
    network = efficientnet_lite0(endpoints=(16, 32))
    if not path.exists():
        made = encoded(dataset, network, pretrained.efficientnet_lite0())
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, *made.arrays.images)
    with np.load(path) as stored:
        maps = tuple(stored.values())
    return dataset.with_maps(maps)


def pascal() -> MaskDataset:
    both = [given() / "pascal", given() / "coco_mini"]
    return voc_layout(both, size=SIZE, classes=VOC, small=0.005)


def fashion() -> tuple[MaskDataset, list[list[str]]]:
    """Labels with enough pictures, in four folds."""
    data = config.read("fashion_segmentation").data
    whole = voc_layout(given() / data.source, size=SIZE, classes=data.classes, small=data.small)
    return whole, [[*data.classes[i::4]] for i in range(4)]


@functools.cache
def everything(table: str) -> tuple[MaskDataset, list[list[str]], MaskDataset]:
    """A data set, the classes of its folds, and the data set with maps."""
    if table == "fashion":
        dataset, folds = fashion()
    else:
        dataset, folds = pascal(), [[*fold_classes(i)] for i in range(4)]
    return dataset, folds, with_maps(table, dataset)


@functools.cache
def fold_of(table: str, i: int, pictured: bool, bench: Bench) -> Fold:
    """Pictures beside the maps where a method sees them."""
    plain, folds, dataset = everything(table)
    if pictured:
        dataset = dataset.with_maps((*dataset.arrays.images, plain.arrays.images))
    return Fold(split_by_class(dataset, folds[i], halves=table == "fashion"), bench)


@functools.cache
def fold_of_videos(pictured: bool, bench: Bench) -> Fold:
    """Training on all of PASCAL, testing on DAVIS."""
    plain, _, train = everything("pascal")
    videos = davis(given() / "davis", size=SIZE)
    test = with_maps("davis", videos)
    if pictured:
        train = train.with_maps((*train.arrays.images, plain.arrays.images))
        test = test.with_maps((*test.arrays.images, videos.arrays.images))
    return Fold(MaskSplits(train, None, test), bench)


# The figures.


def tested(method: Method, source: Episodes, names: tuple[str, ...], count: int) -> dict[str, Any]:
    metric = metrics.mean_iou(len(names))
    told = metashot.evaluate(method.learner, method.variables, source, count=count, metric=metric)
    value, interval = told.summary["mean_iou"]
    by_class = metrics.class_iou(told.measures)
    return {
        "value": value,
        "interval": interval,
        "pairs": count,
        "classes": {names[c]: iou for c, iou in by_class.items()},
        "seconds": method.seconds,
        "chosen": method.chosen,
    }


def without_few(classes: dict[str, float], dataset: MaskDataset) -> float | None:
    """The mean over classes with enough items."""
    count = dict(zip(dataset.names, np.asarray(dataset.arrays.count).tolist(), strict=True))
    kept = [iou for name, iou in classes.items() if count[name] >= FEW]
    return statistics.fmean(kept) if kept else None


def folds(table: str, asked: argparse.Namespace, bench: Bench) -> None:
    """PASCAL-5i, or fashion."""
    file = f"segmentation_{table}"
    done = {row["name"] for row in results.rows(file)}
    for i in asked.folds:
        for name in asked.methods or METHODS:
            shots = (1,) if name in ONE_SHOT_ONLY else (5,) if name == "oslsm_mean" else (1, 5)
            rows = {f"{name}_{shot}shot_fold{i}": shot for shot in shots}
            if not asked.methods and all(row in done for row in rows):
                continue
            fold = fold_of(table, i, name == "oslsm_paper", bench)
            method = METHODS[name](fold)
            for row, shot in rows.items():
                source = official_pairs(fold.test, shot=shot)
                figures = tested(method, source, fold.test.names, bench.some(PAIRS))
                figures["without_few"] = without_few(figures["classes"], fold.test)
                write(file, {"name": row, **figures}, table, name, bench)
        means(file, table, bench)


def means(file: str, table: str, bench: Bench) -> None:
    """The rows of all four folds together."""
    rows = {row["name"]: row for row in results.rows(file)}
    found: dict[str, float] = {}
    for name in METHODS:
        for shot in (1, 5):
            own = [rows.get(f"{name}_{shot}shot_fold{i}") for i in range(4)]
            four = [row for row in own if row is not None]
            if len(four) < 4:
                continue
            kept = [row["without_few"] for row in four if row["without_few"] is not None]
            mean = {
                "name": f"{name}_{shot}shot_mean",
                "value": statistics.fmean(row["value"] for row in four),
                "interval": sum(row["interval"] ** 2 for row in four) ** 0.5 / 4,
                "without_few": statistics.fmean(kept),
                "paper": PAPER.get(name, {}).get(shot) if table == "pascal" else None,
            }
            write(file, mean, table, name, bench)
            if name in BASELINES and shot == 1:
                found[name] = mean["value"]
    if len(found) == len(BASELINES):
        best = max(found, key=lambda name: found[name])
        row = {"name": "best_baseline_1shot_mean", "value": found[best], "of": best}
        write(file, row, table, best, bench)


def write(file: str, row: dict[str, Any], table: str, method: str, bench: Bench) -> None:
    half = f" ± {100 * row['interval']:.1f}" if "interval" in row else ""
    print(f"{row['name']}: {100 * row['value']:.1f}{half} {row.get('chosen') or ''}", flush=True)
    if bench.share == 1:
        command = f"python benchmarks/segmentation.py {table} --methods {method}"
        results.add(file, row | {"command": command})


def videos(asked: argparse.Namespace, bench: Bench) -> None:
    """DAVIS: the first frame shows what to mark in the others."""
    done = {row["name"] for row in results.rows("segmentation_davis")}
    for name in asked.methods or METHODS:
        if name == "oslsm_mean" or (not asked.methods and f"{name}_davis" in done):
            continue  # a single support has one classifier
        fold = fold_of_videos(name == "oslsm_paper", bench)
        source = first_frame_episodes(fold.test)
        count = bench.some(len(fold.test.items) - len(fold.test.names))
        figures = tested(METHODS[name](fold), source, fold.test.names, count)
        write("segmentation_davis", {"name": f"{name}_davis", **figures}, "davis", name, bench)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    tables = ["pascal", "fashion", "davis"]
    parser.add_argument("tables", nargs="*", choices=[*tables, []], metavar="TABLE")
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--folds", nargs="+", type=int, choices=range(4), default=range(4))
    parser.add_argument("--share", type=float, default=1.0)
    asked = parser.parse_args()
    bench = Bench(asked.share)
    for table in asked.tables or tables:
        if table == "davis":
            videos(asked, bench)
        else:
            folds(table, asked, bench)


if __name__ == "__main__":
    main()
