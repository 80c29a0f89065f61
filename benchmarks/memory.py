"""How the memory of a dispatch grows with the inner steps and with the meta-steps in it.

    python benchmarks/memory.py

The compiler's own figure for the temporary buffers of the compiled program is read; nothing runs.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import results

import metashot
from metashot import meta_step
from metashot.devices import episode_mesh

NAME = "memory"


def temporary_bytes(inner_steps: int, meta_steps: int) -> int:
    """Of the Meta-Learner LSTM's meta-steps on 28x28 pictures, 5-way 1-shot, 15 queries a class."""
    pictures = np.zeros((100, 28, 28, 1), np.uint8)
    source = metashot.episodes(metashot.data.from_arrays(pictures, np.arange(100) % 5), query=15)
    learner = metashot.meta_lstm(steps=inner_steps)
    optimizer = optax.adam(1e-3)
    step = meta_step.make_meta_steps(
        learner, optimizer, source.sample, episode_mesh(1), meta_batch=1, chunk=1, seed=0
    )

    def init(arrays: Any) -> meta_step.TrainState:
        episode = source.sample(jax.random.key(0), arrays)
        return meta_step.init_state(learner, optimizer, episode, 0)

    state = jax.eval_shape(init, source.arrays)
    compiled = step.lower(state, source.arrays, meta_steps).compile()
    return compiled.memory_analysis().temp_size_in_bytes


if __name__ == "__main__":
    for inner_steps, meta_steps in ((5, 10), (12, 10), (50, 10), (12, 1), (12, 100)):
        row = {
            "name": f"meta_lstm_T{inner_steps}_K{meta_steps}",
            "value": temporary_bytes(inner_steps, meta_steps),
            "inner_steps": inner_steps,
            "meta_steps": meta_steps,
            "command": f"python benchmarks/{NAME}.py",
        }
        results.add(NAME, row)
        print(f"{row['name']}: {row['value'] / 1e6:.1f} MB", flush=True)
