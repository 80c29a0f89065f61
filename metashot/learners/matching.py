"""Matching networks (Vinyals et al., NeurIPS 2016), without full-context embeddings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..base import Array, Aux, Episode, Examples, Learner, Network, PyTree, Variables
from ..losses import classification_loss, members
from ..nets import conv4, running, unit

ATTENTION = ("softmax_then_sum", "sum_then_softmax")
SIMILARITY = ("cosine", "sqeuclidean")


def matching(
    *,
    network: Network | None = None,
    way: int = 5,
    attention: str = "softmax_then_sum",
    similarity: str = "cosine",
    scale: float = 1.0,
    bn_new_weight: float = 0.1,
) -> Learner:
    """A query's class is a vote of the support, each example by its similarity.

    P(c | x) = sum of a_j over the support j of class c, with a the softmax over all support of
    scale * cos(f(x), g(x_j)) (equation 1 and section 2.1.1). f and g share their weights; each role
    has its own pass and its own batch statistics. With cosines of embeddings that are nowhere
    negative, as conv4's, no 5-way loss is below 0.905.

    Args:
        network: embeds [n, ...] -> [n, d]; the default is `conv4(64, dropout=0.1)`, as in
            Ravi & Larochelle (2017), section 5.1.
        way: length of the class axis; a class without support has logit -inf.
        attention: "softmax_then_sum" is the paper's; "sum_then_softmax" adds up each class's
            similarities first, as Ravi & Larochelle's release does. Both are equal at one shot.
        similarity: "cosine", or "sqeuclidean" for -|f - g|^2.
        scale: of the similarity.
        bn_new_weight: weight of an episode's batch statistics in the stored ones.

    Raises:
        ValueError: an argument outside its values.
    """
    for name, value, valid in (
        ("attention", attention, ATTENTION),
        ("similarity", similarity, SIMILARITY),
    ):
        if value not in valid:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(valid)}")
    embed = conv4(64, dropout=0.1) if network is None else network

    def pass_of(role: str, variables: Variables, x: Array, **settings: Any) -> tuple[Array, PyTree]:
        own: Variables = {"params": variables["params"], "state": variables["state"][role]}
        return embed.apply(own, x, **settings)

    def remember(z: Array, support: Examples) -> dict[str, Array]:
        return {"embeddings": z, "member": members(support, way)}

    def logits(task: dict[str, Array], z: Array) -> Array:
        g, member = task["embeddings"], task["member"]
        if similarity == "cosine":
            similar = scale * (unit(z) @ unit(g).T)  # [q, n]
        else:
            similar = -scale * ((z[:, None] - g) ** 2).sum(-1)
        known = member.any(0)
        if attention == "sum_then_softmax":
            scores = jnp.where(member, similar[:, :, None], 0).sum(1)
        else:
            # The softmax's denominator is the same for all classes. A class without support looks
            # at everything, so that no gradient is NaN.
            seen = jnp.where(member | ~known, similar[:, :, None], -jnp.inf)
            scores = jax.nn.logsumexp(seen, axis=1)
        return jnp.where(known, scores, -jnp.inf)

    def init(key: Array, episode: Episode) -> Variables:
        made = embed.init(key, episode.support.inputs)
        return {
            "params": made["params"],
            "state": {"support": made["state"], "query": made["state"]},
        }

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        return remember(
            pass_of("support", variables, support.inputs, mask=support.mask)[0], support
        )

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        return logits(task, pass_of("query", variables, inputs)[0])

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        embedded, state = {}, {}
        for role, role_key in zip(("support", "query"), jax.random.split(key), strict=True):
            part = getattr(episode, role)
            settings = {"train": True, "mask": part.mask, "key": role_key}
            embedded[role], stats = pass_of(role, variables, part.inputs, **settings)
            state[role] = running(variables["state"][role], stats, bn_new_weight)
        task = remember(embedded["support"], episode.support)
        return classification_loss(logits(task, embedded["query"]), episode.query, state)

    return Learner(init, adapt, predict, loss)


def released() -> dict[str, Any]:
    """Keywords of `matching` that follow Ravi & Larochelle's release."""
    return {"attention": "sum_then_softmax"}
