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
