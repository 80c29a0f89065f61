"""Siamese networks: the same or two embeddings, and a comparison that is learned.

Table 1 of Bertinetto et al. (NIPS 2016) has them beside learnets; with `comparison="signed_l1"`
they are those of Koch, Zemel & Salakhutdinov (2015).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..base import Array, Aux, Episode, Examples, Learner, Network, PyTree, Variables
from ..losses import members
from ..nets import calibrated, compare, init_comparison, running, stream
from .pairs import answers, pair_loss, refuse_rules


def siamese(
    *,
    network: Network | None = None,
    way: int = 5,
    shared: bool = True,
    comparison: str = "weighted_l1",
    learn_gain: bool = True,
    learn_offset: bool = True,
    calibrate: bool = False,
    kshot: str = "mean",
    episode_loss: str = "softmax",
    bn_new_weight: float = 0.1,
) -> Learner:
    """A score of how well a query matches an exemplar: score(x, z) = g s(f(x), f(z)) + c.

    Equation 3 with the comparisons of section 3.2. It trains on pairs that match or not
    (`metashot.pairs`) by the logistic loss, or on ordinary episodes by `episode_loss`; it answers
    both. Pictures are [n, H, W, C].

    Args:
        network: embeds [n, H, W, C] -> [n, d]; the default is `nets.stream()`, that of the paper;
            `nets.stream(factorised=["conv2"])` is the factorised one.
        way: length of the class axis; a class without support has logit -inf.
        shared: one network for exemplars and queries, or two with weights of their own.
        comparison: "inner_product", "euclidean", "weighted_l1", or Koch's "signed_l1".
        learn_gain: learn g, of the first two; a weight each in the others.
        learn_offset: learn c.
        calibrate: start with a mean score of 0, by the episode that `init` sees.
        kshot: what several exemplars of a class make together: their "mean" chance of a match, or
            the "max" of their scores.
        bn_new_weight: weight of an episode's batch statistics in the stored ones.

    Raises:
        ValueError: an argument outside its values.
    """
    refuse_rules(kshot, episode_loss)
    embedding = stream() if network is None else network
    names = ("both",) if shared else ("exemplar", "query")
    init_scores = lambda size: init_comparison(
        comparison, size, learn_gain=learn_gain, learn_offset=learn_offset
    )
    init_scores(1)  # an unknown comparison is refused here

    def embed(variables: Variables, name: str, x: Array, **settings: Any) -> tuple[Array, PyTree]:
        params, state = variables["params"]["networks"][name], variables["state"][name]
        flat = x.reshape(-1, *x.shape[-3:])  # [p, q, ...] too
        z, stats = embedding.apply({"params": params, "state": state}, flat, **settings)
        return z.reshape(*x.shape[:-3], -1), stats

    def scores(variables: Variables, exemplars: Array, queries: Array) -> Array:
        """[p, q] of exemplars [p, d] and queries [q, d] or [p, q, d]."""
        own = variables["params"]["comparison"]
        return compare(comparison, own, exemplars[:, None], queries)

    def init(key: Array, episode: Episode) -> Variables:
        x = episode.support.inputs
        made = {
            name: embedding.init(own, x)
            for name, own in zip(names, jax.random.split(key, len(names)), strict=True)
        }
        variables: Variables = {
            "params": {"networks": {name: made[name]["params"] for name in names}},
            "state": {name: made[name]["state"] for name in names},
        }
        z, _ = embed(variables, names[0], x)
        own = init_scores(z.shape[-1])
        if calibrate:
            own = calibrated(
                comparison, own, z[:, None], embed(variables, names[-1], episode.query.inputs)[0]
            )
        return {**variables, "params": {**variables["params"], "comparison": own}}

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        z, _ = embed(variables, names[0], support.inputs, mask=support.mask)
        return {"exemplars": z, "member": members(support, way)}

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        z, _ = embed(variables, names[-1], inputs)
        return answers(scores(variables, task["exemplars"], z), inputs, task["member"], kshot)

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        support, query = episode.support, episode.query
        parts = [(support.inputs, support.mask)]
        parts.append((query.inputs.reshape(-1, *query.inputs.shape[-3:]), query.mask.reshape(-1)))
        if shared:  # one pass, of both together
            parts = [tuple(map(jnp.concatenate, zip(*parts, strict=True)))]
        embedded, state = [], {}
        for name, (x, mask), own in zip(
            names, parts, jax.random.split(key, len(names)), strict=True
        ):
            z, stats = embed(variables, name, x, train=True, mask=mask, key=own)
            embedded.append(z)
            state[name] = running(variables["state"][name], stats, bn_new_weight)
        z, n = jnp.concatenate(embedded), len(support.mask)
        found = scores(variables, z[:n], z[n:].reshape(*query.mask.shape, -1))
        return pair_loss(found, episode, way, kshot, episode_loss, state)

    return Learner(init, adapt, predict, loss)
