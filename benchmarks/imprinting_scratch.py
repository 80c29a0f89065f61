"""Weight imprinting from scratch: the tables and figures of Qi, Brown & Lowe (2018) on small sets.

    METASHOT_DATA=DIR python benchmarks/imprinting_scratch.py SET [ROW ...]

SET is caltech101 or tinyimagenet. Of each class a seeded permutation of the pictures holds the ten
for testing at its end and the shots of a novel class at its start, so that shots are nested. A base
training sees the rest of the base classes. Figures are shares of pictures that are answered right:
"novel" and "all" among base and novel classes together, "transfer" among novel classes alone.

Rows that tune nothing are means of three seeds (of pictures and training); those that do, and those
of other embeddings, are of seed 0. Trainings of a base are kept in runs/benchmarks.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import results

import metashot
from metashot import config, nets
from metashot.base import Array, Aux, Episode, Examples, Learner, Network, PyTree, Variables
from metashot.data import Dataset, Episodes, augment, class_folders, copies, from_arrays
from metashot.data.folders import labelled
from metashot.devices import compiler_options, episode_mesh
from metashot.losses import lifted_structured
from metashot.meta_step import TrainState, make_meta_steps
from metashot.nets import running
from metashot.recognition import labels_of

RUNS = Path("runs") / "benchmarks"
SHOTS, SEEDS, HELD_OUT = (1, 2, 5, 10, 20), (0, 1, 2), 10
SIDE, VIEWS = 32, {"shift": 4, "flip": True}
TUNING, TRANSFER, JOINT, RATE = 400, 200, 1000, 5e-4  # steps of three trainings; rate of two
LOOKS = 4  # at accuracy while tuning
BATCH = 100


# --- Pictures


class Part(NamedTuple):
    """Pictures of some classes, cut in two."""

    learn: Dataset  # of a novel class in the order of its shots
    test: Dataset


def part(dataset: Dataset, seed: int, held_out: int = HELD_OUT) -> Part:
    """Cut the pictures of each class by a permutation of them."""
    draw = np.random.default_rng(seed)
    orders = [draw.permutation(own) for own in by_class(dataset)]
    return Part(
        rows_of(dataset, [order[:-held_out] for order in orders]),
        rows_of(dataset, [order[-held_out:] for order in orders]),
    )


def by_class(dataset: Dataset) -> list[Any]:
    """The rows of each class."""
    return np.split(np.arange(len(labels_of(dataset))), np.asarray(dataset.arrays.offset)[1:])


def rows_of(dataset: Dataset, rows: list[Any]) -> Dataset:
    """The data set of these rows of each class, in their order."""
    labels = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
    images = np.asarray(dataset.arrays.images)[np.concatenate(rows)]
    return from_arrays(images, labels, dataset.names)


def first(dataset: Dataset, shots: int) -> Dataset:
    """The first pictures of each class; all where it has fewer."""
    return rows_of(dataset, [own[:shots] for own in by_class(dataset)])


def together(base: Dataset, novel: Dataset) -> Dataset:
    """One label space: novel classes after those of the base."""
    images = [np.asarray(each.arrays.images) for each in (base, novel)]
    labels = [labels_of(base), base.classes + labels_of(novel)]
    return from_arrays(np.concatenate(images), np.concatenate(labels))


def in_batches(dataset: Dataset, offset: int = 0) -> list[Examples]:
    """All of a data set in batches of one size; its labels begin at `offset`."""
    images, labels = np.asarray(dataset.arrays.images), offset + labels_of(dataset)
    room = -len(images) % BATCH
    images = np.concatenate([images, np.zeros((room, *images.shape[1:]), np.uint8)])
    labels = np.concatenate([labels, np.full(room, -1)]).astype(np.int32)
    cut = lambda x: np.split(x, len(images) // BATCH)
    return [
        Examples(dataset.prepare(jnp.asarray(x)), jnp.asarray(y), jnp.asarray(y >= 0))
        for x, y in zip(cut(images), cut(labels), strict=True)
    ]


# --- Classifiers


class Base(NamedTuple):
    """A trained classifier of base classes."""

    learner: Learner
    variables: Variables
    network: Network  # its embedding


def trained_base(name: str, seed: int, learn: Dataset, size: int = 64) -> Base:
    """The classifier that the set's config says, trained on these pictures."""
    settings = config.read(f"{name}_imprinting")
    learner = dataclasses.replace(settings.learner, size=size).build(1)
    source = metashot.batches(learn, **vars(settings.train))
    run = f"imprinting_{name}_seed{seed}" + ("" if size == 64 else f"_size{size}")
    return trained(learner, source, settings, run, seed, size)


