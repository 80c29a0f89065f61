"""Omniglot, 20-way within an alphabet: learnets, siamese networks, and the ink of two drawings.

    METASHOT_DATA=DIR python benchmarks/omniglot_learnet.py [ROW ...] [OPTIONS]

Trained on the 30 background alphabets, tested on the 20 evaluation alphabets: on 10,000 random
problems, and on the 20 official runs. Each row is written at once; one that was cut short goes on.
Rows that stand already are left alone unless they are named. A step of the paper's cells is 400
pairs: all cells are trained for 5,000, the key cells also for as many pairs as the paper's, with
drawings that are varied; a learnet is a siamese network with one factorised layer for the first two
fifths of the steps. `--steps N` trains for other numbers of steps. `--tuning` trains on 25
background alphabets, tells the error on the other 5, and writes nothing. `--repacked` accepts
archives other than the official ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import results
from timing import median_seconds

import metashot
from metashot import config, experiment, metrics, runs
from metashot.base import Array, Aux, Episode, Examples, Learner, Network, Variables
from metashot.data import Dataset, Episodes, omniglot_runs, redrawn
from metashot.data.families import families
from metashot.devices import compiler_options
from metashot.losses import masked_accuracy, masked_nll

NAME, RUNS = "omniglot_learnet", Path("runs") / "benchmarks"
TABLE = {  # error in percent, of the inner product, Euclidean, weighted l1
    "siamese_shared": (48.5, 37.3, 41.8),
    "siamese_unshared": (47.0, 41.0, 34.6),
    "siamese_factorised": (48.4, None, 33.6),  # the second did not converge
    "siamese_learnet": (51.0, 39.8, 31.4),
    "learnet": (43.7, 36.7, 28.6),
}
COMPARISONS = ("inner_product", "euclidean", "weighted_l1")
CELLS = {
    f"{architecture}_{comparison}": (architecture, comparison, paper)
    for architecture, papers in TABLE.items()
    for comparison, paper in zip(COMPARISONS, papers, strict=True)
}
HAUSDORFF = {  # side of the drawings, which problems, error in percent
    "modified_hausdorff_official": (105, "official", 38.8),
    "modified_hausdorff_random": (105, "random", None),
    "modified_hausdorff_official_28": (28, "official", None),
    "modified_hausdorff_random_28": (28, "random", 43.2),
}
KEY = (
    "siamese_shared_euclidean",
    "siamese_factorised_weighted_l1",
    "siamese_learnet_weighted_l1",
    "learnet_weighted_l1",
)
STEPS, LONG = 5000, 15_000  # of 400 pairs; the paper's are 60 x 100,000 pairs
ROWS = (*CELLS, *HAUSDORFF, "best_official_runs", "adapt")
START = 0.4  # share of a learnet's steps in which it still is a siamese network
PROBLEMS, TOGETHER = 10_000, 20  # all, and of an episode
ROUNDS = 7  # of a timing
SGD_STEPS = (10, 20, 50, 100, 200, 500)  # of fine-tuning, in `adapt`: the first that is enough
NOTHING: Variables = {"params": {}, "state": {}}
Row = dict[str, Any]


def data(size: int = 28, *, tuning: bool = False) -> config.Omniglot:
    split = "alphabets_tuning" if tuning else "alphabets"
    repacked = "--repacked" in sys.argv
    return config.Omniglot(size=size, split=split, rotations=False, repacked=repacked)


def random_error(learner: Learner, variables: Variables, dataset: Dataset, count: int) -> Any:
    source = metashot.problems(dataset, way=20, exemplars=TOGETHER)
    settings: Any = {"count": count // TOGETHER, "metric": metrics.one_shot}
    return metashot.evaluate(learner, variables, source, **settings).summary["error"]


def official_error(learner: Learner, variables: Variables, size: int) -> Any:
    settings: Any = {"count": 20, "metric": metrics.one_shot}
    source = omniglot_runs(size=size)
    return metashot.evaluate(learner, variables, source, **settings).summary["error"]


def errors(learner: Learner, variables: Variables, splits: metashot.Splits, size: int) -> Row:
    """On random problems, and on the official runs."""
    value, interval = random_error(learner, variables, splits.test, PROBLEMS)
    official = official_error(learner, variables, size)
    return {"value": value, "interval": interval, "problems": PROBLEMS, "official": official}


def cell(name: str, steps: int | None, *, tuning: bool) -> Row:
    """A cell of the paper's table 1. Of a key cell the figure is that of the longer training."""
    told = _trained_cell(name, steps or STEPS, varied=False, tuning=tuning)
    if name not in KEY or steps:
        return told
    equal = {key: told[key] for key in ("value", "interval")}
    return _trained_cell(name, LONG, varied=True, tuning=tuning) | {"equal": [*equal.values()]}


