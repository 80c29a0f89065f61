"""Losses over a padded class axis and padded rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .base import Array, Aux, Examples, PyTree


def counted(examples: Examples) -> Array:
    """[n] bool: the rows that take part in a classification loss or a metric."""
    return examples.mask & (examples.targets >= 0)


def members(support: Examples, way: int) -> Array:
    """[n, way] bool: which class each support example is of; none, if it does not count."""
    return jax.nn.one_hot(support.targets, way, dtype=bool) & counted(support)[:, None]


def known_classes(support: Examples, way: int) -> Array:
    """[way] bool: the classes with at least one support example that counts."""
    return members(support, way).any(0)


def masked_mean(values: Array, mask: Array) -> Array:
    """The mean of `values` [n] where `mask` [n] is true; 0 where nothing is."""
    return jnp.where(mask, values, 0).sum() / jnp.maximum(mask.sum(), 1)


def masked_nll(logits: Array, examples: Examples) -> Array:
    """Mean of -log softmax(logits)[target] over the rows that count.

    Args:
        logits: [n, way]; -inf marks a class that takes no part in the log-sum-exp.
        examples: targets [n] and mask [n].
    """
    mask = counted(examples)
    # Rows that don't count get harmless logits, so that nothing infinite reaches the gradient.
    safe = jnp.where(mask[:, None], logits, 0)
    target = jnp.where(mask, examples.targets, 0)
    picked = jnp.take_along_axis(safe, target[:, None], axis=1)[:, 0]
    return masked_mean(jax.nn.logsumexp(safe, axis=1) - picked, mask)


def masked_accuracy(logits: Array, examples: Examples) -> Array:
    """The share of the rows that count whose largest logit is the target's; first one on a tie."""
    return masked_mean(logits.argmax(1) == examples.targets, counted(examples))


def classification_loss(logits: Array, query: Examples, state: PyTree = ()) -> tuple[Array, Aux]:
    """What a classifying learner's `loss` returns: `masked_nll`, with the accuracy beside it."""
    accuracy = masked_accuracy(logits, query)
    return masked_nll(logits, query), Aux({"accuracy": accuracy}, state)


def pair_nll(similar: Array, member: Array, query: Examples) -> Array:
    """Mean of -log softmax(similar)[q, n] over the pairs of a query and an example of its class.

    Cai et al. (CVPR 2018), equation 9, over the number of pairs, so that an episode of k shots
    counts as much as one of a single shot. All k examples are asked to match alike: the minimum is
    log k, and an example with more than its share is pushed down.

    Args:
        similar: [q, n], of each query and each support example.
        member: [n, way] bool, of which class each example is (`members`).
        query: targets [q] and mask [q].
    """
    # Not -inf: a support of which nothing counts would leave NaN in the gradient.
    nll = -jax.nn.log_softmax(jnp.where(member.any(1), similar, -1e30))
    pairs = members(query, member.shape[1])[:, None] & member  # [q, n, way]
    return masked_mean(nll, pairs.any(-1))


def logistic_loss(scores: Array, query: Examples, state: PyTree = ()) -> tuple[Array, Aux]:
    """Mean of log(1 + exp(-l s)) over the pairs that count, l = 1 for a match and -1 for none.

    Args:
        scores: [p, q] of exemplars and the queries of each.
        query: targets [p, q] of 1 (match), 0 (no match) or -1 (not counted); mask [p, q].
        state: of the `Aux`.

    Returns:
        The loss, and beside it the share of scores on the right side of 0.
    """
    mask, match = counted(query), query.targets > 0
    losses = jax.nn.softplus(jnp.where(match, -scores, scores))
    accuracy = masked_mean((scores > 0) == match, mask)
    return masked_mean(losses, mask), Aux({"accuracy": accuracy}, state)


def nca(x: Array, same: Array, others: Array, among: Array) -> Array:
    """-log(exp(-d(x, same)) / sum over z of exp(-d(x, z))), with d the squared distance.

    Neighbourhood components analysis as in Qi, Brown & Lowe (2018), equation 1: the sum runs over
    examples of other classes alone, so that a loss may be negative.

    Args:
        x: embeddings [n, D].
        same: [n, D], for each x another embedding of its class.
        others: embeddings [m, D].
        among: [n, m] bool, which of the others x's sum runs over; at least one for each x.

    Returns:
        [n] losses.
    """
    near = ((x - same) ** 2).sum(-1)
    far = ((x[:, None] - others) ** 2).sum(-1)
    return near + jax.nn.logsumexp(-far, axis=1, where=among)


def proxy_nca(
    embeddings: Array, proxies: Array, examples: Examples, *, include_positive: bool = False
) -> Array:
    """Mean of `nca` with a trained proxy for each class in place of its examples.

    Equation 2 of Qi, Brown & Lowe (2018). On the sphere (`metashot.nets.unit`) and with the
    positive included, as in their equation 4, it is the softmax of cosines at scale 2.

    Args:
        embeddings: [n, D].
        proxies: [C, D], of at least two classes.
        examples: targets [n] and mask [n].
        include_positive: sum over the class's own proxy too.
    """
    own = members(examples, len(proxies))
    same = proxies[jnp.where(counted(examples), examples.targets, 0)]
    among = ~own | include_positive
    return masked_mean(nca(embeddings, same, proxies, among), counted(examples))


def lifted_structured(embeddings: Array, examples: Examples, *, margin: float = 1.0) -> Array:
    """The lifted structured loss (Song et al., CVPR 2016) of a batch.

    sum over the pairs (i, j) of a class of max(0, J_ij)^2 / (2 pairs), with J_ij = D_ij +
    log(sum over i's and sum over j's negatives k of exp(margin - D)) and D the distance, not
    squared. A pair counts once; a batch without pairs or negatives has loss 0.

    Args:
        embeddings: [n, D], of any length.
        examples: targets [n] and mask [n].
        margin: alpha.
    """
    counts = counted(examples)
    both = counts[:, None] & counts
    alike = examples.targets[:, None] == examples.targets
    squared = ((embeddings[:, None] - embeddings) ** 2).sum(-1)
    # A distance of zero passes no gradient; that of the root is infinite there.
    distance = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
    # Not -inf: rows without negatives would leave NaN in the gradient.
    pull = jax.nn.logsumexp(jnp.where(both & ~alike, margin - distance, -1e30), axis=1)
    j = jnp.logaddexp(pull[:, None], pull) + distance
    return masked_mean(jnp.maximum(j, 0) ** 2, jnp.triu(both & alike, 1)) / 2


def pixel_loss(
    logits: Array, shares: Array, weights: Array, *, foreground_weight: float = 1.0
) -> Array:
    """Sum of -y log p - (1 - y) log(1 - p) over pixels, p the sigmoid of a logit.

    Args:
        logits: [...], finite.
        shares: y [...], of the class in each pixel or cell.
        weights: [...] of each, 0 where it does not count.
        foreground_weight: of the term of y.
    """
    of_class = foreground_weight * shares * jax.nn.softplus(-logits)
    return (weights * (of_class + (1 - shares) * jax.nn.softplus(logits))).sum()
