"""Factorised layers: by hand, and against the plain layer that they equal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close, random, two_orders
from jax import lax

from metashot import nets

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]

FIRST, WEIGHTS = np.array([[1.0, 0, 2], [0, 1, 0], [1, 1, 0]]), np.array([2.0, -1, 3])
LAST = np.array([[1.0, 0, 1], [0, 2, -1]])


def test_a_factorised_dense_layer_by_hand() -> None:
    """Matrices act on columns in print, on rows here."""
    x, bias = np.array([1.0, 2, 3]), np.array([0.5, -0.5])
    y = nets.factorised_dense(x, FIRST.T, WEIGHTS, LAST.T) + bias
    assert y.tolist() == [23.5, -13.5]
    assert nets.assembled(FIRST.T, WEIGHTS, LAST.T).T.tolist() == [[5, 3, 4], [-3, -5, 0]]


def test_a_factorised_convolution_by_hand() -> None:
    """Two channels of 2x2: inner responses -3 and 5, so 2 * -3 + 3 * 5."""
    x = np.stack([[[1.0, 2], [3, 4]], [[1, 0], [0, 1]]], -1)[None]
    first, last = np.array([[1.0, 1], [0, 2]]), np.array([[2.0], [3]])
    kernel = np.stack([[[1.0, 0], [0, -1]], [[0, 1], [1, 0]]], -1)
    args = (first, kernel, last)
    assert jax.jit(lambda x: nets.factorised_conv(x, *args, padding="VALID"))(
        x
    ).ravel().tolist() == [9]
    dense = nets.assembled(*args)[..., 0]
    assert dense[..., 0].tolist() == [[2, 3], [3, -2]]
    assert dense[..., 1].tolist() == [[0, 6], [6, 0]]


def plain(x: Any, first: Any, kernel: Any, last: Any) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        nets.assembled(first, kernel, last),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def factors(width: int, inputs: int = 3, outputs: int = 2, window: int = 3) -> list[np.ndarray]:
    return [random(1, inputs, width), random(2, window, window, width), random(3, width, outputs)]


def test_a_factorised_convolution_is_one_with_the_product_of_its_kernels() -> None:
    ours = lambda *a: nets.factorised_conv(*a, padding="VALID")
    args = (random(0, 2, 6, 5, 3), *factors(4))
    assert_close(two_orders(ours, *args), two_orders(plain, *args), rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("width", [64, 16])
def test_at_the_papers_shapes(width: int) -> None:
    x = random(0, 1, 12, 12, 16)
    args = factors(width, 16, 64, 5)
    y = jax.jit(lambda x, *a: nets.factorised_conv(x, *a, padding="VALID"))(x, *args)
    assert y.shape == (1, 8, 8, 64)
    desired = jax.jit(plain)(x, *args)
    assert_close(y, desired, rtol=0, atol=1e-10 * np.abs(desired).max())


def test_each_exemplar_has_a_layer_of_its_own() -> None:
    """Under `vmap`, pictures shared or not, with gradients of what is predicted and what is not."""
    first, kernel, last = factors(4)
    kernels = random(4, 3, *kernel.shape)
    for x, axis in ((random(0, 2, 6, 5, 3), None), (random(0, 3, 2, 6, 5, 3), 0)):

        def each(x: Any, first: Any, kernels: Any, last: Any, axis: Any = axis) -> jax.Array:
            one = lambda x, kernel: nets.factorised_conv(x, first, kernel, last, padding="VALID")
            return jax.vmap(one, (axis, 0))(x, kernels)

        def loop(x: Any, first: Any, kernels: Any, last: Any, axis: Any = axis) -> jax.Array:
            own = lambda i: x if axis is None else x[i]
            return jnp.stack([plain(own(i), first, kernels[i], last) for i in range(3)])

        def all_of(f: Any, *args: Any) -> Any:
            y, pull = jax.vjp(f, *args)
            return y, pull(jnp.cos(y))

        args = (x, first, kernels, last)
        ours, desired = jax.jit(lambda *args: (all_of(each, *args), all_of(loop, *args)))(*args)
        assert_close(ours, desired, rtol=1e-9, atol=1e-8)


def test_inner_channels_may_be_scaled_and_change_places() -> None:
    """So first, kernel and last of two trainings can't be compared, only what they do."""
    x, (first, kernel, last) = random(0, 2, 6, 5, 3), factors(4)
    scale, order = np.array([2.0, -0.5, 3, 0.1]), np.array([2, 0, 3, 1])
    same = (first * scale)[:, order], (kernel / scale)[..., order], last[order]
    run = jax.jit(lambda *a: nets.factorised_conv(x, *a, padding="VALID"))
    assert_close(run(*same), run(first, kernel, last), rtol=0, atol=1e-10)


def test_what_must_be_predicted_grows_with_the_width_not_with_its_square() -> None:
    """Linear learnets of 100 numbers for a layer of 100 by 100."""
    d = k = m = 100
    size = lambda *shapes: sum(np.prod(shape) for shape in shapes)
    weights = np.ones(d)
    dense = nets.assembled(np.eye(d), weights, np.eye(d, k))
    assert size((m, dense.size)) == 1_000_000
    assert size((m, weights.size), (d, d), (k, d)) == 30_000
