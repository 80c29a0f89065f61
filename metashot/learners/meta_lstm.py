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
from ..losses import counted, known_classes
from ..optim import coordinate_lstm
from .pupil import make_pupil

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
    trace: bool = False,
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
        trace: the Task also holds the gates' values at each step, "gates": {"forget", "input"},
            trees like the pupil's parameters with leaves [T, ...].

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
    norm = {"bn_new_weight": bn_new_weight, "bn_unbiased": bn_unbiased}
    pupil = make_pupil(network, way, transductive=transductive, **norm)

    def cell(params: PyTree, state: Any, loss: Array, grad: Array) -> Any:
        return coordinate_lstm.step(params, state, loss, grad, p=p, gate_feedback=gate_feedback)

    # The gates are made again in the backward pass: T grows the memory by the cell's inputs alone.
    cell = jax.checkpoint(cell, prevent_cse=False)
    constant = (lambda x: x) if second_order else lax.stop_gradient

    def init(key: Array, episode: Episode) -> Variables:
        net_key, head_key, cell_key = jax.random.split(key, 3)
        start = pupil.init(net_key, head_key, episode.support.inputs)
        lstm = coordinate_lstm.init_cell(
            cell_key,
            hidden=coordinate_lstm.HIDDEN if gate_inputs == "hidden" else 0,
            w_init=w_init,
            forget_range=forget_range,
            input_range=input_range,
        )
        return {"params": {"initial": start["params"], "cell": lstm}, "state": start["state"]}

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
            return pupil.support_loss(unravel(theta), stats, known, batch)

        def step(carry: Any, t: Array) -> tuple[Any, Any]:
            state, stats = carry
            batch = jax.tree.map(lambda x: x[t % len(parts.mask)], parts)
            value_and_grad = jax.value_and_grad(support_loss, has_aux=True)
            (loss, stats), grad = value_and_grad(constant(state.theta), stats, batch)
            if grad_scale == "mean_over_n":
                grad = grad / jnp.maximum(counted(batch).sum(), 1)
            state = cell(params["cell"], state, constant(loss), constant(grad))
            return (state, stats), (state.forget, state.input) if trace else None

        carry = coordinate_lstm.start(params["cell"], start), variables["state"]
        (state, stats), gates = lax.scan(step, carry, jnp.arange(steps))
        task = {"params": unravel(state.theta), "state": stats, "known": known}
        if not trace:
            return task
        value = jax.nn.sigmoid if gate_feedback == "preact" else lambda x: x
        opened = [jax.vmap(unravel)(value(gate)) for gate in gates]
        return {**task, "gates": dict(zip(("forget", "input"), opened, strict=True))}

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        return pupil.answer(task, inputs)

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        return pupil.query_loss(adapt(variables, episode.support), episode.query)

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
