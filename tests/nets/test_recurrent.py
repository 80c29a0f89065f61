"""LSTMs over rows: numbers worked out by hand, in double precision, and flax's cell."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot.nets import attention_lstm, init_lstm, lstm

pytestmark = [pytest.mark.usefixtures("quick_compile"), pytest.mark.usefixtures("float64")]


def one_unit(inward: float, back: float) -> Any:
    kernel = jnp.repeat(jnp.array([[inward], [back]]), 4, axis=1)
    return {"kernel": kernel, "bias": jnp.zeros(4)}


def column(*values: float) -> jax.Array:
    return jnp.array(values, float)[:, None]


def bias_only(rows: int, size: int) -> Any:
    """All zeros but for the candidate's bias, which is 1: outputs 0.1817, 0.2581, 0.2913."""
    bias = jnp.concatenate([jnp.zeros(3 * size), jnp.ones(size)])
    return {"kernel": jnp.zeros((rows, 4 * size)), "bias": bias}


last = jax.jit(
    lambda *args, reverse=False: lstm(*args, reverse=reverse)[1][0], static_argnames="reverse"
)


def test_both_ways_by_hand() -> None:
    half = one_unit(0.5, 0.5)
    assert float(last(half, column(1, 2))) == pytest.approx(0.500859, abs=6e-7)
    assert float(last(half, column(1, 2), reverse=True)) == pytest.approx(0.428326, abs=6e-7)
    assert 2 * float(last(half, column(1))) == pytest.approx(0.348539, abs=6e-7)


def test_tied_directions_do_not_see_the_order_but_others_do() -> None:
    half, other = one_unit(0.5, 0.5), one_unit(1.0, -0.5)
    for rows, sum_ in (((1, 2), 0.999890), ((2, 1), 1.168151)):
        x = column(*rows)
        tied = last(half, x) + last(half, x, reverse=True)
        assert float(tied) == pytest.approx(0.929186, abs=6e-7)
        apart = last(half, x) + last(other, x, reverse=True)
        assert float(apart) == pytest.approx(sum_, abs=6e-7)


def test_padding_leaves_the_state_as_it_is() -> None:
    half, mask = one_unit(0.5, 0.5), jnp.array([True, True, False, False])
    x = column(1, 2, 7, 7)
    both = last(half, x, mask) + last(half, x, mask, reverse=True)
    assert float(both) == pytest.approx(0.929186, abs=6e-7)
    # Zeros in its place are seen: 0.929186 becomes 0.727707.
    assert float(last(half, column(1, 2, 0))) == pytest.approx(0.299380, abs=6e-7)


def test_outputs_are_those_of_flax() -> None:
    """Whose cell has a kernel for each gate, in the order i, f, g, o."""
    rng = np.random.default_rng(0)
    n, d, h = 5, 3, 4
    x, kernel, bias = (
        rng.normal(size=(n, d)),
        rng.normal(size=(d + h, 4 * h)),
        rng.normal(size=4 * h),
    )
    gates = dict(zip("ifog", np.split(kernel, 4, axis=1), strict=True))
    biases = dict(zip("ifog", np.split(bias, 4), strict=True))
    params = {f"i{k}": {"kernel": w[:d]} for k, w in gates.items()}
    params |= {f"h{k}": {"kernel": w[d:], "bias": biases[k]} for k, w in gates.items()}
    cell = nn.OptimizedLSTMCell(h, param_dtype=jnp.float64)
    carry, desired = (jnp.zeros(h), jnp.zeros(h)), []
    for row in jnp.asarray(x):
        carry, y = cell.apply({"params": params}, carry, row)
        desired.append(y)
    for reverse in (False, True):
        rows = x[::-1] if reverse else x
        outputs, _ = jax.jit(lstm, static_argnames="reverse")(
            {"kernel": kernel, "bias": bias}, rows, reverse=reverse
        )
        np.testing.assert_allclose(outputs[::-1] if reverse else outputs, desired, atol=1e-12)


def test_a_start_has_orthogonal_rows_for_what_is_fed_back() -> None:
    params = init_lstm(jax.random.key(0), 3, 5)
    assert {k: v.shape for k, v in params.items()} == {"kernel": (8, 20), "bias": (20,)}
    back = params["kernel"][3:]
    np.testing.assert_allclose(back @ back.T, np.eye(5), atol=1e-6)
    assert not np.any(params["bias"])


def test_an_lstm_of_512_has_2_099_200_parameters() -> None:
    params = jax.eval_shape(lambda: init_lstm(jax.random.key(0), 512, 512))
    assert sum(x.size for x in jax.tree.leaves(params)) == 2_099_200


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, (0.7816997422, 0.9816997422)),
        (2, (0.8581184019, 1.0581184019)),
        (3, (0.8913017215, 1.0913017215)),
    ],
)
def test_attention_of_biases_alone(steps: int, expected: Any) -> None:
    rows = jnp.array([[1.0, 0], [0, 1]])
    told = attention_lstm(bias_only(6, 2), jnp.array([[0.6, 0.8]]), rows, steps=steps)
    np.testing.assert_allclose(told[0], expected, rtol=0, atol=1e-9)


def test_attention_passes_over_padding() -> None:
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(6, 8)), "bias": rng.normal(size=8)}
    queries, rows = rng.normal(size=(3, 2)), rng.normal(size=(5, 2))
    mask = np.array([True, False, True, True, False])
    run = jax.jit(attention_lstm)
    np.testing.assert_allclose(run(params, queries, rows, mask), run(params, queries, rows[mask]))
    grad = jax.jit(jax.grad(lambda rows: attention_lstm(params, queries, rows, mask & False).sum()))
    assert np.isfinite(grad(rows)).all()
