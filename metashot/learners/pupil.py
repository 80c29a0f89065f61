"""The pupil of the learners with an inner loop: features and a linear head, adapted to an episode.

Its batch norm is an episode's own: support passes normalise by their batch and move running
statistics, queries are answered by these, and the loss of meta-training normalises the query set
by its own (Ravi & Larochelle 2017, section 3.4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from ..base import Array, Aux, Examples, Network, PyTree, Variables
from ..losses import classification_loss, masked_nll
from ..nets import conv4, dense, init_with_head, running


class Pupil(NamedTuple):
    """Functions over parameters {"network", "head"} and the batch norm's running statistics.

    A Task is {"params", "state", "known"}: what the episode made of both, and the classes that
    have support [way].
    """

    network: Network
    init: Callable[[Array, Array, Array], Variables]  # (network's key, head's key, x)
    support_loss: Callable[..., tuple[Array, PyTree]]  # (params, state, known, batch) -> and state
    answer: Callable[[PyTree, Array], Array]  # (task, inputs) -> logits [q, way]
    query_loss: Callable[[PyTree, Examples], tuple[Array, Aux]]  # (task, query)


def make_pupil(
    network: Network | None,
    way: int,
    *,
    bn_new_weight: float,
    bn_unbiased: bool,
    transductive: bool,
) -> Pupil:
    """A pupil of these features (None: `conv4(32)`); the arguments are those of `meta_lstm`."""
    features = conv4(32) if network is None else network

    def logits(task: PyTree, x: Array, mask: Array | None, train: bool) -> tuple[Array, PyTree]:
        variables: Variables = {"params": task["params"]["network"], "state": task["state"]}
        z, stats = features.apply(variables, x, train=train, mask=mask)
        return jnp.where(task["known"], dense(task["params"]["head"], z), -jnp.inf), stats

    def init(net_key: Array, head_key: Array, x: Array) -> Variables:
        # The state holds the statistics that every episode starts from; no episode changes them.
        return init_with_head(features, net_key, head_key, x, way)

    def support_loss(
        params: PyTree, state: PyTree, known: Array, batch: Examples
    ) -> tuple[Array, PyTree]:
        task = {"params": params, "state": state, "known": known}
        scores, stats = logits(task, batch.inputs, batch.mask, True)
        moved = running(state, stats, bn_new_weight, bn_unbiased)
        return masked_nll(scores, batch), lax.stop_gradient(moved)

    def answer(task: PyTree, inputs: Array) -> Array:
        return logits(task, inputs, None, transductive)[0]

    def query_loss(task: PyTree, query: Examples) -> tuple[Array, Aux]:
        scores, _ = logits(task, query.inputs, query.mask, True)
        return classification_loss(scores, query)

    return Pupil(features, init, support_loss, answer, query_loss)
