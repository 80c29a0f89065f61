"""The modified Hausdorff distance (Dubuisson & Jain, ICPR 1994): how far ink lies from ink.

The baseline of Omniglot (Lake et al., 2015) and of table 1 of Bertinetto et al. (NIPS 2016).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..base import Array, Aux, Episode, Examples, Learner, PyTree, Variables
from ..losses import members
from .pairs import answers, pair_loss

TILE = 128  # ink pixels that are compared at once, with as many others
FAR = 1e6  # where those are that are not there


class Ink(NamedTuple):
    """Of a picture, or of several along a first axis."""

    where: Array  # [room, 2] rows and columns about their mean
    count: Array  # [] how many there are  # pyright: ignore[reportIncompatibleMethodOverride]


def hausdorff(*, points: int, way: int = 5) -> Learner:
    """Minus the modified Hausdorff distance of ink pixels as a score; nothing is learned.

    d(A, B) = max(h(A, B), h(B, A)) with h(A, B) = mean over a of A of min over b of B of |a - b|,
    for the coordinates of two pictures' ink, each about its own mean. It answers paired episodes
    and ordinary ones; of several exemplars of a class the nearest counts.

    Args:
        points: room for the ink of a picture, pixels above 1/2. One with more, or none, scores NaN.
        way: length of the class axis; a class without support has logit -inf.
    """

    room = TILE * -(-points // TILE)

    def ink(pictures: Array) -> Ink:
        flat = pictures.mean(-1).reshape(-1, pictures.shape[-3] * pictures.shape[-2]) > 0.5
        count = flat.sum(1)
        places = jax.vmap(lambda row: jnp.flatnonzero(row, size=room, fill_value=0))(flat)
        where = jnp.stack(jnp.divmod(places, pictures.shape[-2]), -1).astype(pictures.dtype)
        there = (jnp.arange(room) < count[:, None])[..., None]  # [n, room, 1]
        mean = jnp.where(there, where, 0).sum(1, keepdims=True) / count[:, None, None]
        return Ink(jnp.where(there, where - mean, FAR), count)

    def distance(one: Ink, other: Ink) -> Array:
        """In tiles, as many as the ink of both needs."""
        across, down = (-(-ink.count // TILE) for ink in (other, one))

        def tile(k: Array, nearest: tuple[Array, Array]) -> tuple[Array, Array]:
            starts = TILE * (k // across), TILE * (k % across)
            a, b = (
                lax.dynamic_slice_in_dim(ink.where, start, TILE)
                for ink, start in zip((one, other), starts, strict=True)
            )
            # A sum over the two of them took thirty times as long.
            squared = (a[:, :1] - b[:, 0]) ** 2 + (a[:, 1:] - b[:, 1]) ** 2
            found = zip(nearest, (squared.min(1), squared.min(0)), starts, strict=True)
            lowered = [
                lax.dynamic_update_slice_in_dim(
                    old, jnp.minimum(lax.dynamic_slice_in_dim(old, start, TILE), new), start, 0
                )
                for old, new, start in found
            ]
            return lowered[0], lowered[1]

        start = jnp.full(room, FAR**2, one.where.dtype)
        nearest = lax.fori_loop(0, across * down, tile, (start, start))
        means = [
            jnp.where(jnp.arange(room) < ink.count, jnp.sqrt(squared), 0).sum() / ink.count
            for ink, squared in zip((one, other), nearest, strict=True)
        ]
        fits = jnp.maximum(one.count, other.count) <= points
        return jnp.where(fits, jnp.maximum(*means), jnp.nan)

    def scores(task: PyTree, inputs: Array) -> Array:
        """[p, q], a query after another: all at once would be points^2 numbers for each pair."""
        queries = ink(inputs.reshape(-1, *inputs.shape[-3:]))
        if inputs.ndim == 5:
            each = lambda x: x.reshape(*inputs.shape[:2], *x.shape[1:])
            rows = lambda own: lax.map(lambda x: -distance(own[0], x), own[1])
            return lax.map(rows, (task["ink"], jax.tree.map(each, queries)))
        row = lambda own: lax.map(lambda x: -distance(own, x), queries)
        return lax.map(row, task["ink"])

    def init(key: Array, episode: Episode) -> Variables:
        return {"params": {}, "state": {}}

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        return {"ink": ink(support.inputs), "member": members(support, way)}

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        return answers(scores(task, inputs), inputs, task["member"], "max")

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        task = adapt(variables, episode.support)
        return pair_loss(scores(task, episode.query.inputs), episode, way, "max")

    return Learner(init, adapt, predict, loss)
