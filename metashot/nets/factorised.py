"""Factorised layers: what another network predicts of them is small.

Bertinetto et al., "Learning feed-forward one-shot learners" (NIPS 2016), section 2: a layer's
weights are a product of matrices that are learned and, between them, what is predicted, a number or
a small filter for each inner channel. `vmap` over predicted weights with shared matrices gives each
exemplar a layer of its own. A bias is added to what these return, be it learned or predicted too.
"""

from __future__ import annotations

import jax.numpy as jnp

from ..base import Array
from .convolutions import Pads, conv, depthwise


def factorised_dense(x: Array, first: Array, weights: Array, last: Array) -> Array:
    """A linear layer of the matrix first diag(weights) last (equation 6).

    Args:
        x: [..., d].
        first: [d, D]; weights: [D]; last: [D, k].

    Returns:
        [..., k].

    Example:
        >>> x, weights = jnp.array([3.0, 4.0]), jnp.array([2.0, -1.0])
        >>> factorised_dense(x, jnp.eye(2), weights, jnp.ones((2, 1)))
        Array([2.], dtype=float32)
    """
    return (x @ first * weights) @ last


def factorised_conv(
    x: Array,
    first: Array,
    kernel: Array,
    last: Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: str | Pads = "SAME",
) -> Array:
    """A convolution whose kernel is a product: sum_j first[i, j] kernel[p, q, j] last[j, k].

    Equation 8: nothing lies between the three steps.

    Args:
        x: [n, H, W, C].
        first: [C, D]; kernel: [h, w, D], one filter an inner channel; last: [D, F].
        strides: of the filters.
        padding: as of `conv`.

    Returns:
        [n, H', W', F].
    """
    # As convolutions, the products with matrices shared by all exemplars are one product each.
    inner = depthwise(conv(x, first[None, None]), kernel, strides=strides, padding=padding)
    return conv(inner, last[None, None])


def assembled(first: Array, weights: Array, last: Array) -> Array:
    """The plain layer that a factorised one equals: its kernel [..., d, k].

    Each of its filters is a linear combination of the predicted ones.

    Args:
        first: [d, D]; weights: [..., D], as of either layer; last: [D, k].
    """
    return jnp.einsum("ij,...j,jk->...ik", first, weights, last)
