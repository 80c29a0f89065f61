"""What the tests of layers share: how a function is compared with its plain definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture(scope="session")
def two_orders() -> Callable[..., Any]:
    """(f, *args) -> f, its gradients, and the gradients of these, for random cotangents."""

    def two_orders(f: Callable[..., jax.Array], *args: np.ndarray) -> Any:
        def first(args: Any, cotangent: Any) -> Any:
            return jax.vjp(f, *args)[1](cotangent)

        def everything(args: Any, cotangent: Any, of_first: Any) -> Any:
            return f(*args), first(args, cotangent), jax.vjp(first, args, cotangent)[1](of_first)

        cotangent = _random(8, *jax.eval_shape(f, *args).shape)
        of_first = tuple(_random(9 + i, *x.shape) for i, x in enumerate(args))
        return jax.jit(everything)(args, cotangent, of_first)

    return two_orders
