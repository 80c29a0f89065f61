"""What one-shot segmentation is compared with (Shaban et al., BMVC 2017, section 4): classifiers of
the features of cells, and the masked average of the literature after it.

Pictures, masks and answers are those of `one_shot_segmentation`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ..base import Array, Aux, Episode, Examples, Learner, PyTree, Variables
from ..losses import masked_mean
from ..nets import dense, init_dense, running, unit
from ..nets.cells import Cells, joined_cells


def masked_average(*, cells: Cells | None = None, threshold: float | None = None) -> Learner:
    """Pixels more like the support's class than like its background.

    The logit is cos(f, class) - cos(f, background), of a feature f and the means of the support's
    features at length one, weighted with each cell's share of the class, or of the rest.

    Args:
        cells: the features, `metashot.nets.joined_cells()` by default.
        threshold: compare the cosine with the class with this number, not with the background's.
    """
    made = joined_cells() if cells is None else cells

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        z, share, known = _cells_of(made, variables, support)
        total = lambda weights: jnp.einsum("khw,khwd->d", weights * known[:, None, None], z)
        return {"class": unit(total(share)), "background": unit(total(1 - share))}

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        z = unit(made.network.apply(variables, inputs)[0])
        other = z @ task["background"] if threshold is None else threshold
        return made.enlarged(z @ task["class"] - other, made.size(inputs))

    return _untrained(made, adapt, predict)


def nearest_cell(*, cells: Cells | None = None) -> Learner:
    """Each cell is what the nearest cell of the support is, of the class if more than half of it.

    Distances are Euclidean, the first of the nearest counts; 1 and -1 are enlarged as logits are.

    Args:
        cells: the features, `metashot.nets.joined_cells()` by default.
    """
    made = joined_cells() if cells is None else cells

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        return _labelled(*_cells_of(made, variables, support))

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        z, known = made.network.apply(variables, inputs)[0], task["features"]
        squares = (z**2).sum(-1, keepdims=True) + (known**2).sum(-1) - 2 * z @ known.T
        nearest = jnp.where(task["known"], squares, jnp.inf).argmin(-1)
        answer = jnp.where(task["labels"][nearest], 1.0, -1.0)
        return made.enlarged(answer.astype(z.dtype), made.size(inputs))

    return _untrained(made, adapt, predict)


def logistic_cells(
    *,
    cells: Cells | None = None,
    c: float = 1.0,
    threshold: float = 0.5,
    steps: int = 200,
    tolerance: float = 1e-4,
) -> Learner:
    """Logistic regression on the support's cells, fitted anew for each episode.

    It minimises |w|^2 / 2 + c sum of log losses, w without the bias, by L-BFGS. A cell is of the
    class if more than half of it is.

    Args:
        cells: the features, `metashot.nets.joined_cells()` by default.
        c: how much the losses weigh.
        threshold: probability above which a pixel is of the class.
        steps: at most.
        tolerance: norm of the gradient, as a share of the first, at which it ends.
    """
    made, solver = joined_cells() if cells is None else cells, optax.lbfgs()

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        own = _labelled(*_cells_of(made, variables, support))
        signs = jnp.where(own["labels"], 1.0, -1.0)

        def cost(w: Array) -> Array:
            losses = jax.nn.softplus(-signs * (own["features"] @ w[:-1] + w[-1]))
            return (w[:-1] ** 2).sum() / 2 + c * jnp.where(own["known"], losses, 0).sum()

        value_and_grad = optax.value_and_grad_from_state(cost)
        start = jnp.zeros(own["features"].shape[1] + 1, own["features"].dtype)
        goal = tolerance * jnp.linalg.norm(jax.grad(cost)(start))

        def unfinished(carry: PyTree) -> Array:
            _, state, i = carry
            far = jnp.linalg.norm(optax.tree.get(state, "grad")) > goal
            return (i == 0) | ((i < steps) & far)

        def step(carry: PyTree) -> PyTree:
            w, state, i = carry
            value, grad = value_and_grad(w, state=state)
            settings: Any = {"value": value, "grad": grad, "value_fn": cost}
            updates, state = solver.update(grad, state, w, **settings)
            return optax.apply_updates(w, updates), state, i + 1

        w, _, _ = lax.while_loop(unfinished, step, (start, solver.init(start), 0))
        return {"weights": w[:-1], "bias": w[-1]}

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        z = made.network.apply(variables, inputs)[0]
        offset = jnp.log(threshold) - jnp.log1p(-threshold)
        return made.enlarged(z @ task["weights"] + task["bias"] - offset, made.size(inputs))

    return _untrained(made, adapt, predict)


def siamese_cells(
    *, cells: Cells | None = None, keep: float = 0.5, balanced: bool = False
) -> Learner:
    """Each cell is what the most similar cell of the support is, by a similarity that is learned.

    The similarity of two cells is sum of a |f_i - f_j| + b, with a and b trained beside the
    features: its sigmoid says whether both are of the class or neither is (Koch's metric).

    Args:
        cells: the features, in the paper's way `metashot.nets.projected(...)`, which are trained.
        keep: share of each picture's cells that a step of training compares.
        balanced: pairs that are both of the class, neither, or one of each count alike in all.
    """
    made = joined_cells() if cells is None else cells

    def init(key: Array, episode: Episode) -> Variables:
        body = made.network.init(key, episode.support.inputs)
        maps = jax.eval_shape(lambda: made.network.apply(body, episode.support.inputs)[0])
        size = maps.shape[-1]
        metric = {"weights": -jnp.ones(size) / size**0.5, "bias": jnp.zeros(())}
        params = {"network": body["params"], "metric": metric}
        return {"params": params, "state": {"network": body["state"]}}

    def similarity(metric: PyTree, z: Array, known: Array) -> Array:
        """[n, m] of features [n, d] and [m, d]."""
        apart = lambda one: jnp.abs(one - known) @ metric["weights"]
        return lax.map(apart, z, batch_size=32) + metric["bias"]

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        return _labelled(*_cells_of(made, _body(variables), support))

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        z = made.network.apply(_body(variables), inputs)[0]
        found = similarity(
            variables["params"]["metric"], z.reshape(-1, z.shape[-1]), task["features"]
        )
        best = jnp.where(task["known"], found, -jnp.inf).argmax(-1).reshape(z.shape[:-1])
        answer = jnp.where(task["labels"][best], 1.0, -1.0).astype(z.dtype)
        return made.enlarged(answer, made.size(inputs))

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        state, sides = variables["state"], []
        for part, own in zip((episode.support, episode.query), jax.random.split(key), strict=True):
            settings: Any = {"train": True, "mask": part.mask}
            z, stats = made.network.apply(_body(variables), part.inputs, **settings)
            share = made.shares((part.targets > 0).astype(z.dtype), z.shape[1:3])
            kept = max(1, round(keep * share.size))
            drawn = jax.random.permutation(own, share.size)[:kept]
            known = jnp.broadcast_to(part.mask[:, None, None], share.shape)
            sides.append((z.reshape(-1, z.shape[-1])[drawn], share.ravel()[drawn] > 0.5))
            sides[-1] += (known.ravel()[drawn],)
            moved = {name: running(state["network"][name], stats[name]) for name in stats}
            state = {"network": {**state["network"], **moved}}
        (known, of_class, there), (z, truth, counts) = sides
        logits = similarity(variables["params"]["metric"], z, known)
        alike = truth[:, None] == of_class
        pairs = counts[:, None] & there
        losses = jax.nn.softplus(jnp.where(alike, -logits, logits))
        if balanced:
            kinds = [truth[:, None] & of_class, ~(truth[:, None] | of_class), ~alike]
            total = jnp.stack([masked_mean(losses, pairs & kind) for kind in kinds]).mean()
        else:
            total = masked_mean(losses, pairs)
        return total, Aux({"accuracy": masked_mean((logits > 0) == alike, pairs)}, state)

    return Learner(init, adapt, predict, loss)


def pixel_classifier(*, cells: Cells, way: int, bn_new_weight: float = 0.1) -> Learner:
    """Ordinary segmentation: every pixel is background or of one of `way` - 1 classes.

    Trained on plain batches (`metashot.data.mask_batches`), whose targets are label maps with 0
    for background. Its network then gives the other methods their features, and `fine_tune` with
    way=2 makes a one-shot learner of it. An answer weighs all classes against the background.

    Args:
        cells: the features, such as `metashot.nets.projected(...)`.
        way: labels, with background.
        bn_new_weight: weight of a batch's statistics in the stored ones.
    """

    def init(key: Array, episode: Episode) -> Variables:
        body_key, head_key = jax.random.split(key)
        x = episode.query.inputs
        body = cells.network.init(body_key, x)
        maps = jax.eval_shape(lambda: cells.network.apply(body, x)[0])
        head = init_dense(head_key, maps.shape[-1], way)
        params = {"network": body["params"], "head": head}
        return {"params": params, "state": {"network": body["state"]}}

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        return ()

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        z = cells.network.apply(_body(variables), inputs)[0]
        logits = dense(variables["params"]["head"], z)
        found = jax.nn.logsumexp(logits[..., 1:], -1) - logits[..., 0]
        return cells.enlarged(found, cells.size(inputs))

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        query, state = episode.query, variables["state"]["network"]
        settings: Any = {"train": True, "mask": query.mask}
        z, stats = cells.network.apply(_body(variables), query.inputs, **settings)
        logits = dense(variables["params"]["head"], z)
        counts = (query.targets >= 0) & query.mask[:, None, None]
        labels = jnp.where(counts, query.targets, logits.shape[-1])  # one that is no label
        of_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=z.dtype, axis=1)
        shares = jax.vmap(cells.shares, (1, None), -1)(of_label, z.shape[1:3])  # [n, h, w, labels]
        losses = -(shares * jax.nn.log_softmax(logits)).sum()
        right = jnp.take_along_axis(shares, logits.argmax(-1)[..., None], -1).sum()
        over = jnp.maximum(shares.sum(), 1e-6)
        moved = {name: running(state[name], stats[name], bn_new_weight) for name in stats}
        return losses / over, Aux({"accuracy": right / over}, {"network": {**state, **moved}})

    return Learner(init, adapt, predict, loss)


def _body(variables: Variables) -> Variables:
    return {"params": variables["params"]["network"], "state": variables["state"]["network"]}


def _cells_of(cells: Cells, variables: Variables, support: Examples) -> tuple[Array, Array, Array]:
    """The support's features [k, h, w, D], the cells' shares of the class, what is known [k]."""
    z = cells.network.apply(variables, support.inputs)[0]
    masks = support.targets > 0
    share = cells.shares(masks.astype(z.dtype), z.shape[1:3])
    return z, share, support.mask & masks.any((1, 2))


def _labelled(z: Array, share: Array, known: Array) -> PyTree:
    """Cells in one row: {"features" [n, D], "labels" [n] bool, "known" [n] bool}."""
    every = jnp.broadcast_to(known[:, None, None], share.shape).ravel()
    labels = (share.ravel() > 0.5) & every
    return {"features": z.reshape(-1, z.shape[-1]), "labels": labels, "known": every}


def _untrained(cells: Cells, adapt: Any, predict: Any) -> Learner:
    """A learner whose variables are those of its features, which it does not train."""

    def init(key: Array, episode: Episode) -> Variables:
        return cells.network.init(key, episode.support.inputs)

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        return jnp.zeros(()), Aux({})

    return Learner(init, adapt, predict, loss)