def _trained_cell(name: str, steps: int, *, varied: bool, tuning: bool) -> Row:
    architecture, comparison, paper = CELLS[name]
    settings = dataclasses.replace(config.read(NAME), data=data(tuning=tuning))
    if not varied:
        settings = dataclasses.replace(settings, redraw=config.Redraw())
    parts = list[Path]()
    if "learnet" in architecture:  # which begins as a siamese network, all steps counted
        shared = {"architecture": "siamese_shared_factorised", "comparison": comparison}
        first = round(START * steps)
        parts.append(_run(settings, shared, first, tuning=tuning))
        steps -= first
    own = {"architecture": architecture, "comparison": comparison}
    own |= {"start": str(parts[0])} if parts else {}
    parts.append(_run(settings, own, steps, tuning=tuning))
    made, variables, *_ = metashot.load(parts[-1], checkpoint="last")
    splits = settings.data.load()
    if tuning:
        return _tuned(made, variables, splits)
    assert isinstance(settings.train, config.Sizes)
    ends = [runs.read_history(folder)[-1] for folder in parts]
    told: Row = {
        key: sum(end[name] for end in ends) for key, name in (("seconds",) * 2, ("steps", "step"))
    }
    told |= {"pairs": settings.train.way**2 * told["steps"], "seed": settings.seed}
    told["paper"] = None if paper is None else paper / 100
    return errors(made, variables, splits, 28) | told


def _run(settings: config.Experiment, learner: dict[str, Any], steps: int, *, tuning: bool) -> Path:
    """The folder of a run that is finished."""
    name = f"{NAME}_{learner['architecture']}_{learner['comparison']}_{steps}"
    name += "" if settings.redraw == config.Redraw() else "_varied"
    folder = RUNS / (f"{name}_tuning" if tuning else name)
    if not any(row["step"] == steps for row in runs.read_history(folder)):
        learnt = dataclasses.replace(settings.learner, **learner)
        settings = dataclasses.replace(settings, learner=learnt, steps=steps)
        experiment.run(settings, folder, resume=(folder / "config.py").exists())
    return folder


def _tuned(learner: Learner, variables: Variables, splits: metashot.Splits) -> Row:
    assert splits.val is not None
    value, interval = random_error(learner, variables, splits.val, 2000)
    return {"value": value, "interval": interval}


def hausdorff(name: str) -> Row:
    """The modified Hausdorff distance, which is not trained."""
    size, which, paper = HAUSDORFF[name]
    told: Row = {"paper": None if paper is None else paper / 100}
    if which == "official":
        official = omniglot_runs(size=size).arrays
        pictures = [np.asarray(part.inputs) for part in official[:2]]
        most = max(int((x > 0.5).sum((2, 3, 4)).max()) for x in pictures)
        learner = metashot.hausdorff(points=most, way=20)
        value, interval = official_error(learner, NOTHING, size)
        return told | {"value": value, "interval": interval, "problems": 400}
    test = data(size).load().test
    ink = np.asarray(test.prepare(jnp.asarray(test.arrays.images))) > 0.5
    learner = metashot.hausdorff(points=int(ink.sum((1, 2, 3)).max()), way=20)
    value, interval = random_error(learner, NOTHING, test, PROBLEMS)
    return told | {"value": value, "interval": interval, "problems": PROBLEMS}


# The best of the official runs: an embedding whose training is like them.
SIZE, ALPHABETS, CHARACTERS, DRAWERS, SCALE = 56, 3, 20, 3, 15.0


