"""One-shot semantic segmentation (Shaban, Bansal, Liu, Essa & Boots, BMVC 2017): a picture and a
mask become the weights of a classifier of pixels.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..base import Array, Aux, Episode, Examples, Learner, PyTree, Variables
from ..losses import pixel_loss
from ..nets import area_means, running
from ..nets.branches import Branches, small_branches, vgg_branches

KSHOT = ("max", "mean")
REDUCTION = ("sum", "mean")
LOSS_AT = ("pixels", "cells")


def one_shot_segmentation(
    *,
    branches: Branches | None = None,
    kshot: str = "max",
    reduction: str = "sum",
    loss_at: str = "pixels",
    foreground_weight: float = 1.0,
    bn_new_weight: float = 0.1,
) -> Learner:
    """Masks of the class that the support's masks show, everything else being background.

    Each support picture gives a classifier of pixels, (w, b) = g(picture, mask) (equation 1), with
    the logits w F + b on the features F of a query (equation 2); logits are brought to the size of
    the query before several are combined. A query's answer is foreground where it is above 0.

    Pictures are [n, H, W, C]; targets are masks [n, H, W] of 1 (the class), 0 (anything else) and
    -1 (not counted). A support picture without a pixel of 1 tells nothing; where all are so, logits
    are -inf. The answer is [q, H, W].

    A Task is {"weights" [k, D], "bias" [k], "known" [k]}. The same variables serve any k.

    Args:
        branches: g and the features, `metashot.nets.small_branches()` by default.
        kshot: "max" of the classifiers' logits, which marks what any of them marks (the paper's
            OR of masks), or their "mean".
        reduction: the loss of a query is the "sum" over its pixels (equation 3), or a "mean". A
            rate for one is far off for the other: 1e-10 for the sum over 500 x 500 pixels is
            2.5e-5 for the mean.
        loss_at: "pixels", of logits brought to the query's size, or the "cells" of the features,
            whose targets are shares of the class.
        foreground_weight: how much more the class counts in the loss than the background. New
            classes get lower scores than those of the training; about 3 makes up for it.
        bn_new_weight: weight of an episode's batch statistics in the stored ones.

    Raises:
        ValueError: an argument outside its values.
    """
    for name, value, valid in (
        ("kshot", kshot, KSHOT),
        ("reduction", reduction, REDUCTION),
        ("loss_at", loss_at, LOSS_AT),
    ):
        if value not in valid:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(valid)}")
    if foreground_weight <= 0:
        raise ValueError(f"foreground_weight is {foreground_weight}; it is above 0")
    made = small_branches() if branches is None else branches

    def task_of(variables: Variables, support: Examples, **settings: Any) -> tuple[PyTree, PyTree]:
        masks = support.targets > 0
        known = support.mask & masks.any((1, 2))
        shown = masks.astype(jax.tree.leaves(support.inputs)[0].dtype)
        settings["mask"] = support.mask
        (w, b), stats = made.classifiers(variables, support.inputs, shown, **settings)
        return {"weights": w, "bias": b, "known": known}, stats

    def on_cells(task: PyTree, maps: Array) -> Array:
        logits = jnp.einsum("qhwd,kd->kqhw", maps, task["weights"])
        return logits + task["bias"][:, None, None, None]

    def combined(logits: Array, known: Array) -> Array:
        """[q, ...] of each classifier's logits [k, q, ...]."""
        seen = known[:, None, None, None]
        if kshot == "max":
            return jnp.where(seen, logits, -jnp.inf).max(0)
        mean = jnp.where(seen, logits, 0).sum(0) / jnp.maximum(known.sum(), 1)
        return jnp.where(known.any(), mean, -jnp.inf)

    def init(key: Array, episode: Episode) -> Variables:
        return made.init(key, episode.support.inputs)

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        return task_of(variables, support)[0]

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        maps, _ = made.features(variables, inputs)
        return combined(made.enlarged(on_cells(task, maps), made.size(inputs)), task["known"])

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        support, query = episode.support, episode.query
        support_key, query_key = jax.random.split(key)
        task, first = task_of(variables, support, train=True, key=support_key)
        settings: Any = {"train": True, "mask": query.mask, "key": query_key}
        maps, second = made.features(variables, query.inputs, **settings)
        logits = on_cells(task, maps)
        counts = (query.targets >= 0) & query.mask[:, None, None] & task["known"].any()
        shares, weights = (x.astype(logits.dtype) for x in ((query.targets > 0) & counts, counts))
        if loss_at == "cells":
            cells = maps.shape[1:3]
            weights = area_means(weights, cells)
            # Of the pixels of a cell, only those that count are asked.
            shares = area_means(shares, cells) / jnp.where(weights > 0, weights, 1)
        else:
            logits = made.enlarged(logits, query.targets.shape[1:])
        # Where nothing is known nothing counts, but -inf would leave NaN in the gradient.
        known = task["known"]
        logits = combined(logits, jnp.logical_or(known, ~known.any()))
        value = pixel_loss(logits, shares, weights, foreground_weight=foreground_weight)
        over = query.mask.sum() if reduction == "sum" else weights.sum()
        state = variables["state"]
        for stats in (first, second):
            moved = {name: running(state[name], own, bn_new_weight) for name, own in stats.items()}
            state = {**state, **moved}
        names = [*first, *second]
        aux = Aux({"iou": overlap(logits, shares, weights)}, {n: state[n] for n in names})
        return value / jnp.maximum(over, 1e-6), aux

    return Learner(init, adapt, predict, loss)


def everything_marked() -> Learner:
    """The answer that needs no support: all is of the class. Any method should do better."""
    nothing: Variables = {"params": {}, "state": {}}
    return Learner(
        init=lambda key, episode: nothing,
        adapt=lambda variables, support, key=None: (),
        predict=lambda variables, task, inputs: jnp.ones_like(inputs[..., 0]),
        loss=lambda variables, episode, key: (jnp.zeros(()), Aux({})),
    )


def overlap(logits: Array, shares: Array, weights: Array) -> Array:
    """[]: intersection over union of an episode's answers, for a look at how training goes."""
    answer, truth = logits > 0, shares > 0.5
    both, either = ((weights * x).sum() for x in (answer & truth, answer | truth))
    return both / jnp.maximum(either, 1e-6)


def paper() -> dict[str, Any]:
    """`one_shot_segmentation(**paper())` is OSLSM, on pictures of RGB 0..255 of any size."""
    return {"branches": vgg_branches()}


def solver(
    *,
    rate: float = 1e-10,
    momentum: float = 0.99,
    decay: float = 5e-4,
    conditioning: float = 0.1,
) -> optax.GradientTransformation:
    """The release's optimiser, for the loss as a sum over pixels: Caffe's gradient descent.

    v <- momentum v + rate m (g + decay p), p <- p - v, with m twice as large for biases, which do
    not decay. (Gradients over 10 episodes: a meta-batch of 10.)

    Args:
        rate, momentum, decay: of all parameters.
        conditioning: m of the branch that makes classifiers; it is 1 in the other.
    """

    def is_bias(path: Any) -> bool:
        return path[-1].key == "bias"

    def scaled(path: Any, grad: Array, param: Array) -> Array:
        branch = conditioning if path[0].key == "conditioning" else 1.0
        return branch * (2 * grad if is_bias(path) else grad + decay * param)

    def update(grads: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map_with_path(scaled, grads, params)

    return optax.chain(optax.stateless(update), optax.trace(momentum), optax.scale(-rate))
