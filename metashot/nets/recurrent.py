"""LSTMs over a row of things, some of which are padding.

Parameters are {"kernel" [features + H, 4 H], "bias" [4 H]}, with the input's rows before those of
the last output and columns (input, forget, output, candidate), as in `optim.coordinate_lstm`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ..base import Array, PyTree

State = tuple[Array, Array]  # (hidden, cell), each [..., H]


def init_lstm(key: Array, features: int, hidden: int) -> PyTree:
    """LeCun normal for the input, orthogonal for what is fed back, biases 0."""
    inward, back = jax.random.split(key)
    kernels = (
        jax.nn.initializers.lecun_normal()(inward, (features, 4 * hidden)),
        jax.nn.initializers.orthogonal()(back, (hidden, 4 * hidden)),
    )
    return {"kernel": jnp.concatenate(kernels), "bias": jnp.zeros(4 * hidden)}


def lstm(
    params: PyTree, x: Array, mask: Array | None = None, *, reverse: bool = False
) -> tuple[Array, Array]:
    """An LSTM over the rows of x, from a state of zeros; no peepholes.

    Args:
        params: as above.
        x: [n, features].
        mask: [n] bool, the rows that are seen; the others leave the state as it is.
        reverse: from the last row to the first.

    Returns:
        The output at each row [n, H], and the output after the last one seen [H].
    """
    hidden = len(params["bias"]) // 4
    kernel = params["kernel"][-hidden:]
    seen = x @ params["kernel"][:-hidden] + params["bias"]  # of all rows at once
    zeros = jnp.zeros(hidden, seen.dtype)
    mask = jnp.ones(len(x), bool) if mask is None else mask

    def step(state: State, row: tuple[Array, Array]) -> tuple[State, Array]:
        seen, counts = row
        new = _gated(seen + state[0] @ kernel, state[1])
        state = jax.tree.map(lambda new, old: jnp.where(counts, new, old), new, state)
        return state, state[0]

    (last, _), outputs = lax.scan(step, (zeros, zeros), (seen, mask), reverse=reverse)
    return outputs, last


def attention_lstm(
    params: PyTree, queries: Array, rows: Array, mask: Array | None = None, *, steps: int = 3
) -> Array:
    """Queries that have looked at the rows `steps` times (Vinyals et al., 2016, appendix A.1).

    h = LSTM([f, r], h) + f, r = sum over rows g of softmax(h . g) g, from r the mean of the rows;
    h after the last step is returned.

    Args:
        params: with 3 D rows in the kernel, of a query f, a reading r and the last h.
        queries: f [q, D].
        rows: g [n, D].
        mask: [n] bool, the rows that are looked at.

    Returns:
        [q, D].
    """
    mask = jnp.ones(len(rows), bool) if mask is None else mask
    hidden = cell = jnp.zeros_like(queries)
    similar = jnp.zeros((1, len(rows)), queries.dtype)
    for _ in range(steps):
        # Not -inf: a mask that leaves nothing would put NaN into the gradient.
        seen = jax.nn.softmax(jnp.where(mask, similar, -1e30)) @ rows
        x = jnp.concatenate([queries, jnp.broadcast_to(seen, queries.shape), hidden], axis=1)
        hidden, cell = _gated(x @ params["kernel"] + params["bias"], cell)
        hidden += queries
        similar = hidden @ rows.T
    return hidden


def _gated(z: Array, cell: Array) -> State:
    """The state after a step whose gates are z [..., 4 H] before their non-linearities."""
    write, keep, out, candidate = jnp.split(z, 4, axis=-1)
    cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(write) * jnp.tanh(candidate)
    return jax.nn.sigmoid(out) * jnp.tanh(cell), cell