def lifted_base(name: str, learn: Dataset) -> Base:
    """An embedding trained by the lifted structured loss, on 16 classes with 4 pictures each."""
    settings = config.read(f"{name}_imprinting")
    network = nets.with_embedding(settings.learner.network.build(), 64)
    drawn = metashot.episodes(learn, way=16, shot=2, query=2)

    def sample(key: Array, arrays: PyTree) -> Episode:
        episode = drawn.sample(key, arrays)
        rows = jax.tree.map(lambda *x: jnp.concatenate(x), episode.support, episode.query)
        views = augment(jax.random.fold_in(key, 1), rows.inputs, **VIEWS)
        return Episode(jax.tree.map(lambda x: x[:0], rows), rows._replace(inputs=views))

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        state, batch = variables["state"], episode.query
        z, stats = network.apply(variables, batch.inputs, train=True, mask=batch.mask)
        moved = running({"network": state["network"]}, stats)
        return lifted_structured(z, batch), Aux({}, moved)

    learner = settings.learner.build(1)._replace(loss=loss)
    source = Episodes(drawn.arrays, sample)
    return trained(learner, source, settings, f"imprinting_{name}_lifted", 0, 64)


def trained(
    learner: Learner, source: Episodes, settings: Any, run: str, seed: int, size: int
) -> Base:
    """Train once, and keep what was trained."""
    found = metashot.train(
        learner, source, settings.optimizer.build(settings.steps), steps=settings.steps, seed=seed,
        validate_every=500, log_every=50, workdir=RUNS / run, resume=(RUNS / run).exists(),
        progress=False,
    )  # fmt: skip
    network = nets.with_embedding(settings.learner.network.build(), size)
    return Base(learner, found.variables, network)


def headless(base: Base) -> Base:
    """The base without its classes."""
    params, state = base.variables["params"], base.variables["state"]
    none = {name: state[name][:0] for name in ("sum", "count")}
    params = {**params, "columns": params["columns"][:0]}
    return base._replace(variables={"params": params, "state": {**state, **none}})


def at_random(base: Base, novel: Dataset) -> Variables:
    """The base with columns at random for the classes of `novel`."""
    old = len(base.variables["params"]["columns"])
    variables = metashot.grow(base.variables, old + novel.classes)
    return metashot.random_columns(jax.random.key(0), variables, old + jnp.arange(novel.classes))


def imprinted(base: Base, novel: Dataset, views: bool = False) -> Variables:
    """The base with columns for the classes of `novel`, from all their pictures."""
    old = len(base.variables["params"]["columns"])
    variables = metashot.grow(base.variables, old + novel.classes)
    store = storing(base.learner)
    for i, batch in enumerate(in_batches(novel, old)):
        seen = copies(jax.random.key(i), batch, **VIEWS) if views else batch
        variables = store(variables, seen)
    return variables


@functools.cache
def storing(learner: Learner) -> Any:
    """`imprint`, compiled."""
    return jax.jit(
        functools.partial(metashot.imprint, learner), compiler_options=compiler_options()
    )


def share_right(learner: Learner, support: Examples) -> Callable[[Variables, Any], float]:
    """A function of (variables, batches): the share of pictures that is answered right."""
    options = compiler_options()

    @jax.jit(compiler_options=options)
    def right(variables: Variables, task: PyTree, batch: Examples) -> Array:
        logits = learner.predict(variables, task, batch.inputs)
        return (batch.mask & (logits.argmax(1) == batch.targets)).sum()

    def share(variables: Variables, found: list[Examples]) -> float:
        task = jax.jit(learner.adapt, compiler_options=options)(variables, support)
        asked = sum(int(batch.mask.sum()) for batch in found)
        return sum(int(right(variables, task, batch)) for batch in found) / asked

    return share


NOBODY = Examples(jnp.zeros((0, SIDE, SIDE, 3)), jnp.zeros(0, jnp.int32), jnp.zeros(0, bool))


