"""One meta-training run: its data, learner, optimiser and sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Adam:
    """Adam, with a clip of the meta-gradient before it and a schedule of its rate."""

    rate: float = 1e-3
    """learning rate"""
    clip: float | None = None
    """largest norm of the gradient of all meta-parameters together"""
    warmup: int = 0
    """steps from rate 0 to the full rate"""
    decay: Literal["none", "cosine", "linear"] = "none"
    """how the rate falls to 0 by the last step"""
    hold: float = 0.0
    """share of the run before the fall begins"""

    def build(self, steps: int) -> Any:
        """The optax transformation for a run of that many steps."""
        import optax

        held = max(int(self.hold * steps), self.warmup)
        left = max(steps - held, 1)
        fall = {
            "none": optax.constant_schedule(self.rate),
            "cosine": optax.cosine_decay_schedule(self.rate, left),
            "linear": optax.linear_schedule(self.rate, 0.0, left),
        }[self.decay]
        rise = optax.linear_schedule(0.0, self.rate, self.warmup)
        full = optax.constant_schedule(self.rate)
        rate = optax.join_schedules([rise, full, fall], [self.warmup, held])
        clip = optax.identity() if self.clip is None else optax.clip_by_global_norm(self.clip)
        return optax.chain(clip, optax.adam(rate))


@dataclass(frozen=True)
class Sizes:
    """Of an episode."""

    way: int = 5
    """classes"""
    shot: int = 1
    """support images a class"""
    query: int = 15
    """query images a class"""


@dataclass(frozen=True)
class Batch:
    """Of a plain batch, for a learner that is trained by ordinary classification."""

    size: int = 64
    """images"""


@dataclass(frozen=True)
class Experiment:
    """One meta-training run and its evaluation."""

    data: Any
    """where images come from"""
    learner: Any
    """what is trained"""
    steps: int
    """meta-steps"""
    train: Sizes | Batch = field(default=Sizes())
    """of training episodes, or of plain batches"""
    test: Sizes = field(default=Sizes())
    """of validation and test episodes"""
    meta_batch: int = 1
    """episodes a meta-step"""
    chunk: int | None = None
    """episodes a device holds at once; by default 1 on a CPU, elsewhere its whole share"""
    optimizer: Adam = field(default=Adam())
    """of the meta-parameters"""
    validate_every: int = 1000
    """steps between validations, each of which saves a checkpoint"""
    validation_episodes: int = 100
    """on which checkpoints are compared"""
    test_episodes: int = 600
    """of the final figure"""
    log_every: int = 10
    """steps in one dispatch, between looks at the loss"""
    seed: int = 0
    """of the first variables, and of training and validation episodes"""
