"""How long a call takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def median_seconds(call: Callable[[], Any], rounds: int) -> float:
    """Of so many rounds, after one that warms up."""
    jax.block_until_ready(call())
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
