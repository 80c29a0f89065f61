"""Small layers: numbers worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets


def test_dense_is_an_affine_map() -> None:
    params = {"kernel": np.array([[1.0, 2.0], [3.0, 4.0]]), "bias": np.array([0.5, -0.5])}
    assert nets.dense(params, np.array([[1.0, 1.0]])).tolist() == [[4.5, 5.5]]


def test_a_unit_vector_has_length_one_and_zero_a_finite_gradient() -> None:
    assert nets.unit(jnp.array([3.0, 4.0])).tolist() == pytest.approx([0.6, 0.8])
    grad = jax.grad(lambda x: nets.unit(x).sum())(jnp.zeros(2))
    assert np.isfinite(grad).all()