def tuned(
    learner: Learner, variables: Variables, dataset: Dataset, steps: int, rate: float = RATE
) -> list[tuple[int, Variables]]:
    """(step, variables) of a training that starts at variables; classes count alike."""
    source = metashot.batches(dataset, size=64, **VIEWS)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    mesh = episode_mesh(1)
    settings = {"meta_batch": 1, "chunk": 1, "seed": 0}
    go = make_meta_steps(learner, optimizer, source.sample, mesh, **settings)
    variables = jax.tree.map(jnp.array, variables)  # a state is donated
    state = TrainState(variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32))
    found = []
    for look in range(LOOKS):
        state, _ = go(state, source.arrays, steps // LOOKS)
        kept = jax.tree.map(np.asarray, state.variables)
        found.append(((look + 1) * steps // LOOKS, kept))
    return found


# --- Rows


class Cell(NamedTuple):
    """Accuracies of a classifier; None where a row has none."""

    novel: float | None = None
    all: float | None = None
    transfer: float | None = None
    curve: list[Any] | None = None  # (step, novel, all) while tuning


class Set:
    """The pictures of a seed and a base that was trained on them, of an embedding's size."""

    def __init__(self, name: str, seed: int, size: int | None):
        data = config.read(f"{name}_imprinting").data.load()
        self.base, self.novel = part(data.train, seed), part(data.test, seed)
        learn = self.base.learn
        self.trained = trained_base(name, seed, learn, size) if size else lifted_base(name, learn)
        self.share = share_right(self.trained.learner, NOBODY)
        self.old = in_batches(self.base.test)
        self.new = in_batches(self.novel.test, self.base.test.classes)

    def joint(self, variables: Variables) -> tuple[float, float]:
        """Accuracy on novel classes, and on all."""
        return self.share(variables, self.new), self.share(variables, self.old + self.new)


def random_row(s: Set, shots: int) -> Cell:
    """Columns at random."""
    made = at_random(headless(s.trained), s.novel.test)
    transfer = s.share(made, in_batches(s.novel.test))
    return Cell(*s.joint(at_random(s.trained, s.novel.test)), transfer)


def imprinting_row(s: Set, shots: int, views: bool = False) -> Cell:
    """Columns from the pictures themselves."""
    shown = first(s.novel.learn, shots)
    return Cell(
        *s.joint(imprinted(s.trained, shown, views)), average(s, shown, s.novel.test, views)
    )


def average_row(s: Set, shots: int) -> Cell:
    """The same of a base that has no columns of its own."""
    return Cell(transfer=average(s, first(s.novel.learn, shots), s.novel.test))


def average(s: Set, shown: Dataset, test: Dataset, views: bool = False) -> float:
    """Accuracy among the classes shown, each imprinted."""
    return s.share(imprinted(headless(s.trained), shown, views), in_batches(test))


def augmented_row(s: Set, shots: int) -> Cell:
    """Columns from five other views of each picture."""
    return imprinting_row(s, shots, views=True)


def nearest_row(s: Set, shots: int) -> Cell:
    """All shots are kept, and the nearest answers."""
    return Cell(transfer=nearest(s, first(s.novel.learn, shots), s.novel.test))


def nearest(s: Set, shown: Dataset, test: Dataset) -> float:
    """Accuracy among the classes shown, by the nearest of all their pictures."""
    learner = metashot.nearest_neighbor(network=s.trained.network, way=shown.classes)
    support = jax.tree.map(lambda *x: jnp.concatenate(x), *in_batches(shown))
    return share_right(learner, support)(s.trained.variables, in_batches(test))


def tuned_row(make: Callable[[Base, Dataset], Variables], s: Set, shots: int) -> Cell:
    """The whole network tuned on all pictures together; for transfer, on the shots alone."""
    shown = first(s.novel.learn, shots)
    everything = together(s.base.learn, shown)
    start = make(s.trained, shown)
    path = tuned(s.trained.learner, start, everything, TUNING)
    curve = [(0, *s.joint(start)), *((step, *s.joint(found)) for step, found in path)]
    alone = tuned(s.trained.learner, make(headless(s.trained), shown), shown, TRANSFER)
    return Cell(*curve[-1][1:], s.share(alone[-1][1], in_batches(s.novel.test)), curve)


def random_ft_row(s: Set, shots: int) -> Cell:
    """Fine-tuned from columns at random."""
    return tuned_row(at_random, s, shots)


def imprinting_ft_row(s: Set, shots: int) -> Cell:
    """Fine-tuned from imprinted columns."""
    return tuned_row(imprinted, s, shots)


def joint_row(s: Set, shots: int) -> Cell:
    """A plain classifier of all classes, trained from scratch; classes count alike."""
    everything = together(s.base.learn, first(s.novel.learn, shots))
    learner = metashot.classifier(network=s.trained.network, way=everything.classes)
    batch = s.old[0]
    variables = learner.init(jax.random.key(0), Episode(batch, batch))
    _, found = tuned(learner, variables, everything, JOINT, rate=2e-3)[-1]
    share = share_right(learner, NOBODY)
    return Cell(share(found, s.new), share(found, s.old + s.new))


@functools.cache
def other_sets() -> dict[str, Part]:
    """Flowers (the last 15 pictures test) and birds (the official flag): no base saw any."""
    place = Path(os.environ["METASHOT_DATA"])
    flowers = class_folders(place / "flowers102", size=SIDE).test
    birds = labelled(place / "cub20" / "cub20_160px.zip", size=SIDE)
    with open(place / "cub20" / "images.tsv") as file:
        told = {
            row["file"]: row["cub_is_train"] == "1" for row in csv.DictReader(file, delimiter="\t")
        }
    learns = np.array([told[path] for path in birds.paths])
    draw = np.random.default_rng(0)
    shown = [draw.permutation(own[learns[own]]) for own in by_class(birds)]
    asked = [own[~learns[own]] for own in by_class(birds)]
    cut = Part(rows_of(birds, shown), rows_of(birds, asked))
    return {"flowers102": part(flowers, 0, held_out=15), "cub20": cut}


def elsewhere(name: str, measure: Callable[..., float]) -> Callable[[Set, int], Cell]:
    """Transfer to another set's classes."""

    def row(s: Set, shots: int) -> Cell:
        found = other_sets()[name]
        return Cell(transfer=measure(s, first(found.learn, shots), found.test))

    return row


class Row(NamedTuple):
    make: Callable[[Set, int], Cell]
    seeds: tuple[int, ...] = SEEDS[:1]
    size: int | None = 64  # of the embedding; None is that of the lifted loss


def rows(name: str) -> dict[str, Row]:
    found = {
        "random": Row(random_row, SEEDS),
        "imprinting": Row(imprinting_row, SEEDS),
        "imprinting_aug": Row(augmented_row, SEEDS),
        "nearest": Row(nearest_row, SEEDS),
        "random_ft": Row(random_ft_row),
        "imprinting_ft": Row(imprinting_ft_row),
        "joint": Row(joint_row),
    }
    for other in ("flowers102", "cub20"):
        found[f"{other}_imprinting"] = Row(elsewhere(other, average), SEEDS)
        found[f"{other}_nearest"] = Row(elsewhere(other, nearest), SEEDS)
    if name == "caltech101":
        found |= {f"size_{size}": Row(imprinting_row, size=size) for size in (128, 512)}
        found["lifted_imprinting"] = Row(average_row, size=None)
        found["lifted_nearest"] = Row(nearest_row, size=None)
    return found


def measured(name: str, make: Callable[[Set, int], Cell], sets: list[Set]) -> dict[str, Any]:
    """A row of results: of each n the mean and standard deviation over the seeds."""
    cells = {n: [make(s, n) for s in sets] for n in SHOTS}
    told: dict[str, Any] = {"name": name, "seeds": len(sets)}
    for kind in ("novel", "all", "transfer"):
        values = {n: [getattr(cell, kind) for cell in cells[n]] for n in SHOTS}
        if values[1][0] is not None:
            told[kind] = {n: [float(np.mean(v)), float(np.std(v))] for n, v in values.items()}
            told.setdefault("value", told[kind][5][0])  # the first of these, at five shots
    if cells[1][0].curve:
        told["curve"] = {n: cells[n][0].curve for n in SHOTS}
    return told


def main(name: str, names: list[str]) -> None:
    file, every = f"imprinting_{name}", rows(name)
    done = {row["name"] for row in results.rows(file)}
    made = functools.cache(functools.partial(Set, name))
    for row in names or [row for row in every if row not in done]:
        make, seeds, size = every[row]
        told = measured(row, make, [made(seed, size) for seed in seeds])
        told["command"] = f"python benchmarks/imprinting_scratch.py {name} {row}"
        results.add(file, told)
        print(
            {k: v for k, v in told.items() if k in ("name", "novel", "all", "transfer")}, flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
