"""MAML (Finn, Abbeel & Levine, ICML 2017) and ANIL (Raghu et al., ICLR 2020).

Both learn where gradient descent should start from: MAML adapts all weights of the pupil, ANIL
("almost no inner loop") its head alone. The meta-gradient goes through the descent (second order),
or takes the inner gradients for constants (first order).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..base import Array, Aux, Episode, Examples, Learner, Network, PyTree, Variables
from ..losses import known_classes, masked_nll
from ..nets import dense, running
from .pupil import Pupil, make_pupil


def maml(
    *,
    network: Network | None = None,
    way: int = 5,
    steps: int = 5,
    lr: float = 0.01,
    second_order: bool = True,
    bn_new_weight: float = 0.9,
    bn_unbiased: bool = True,
    transductive: bool = False,
) -> Learner:
    """Model-agnostic meta-learning: theta' = theta - lr * gradient of the support loss, T times.

    The batch norm follows the Meta-Learner LSTM's rules, not the paper's code: queries are answered
    by the statistics of the episode's support passes. The paper's figures are transductive.

    Args:
        network: the pupil's features, [n, ...] -> [n, d]; a linear head to `way` is added. The
            default is `conv4(32)`, the paper's for photographs.
        way: length of the class axis; a class without support has logit -inf.
        steps: T; the paper trains with 5 (characters: 1) and tests with 10 (3). A trained learner
            may be loaded with other steps: `metashot.load(run, learner=maml(steps=10, ...))`.
        lr: of the inner steps; 0.01 in the paper (characters: 0.4).
        second_order: differentiate through the inner gradients; without it this is FOMAML.
        bn_new_weight: weight of a step's statistics in the running ones; bn_unbiased: run the
            unbiased variance; transductive: answer by the query set's own (as in `meta_lstm`).

    Raises:
        ValueError: no steps, or a rate that is not above 0.
    """
    _refuse(steps, lr)
    norm = {"bn_new_weight": bn_new_weight, "bn_unbiased": bn_unbiased}
    pupil = make_pupil(network, way, transductive=transductive, **norm)

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        known = known_classes(support, way)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, stats = carry
            grad_of = jax.grad(pupil.support_loss, has_aux=True)
            grads, stats = grad_of(params, stats, known, support)
            return (_descend(params, grads, lr, second_order), stats), None

        start = variables["params"], variables["state"]
        (params, stats), _ = lax.scan(step, start, length=steps)
        return {"params": params, "state": stats, "known": known}

    return _learner(pupil, adapt)


def anil(
    *,
    network: Network | None = None,
    way: int = 5,
    steps: int = 5,
    lr: float = 0.01,
    second_order: bool = True,
    bn_new_weight: float = 0.9,
    bn_unbiased: bool = True,
    transductive: bool = False,
) -> Learner:
    """MAML whose inner loop adapts the head alone: the features of the support are made once.

    The arguments are those of `maml`; `second_order=False` takes the head's inner gradients for
    constants.

    Raises:
        ValueError: no steps, or a rate that is not above 0.
    """
    _refuse(steps, lr)
    norm = {"bn_new_weight": bn_new_weight, "bn_unbiased": bn_unbiased}
    pupil = make_pupil(network, way, transductive=transductive, **norm)

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        known = known_classes(support, way)
        body, head = variables["params"]["network"], variables["params"]["head"]
        made: Variables = {"params": body, "state": variables["state"]}
        z, batch = pupil.network.apply(made, support.inputs, train=True, mask=support.mask)

        def support_loss(head: PyTree) -> Array:
            return masked_nll(jnp.where(known, dense(head, z), -jnp.inf), support)

        def step(head: PyTree, _: None) -> tuple[PyTree, None]:
            return _descend(head, jax.grad(support_loss)(head), lr, second_order), None

        head, _ = lax.scan(step, head, length=steps)
        # T equal passes of weight w leave (1 - w)^T of the start.
        weight = 1 - (1 - bn_new_weight) ** steps
        stats = running(variables["state"], batch, weight, bn_unbiased)
        params = {"network": body, "head": head}
        return {"params": params, "state": lax.stop_gradient(stats), "known": known}

    return _learner(pupil, adapt)


def _refuse(steps: int, lr: float) -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}; the pupil needs at least one update")
    if not lr > 0:
        raise ValueError(f"lr is {lr}; it is above 0")


def _descend(params: PyTree, grads: PyTree, lr: float, second_order: bool) -> PyTree:
    if not second_order:
        grads = lax.stop_gradient(grads)
    return jax.tree.map(lambda p, g: p - lr * g, params, grads)


def _learner(pupil: Pupil, adapt: Any) -> Learner:
    def init(key: Array, episode: Episode) -> Variables:
        net_key, head_key = jax.random.split(key)
        return pupil.init(net_key, head_key, episode.support.inputs)

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        return pupil.answer(task, inputs)

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        return pupil.query_loss(adapt(variables, episode.support), episode.query)

    return Learner(init, adapt, predict, loss)
