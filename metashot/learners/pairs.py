"""What learners that score pairs share: paired episodes, and classes out of scores.

A paired episode holds p problems: `support.inputs` [p, H, W, C] are exemplars, `query.inputs`
[p, q, H, W, C] the queries of each, `query.targets` [p, q] say which match. In an ordinary episode
all exemplars score all queries, so that the same learner classifies.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..base import Array, Aux, Episode, PyTree
from ..losses import classification_loss, counted, logistic_loss, masked_accuracy, members

KSHOT = ("mean", "max")
EPISODE_LOSS = ("softmax", "logistic")


def refuse_rules(kshot: str, episode_loss: str) -> None:
    """
    Raises:
        ValueError: a rule that there is not.
    """
    rules = {"kshot": (kshot, KSHOT), "episode_loss": (episode_loss, EPISODE_LOSS)}
    for name, (rule, valid) in rules.items():
        if rule not in valid:
            raise ValueError(f"{name} is {rule!r}; it is one of {', '.join(valid)}")


def answers(scores: Array, inputs: Array, member: Array, kshot: str) -> Array:
    """The scores [p, q] of paired queries as they are, of ordinary ones as logits [q, way].

    Args:
        scores: of p exemplars.
        inputs: the queries, [p, q, H, W, C] or [q, H, W, C].
        member: [p, way] bool, which class each exemplar is of.
        kshot: how several exemplars of a class count together: "max" is the best score, "mean" the
            mean chance of a match (of one exemplar, its score). A class without any has -inf.
    """
    if inputs.ndim == 5:
        return scores
    known = member.any(0)
    seen = (member | ~known)[:, None]  # all, if there are none: so that no gradient is NaN
    scores = scores[..., None]  # [p, q, 1] beside [p, 1, way]
    if kshot == "max":
        logits = jnp.where(seen, scores, -jnp.inf).max(0)
    else:
        total = lambda chances: jax.nn.logsumexp(jnp.where(seen, chances, -jnp.inf), axis=0)
        logits = total(jax.nn.log_sigmoid(scores)) - total(jax.nn.log_sigmoid(-scores))
    return jnp.where(known, logits, -jnp.inf)


def pair_loss(
    scores: Array,
    episode: Episode,
    way: int,
    kshot: str,
    episode_loss: str = "softmax",
    state: PyTree = (),
) -> tuple[Array, Aux]:
    """The logistic loss of a paired episode's scores [p, q]; that of an ordinary one by its rule.

    "softmax" is over classes. "logistic" makes pairs of all exemplars and all queries, of which
    those that match count for one half, as in a paired episode.
    """
    support, query = episode.support, episode.query
    if query.mask.ndim == 2:
        kept = query._replace(mask=query.mask & support.mask[:, None])
        return logistic_loss(scores, kept, state)
    logits = answers(scores, query.inputs, members(support, way), kshot)
    if episode_loss == "softmax":
        return classification_loss(logits, query, state)
    match = support.targets[:, None] == query.targets
    there = support.mask[:, None] & counted(query)
    pairs = query._replace(targets=match.astype(jnp.int32))
    matched, others = (
        logistic_loss(scores, pairs._replace(mask=there & part))[0] for part in (match, ~match)
    )
    return (matched + others) / 2, Aux({"accuracy": masked_accuracy(logits, query)}, state)
