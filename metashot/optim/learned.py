"""The learned optimiser as an optax transformation: for any parameters, in any loop."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from ..base import Array, PyTree
from . import coordinate_lstm

_CALL = "call update(grads, state, params, value=loss)"


class LearnedOptimizerState(NamedTuple):
    """What the cell carries beside the parameters, for P coordinates and H hidden features."""

    forget: Array  # [P]
    input: Array  # [P]
    hidden: Array  # [H, P]
    memory: Array  # [H, P]


def learned_optimizer(
    cell: PyTree, *, p: float = 10.0, gate_feedback: str = "preact"
) -> optax.GradientTransformationExtraArgs:
    """The Meta-Learner LSTM in place of Adam: theta' = sigmoid(F) theta - sigmoid(I) grad.

    `update(grads, state, params, value=loss)` takes the gradient and the loss at `params`, as
    `optax.polyak_sgd` does. The cell treats all coordinates alike, so one that was trained on a
    pupil serves networks of any shape; each step shrinks the parameters as the forget gate says.
    Parameters keep their dtypes, while the state and the gates have the cell's or a wider one.

    Everything is differentiable by `cell`. The gradient of the paper (Ravi & Larochelle 2017,
    section 3.3.1) takes `jax.lax.stop_gradient` of the loss and the gradients that it passes here.

    Args:
        cell: `variables["params"]["cell"]` of a trained `metashot.meta_lstm`, or a fresh one from
            `metashot.optim.init_cell`.
        p: of the preprocessing, and
        gate_feedback: "preact" or "value": as the cell was trained with. After training with
            `grad_scale="mean_over_n"`, chain it after `optax.scale(1 / n)`.

    Raises:
        ValueError: no cell, an unknown `gate_feedback`, or an update without `params` or `value`.

    Example:
        >>> import jax
        >>> optimizer = learned_optimizer(jax.jit(coordinate_lstm.init_cell)(jax.random.key(0)))
        >>> params, grads, loss = jnp.ones(3), jnp.ones(3), 1.5
        >>> state = optimizer.init(params)
        >>> updates, state = jax.jit(optimizer.update)(grads, state, params, value=loss)
        >>> bool((optax.apply_updates(params, updates) < 1).all())
        True
    """
    if "forget" not in cell:
        raise ValueError(f'the cell has {", ".join(cell)}; pass variables["params"]["cell"]')
    if gate_feedback not in ("preact", "value"):
        raise ValueError(f"gate_feedback is {gate_feedback!r}; it is one of preact, value")

    def coordinates(tree: PyTree) -> Array:
        flat, _ = ravel_pytree(tree)
        return flat.astype(jnp.result_type(flat, cell["forget"]["bias"]))

    def init(params: PyTree) -> LearnedOptimizerState:
        _, *carried = coordinate_lstm.start(cell, coordinates(params))
        return LearnedOptimizerState(*carried)

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        value: Array | float | None = None,
        **extra: Any,
    ) -> tuple[PyTree, LearnedOptimizerState]:
        if params is None:
            raise ValueError(f"the learned optimiser shrinks the parameters and has none; {_CALL}")
        if value is None:
            raise ValueError(f"the learned optimiser reads the loss and has none; {_CALL}")
        theta = coordinates(params)
        new, *carried = coordinate_lstm.step(
            cell,
            coordinate_lstm.CellState(theta, *state),
            jnp.asarray(value, theta.dtype),
            coordinates(updates).astype(theta.dtype),
            p=p,
            gate_feedback=gate_feedback,
        )
        flat, unravel = ravel_pytree(params)
        return unravel((new - theta).astype(flat.dtype)), LearnedOptimizerState(*carried)

    return optax.GradientTransformationExtraArgs(init, update)
