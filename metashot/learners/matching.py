"""Matching networks (Vinyals et al., NeurIPS 2016), with or without full-context embeddings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..base import Array, Aux, Episode, Examples, Learner, Network, PyTree, Variables
from ..losses import classification_loss, members
from ..nets import attention_lstm, conv4, lstm, running, unit

ATTENTION = ("softmax_then_sum", "sum_then_softmax")
SIMILARITY = ("cosine", "sqeuclidean")
BILSTM = ("aligned", "released")


def matching(
    *,
    network: Network | None = None,
    way: int = 5,
    attention: str = "softmax_then_sum",
    similarity: str = "cosine",
    scale: float = 1.0,
    full_context: bool = False,
    fce_steps: int = 3,
    bilstm: str = "aligned",
    bn_new_weight: float = 0.1,
) -> Learner:
    """A query's class is a vote of the support, each example by its similarity.

    P(c | x) = sum of a_j over the support j of class c, with a the softmax over all support of
    scale * cos(f(x), g(x_j)) (equation 1 and section 2.1.1). f and g share their weights; each role
    has its own pass and its own batch statistics. With cosines of embeddings that are nowhere
    negative, as conv4's, no 5-way loss is below 0.905.

    In full context the whole support makes both embeddings (appendix A): LSTMs go over the support
    from both ends and add what they say of an example to it, and another looks at the result
    `fce_steps` times before it says what a query's embedding is. All start at zero, where full
    context is none. Then the order of the support matters: it must not be by class.

    Args:
        network: embeds [n, ...] -> [n, d]; the default is `conv4(64, dropout=0.1)`, as in
            Ravi & Larochelle (2017), section 5.1.
        way: length of the class axis; a class without support has logit -inf.
        attention: "softmax_then_sum" is the paper's; "sum_then_softmax" adds up each class's
            similarities first, as Ravi & Larochelle's release does. Both are equal at one shot.
        similarity: "cosine", or "sqeuclidean" for -|f - g|^2.
        scale: of the similarity.
        full_context: embed by the whole support, with three LSTMs as wide as the embedding.
        fce_steps: readings of the support before a query is answered.
        bilstm: "aligned" adds to an example what the backward LSTM says of it; "released" adds what
            that says after as many steps as the forward one, of another example, as Ravi &
            Larochelle's release does.
        bn_new_weight: weight of an episode's batch statistics in the stored ones.

    Raises:
        ValueError: an argument outside its values.
    """
    for name, value, valid in (
        ("attention", attention, ATTENTION),
        ("similarity", similarity, SIMILARITY),
        ("bilstm", bilstm, BILSTM),
    ):
        if value not in valid:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(valid)}")
    if fce_steps < 1:
        raise ValueError(f"fce_steps is {fce_steps}; it is at least 1")
    embed = conv4(64, dropout=0.1) if network is None else network

    def pass_of(role: str, variables: Variables, x: Array, **settings: Any) -> tuple[Array, PyTree]:
        params = variables["params"]
        params = params["network"] if full_context else params
        return embed.apply({"params": params, "state": variables["state"][role]}, x, **settings)

    def remember(variables: Variables, z: Array, support: Examples) -> dict[str, Array]:
        member = members(support, way)
        if full_context:
            params, counts = variables["params"], member.any(1)
            forward, _ = lstm(params["forward"], z, counts)
            backward, _ = lstm(params["backward"], z, counts, reverse=True)
            z += forward + (backward if bilstm == "aligned" else backward[_opposite(counts)])
        return {"embeddings": z, "member": member}

    def logits(variables: Variables, task: dict[str, Array], z: Array) -> Array:
        g, member = task["embeddings"], task["member"]
        if full_context:
            params = variables["params"]["attention"]
            z = attention_lstm(params, z, g, member.any(1), steps=fce_steps)
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
        x = episode.support.inputs
        made = embed.init(key, x)
        params = made["params"]
        if full_context:
            d = jax.eval_shape(lambda: embed.apply(made, x)[0]).shape[-1]
            zeros = lambda rows: {"kernel": jnp.zeros((rows, 4 * d)), "bias": jnp.zeros(4 * d)}
            rows = {"forward": 2 * d, "backward": 2 * d, "attention": 3 * d}
            params = {"network": params, **{name: zeros(n) for name, n in rows.items()}}
        return {"params": params, "state": {"support": made["state"], "query": made["state"]}}

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        z, _ = pass_of("support", variables, support.inputs, mask=support.mask)
        return remember(variables, z, support)

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        return logits(variables, task, pass_of("query", variables, inputs)[0])

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        embedded, state = {}, {}
        for role, role_key in zip(("support", "query"), jax.random.split(key), strict=True):
            part = getattr(episode, role)
            settings = {"train": True, "mask": part.mask, "key": role_key}
            embedded[role], stats = pass_of(role, variables, part.inputs, **settings)
            state[role] = running(variables["state"][role], stats, bn_new_weight)
        task = remember(variables, embedded["support"], episode.support)
        scores = logits(variables, task, embedded["query"])
        return classification_loss(scores, episode.query, state)

    return Learner(init, adapt, predict, loss)


def released() -> dict[str, Any]:
    """Keywords of `matching` that follow Ravi & Larochelle's release."""
    return {"attention": "sum_then_softmax", "bilstm": "released"}


def _opposite(counts: Array) -> Array:
    """[n]: for each row that counts, the one as far from the end as it is from the start."""
    rank = jnp.cumsum(counts) - 1
    return jnp.argsort(~counts)[counts.sum() - 1 - rank]
