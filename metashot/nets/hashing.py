"""Weight hashing (Chen et al., ICML 2015): a long vector that is a fixed linear map of a short one.

Each output is one of the inputs, with a sign; which and which sign are drawn once. Trained weights
are useless with another draw: it belongs into a learner's state, and so into its checkpoints.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..base import Array, PyTree


def init_hash(key: Array, inputs: int, outputs: int, dtype: Any = jnp.float32) -> PyTree:
    """Draw {"index" [outputs] int32 below inputs, "sign" [outputs] of -1 and 1}, uniformly."""
    index_key, sign_key = jax.random.split(key)
    return {
        "index": jax.random.randint(index_key, (outputs,), 0, inputs, jnp.int32),
        "sign": jax.random.rademacher(sign_key, (outputs,), dtype),
    }


def hashed(code: PyTree, x: Array) -> Array:
    """[..., outputs]: theta(i) = sign(i) x(index(i)) of x [..., inputs].

    It equals x times the matrix with sign(i) at (index(i), i), and so does its gradient.

    Example:
        >>> code = {"index": jnp.array([1, 0, 2, 1, 0]), "sign": jnp.array([1, -1, 1, -1, 1])}
        >>> hashed(code, jnp.array([0.5, -2.0, 3.0]))
        Array([-2. , -0.5,  3. ,  2. ,  0.5], dtype=float32)
    """
    return code["sign"] * x[..., code["index"]]
