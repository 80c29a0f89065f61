"""How a function is compared with its plain definition, to the second gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def random(seed: int, *shape: int, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def assert_close(actual: Any, desired: Any, **tolerance: float) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **(tolerance or CLOSE)), actual, desired
    )


def two_orders(f: Callable[..., jax.Array], *args: np.ndarray) -> Any:
    """f, its gradients, and the gradients of these; each for a cotangent drawn at random."""

    def first(args: Any, cotangent: Any) -> Any:
        return jax.vjp(f, *args)[1](cotangent)

    def everything(args: Any, cotangent: Any, of_first: Any) -> Any:
        return f(*args), first(args, cotangent), jax.vjp(first, args, cotangent)[1](of_first)

    cotangent = random(8, *jax.eval_shape(f, *args).shape)
    of_first = tuple(random(9 + i, *x.shape) for i, x in enumerate(args))
    return jax.jit(everything)(args, cotangent, of_first)
