"""One meta-training run: its data, learner, optimiser and sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal


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
    halve_every: int | None = None
    """steps between halvings of the rate, beside any other fall; none by default"""

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
        if self.halve_every is not None:
            stairs = optax.exponential_decay(1.0, self.halve_every, 0.5, staircase=True)
            smooth = rate
            rate = lambda step: smooth(step) * stairs(step)
        clip = optax.identity() if self.clip is None else optax.clip_by_global_norm(self.clip)
        return optax.chain(clip, optax.adam(rate))


@dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum, at a rate that falls in stairs."""

    rate: float = 1e-3
    """learning rate"""
    momentum: float = 0.9
    """share of the last update in the next"""
    decay: float = 0.1
    """what the rate is multiplied by"""
    decay_every: int | None = None
    """steps between these falls; none by default"""
    new: float = 1.0
    """multiple of the rate for what is not in params["network"]: layers that are trained anew"""
    weight_decay: float = 0.0
    """share of a weight that is added to its gradient; biases, gains and offsets have none"""

    def build(self, steps: int) -> Any:
        """The optax transformation; the length of the run plays no part."""
        import optax

        return self._in_groups(optax.sgd(self._rate(), momentum=self.momentum))

    def _rate(self) -> Any:
        import optax

        if self.decay_every is None:
            return self.rate
        return optax.exponential_decay(self.rate, self.decay_every, self.decay, staircase=True)

    def _in_groups(self, optimizer: Any) -> Any:
        import optax

        # An update is linear in its rate: a multiple of the rate is a multiple of the update.
        is_new = lambda params: {name: name != "network" for name in params}
        grouped = optax.chain(optimizer, optax.masked(optax.scale(self.new), is_new))
        if not self.weight_decay:
            return grouped
        return optax.chain(optax.add_decayed_weights(self.weight_decay, _weights), grouped)


def _weights(params: Any) -> Any:
    """Which parameters are weights, by their names."""
    import jax

    others = ("bias", "scale", "shift", "offset", "log_gain")
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in others, params)


@dataclass(frozen=True)
class RMSProp(SGD):
    """RMSProp as in TensorFlow's scripts for fine-tuning, for Qi, Brown & Lowe (CVPR 2018).

    The mean square starts at 1 and keeps 0.9 of itself; 1 is added to it under the root.
    """

    rate: float = 1e-4
    """learning rate"""
    decay: float = 0.94
    """what the rate is multiplied by"""
    new: float = 10.0
    """multiple of the rate for what is not in params["network"]: layers that are trained anew"""

    def build(self, steps: int) -> Any:
        """The optax transformation; the length of the run plays no part."""
        import optax

        tensorflow: Any = {"decay": 0.9, "eps": 1.0, "eps_in_sqrt": True, "initial_scale": 1.0}
        return self._in_groups(optax.rmsprop(self._rate(), momentum=self.momentum, **tensorflow))


@dataclass(frozen=True)
class Caffe:
    """The optimiser of OSLSM's release (metashot.learners.segmentation.solver)."""

    rate: float = 1e-10
    """learning rate, for a loss summed over pixels"""
    momentum: float = 0.99
    """share of the last update in the next"""
    decay: float = 5e-4
    """share of a weight that is added to its gradient; biases have none"""
    conditioning: float = 0.1
    """multiple of the rate for the branch that makes classifiers"""

    def build(self, steps: int) -> Any:
        """The optax transformation; the length of the run plays no part."""
        from ..learners.segmentation import solver

        return solver(**vars(self))


@dataclass(frozen=True)
class Sizes:
    """Of an episode."""

    figure: ClassVar[str] = "accuracy"  # by which answers are judged

    way: int = 5
    """classes"""
    shot: int = 1
    """support images a class"""
    query: int = 15
    """query images a class"""
    scope: Literal["all", "alphabet"] = "all"
    """draw classes from all, or from one alphabet at a time"""


@dataclass(frozen=True)
class Pairs:
    """Of a paired episode, for a learner that tells whether two pictures match."""

    exemplars: int = 16
    """of which each has queries of its own"""
    queries: int = 8
    """of an exemplar; half of them match"""
    scope: Literal["all", "alphabet"] = "alphabet"
    """where queries that do not match come from"""


@dataclass(frozen=True)
class MixedSizes:
    """Of episodes whose sizes are drawn anew for each; one program has room for the largest."""

    way: tuple[int, int] = (2, 20)
    """classes: the fewest and the most"""
    shot: tuple[int, int] = (1, 5)
    """support images a class, likewise"""
    query: int = 5
    """query images a class"""


@dataclass(frozen=True)
class Batch:
    """Of a plain batch, for a learner that is trained by ordinary classification."""

    size: int = 64
    """images"""
    shift: int = 0
    """pixels that an image is moved by at most, up, down, left and right"""
    flip: bool = False
    """mirror half of the images"""


@dataclass(frozen=True)
class Redraw:
    """How far training drawings are varied, as another hand might have drawn them."""

    rotation: float = 0.0
    """degrees, at most, to either side"""
    shear: float = 0.0
    """how far a column slants, over its height"""
    scale: float = 0.0
    """logarithm of the height, and of the width by itself"""
    shift: float = 0.0
    """share of a side, down and to the right"""
    stroke: float = 0.0
    """how far ink grows to its neighbours (1 is a whole pixel), or shrinks"""


@dataclass(frozen=True)
class MaskSizes:
    """Of an episode with masks, of one class against all else."""

    figure: ClassVar[str] = "mean_iou"

    shot: int = 1
    """support pictures"""
    query: int = 1
    """queries"""


@dataclass(frozen=True)
class Experiment:
    """One meta-training run and its evaluation."""

    data: Any
    """where images come from"""
    learner: Any
    """what is trained"""
    steps: int
    """meta-steps"""
    train: Sizes | MixedSizes | Batch | Pairs | MaskSizes = field(default=Sizes())
    """of training episodes, of plain batches, or of paired episodes"""
    redraw: Redraw = field(default=Redraw())
    """of training pictures, drawings with ink 1 on paper 0; not at all by default"""
    test: Sizes | MaskSizes = field(default=Sizes())
    """of validation and test episodes"""
    meta_batch: int = 1
    """episodes a meta-step"""
    chunk: int | None = None
    """episodes a device holds at once; by default 1 on a CPU, elsewhere its whole share"""
    optimizer: Adam | SGD | Caffe = field(default=Adam())
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
