"""Weight hashing: a case worked out by hand, and its matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets

pytestmark = pytest.mark.usefixtures("quick_compile", "float64")


def matrix(code: dict[str, jax.Array], inputs: int) -> np.ndarray:
    """[inputs, outputs]: what hashing multiplies by."""
    chosen = np.eye(inputs)[np.asarray(code["index"])]
    return (np.asarray(code["sign"])[:, None] * chosen).T


def test_a_hash_by_hand() -> None:
    code = {"index": jnp.array([1, 0, 2, 1, 0]), "sign": jnp.array([1.0, -1, 1, -1, 1])}
    x = jnp.array([0.5, -2.0, 3.0])
    theta, pull = jax.vjp(lambda x: nets.hashed(code, x), x)
    np.testing.assert_array_equal(theta, [-2, -0.5, 3, 2, 0.5])
    np.testing.assert_array_equal(pull(jnp.arange(1.0, 6))[0], [3, -3, 3])
    assert float(theta @ theta) == 17.5
    rows = [[0, 1, 0], [-1, 0, 0], [0, 0, 1], [0, -1, 0], [1, 0, 0]]
    np.testing.assert_array_equal(matrix(code, 3).T, rows)
    np.testing.assert_array_equal(matrix(code, 3) @ rows, np.diag([2, 2, 1]))


def test_a_drawn_hash_equals_its_matrix() -> None:
    code = nets.init_hash(jax.random.key(0), 1000, 4097)
    x = np.random.default_rng(0).normal(size=(2, 1000))
    np.testing.assert_allclose(nets.hashed(code, x), x @ matrix(code, 1000), rtol=1e-12)
    assert code["index"].dtype == jnp.int32
    assert set(np.unique(code["sign"])) == {-1, 1}


def test_a_draw_is_uniform_with_replacement() -> None:
    """Of 1000 inputs 16.588 are expected to be unused, and copies to be 4.097 +- 2.0231."""
    index = jax.vmap(lambda key: nets.init_hash(key, 1000, 4097)["index"])(
        jax.random.split(jax.random.key(1), 20)
    )
    copies = np.stack([np.bincount(row, minlength=1000) for row in np.asarray(index)])
    unused = (copies == 0).sum(1)
    assert unused.mean() == pytest.approx(16.588, abs=4 * 16.588**0.5 / 20**0.5)
    assert copies.mean() == pytest.approx(4.097)
    assert copies.std() == pytest.approx(4.0929**0.5, rel=0.03)
