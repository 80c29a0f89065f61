"""The cell of the Meta-Learner LSTM: an LSTM whose cell state is the parameters it optimises.

All coordinates share its weights and each has a state of its own. Coordinates lie on the last
axis, [features, P]: one matrix product a step and no transposes (309 ms as rows, 150 as columns,
for 28,485 coordinates and 12 steps).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..base import Array, PyTree

HIDDEN = 20


class CellState(NamedTuple):
    """What the cell carries from step to step, for P coordinates and H hidden features."""

    theta: Array  # [P] the parameters that are optimised
    forget: Array  # [P] what the forget gate is fed back
    input: Array  # [P] what the input gate is fed back
    hidden: Array  # [H, P] layer 1's output h
    memory: Array  # [H, P] layer 1's cell s


def preprocess(x: Array, p: float = 10.0) -> Array:
    """(log|x| / p, sign x) where |x| >= exp(-p), else (-1, exp(p) x): any size fits a network.

    Ravi & Larochelle (2017), section 3.2, after Andrychowicz et al. (2016).

    Args:
        x: [...] gradients or losses.

    Returns:
        [2, ...], finite with finite gradients everywhere; (-1, 0) at zero.

    Example:
        >>> preprocess(jnp.array([1.0, 0.0])).tolist()
        [[0.0, -1.0], [1.0, 0.0]]
    """
    large = jnp.abs(x) >= jnp.exp(-p)
    safe = jnp.where(large, jnp.abs(x), 1)
    small = jnp.where(large, 0, x) * jnp.exp(p)
    log = jnp.where(large, jnp.log(safe) / p, -1)
    return jnp.stack([log, jnp.where(large, jnp.sign(x), small)])


def init_cell(
    key: Array,
    *,
    hidden: int = HIDDEN,
    w_init: float = 0.01,
    forget_range: tuple[float, float] = (4.0, 5.0),
    input_range: tuple[float, float] = (-5.0, -4.0),
) -> PyTree:
    """Weights of the cell: small, a large forget bias, a small input bias (section 3.3.2).

    Args:
        hidden: H, layer 1's size; 0 leaves layer 1 out and lets the gates see their inputs raw.
        w_init: weights are U(-w_init, w_init), and so is layer 1's bias.
        forget_range: of the uniform draw of the forget gate's bias; input_range likewise.

    Returns:
        "layer1" (where H > 0): kernel [4 + H, 4 H] with rows (log loss, sign loss, log grad,
        sign grad, h) and columns (input, forget, output, candidate), bias [4 H]; "forget" and
        "input": kernel [H + 2] (h, theta, fed-back gate) or [6] (the four features, theta, gate),
        and bias [].
    """
    keys = jax.random.split(key, 6)

    def small(key: Array, *shape: int) -> Array:
        return jax.random.uniform(key, shape, minval=-w_init, maxval=w_init)

    def gate(weights: Array, bias: Array, ends: tuple[float, float]) -> PyTree:
        seen = hidden or 4
        bias = jax.random.uniform(bias, (), minval=ends[0], maxval=ends[1])
        return {"kernel": small(weights, seen + 2), "bias": bias}

    params = {
        "forget": gate(keys[0], keys[1], forget_range),
        "input": gate(keys[2], keys[3], input_range),
    }
    if hidden:
        kernel = small(keys[4], 4 + hidden, 4 * hidden)
        params["layer1"] = {"kernel": kernel, "bias": small(keys[5], 4 * hidden)}
    return params


def start(params: PyTree, theta: Array) -> CellState:
    """The state before the first step: parameters theta [P], all else zero."""
    hidden = params["layer1"]["bias"].shape[0] // 4 if "layer1" in params else 0
    zeros = jnp.zeros_like(theta)
    layer1 = jnp.zeros((hidden, *theta.shape), theta.dtype)
    return CellState(theta, zeros, zeros, layer1, layer1)


def step(
    params: PyTree,
    state: CellState,
    loss: Array,
    grad: Array,
    *,
    p: float = 10.0,
    gate_feedback: str = "preact",
) -> CellState:
    """One update: theta' = sigmoid(F) theta - sigmoid(I) grad.

    F and I are affine in what layer 1 makes of the preprocessed loss and gradient (without a
    layer 1: in these themselves), in theta, and in the gate's own last value.

    Args:
        params: from `init_cell`.
        state: from `start` or the last step.
        loss: [] at state.theta.
        grad: [P] at state.theta.
        p: of `preprocess`.
        gate_feedback: "preact" feeds back F and I, "value" their sigmoids.
    """
    loss_seen = preprocess(loss, p)  # [2], equal for all coordinates: a bias, not rows
    grad_seen = preprocess(grad, p)  # [2, P]
    hidden, memory = state.hidden, state.memory
    if "layer1" in params:
        kernel, bias = params["layer1"]["kernel"], params["layer1"]["bias"]
        bias = bias + loss_seen @ kernel[:2]
        z = kernel[2:].T @ jnp.concatenate([grad_seen, hidden]) + bias[:, None]  # [4H, P]
        gates = jax.nn.sigmoid(z[: 3 * len(hidden)])
        write, keep, out = jnp.split(gates, 3)
        memory = keep * memory + write * jnp.tanh(z[3 * len(hidden) :])
        hidden = out * jnp.tanh(memory)

    def gate(gate_params: PyTree, fed_back: Array) -> Array:
        kernel, bias = gate_params["kernel"], gate_params["bias"]
        affine = kernel[-2] * state.theta + kernel[-1] * fed_back + bias
        if "layer1" in params:
            return kernel[:-2] @ hidden + affine
        return kernel[:2] @ loss_seen + kernel[2:4] @ grad_seen + affine

    forget = gate(params["forget"], state.forget)
    input = gate(params["input"], state.input)
    f, i = jax.nn.sigmoid(forget), jax.nn.sigmoid(input)
    theta = f * state.theta - i * grad
    fed_back = (forget, input) if gate_feedback == "preact" else (f, i)
    return CellState(theta, *fed_back, hidden, memory)
