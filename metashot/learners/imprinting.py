"""Weight imprinting (Qi, Brown & Lowe, CVPR 2018): a classifier that stores a new class at once.

`imprinting` is the classifier. `imprint`, `random_columns`, `remove_class` and `grow` are pure
functions over its variables, in which classes have the labels of all the data together.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..base import Array, Aux, Episode, Examples, Learner, Network, PyTree, Variables
from ..losses import classification_loss, counted, known_classes
from ..nets import conv4, running, unit, with_embedding

SCALE_PARAM = ("raw", "log")
xavier = jax.nn.initializers.glorot_uniform()


def imprinting(
    *,
    network: Network | None = None,
    way: int = 64,
    size: int | None = 64,
    scale: float = 10.0,
    scale_param: str = "raw",
    bn_new_weight: float = 0.1,
) -> Learner:
    """A classifier of cosines: a class is a direction, so that an embedding can be one.

    logits_c(x) = s cos(w_c, f(x)) (equation 8), with one trainable s and no bias; f is the network
    and a linear layer. Columns are brought to length one in the forward pass, through which
    gradients flow. It trains by ordinary classification on plain batches (`metashot.data.batches`);
    where there is a support, it says which classes take part, as in `classifier`.

    A Task is {"columns" [C, D] of any length, "count" [C], "known" [C]}. Adapted to a support
    without rows it is the stored columns, and answers in the labels of all the data; adapted to
    another it is made of that alone, each column the sum of its class's unit embeddings, and
    answers in the support's labels. C is read from the variables, not from `way`.

    The state keeps the sums and counts of what `imprint` stored. Training moves the embedding that
    they were sums of, so `loss` sets the counts to zero: imprinted classes become trained ones.
    Fine-tuning is more training, `metashot.train(..., variables=variables)`, on base and novel
    classes together: in `metashot.data.batches` a class of one image counts as much as any.

    Args:
        network: the features, [n, ...] -> [n, d]; the default is `conv4(64)`.
        way: columns that `init` makes; a class without one has logit -inf.
        size: of the embedding, D; None takes the features themselves.
        scale: s at the start (the paper gives none).
        scale_param: "raw" trains s, "log" its logarithm, which keeps it positive.
        bn_new_weight: weight of a batch's statistics in the stored ones.

    Raises:
        ValueError: an argument outside its values.
    """
    if scale_param not in SCALE_PARAM:
        raise ValueError(f"scale_param is {scale_param!r}; it is one of {', '.join(SCALE_PARAM)}")
    if scale <= 0:
        raise ValueError(f"scale is {scale}; it is above 0")
    body = with_embedding(conv4(64) if network is None else network, size)

    def embed(variables: Variables, x: Array, **settings: Any) -> tuple[Array, PyTree]:
        z, stats = body.apply(variables, x, **settings)
        return unit(z), stats

    def logits(variables: Variables, columns: Array, known: Array, z: Array) -> Array:
        cosines = z @ unit(columns).T  # [q, C]
        return jnp.where(known, scale_of(variables, scale_param) * cosines, -jnp.inf)

    def init(key: Array, episode: Episode) -> Variables:
        body_key, columns_key = jax.random.split(key)
        x = episode.query.inputs
        made = body.init(body_key, x)
        d = jax.eval_shape(lambda: body.apply(made, x)[0]).shape[-1]
        columns = xavier(columns_key, (way, d))
        start = jnp.asarray(scale, columns.dtype)
        params = {
            **made["params"],
            "columns": columns,
            "scale": start if scale_param == "raw" else jnp.log(start),
        }
        sums = {"sum": jnp.zeros_like(columns), "count": jnp.zeros_like(columns[:, 0])}
        return {"params": params, "state": {**made["state"], **sums}}

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        columns, count = variables["params"]["columns"], variables["state"]["count"]
        if not len(support.mask):
            return {"columns": columns, "count": count, "known": stored_classes(variables)}
        z, _ = embed(variables, support.inputs, mask=support.mask)
        return task_of(support._replace(inputs=z), len(columns))

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        return logits(variables, task["columns"], task["known"], embed(variables, inputs)[0])

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        columns, old = variables["params"]["columns"], variables["state"]
        known, support, query = stored_classes(variables), episode.support, episode.query
        if len(support.mask):
            known &= known_classes(support, len(columns))
        z, stats = embed(variables, query.inputs, train=True, mask=query.mask, key=key)
        moved = running({"network": old["network"]}, stats, bn_new_weight)
        state = {**moved, "count": jnp.zeros_like(old["count"])}
        return classification_loss(logits(variables, columns, known, z), query, state)

    return Learner(init, adapt, predict, loss)


def task_of(support: Examples, capacity: int) -> PyTree:
    """What `imprinting` makes of a support whose inputs are embeddings, [n, D]."""
    z = support.inputs
    # A row that does not count is of the class beyond the last, which is dropped.
    labels = jnp.where(counted(support), support.targets, capacity)
    sums = jax.ops.segment_sum(z, labels, capacity)
    count = jax.ops.segment_sum(jnp.ones_like(z[:, 0]), labels, capacity)
    return {"columns": sums, "count": count, "known": count > 0}


def scale_of(variables: Variables, scale_param: str) -> Array:
    """[]: s, with which cosines become logits."""
    s = variables["params"]["scale"]
    return s if scale_param == "raw" else jnp.exp(s)


def stored_classes(variables: Variables) -> Array:
    """[C] bool: the classes that training or imprinting gave a column; others have zeros there."""
    return variables["params"]["columns"].any(1) | (variables["state"]["count"] > 0)


def imprint(
    learner: Learner,
    variables: Variables,
    support: Examples,
    key: Array | None = None,
    *,
    base_pseudo_count: float | None = None,
) -> Variables:
    """Store what a support shows of its classes, each as its mean unit embedding at length one.

    A class that was imprinted before adds to its sum, so that the order and the division of
    examples into calls do not matter (the mean of means would not be the mean). The columns of all
    other classes keep their bits. Pass augmented copies as further rows: all are averaged at once.

    Args:
        learner: an `imprinting`.
        variables: its variables; `grow` makes room for labels beyond the last.
        support: with the labels of all the data together.
        key: of `learner.adapt`.
        base_pseudo_count: how many examples the column of a trained class stands for. None leaves
            these classes alone: training gave them no sum to add to.

    Raises:
        ValueError: a trained class without a pseudo-count, or a label beyond the last column.
            Under `jit`, where labels have no values yet, such rows change nothing.

    Example:
        >>> from metashot import nets
        >>> learner = imprinting(network=nets.mlp(8), way=2)
        >>> rows = lambda n: jnp.arange(3.0 * n).reshape(n, 3)
        >>> batch = Examples(rows(4), jnp.array([0, 1, 0, 1]), jnp.ones(4, bool))
        >>> variables = learner.init(jax.random.key(0), Episode(batch, batch))
        >>> shots = Examples(rows(2), jnp.array([2, 2]), jnp.ones(2, bool))
        >>> variables = imprint(learner, grow(variables, 4), shots)
        >>> stored_classes(variables).tolist()
        [True, True, True, False]
        >>> task = learner.adapt(variables, jax.tree.map(lambda x: x[:0], shots))
        >>> learner.predict(variables, task, rows(1)).shape
        (1, 4)
    """
    params, state = variables["params"], variables["state"]
    columns = params["columns"]
    base = stored_classes(variables) & (state["count"] == 0)
    closed = base if base_pseudo_count is None else jnp.zeros_like(base)
    _refuse(support, closed)
    if not len(support.mask):
        return variables
    task, pseudo = learner.adapt(variables, support, key), base_pseudo_count or 0
    sums = jnp.where(base[:, None], pseudo * unit(columns), state["sum"]) + task["columns"]
    count = jnp.where(base, pseudo, state["count"]) + task["count"]
    told = task["known"] & ~closed  # [C]
    row = told[:, None]
    return {
        "params": {**params, "columns": jnp.where(row, unit(sums), columns)},
        "state": {
            **state,
            "sum": jnp.where(row, sums, state["sum"]),
            "count": jnp.where(told, count, state["count"]),
        },
    }


def _refuse(support: Examples, closed: Array) -> None:
    """Name the labels that `imprint` cannot store, where they have values; closed is [C] bool."""
    if any(isinstance(x, Tracer) for x in (*support[1:], closed)):
        return
    labels = np.unique(np.asarray(support.targets)[np.asarray(counted(support))])
    capacity = len(closed)
    if len(labels) and labels[-1] >= capacity:
        raise ValueError(
            f"label {labels[-1]} is beyond the last of {capacity} columns; "
            f"grow(variables, {2 * capacity}) makes room"
        )
    trained = labels[np.asarray(closed)[labels]]
    if len(trained):
        raise ValueError(
            f"class {trained[0]} was trained, so there is no sum to add to; say how many examples "
            "its column stands for, base_pseudo_count="
        )


def random_columns(key: Array, variables: Variables, labels: Array) -> Variables:
    """Columns at random for the classes `labels` [n]: what imprinting is compared with.

    Only their directions matter, drawn as `init` draws them (Xavier, uniform).
    """
    columns = variables["params"]["columns"]
    return _with_columns(variables, labels, xavier(key, columns.shape, columns.dtype)[labels])


def remove_class(variables: Variables, labels: Array | int) -> Variables:
    """Forget a class, or the classes `labels` [n]: their logits are -inf, their columns free.

    With all labels it drops a whole head, to imprint others in its place (table 3).
    """
    return _with_columns(variables, labels, 0)


def _with_columns(variables: Variables, labels: Array | int, columns: Array | int) -> Variables:
    """With these columns, which are no sums."""
    params, state = variables["params"], variables["state"]
    return {
        "params": {**params, "columns": params["columns"].at[labels].set(columns)},
        "state": {
            **state,
            "sum": state["sum"].at[labels].set(0),
            "count": state["count"].at[labels].set(0),
        },
    }


def grow(variables: Variables, capacity: int) -> Variables:
    """Room for labels up to `capacity`; the new classes are unknown.

    A larger shape compiles anew, and may change a logit's last bits: double it, as lists do.

    Raises:
        ValueError: fewer columns than there are.
    """
    params, state = variables["params"], variables["state"]
    now = len(params["columns"])
    if capacity < now:
        raise ValueError(f"capacity is {capacity}, but there are {now} columns already")
    pad = lambda x: jnp.pad(x, [(0, capacity - now), *[(0, 0)] * (x.ndim - 1)])
    return {
        "params": {**params, "columns": pad(params["columns"])},
        "state": {**state, "sum": pad(state["sum"]), "count": pad(state["count"])},
    }