def embedding() -> Network:
    """Unit vectors; pictures become four channels of a quarter of the pixels each."""
    network = metashot.nets.conv4(96, blocks=3)

    def fold(x: Array) -> Array:
        n, height, width, _ = x.shape
        parts = x.reshape(n, height // 2, 2, width // 2, 2)
        return parts.transpose(0, 1, 3, 2, 4).reshape(n, height // 2, width // 2, 4)

    def apply(variables: Variables, x: Array, **settings: Any) -> Any:
        z, stats = network.apply(variables, fold(x), **settings)
        return metashot.nets.unit(z), stats

    return Network(lambda key, x: network.init(key, fold(x)), apply)


def alike_drawn(dataset: Dataset) -> Episodes:
    """Characters of some alphabets, all of an alphabet by the same drawers, as in the runs.

    The support is by the first drawer, queries by the others. Half of the alphabets are turned by
    90, 180 or 270 degrees and half of those mirrored.
    """
    among = families(dataset, "alphabet", CHARACTERS)
    starts = np.unique(among.first)
    sizes = among.size[starts]
    largest = int(sizes.max())

    def sample(key: Array, arrays: Any) -> Episode:
        draw, turn = jax.random.split(key)
        alphabet_draws, drawer_draws, class_draws = jnp.split(
            jax.random.uniform(draw, (len(starts) + ALPHABETS * (20 + largest),)),
            np.cumsum([len(starts), ALPHABETS * 20]),
        )
        alphabets = jax.lax.top_k(alphabet_draws, ALPHABETS)[1]
        drawers = jax.lax.top_k(drawer_draws.reshape(ALPHABETS, 20), DRAWERS)[1]
        there = jnp.arange(largest) < jnp.asarray(sizes)[alphabets][:, None]
        draws = jnp.where(there, class_draws.reshape(ALPHABETS, largest), -1)
        places = jnp.asarray(starts)[alphabets][:, None] + jax.lax.top_k(draws, CHARACTERS)[1]
        classes = jnp.asarray(among.order)[places]  # [alphabets, characters]
        rows = jnp.asarray(arrays.offset)[classes] + drawers.T[:, :, None]
        images = dataset.prepare(jnp.asarray(arrays.images)[rows])  # [drawers, a, c, H, W, 1]
        images = jax.vmap(_turned, (0, 1), 1)(jax.random.split(turn, ALPHABETS), images)
        way = ALPHABETS * CHARACTERS
        labels, known = jnp.tile(jnp.arange(way), DRAWERS), jnp.ones(DRAWERS * way, bool)
        everything = Examples(images.reshape(-1, SIZE, SIZE, 1), labels, known)
        part = lambda where: jax.tree.map(lambda x: x[where], everything)
        return Episode(part(slice(way)), part(slice(way, None)))

    return Episodes(dataset.arrays, sample)


HAND = {"rotation": 15.0, "shear": 0.2, "scale": 0.2, "shift": 0.08, "stroke": 0.7}


def _turned(key: Array, images: Array) -> Array:
    """An alphabet's drawings [..., H, W, 1] by a random multiple of 90 degrees, or mirrored too."""
    turns = [lambda x, k=k: jnp.rot90(x, k, (-3, -2)) for k in range(4)]
    turns += [lambda x, turn=turn: turn(x).swapaxes(-3, -2) for turn in turns[1:]]
    chances = jnp.log(jnp.array([1 / 2, *[1 / 12] * 6]))
    return jax.lax.switch(jax.random.categorical(key, chances), turns, images)


def in_turn(learner: Learner, network: Network) -> Learner:
    """Trained with each drawer's pictures as the support of the others' in turn."""

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        x = jnp.concatenate([episode.support.inputs, episode.query.inputs])
        z, stats = network.apply(variables, x, train=True)
        z = z.reshape(DRAWERS, -1, z.shape[-1])
        classes = jnp.arange(z.shape[1])
        there = Examples(z, classes, jnp.ones(z.shape[1], bool))
        others = [(i, j) for i in range(DRAWERS) for j in range(DRAWERS) if i != j]
        logits = [SCALE * z[i] @ z[j].T for i, j in others]
        total = jnp.stack([masked_nll(each, there) for each in logits]).mean()
        right = jnp.stack([masked_accuracy(each, there) for each in logits]).mean()
        state = metashot.nets.running(variables["state"], stats, 0.1)
        return total, Aux({"accuracy": right}, state)

    return learner._replace(loss=loss)


def best_official_runs(steps: int | None, *, tuning: bool) -> Row:
    steps = steps or 6000
    splits = data(SIZE, tuning=tuning).load()
    network = embedding()
    learner = metashot.prototypical(network=network, way=20)
    trained = metashot.train(
        in_turn(learner, network),
        redrawn(alike_drawn(splits.train), **HAND),
        config.Adam(rate=2e-3, warmup=100, decay="cosine").build(steps),
        steps=steps,
        workdir=(folder := RUNS / f"{NAME}_best_{steps}{'_tuning' if tuning else ''}"),
        resume=(folder / "run.json").exists(),
    )
    made = by_pairs(learner)
    if tuning:
        return _tuned(made, trained.variables, splits)
    seconds = trained.history[-1]["seconds"]
    told = {"steps": steps, "seconds": seconds, "seed": 0, "paper": None}
    found = errors(made, trained.variables, splits, SIZE)
    # The row's figure is that of the runs.
    found |= {"random": (found["value"], found["interval"])}
    (found["value"], found["interval"]) = found.pop("official")
    return found | told


def by_pairs(learner: Learner) -> Learner:
    """A classifier that also answers matching problems: candidates are classes, exemplars ask."""

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> Any:
        return support.inputs, learner.adapt(variables, support)

    def predict(variables: Variables, task: Any, inputs: Array) -> Array:
        exemplars, known = task
        if inputs.ndim == 4:
            return learner.predict(variables, known, inputs)
        way = inputs.shape[1]

        def one(z: Array, x: Array) -> Array:
            support = Examples(x, jnp.arange(way), jnp.ones(way, bool))
            return learner.predict(variables, learner.adapt(variables, support), z[None])[0]

        return jax.lax.map(lambda both: one(*both), (exemplars, inputs))

    return learner._replace(adapt=adapt, predict=predict)


def adapt() -> Row:
    """To learn a character from one exemplar and score 1,000 pictures: a learnet, and SGD.

    SGD trains a classifier of as many layers on the exemplar against 19 other pictures, until the
    exemplar has the highest score of the twenty. Seconds do not depend on what the weights are:
    they are those of a start.
    """
    key = jax.random.key(0)
    pictures = data().load().test
    x = pictures.prepare(jnp.asarray(pictures.arrays.images[:1000]))
    some = lambda n, labels: Examples(x[:n], labels, jnp.ones(n, bool))
    one = some(1, jnp.zeros(1, jnp.int32))
    twenty = some(20, jnp.minimum(jnp.arange(20), 1))
    learner = config.read(NAME).learner.build(1)
    found = {"learnet": _timed(learner, one, x, key)[1]}
    classifier = metashot.classifier(network=metashot.nets.stream(), way=2)
    steps = 0
    for steps in SGD_STEPS:
        tuned = metashot.fine_tune(classifier, optax.sgd(0.01), steps)
        scores, found["sgd"] = _timed(tuned, twenty, x, key)
        told = scores[:20, 0] - scores[:20, 1]
        if told[0] > told[1:].max():
            break
    value, ratio = sum(found["learnet"]), sum(found["sgd"]) / sum(found["learnet"])
    return {"value": value, "ratio": ratio, "steps_of_sgd": steps, "seconds_of": found}


def _timed(learner: Learner, support: Examples, x: Array, key: Array) -> tuple[Array, Any]:
    """The scores of x, and the seconds to learn the support and to score."""
    variables = jax.jit(learner.init)(key, Episode(support, support))
    learn, score = (_compiled(f) for f in (learner.adapt, learner.predict))
    task = learn(variables, support, key)
    calls = partial(learn, variables, support, key), partial(score, variables, task, x)
    return score(variables, task, x), tuple(median_seconds(call, ROUNDS) for call in calls)


def _compiled(function: Any) -> Any:
    return jax.jit(function, compiler_options=compiler_options())


def measure(name: str, steps: int | None, *, tuning: bool) -> Row:
    if name in CELLS:
        return cell(name, steps, tuning=tuning)
    if name in HAUSDORFF:
        return hausdorff(name)
    return adapt() if name == "adapt" else best_official_runs(steps, tuning=tuning)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", metavar="ROW", default=[])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--tuning", action="store_true")
    parser.add_argument("--repacked", action="store_true")
    asked = parser.parse_args()
    unknown = set(asked.rows) - set(ROWS)
    if unknown:
        parser.error(f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    done = {row["name"] for row in results.rows(NAME)}
    for name in asked.rows or [row for row in ROWS if row not in done]:
        row = {"name": name, **measure(name, asked.steps, tuning=asked.tuning)}
        if not asked.tuning:
            given = f" --steps {asked.steps}" if asked.steps and "steps" in row else ""
            results.add(NAME, row | {"command": f"python benchmarks/{NAME}.py {name}{given}"})
        print(name, {k: row[k] for k in ("value", "interval", "official") if k in row}, flush=True)


if __name__ == "__main__":
    main()
