"""Prototypical networks (Snell, Swersky & Zemel, NeurIPS 2017)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..base import Array, Aux, Episode, Examples, Learner, Network, PyTree, Variables
from ..losses import classification_loss, counted
from ..nets import conv4, running


def prototypical(
    *, network: Network | None = None, way: int = 5, bn_new_weight: float = 0.1
) -> Learner:
    """Class means of embeddings; a query goes to the nearest mean.

    logits_c(x) = -|f(x) - p_c|^2, with p_c the mean of f over the support of class c (equation 2).
    Support and query pass through the network together while training.

    Args:
        network: embeds [n, ...] -> [n, d]; the default is `conv4(64)`.
        way: length of the class axis; a class without support has logit -inf.
        bn_new_weight: weight of an episode's batch statistics in the stored ones.
    """
    embed = conv4(64) if network is None else network

    def prototypes(z: Array, support: Examples) -> PyTree:
        member = jax.nn.one_hot(support.targets, way) * counted(support)[:, None]  # [n, way]
        count = member.sum(0)  # [way]
        means = (member / jnp.maximum(count, 1)).T @ z  # [way, d]
        return {"prototypes": means, "known": count > 0}

    def logits(task: PyTree, z: Array) -> Array:
        distances = ((z[:, None] - task["prototypes"]) ** 2).sum(-1)  # [q, way]
        return jnp.where(task["known"], -distances, -jnp.inf)

    def init(key: Array, episode: Episode) -> Variables:
        return embed.init(key, episode.support.inputs)

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        z, _ = embed.apply(variables, support.inputs, mask=support.mask)
        return prototypes(z, support)

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        return logits(task, embed.apply(variables, inputs)[0])

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        both = jax.tree.map(lambda s, q: jnp.concatenate([s, q]), episode.support, episode.query)
        z, stats = embed.apply(variables, both.inputs, train=True, mask=both.mask)
        n = len(episode.support.mask)
        scores = logits(prototypes(z[:n], episode.support), z[n:])
        state = running(variables["state"], stats, bn_new_weight)
        return classification_loss(scores, episode.query, state)

    return Learner(init, adapt, predict, loss)
