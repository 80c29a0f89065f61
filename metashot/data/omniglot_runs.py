"""Omniglot's official one-shot runs: 20 times 20 characters of one alphabet, by two drawers.

Lake, Salakhutdinov & Tenenbaum (Science 2015); the drawings are of the evaluation alphabets.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from ..base import Array, Episode, Examples
from . import cache
from .dataset import INK
from .episodes import Episodes
from .omniglot import SIDE, drawing, find

ARCHIVE = "all_runs.zip"
RUNS = WAY = 20
Exemplar = Literal["training", "test"]


def omniglot_runs(
    source: str | os.PathLike[str] | None = None,
    *,
    size: int = 28,
    exemplar: Exemplar = "training",
) -> Episodes:
    """The 20 runs as a list: `metashot.evaluate` them with a count of 20 and `metrics.one_shot`.

    Args:
        source: the folder with `all_runs.zip`, or one with that in a folder `omniglot`; by default
            the environment's METASHOT_DATA, else the cache folder.
        size: pixels along a side, 1 to 105; drawings are reduced by area.
        exemplar: "training" makes ordinary episodes, training pictures the support and test
            pictures the queries, so that the best of 20 exemplars answers. "test" makes paired
            ones: a test picture is the exemplar, the training pictures its candidates.

    Returns:
        Their arrays are all runs, stacked. Pictures are floats, ink 1 on paper 0: support [20, 20,
        size, size, 1], queries [20, 20, size, size, 1] or [20, 20, 20, size, size, 1].

    Raises:
        FileNotFoundError: no archive.
        ValueError: an archive that does not hold the runs, a bad size, another exemplar.
    """
    if not 1 <= size <= SIDE:
        raise ValueError(f"Omniglot's drawings have sizes of 1 to {SIDE}, not {size}")
    if exemplar not in get_args(Exemplar):
        raise ValueError(f"exemplar is {exemplar!r}; it is one of {', '.join(get_args(Exemplar))}")
    folder = Path(source or os.environ.get("METASHOT_DATA") or cache.folder())
    path = find(folder, [ARCHIVE])
    if path is None:
        raise FileNotFoundError(
            f"{ARCHIVE} not found in {folder}: fetch it from Omniglot's repository "
            "(python/one-shot-classification) and name its folder (source= or METASHOT_DATA)"
        )
    pictures = {"training": list[np.ndarray](), "test": list[np.ndarray]()}
    labels = list[list[int]]()
    try:
        with zipfile.ZipFile(path) as file:
            for run in (f"run{i:02d}" for i in range(1, RUNS + 1)):
                for part, word in (("training", "class"), ("test", "item")):
                    names = [f"{run}/{part}/{word}{i:02d}.png" for i in range(1, WAY + 1)]
                    pictures[part].append(np.stack([drawing(file, n, size) for n in names]))
                told = file.read(f"{run}/class_labels.txt").decode()
                found = re.findall(r"item(\d\d)\.png \S*class(\d\d)\.png", told)
                labels.append([int(dict(found)[f"{i:02d}"]) - 1 for i in range(1, WAY + 1)])
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{path} does not hold the official runs: {error}") from error
    training, test = (
        INK(jnp.asarray(np.stack(pictures[part]))[..., None]) for part in ("training", "test")
    )
    numbers, known = jnp.asarray(labels), jnp.ones((RUNS, WAY), bool)
    places = jnp.broadcast_to(jnp.arange(WAY), (RUNS, WAY))
    if exemplar == "training":
        return _list(Episode(Examples(training, places, known), Examples(test, numbers, known)))
    candidates = jnp.broadcast_to(training[:, None], (RUNS, WAY, *training.shape[1:]))
    match = (numbers[..., None] == jnp.arange(WAY)).astype(jnp.int32)
    query = Examples(candidates, match, jnp.ones(match.shape, bool))
    return _list(Episode(Examples(test, places, known), query))


def _list(runs: Episode) -> Episodes:
    def at(index: Array, runs: Episode) -> Episode:
        return jax.tree.map(lambda x: x[index % RUNS], runs)

    def sample(key: Array, runs: Episode) -> Episode:
        return at(jax.random.randint(key, (), 0, RUNS), runs)

    return Episodes(runs, sample, listed=at)
