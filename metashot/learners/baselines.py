"""What every learner should beat."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..base import Array, Aux, Episode, Examples, Learner, Network, PyTree, Variables
from ..losses import classification_loss, counted


def nearest_neighbor(*, network: Network | None = None, way: int = 5) -> Learner:
    """The class of the most similar support example, by the cosine of their embeddings.

    logits_c(x) = max over support j of class c of cos(f(x), f(x_j)): one neighbour at any shot,
    as in Ravi & Larochelle (2017), section 5.1. It needs no training of its own.

    Args:
        network: embeds [n, ...] -> [n, d]; None compares the pixels themselves.
        way: length of the class axis; a class without support has logit -inf.
    """

    def embed(variables: Variables, x: Array, mask: Array | None = None) -> Array:
        if network is None:
            z = x.reshape(len(x), -1)
        else:
            z, _ = network.apply(variables, x, mask=mask)
        return z * jax.lax.rsqrt((z * z).sum(-1, keepdims=True) + 1e-12)

    def init(key: Array, episode: Episode) -> Variables:
        if network is None:
            return {"params": {}, "state": {}}
        return network.init(key, episode.support.inputs)

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        member = jax.nn.one_hot(support.targets, way, dtype=bool) & counted(support)[:, None]
        return {"embeddings": embed(variables, support.inputs, support.mask), "member": member}

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        similar = embed(variables, inputs) @ task["embeddings"].T  # [q, n]
        return jnp.where(task["member"], similar[:, :, None], -jnp.inf).max(1)

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        scores = predict(variables, adapt(variables, episode.support), episode.query.inputs)
        return classification_loss(scores, episode.query)

    return Learner(init, adapt, predict, loss)
