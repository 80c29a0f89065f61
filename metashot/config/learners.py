"""Learners and their networks: the fields are the keywords of their constructors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .. import base


@dataclass(frozen=True)
class Conv4:
    """The field's four convolution blocks (metashot.nets.conv4)."""

    filters: int = 64
    """of each block"""
    blocks: int = 4
    """each halves the picture"""
    eps: float = 1e-3
    """of the batch norm"""
    bn_scale_init: Literal["ones", "uniform"] = "ones"
    """start of the batch norm's scale"""

    def build(self) -> base.Network:
        from ..nets import conv4

        return conv4(**vars(self))


@dataclass(frozen=True)
class MetaLSTM:
    """The Meta-Learner LSTM (metashot.meta_lstm)."""

    network: Conv4 = field(default=Conv4(32))
    """the pupil's features"""
    steps: int = 12
    """updates of the pupil"""
    support_batch: int | None = None
    """support examples of an update; all by default"""
    gate_inputs: Literal["hidden", "raw"] = "hidden"
    """what the gates see: a first LSTM layer, or its inputs"""
    gate_feedback: Literal["preact", "value"] = "preact"
    """what the gates see of themselves"""
    grad_scale: Literal["mean", "mean_over_n"] = "mean"
    """the gradient of the mean loss, or that over the number of examples once more"""
    p: float = 10.0
    """of the preprocessing of losses and gradients"""
    w_init: float = 0.01
    """half width of the start of the cell's weights"""
    forget_range: tuple[float, float] = (4.0, 5.0)
    """start of the forget gate's bias"""
    input_range: tuple[float, float] = (-5.0, -4.0)
    """start of the input gate's bias"""
    bn_new_weight: float = 0.9
    """weight of an update's batch statistics in the running ones"""
    bn_unbiased: bool = True
    """run the unbiased variance"""
    transductive: bool = False
    """answer queries by the statistics of the query set"""
    second_order: bool = False
    """differentiate through the support gradients"""

    def build(self, way: int) -> base.Learner:
        from ..learners.meta_lstm import meta_lstm

        return meta_lstm(**dict(vars(self), network=self.network.build(), way=way))


@dataclass(frozen=True)
class Prototypical:
    """The prototypical network (metashot.prototypical)."""

    network: Conv4 = field(default=Conv4(64))
    """embeds the pictures"""
    bn_new_weight: float = 0.1
    """weight of an episode's batch statistics in the stored ones"""

    def build(self, way: int) -> base.Learner:
        from ..learners.prototypical import prototypical

        return prototypical(**dict(vars(self), network=self.network.build(), way=way))
