"""What a memory matching network costs as the support grows from 5 to 1,000 examples.

    python benchmarks/memory_matching_cost.py [MOST_EXAMPLES]

Time to adapt to a support of 28x28 pictures and to answer 75 queries, the median of five rounds,
and the compiler's figures for temporary buffers: of adapting, and of writing the memory with its
gradient, which keeps what each step of the scan leaves.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import results
from timing import median_seconds

import metashot
from metashot.devices import compiler_options
from metashot.memory import write

NAME = "memory_matching_cost"
SIZES = ((5, 1), (5, 5), (20, 5), (60, 5), (200, 5))  # way, shot
QUERIES, KEY_SIZE, ROUNDS = 75, 512, 5


def compile_(function: Any, *arguments: Any) -> Any:
    return jax.jit(function, compiler_options=compiler_options()).lower(*arguments).compile()


def temporary_bytes(compiled: Any) -> int:
    return compiled.memory_analysis().temp_size_in_bytes


def cost(way: int, shot: int) -> dict[str, float]:
    """Of a support of that size."""
    learner, n = metashot.memory_matching(way=way, key_size=KEY_SIZE), way * shot
    key = jax.random.key(0)
    pictures = jax.random.uniform(key, (n, 28, 28, 1))
    labels = jnp.arange(n, dtype=jnp.int32) % way
    support = metashot.Examples(pictures, labels, jnp.ones(n, bool))
    queries = jax.random.uniform(key, (QUERIES, 28, 28, 1))
    variables = jax.jit(learner.init)(key, metashot.Episode(support, support))
    adapt = compile_(learner.adapt, variables, support)
    task = adapt(variables, support)
    predict = compile_(learner.predict, variables, task, queries)
    total = lambda z: (write(z, labels, slots=n).keys ** 2).sum()
    scan = compile_(jax.value_and_grad(total), jnp.ones((n, KEY_SIZE)))
    answer = partial(predict, variables, task, queries)
    return {
        "value": 1e3 * median_seconds(partial(adapt, variables, support), ROUNDS),
        "predict_ms": 1e3 * median_seconds(answer, ROUNDS),
        "adapt_bytes": temporary_bytes(adapt),
        "scan_bytes": temporary_bytes(scan),
    }


if __name__ == "__main__":
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for way, shot in SIZES:
        if way * shot > most:
            break
        row = {"name": f"n{way * shot}", "way": way, "shot": shot, **cost(way, shot)}
        row["command"] = f"python benchmarks/{NAME}.py"
        results.add(NAME, row)
        print(
            f"{row['name']}: adapt {row['value']:.1f} ms, predict {row['predict_ms']:.1f} ms, "
            f"adapting {row['adapt_bytes'] / 1e6:.1f} MB, scan with its gradient "
            f"{row['scan_bytes'] / 1e6:.1f} MB",
            flush=True,
        )
