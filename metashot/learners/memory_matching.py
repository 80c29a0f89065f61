"""Memory matching networks (Cai, Pan, Yao, Yan & Mei, CVPR 2018)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..base import Array, Aux, Episode, Examples, Learner, PyTree, Variables
from ..losses import masked_accuracy, masked_nll, members, pair_nll
from ..memory import read, refuse, used_slots, write
from ..nets import conv, conv4, factorised_conv, init_lstm, lstm, norm_relu_pool, running, unit

SUPPORT_ORDER = ("class_major", "round_robin", "given")
SIMILARITY = ("cosine", "dot")
LOSS_FORM = ("per_sample", "class_sum")
PREDICTION = ("nearest", "class_sum")
lecun = jax.nn.initializers.lecun_normal()


def memory_matching(
    *,
    way: int = 5,
    filters: int = 64,
    blocks: int = 4,
    eps: float = 1e-5,
    share_trunk: bool = True,
    key_size: int = 512,
    slots: int | None = None,
    key_norm: str = "store",
    overflow: str = "merge_keep_value",
    stop_gradient: bool = False,
    support_order: str = "class_major",
    contextual: bool = True,
    residual: bool = True,
    hidden: int = 512,
    similarity: str = "cosine",
    scale: float = 20.0,
    loss_form: str = "per_sample",
    prediction: str = "nearest",
    bn_new_weight: float = 0.1,
) -> Learner:
    """The support is written into a memory, which changes how support and queries are embedded.

    A support example x has features z, and the key T_z z. All keys are written into the slots of an
    empty memory (`metashot.memory.write`); then each example reads it, g(x) = z + T_c c, with c of
    `metashot.memory.read` (equations 3 to 6). Of the used slots' keys two LSTMs make h, the sum of
    what they say at both ends, and T_p h is the filters of the last block through which queries
    pass (equations 7 and 8), a factorised convolution. A query x resembles an example by the
    similarity s of f(x) and g(x_n).

    The paper's s is f . g (equation 2), and its filters make the query's last block alone:
    `paper()`. From a random start that learns far more slowly than a matching network. By
    default s is a cosine, since embeddings are nowhere negative and products of them tell their
    lengths; the output of the predicted filters is added to that of a convolution which starts as
    the support's own, for both roles to begin with one embedding; and T_c begins at 0.

    One model serves any number of classes and examples; to train it for them, draw episodes with
    pairs as way and shot. The loss is the mean of -log softmax_n(s) over all pairs of a query
    and a support example of its class, with the softmax over all support examples (equation 9): a
    pair counts alike whatever the shot. Beyond one shot its minimum is log k, and it pushes down
    an example that has more than its share.

    Labels are those of the examples, not of the slots: where `slots` are too few, keys are blurred
    and no label is wrong. In training, batch norm has the statistics of an episode: the trunk's of
    support and queries together. The trunk's blocks are as `conv4`'s.

    A Task is {"embeddings" [n, d], "member" [n, way]}, with "filters" [3, 3, filters] where they
    are predicted.

    Args:
        way: length of the class axis; a class without support has logit -inf.
        filters: of each block. blocks: how many, the last of which is each role's own.
        eps: of the batch norm.
        share_trunk: let support and queries share all blocks but the last.
        key_size: length of the memory's keys.
        slots: of the memory; None is as many as rows of the support, so that none is ever missing.
        key_norm, overflow, stop_gradient: as of `metashot.memory.write`.
        support_order: what is written first: all examples of the first class ("class_major"), one
            of each class ("round_robin"), or the rows as they are "given".
        contextual: predict the filters; if not, the last block of queries is an ordinary one.
        residual: add what the predicted filters make to a convolution, or let them stand alone.
        hidden: size of the LSTMs.
        similarity: "cosine", or "dot" for f . g.
        scale: of the similarity.
        loss_form: "per_sample" is the paper's; "class_sum" asks for the class alone,
            -log(sum over its examples of softmax_n(s)).
        prediction: "nearest" answers with the class of the most similar example, "class_sum" with
            that of the largest sum of exp(s).
        bn_new_weight: weight of an episode's batch statistics in the stored ones.

    Raises:
        ValueError: an argument outside its values; in the functions, a support without examples,
            labels outside 0..way-1 (under `jit`, where labels have no values yet, such rows do not
            count), or no queries.
    """
    for name, value, valid in (
        ("support_order", support_order, SUPPORT_ORDER),
        ("similarity", similarity, SIMILARITY),
        ("loss_form", loss_form, LOSS_FORM),
        ("prediction", prediction, PREDICTION),
    ):
        if value not in valid:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(valid)}")
    for name, size in {"key_size": key_size, "hidden": hidden}.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; it is at least 1")
    if blocks < 2:
        raise ValueError(f"blocks is {blocks}; it is at least 2, of which the last is not shared")
    refuse(1 if slots is None else slots, key_norm, overflow)
    body = conv4(filters, blocks=blocks - 1, eps=eps)
    block = conv4(filters, blocks=1, eps=eps)
    trunks = ("both",) if share_trunk else ("support", "query")

    def of(variables: Variables, *path: str) -> Variables:
        """A part's own variables."""
        params, state = variables["params"], variables["state"]
        for name in path:
            params, state = params[name], state[name]
        return {"params": params, "state": state}

    def trunk(variables: Variables, role: str, x: Array, **settings: Any) -> tuple[Array, PyTree]:
        """Maps [n, h, w, filters]."""
        flat, stats = body.apply(of(variables, "trunk", role), x, **settings)
        h, w = (side >> (blocks - 1) for side in x.shape[1:3])
        return flat.reshape(x.shape[0], h, w, filters), stats

    def embed_query(
        variables: Variables, task: PyTree, maps: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, PyTree]:
        """f [q, d] of a trunk's maps."""
        own = of(variables, "query")
        if not contextual:
            return block.apply(own, maps, train=train, mask=mask)
        params, state = own["params"], own["state"]
        y = factorised_conv(maps, params["first"], task["filters"], params["last"])
        if residual:
            y += conv(maps, params["kernel"])
        y, stats = norm_relu_pool(
            y,
            params["scale"],
            params["shift"],
            statistics=None if train else (state["mean"], state["var"]),
            mask=mask,
            eps=eps,
        )
        return y.reshape(y.shape[0], -1), {} if stats is None else stats._asdict()

    def remember(params: PyTree, z: Array, support: Examples) -> PyTree:
        """The task that features z [n, d] make."""
        labels, member = jnp.asarray(support.targets), members(support, way)
        counts, keys = member.any(1), z @ params["keys"]
        order = writing_order(labels, counts, support_order)
        memory = write(
            keys[order],
            labels[order],
            counts[order],
            slots=min(slots or len(order), len(order)),
            key_norm=key_norm,
            overflow=overflow,
            stop_gradient=stop_gradient,
        )
        g = z + read(memory, keys, key_norm=key_norm) @ params["values"]
        task = {"embeddings": g, "member": member}
        if contextual:
            context, used = params["context"], used_slots(memory)
            _, first = lstm(context["forward"], memory.keys, used)
            _, last = lstm(context["backward"], memory.keys, used, reverse=True)
            task["filters"] = ((first + last) @ context["filters"]).reshape(3, 3, -1)
        return task

    def alike(task: PyTree, f: Array) -> Array:
        """[q, n]"""
        g = task["embeddings"]
        return scale * (unit(f) @ unit(g).T if similarity == "cosine" else f @ g.T)

    def class_logits(task: PyTree, f: Array, rule: str) -> Array:
        member: Array = task["member"]
        known = member.any(0)
        similar = alike(task, f)[:, :, None]  # [q, n, 1]
        # A class without support looks at everything, so that no gradient is NaN.
        seen = jnp.where(member | ~known, similar, -jnp.inf)
        scores = seen.max(1) if rule == "nearest" else jax.nn.logsumexp(seen, axis=1)
        return jnp.where(known, scores, -jnp.inf)

    def init(key: Array, episode: Episode) -> Variables:
        x = episode.support.inputs
        keys = iter(jax.random.split(key, 11))
        bodies = {role: body.init(next(keys), x) for role in trunks}
        params: PyTree = {"trunk": {role: made["params"] for role, made in bodies.items()}}
        state: PyTree = {"trunk": {role: made["state"] for role, made in bodies.items()}}
        maps, _ = trunk({"params": params, "state": state}, trunks[0], x)
        made = block.init(next(keys), maps)
        for role in ("support", "query"):  # alike, so that they match from the start
            params[role], state[role] = made["params"], made["state"]
        d = jax.eval_shape(lambda: block.apply(made, maps)[0]).shape[-1]
        params["keys"] = lecun(next(keys), (d, key_size))  # T_z
        params["values"] = jnp.zeros((key_size, d))  # T_c
        if contextual:
            start = jax.nn.initializers.zeros if residual else lecun
            ones, zeros = jnp.ones(filters), jnp.zeros(filters)
            params["query"] = {
                "first": lecun(next(keys), (filters, filters)),
                "last": lecun(next(keys), (filters, filters)),
                "scale": ones,
                "shift": zeros,
            }
            state["query"] = {"mean": zeros, "var": ones}
            params["context"] = {
                "forward": init_lstm(next(keys), key_size, hidden),
                "backward": init_lstm(next(keys), key_size, hidden),
                "filters": start(next(keys), (hidden, 9 * filters)),  # T_p
            }
            if residual:
                params["query"]["kernel"] = made["params"]["ConvBlock_0"]["kernel"]
        return {"params": params, "state": state}

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        _refuse_support(support, way)
        maps, _ = trunk(variables, trunks[0], support.inputs, mask=support.mask)
        z, _ = block.apply(of(variables, "support"), maps, mask=support.mask)
        return remember(variables["params"], z, support)

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        _refuse_no_queries(inputs)
        maps, _ = trunk(variables, trunks[-1], inputs)
        f, _ = embed_query(variables, task, maps, train=False)
        return class_logits(task, f, prediction)

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        support, query = episode.support, episode.query
        _refuse_support(support, way)
        _refuse_no_queries(query.inputs)
        _refuse_labels("the queries have", query, way)
        parts = {"support": support, "query": query}
        if share_trunk:
            parts = {"both": jax.tree.map(lambda *rows: jnp.concatenate(rows), support, query)}
        passed = {
            role: trunk(variables, role, part.inputs, train=True, mask=part.mask)
            for role, part in parts.items()
        }
        maps = jnp.concatenate([maps for maps, _ in passed.values()])
        stats: PyTree = {"trunk": {role: stats for role, (_, stats) in passed.items()}}

        n = len(support.mask)
        z, stats["support"] = block.apply(
            of(variables, "support"), maps[:n], train=True, mask=support.mask
        )
        task = remember(variables["params"], z, support)
        f, stats["query"] = embed_query(variables, task, maps[n:], train=True, mask=query.mask)
        state = running(variables["state"], stats, bn_new_weight)
        accuracy = masked_accuracy(class_logits(task, f, prediction), query)
        if loss_form == "class_sum":
            value = masked_nll(class_logits(task, f, "class_sum"), query)
        else:
            value = pair_nll(alike(task, f), task["member"], query)
        return value, Aux({"accuracy": accuracy}, state)

    return Learner(init, adapt, predict, loss)


