"""The Meta-Learner LSTM (Ravi & Larochelle, ICLR 2017): an unrolled LSTM that is the optimiser.

A pupil network has P coordinates. The cell state of an LSTM *is* these coordinates, its input
gate the learning rate and its forget gate the shrinkage of each; T steps over the support set
turn the learned initial state c_0 into the pupil that answers the queries. The meta-gradient is of
first order: losses and gradients that the LSTM reads are constants.

The defaults are those of the authors' release where it does not slip; `released()` follows it
to the letter, `paper()` follows the text.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from ..base import Array, Aux, Episode, Examples, Learner, Network, PyTree, Variables
from ..losses import classification_loss, counted, known_classes, masked_nll
from ..nets import conv4, dense, init_dense, running
from ..optim import coordinate_lstm

GATE_INPUTS = ("hidden", "raw")
GATE_FEEDBACK = ("preact", "value")
GRAD_SCALE = ("mean", "mean_over_n")


def meta_lstm(
    *,
    network: Network | None = None,
    way: int = 5,
    steps: int = 12,
    support_batch: int | None = None,
    gate_inputs: str = "hidden",
    gate_feedback: str = "preact",
    grad_scale: str = "mean",
    p: float = 10.0,
    w_init: float = 0.01,
    forget_range: tuple[float, float] = (4.0, 5.0),
    input_range: tuple[float, float] = (-5.0, -4.0),
    bn_new_weight: float = 0.9,
    bn_unbiased: bool = True,
    transductive: bool = False,
    second_order: bool = False,
) -> Learner:
    """The Meta-Learner LSTM.

    theta_t = sigmoid(F_t) theta_{t-1} - sigmoid(I_t) grad_t, from theta_0 = c_0 (paper, equation 2
    and section 3.2). Its Task holds the pupil's parameters and the running statistics that its
    batch norm gathered over the T support passes; queries are answered with these, while `loss`
    normalises the query set by its own statistics (section 3.4).

    Args:
        network: the pupil's features, [n, ...] -> [n, d]; a linear head to `way` is added. The
            default is `conv4(32)`.
        way: length of the class axis; a class without support has logit -inf.
        steps: T; 12 for 1-shot, 8 for 5-shot (the paper's text: 5).
        support_batch: rows of the support that each step sees, in order; None shows all to each.
        gate_inputs: "hidden" reads the output of a first LSTM layer of 20 features, "raw" the
            preprocessed loss and gradient themselves.
        gate_feedback: the gates see their last "preact" or their last "value".
        grad_scale: "mean" is the gradient of the mean loss; "mean_over_n" divides it by the number
            of support examples once more.
        p: of the preprocessing.
        w_init: half width of the uniform start of the cell's weights.
        forget_range: start of the forget gate's bias, uniform; input_range: of the input gate's.
        bn_new_weight: weight of a step's statistics in the running ones; 0.9 for 1-shot, 0.95 for
            5-shot.
        bn_unbiased: run the unbiased variance.
        transductive: answer queries by the statistics of the query set; the result then depends on
            which queries are asked together.
        second_order: differentiate through the support losses and gradients as well.

    Raises:
        ValueError: an argument outside its values.
    """
    for name, value, valid in (
        ("gate_inputs", gate_inputs, GATE_INPUTS),
        ("gate_feedback", gate_feedback, GATE_FEEDBACK),
        ("grad_scale", grad_scale, GRAD_SCALE),
    ):
        if value not in valid:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(valid)}")
    if steps < 1:
        raise ValueError(f"steps is {steps}; the pupil needs at least one update")
    pupil = conv4(32) if network is None else network

    def cell(params: PyTree, state: Any, loss: Array, grad: Array) -> Any:
        return coordinate_lstm.step(params, state, loss, grad, p=p, gate_feedback=gate_feedback)

    # The gates are made again in the backward pass: T grows the memory by the cell's inputs alone.
    cell = jax.checkpoint(cell, prevent_cse=False)
    constant = (lambda x: x) if second_order else lax.stop_gradient

    def logits(
        theta: PyTree, stats: PyTree, known: Array, x: Array, mask: Array | None, train: bool
    ) -> tuple[Array, PyTree]:
        variables: Variables = {"params": theta["network"], "state": stats}
        features, batch = pupil.apply(variables, x, train=train, mask=mask)
        return jnp.where(known, dense(theta["head"], features), -jnp.inf), batch

    def init(key: Array, episode: Episode) -> Variables:
        net_key, head_key, cell_key = jax.random.split(key, 3)
        x = episode.support.inputs
        net = pupil.init(net_key, x)
        features = jax.eval_shape(lambda: pupil.apply(net, x)[0]).shape[-1]
        hidden = coordinate_lstm.HIDDEN if gate_inputs == "hidden" else 0
        lstm = coordinate_lstm.init_cell(
            cell_key,
            hidden=hidden,
            w_init=w_init,
            forget_range=forget_range,
            input_range=input_range,
        )
        initial = {"network": net["params"], "head": init_dense(head_key, features, way)}
        # The state holds the statistics that every episode starts from; no episode changes them.
        return {"params": {"initial": initial, "cell": lstm}, "state": net["state"]}

    def batches(support: Examples) -> Examples:
        size, rows = support_batch or len(support.mask), len(support.mask)
        if rows % size:
            raise ValueError(f"support_batch is {size}; it must divide {rows} support examples")
        return jax.tree.map(
            lambda x: jnp.asarray(x).reshape(rows // size, size, *x.shape[1:]), support
        )

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        params = variables["params"]
        start, unravel = ravel_pytree(params["initial"])
        known = known_classes(support, way)
        parts = batches(support)

        def support_loss(theta: Array, stats: PyTree, batch: Examples) -> tuple[Array, PyTree]:
            scores, moved = logits(unravel(theta), stats, known, batch.inputs, batch.mask, True)
            return masked_nll(scores, batch), moved

        def step(carry: Any, t: Array) -> tuple[Any, None]:
            state, stats = carry
            batch = jax.tree.map(lambda x: x[t % len(parts.mask)], parts)
            value_and_grad = jax.value_and_grad(support_loss, has_aux=True)
            (loss, moved), grad = value_and_grad(constant(state.theta), stats, batch)
            if grad_scale == "mean_over_n":
                grad = grad / jnp.maximum(counted(batch).sum(), 1)
            state = cell(params["cell"], state, constant(loss), constant(grad))
            return (state, running(stats, moved, bn_new_weight, bn_unbiased)), None

        carry = coordinate_lstm.start(params["cell"], start), variables["state"]
        (state, stats), _ = lax.scan(step, carry, jnp.arange(steps))
        return {"params": unravel(state.theta), "state": lax.stop_gradient(stats), "known": known}

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        params, stats, known = task["params"], task["state"], task["known"]
        return logits(params, stats, known, inputs, None, transductive)[0]

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        task = adapt(variables, episode.support)
        params, stats, known = task["params"], task["state"], task["known"]
        query = episode.query
        scores, _ = logits(params, stats, known, query.inputs, query.mask, True)
        return classification_loss(scores, query)

    return Learner(init, adapt, predict, loss)


def released(shot: int = 1) -> dict[str, Any]:
    """Keywords of `meta_lstm` that follow the authors' Lua release, its double averaging included.

    Its pupil draws the batch norm's scale from U(0, 1): `conv4(32, bn_scale_init="uniform")`.
    """
    steps, weight = (12, 0.9) if shot == 1 else (8, 0.95)
    return {"grad_scale": "mean_over_n", "steps": steps, "bn_new_weight": weight}


def paper(shot: int = 1) -> dict[str, Any]:
    """Keywords of `meta_lstm` that follow the paper's formulas (section 3.1) and steps (5.1)."""
    steps, weight = (12, 0.9) if shot == 1 else (5, 0.95)
    gates = {"gate_inputs": "raw", "gate_feedback": "value"}
    return {**gates, "steps": steps, "bn_new_weight": weight}
