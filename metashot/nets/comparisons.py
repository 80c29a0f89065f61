"""How alike two embeddings are, as a score that may be of either sign (Bertinetto et al., 2016)."""

from __future__ import annotations

import jax.numpy as jnp

from ..base import Array, PyTree

COMPARISONS = ("inner_product", "euclidean", "weighted_l1", "signed_l1")


def inner_product(a: Array, b: Array) -> Array:
    """sum a b over the last axis."""
    return (a * b).sum(-1)


def euclidean(a: Array, b: Array) -> Array:
    """-|a - b| over the last axis; its gradient is 0 where they are equal."""
    squared = ((a - b) ** 2).sum(-1)
    apart = squared > 0
    return -jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)


def weighted_l1(a: Array, b: Array, weights: Array) -> Array:
    """-sum |w (a - b)| over the last axis: the sign of a weight plays no part."""
    return -_absolute(weights * (a - b)).sum(-1)


def signed_l1(a: Array, b: Array, weights: Array) -> Array:
    """sum w |a - b| over the last axis (Koch et al., 2015)."""
    return (weights * _absolute(a - b)).sum(-1)


def _absolute(x: Array) -> Array:
    """|x| whose gradient at 0 is 0; that of `jnp.abs` is 1."""
    return x * jnp.sign(x)


def init_comparison(
    kind: str, size: int, *, learn_gain: bool = True, learn_offset: bool = True
) -> dict[str, Array]:
    """Parameters of `compare` for embeddings of this size: a score that starts as the similarity.

    Both are our choice: with minus a distance alone as a score, no match could cost less than
    log 2. The gain is stored as its logarithm, which keeps it positive; the weights of l1 are ones
    at first, -1 / size where they are signed, and a gain of their own.

    Raises:
        ValueError: an unknown comparison.
    """
    if kind not in COMPARISONS:
        raise ValueError(f"comparison is {kind!r}; it is one of {', '.join(COMPARISONS)}")
    params = {"offset": jnp.zeros(())} if learn_offset else {}
    if kind in ("inner_product", "euclidean"):
        return {**params, "log_gain": jnp.zeros(())} if learn_gain else params
    start = 1.0 if kind == "weighted_l1" else -1 / size
    return {**params, "weights": start * jnp.ones(size)}


def compare(kind: str, params: PyTree, a: Array, b: Array) -> Array:
    """Scores [...] of embeddings a and b [..., size]: gain * similarity + offset."""
    if kind == "inner_product":
        score = inner_product(a, b)
    elif kind == "euclidean":
        score = euclidean(a, b)
    else:
        score = (weighted_l1 if kind == "weighted_l1" else signed_l1)(a, b, params["weights"])
    if "log_gain" in params:
        score = jnp.exp(params["log_gain"]) * score
    return score + params["offset"] if "offset" in params else score


def calibrated(kind: str, params: PyTree, a: Array, b: Array) -> PyTree:
    """Parameters with which the mean distance of these pairs scores 0, as 2 - 2.

    Scores are then of either sign from the first step on. Parameters of comparisons that are no
    distance stay as they are.
    """
    if kind not in ("euclidean", "weighted_l1"):
        return params
    plain = {name: value for name, value in params.items() if name != "offset"}
    distance = jnp.maximum(-compare(kind, plain, a, b).mean(), 1e-6)
    moved = {**params}
    if "offset" in params:
        moved["offset"] = jnp.full_like(params["offset"], 2)
    if "log_gain" in params:
        moved["log_gain"] = params["log_gain"] + jnp.log(2 / distance)
    if "weights" in params:
        moved["weights"] = params["weights"] * 2 / distance
    return moved