def paper() -> dict[str, Any]:
    """Keywords of `memory_matching` that follow the paper's text."""
    return {"key_norm": "paper", "residual": False, "similarity": "dot", "scale": 1.0}


def writing_order(labels: Array, counts: Array, support_order: str) -> Array:
    """[n]: the rows of labels [n] in the order in which those that count [n] are written."""
    if support_order == "given":
        return jnp.arange(len(labels))
    by_class = jnp.where(counts, labels, jnp.iinfo(labels.dtype).max)
    if support_order == "class_major":
        return jnp.argsort(by_class)
    earlier = jnp.tril(labels[:, None] == labels, -1) & counts
    return jnp.lexsort((by_class, earlier.sum(1)))  # by how many of the class came before


def _refuse_support(support: Examples, way: int) -> None:
    """Name what a support lacks, where it has values.

    Raises:
        ValueError: no examples, or labels outside 0..way-1.
    """
    if not len(support.mask):
        raise ValueError("the support has no examples, so there is nothing to match with")
    labels = _refuse_labels("the support has", support, way)
    if labels is not None and not len(labels):
        raise ValueError("no example of the support counts, so there is nothing to match with")


def _refuse_labels(who: str, examples: Examples, way: int) -> np.ndarray | None:
    """The labels of the rows that count, None under `jit`, where they have no values.

    Raises:
        ValueError: labels outside 0..way-1.
    """
    if any(isinstance(x, Tracer) for x in examples[1:]):
        return None
    # Not by `counted`: of a support that a jitted function closes over, it has no values.
    targets, mask = (np.asarray(x) for x in examples[1:])
    labels = targets[mask & (targets != -1)]
    if len(labels) and labels.max() >= way:
        raise ValueError(f"{who} label {labels.max()}, but way={way} ends at {way - 1}")
    if len(labels) and labels.min() < 0:
        raise ValueError(f"{who} label {labels.min()}; only -1 marks what does not count")
    return labels


def _refuse_no_queries(inputs: Array) -> None:
    """
    Raises:
        ValueError: inputs without rows.
    """
    if inputs.shape[0] == 0:
        raise ValueError("there are no queries: there is nothing to answer")
