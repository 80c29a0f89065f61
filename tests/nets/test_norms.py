"""Batch norm and pooling against their plain definitions, to the second gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close, random, two_orders
from jax import lax

from metashot import nets

pytestmark = pytest.mark.usefixtures("quick_compile")

# Batch norm, ReLU, pooling


def plain_block(
    x: jax.Array,
    scale: jax.Array,
    shift: jax.Array,
    mask: np.ndarray | None = None,
    statistics: Any = None,
) -> jax.Array:
    """Two passes for the statistics, a division, `reduce_window`."""
    if statistics is None:
        rows = np.ones(len(x), bool) if mask is None else mask
        mean, var = x[rows].mean((0, 1, 2)), x[rows].var((0, 1, 2))
    else:
        mean, var = statistics
    y = (x - mean) / jnp.sqrt(var + 1e-3) * scale + shift
    window = (1, 2, 2, 1)
    return jax.nn.relu(lax.reduce_window(y, -jnp.inf, lax.max, window, window, "VALID"))


STATISTICS = (np.array([0.5, -1.0, 0.0]), np.array([2.0, 0.5, 1.0]))


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((4, 6), {}),
        ((5, 7), {"mask": np.array([True, False, True, True])}),
        ((2, 3), {"statistics": STATISTICS}),
    ],
    ids=["batch", "masked and odd", "statistics given"],
)
def test_norm_relu_pool_equals_its_plain_definition(
    float64: None, size: tuple[int, int], options: dict[str, Any]
) -> None:
    """Scales of either sign; an odd last row and column count in the statistics alone."""
    x, scale, shift = random(0, 4, *size, 3), np.array([1.5, -0.7, 0.2]), np.array([0.1, 0.3, -0.1])
    ours = two_orders(lambda *a: nets.norm_relu_pool(*a, **options)[0], x, scale, shift)
    plain = two_orders(lambda *a: plain_block(*a, **options), x, scale, shift)
    assert_close(ours, plain)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (2, 3)])
def test_max_pool_equals_reduce_window(float64: None, size: tuple[int, int]) -> None:
    """Among equals too: a third of the entries are zero, as behind a ReLU."""
    x = np.maximum(random(0, 3, *size, 2), 0)
    window = (1, 2, 2, 1)
    plain = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    assert_close(two_orders(nets.max_pool, x), two_orders(plain, x))


@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 3), (3, 4, 5, 3)])
def test_batch_norm_equals_flax(float64: None, shape: tuple[int, ...]) -> None:
    x, scale, shift = random(0, *shape), np.array([1.5, -0.7, 0.2]), np.array([0.1, 0.3, -0.1])

    def plain(x: Any, scale: Any, shift: Any) -> jax.Array:
        variables = {
            "params": {"scale": scale, "bias": shift},
            "batch_stats": {"mean": np.zeros(3), "var": np.ones(3)},
        }
        norm = nn.BatchNorm(use_running_average=False, epsilon=1e-3)
        return norm.apply(variables, x, mutable=["batch_stats"])[0]

    ours = lambda *a: nets.batch_norm(*a)[0]
    assert_close(two_orders(ours, x, scale, shift), two_orders(plain, x, scale, shift))


def test_batch_norm_by_given_statistics_without_scale_and_shift(float64: None) -> None:
    x = random(0, 4, 3)
    y, stats = jax.jit(lambda x: nets.batch_norm(x, statistics=STATISTICS, eps=0.5))(x)
    assert stats is None
    assert_close(y, (x - STATISTICS[0]) / np.sqrt(STATISTICS[1] + 0.5))


def test_statistics_of_bfloat16_pictures_are_float32() -> None:
    """256 + i has no bfloat16 for odd i, a sum of thousands of ones none either."""
    x = jnp.ones((64, 8, 8, 3), jnp.bfloat16)
    vector, mask = jnp.ones(3), jnp.ones(64, bool)
    y, stats = jax.jit(lambda x: nets.norm_relu_pool(x, vector, vector, mask=mask))(x)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in stats} == {jnp.dtype("float32")}
    assert stats.mean.tolist() == [1, 1, 1]
    assert stats.count == 4096
    grad = jax.grad(lambda x: nets.norm_relu_pool(x, vector, vector)[0].sum().astype("float32"))
    assert jax.eval_shape(grad, x).dtype == jnp.bfloat16


def test_norm_relu_pool_at_a_scale_of_zero(float64: None) -> None:
    """All four inputs of a pool tie: the gradient goes to the first, as in `reduce_window`."""
    x, scale, shift = random(0, 3, 4, 4, 3), np.zeros(3), np.array([0.5, -0.5, 1.0])

    def first_order(f: Callable[..., jax.Array]) -> Any:
        grad = jax.grad(lambda *a: jnp.sin(f(*a)).sum(), argnums=(0, 1, 2))
        return jax.jit(lambda *a: (f(*a), grad(*a)))(x, scale, shift)

    ours = first_order(lambda *a: nets.norm_relu_pool(*a)[0])
    assert_close(ours, first_order(plain_block))
    by_scale = ours[1][1]
    assert by_scale[0] != 0
    assert by_scale[1] == 0  # behind the ReLU


def test_norm_relu_pool_under_vmap_equals_a_loop(float64: None) -> None:
    x, scale, shift = random(0, 2, 3, 4, 4, 3), random(1, 2, 3), random(2, 2, 3)
    mask = np.array([[True, True, False], [True, True, True]])
    block = lambda *a: nets.norm_relu_pool(*a[:3], mask=a[3])[0]
    together = jax.jit(jax.vmap(block))(x, scale, shift, mask)
    one = jax.jit(block)
    assert_close(together, np.stack([one(*a) for a in zip(x, scale, shift, mask, strict=True)]))


def test_norm_relu_pool_of_constant_images_has_finite_gradients() -> None:
    """Variance zero, also for a batch of which nothing counts."""

    def total(x: jax.Array, mask: jax.Array) -> jax.Array:
        return nets.norm_relu_pool(x, jnp.ones(2), jnp.ones(2), mask=mask)[0].sum()

    second = jax.jit(jax.grad(lambda x, mask: (jax.grad(total)(x, mask) ** 2).sum()))
    for x in (jnp.zeros((2, 4, 4, 2)), jnp.full((2, 4, 4, 2), 0.3)):
        for mask in (jnp.array([True, False]), jnp.zeros(2, bool)):
            assert np.isfinite(second(x, mask)).all()


def test_masked_rows_take_no_part_in_the_statistics(float64: None) -> None:
    x = random(0, 4, 3, 2, 5)
    mask = np.array([True, False, True, False])
    padded = np.where(mask[:, None, None, None], x, 1e3)
    mean, var, count = jax.jit(nets.moments)(padded, mask)
    assert_close((mean, var), (x[mask].mean((0, 1, 2)), x[mask].var((0, 1, 2))))
    assert count == 2 * 3 * 2
    _, stats = jax.jit(lambda *a: nets.norm_relu_pool(*a[:3], mask=a[3]))(
        padded, np.ones(5), np.zeros(5), mask
    )
    assert_close(tuple(stats), (mean, var, count))


def test_moments_of_all_rows_are_numpys_biased_ones(float64: None) -> None:
    x = random(0, 6, 5)
    assert_close(tuple(jax.jit(nets.moments)(x)), (x.mean(0), x.var(0), 6.0))


def test_moments_of_nothing_are_zero_and_finite() -> None:
    mean, var, count = jax.jit(nets.moments)(jnp.ones((2, 3)), jnp.zeros(2, bool))
    assert not mean.any()
    assert not var.any()
    assert count == 1


def test_no_gradient_flows_through_the_statistics_handed_out() -> None:
    def handed_out(x: jax.Array) -> jax.Array:
        stats = nets.norm_relu_pool(x, jnp.ones(2), jnp.zeros(2))[1]
        return stats.mean.sum() + stats.var.sum()

    grad = jax.jit(jax.grad(handed_out))(jnp.asarray(random(0, 2, 4, 4, 2, dtype=np.float32)))
    assert not np.asarray(grad).any()


# Running statistics: numbers worked out by hand


def weights_of_steps(new_weight: float, steps: int) -> list[float]:
    """What each step's batch mean weighs in the running mean in the end; the start value last."""
    unit = np.eye(steps + 1)
    value = {"mean": unit[steps], "var": unit[steps]}
    for t in range(steps):
        value = nets.running(value, {"mean": unit[t], "var": unit[t], "count": 10.0}, new_weight)
    return value["mean"].tolist()


@pytest.mark.parametrize(
    ("new_weight", "steps", "last", "start"),
    [
        (0.9, 3, [0.009, 0.09, 0.9], 0.001),
        (0.95, 2, [0.0475, 0.95], 0.0025),
        (0.95, 8, [0.002375, 0.0475, 0.95], 3.90625e-11),
        (0.9, 12, [], 1e-12),
        (0.1, 3, [0.081, 0.09, 0.1], 0.729),
    ],
)
def test_running_weights(new_weight: float, steps: int, last: list[float], start: float) -> None:
    weights = weights_of_steps(new_weight, steps)
    assert weights[steps - len(last) : steps] == pytest.approx(last, abs=1e-12)
    assert weights[-1] == pytest.approx(start, rel=1e-6)
    assert sum(weights) == pytest.approx(1)


def pixels(*values: float) -> np.ndarray:
    """One 2x2 picture of one channel per value: the pool has nothing to choose."""
    return np.broadcast_to(np.array(values)[:, None, None, None], (len(values), 2, 2, 1))


def test_batch_norm_numbers(float64: None) -> None:
    """Batch (1, 3), then (2, 6), new weight 0.9; unbiased variances are stored."""
    # A count of 2, as if there were one pixel an image: that is where n / (n - 1) is 2.
    start = {"mean": jnp.zeros(1), "var": jnp.ones(1)}

    def stats(*values: float) -> Any:
        return nets.moments(jnp.asarray(values)[:, None])._asdict()

    def evaluated(value: float, state: Any) -> float:
        statistics = (state["mean"], state["var"])
        # ReLU would hide a negative value: a shift of 5 keeps all of it.
        y, _ = nets.norm_relu_pool(pixels(value), np.ones(1), 5 * np.ones(1), statistics=statistics)
        return float(y[0, 0, 0, 0]) - 5

    trained, _ = nets.norm_relu_pool(pixels(1.0, 3.0), np.ones(1), 5 * np.ones(1))
    assert (trained.ravel() - 5).tolist() == pytest.approx([-0.9995003747, 0.9995003747], abs=1e-9)

    first = nets.running(start, stats(1.0, 3.0), 0.9)
    assert (float(first["mean"][0]), float(first["var"][0])) == pytest.approx((1.8, 1.9))
    assert evaluated(2.0, first) == pytest.approx(0.1450571, abs=1e-7)

    second = nets.running(first, stats(2.0, 6.0), 0.9)
    assert (float(second["mean"][0]), float(second["var"][0])) == pytest.approx((3.78, 7.39))
    assert evaluated(4.0, second) == pytest.approx(0.0809228, abs=1e-7)

    biased = nets.running(start, stats(1.0, 3.0), 0.9, unbiased=False)
    assert float(biased["var"][0]) == pytest.approx(0.1 + 0.9 * 1)
    biased = nets.running(biased, stats(2.0, 6.0), 0.9, unbiased=False)
    assert float(biased["var"][0]) == pytest.approx(3.70)


def test_running_follows_the_tree_of_a_network_and_leaves_an_empty_one_empty() -> None:
    one = {"mean": np.zeros(2), "var": np.ones(2)}
    batch = {"mean": np.ones(2), "var": np.full(2, 3.0), "count": 4.0}
    moved = nets.running({"a": one, "b": {"c": one}}, {"a": batch, "b": {"c": batch}}, 0.25)
    for leaf in (moved["a"], moved["b"]["c"]):
        assert leaf["mean"].tolist() == [0.25, 0.25]
        assert leaf["var"].tolist() == pytest.approx([0.75 + 0.25 * 4] * 2)
        assert set(leaf) == {"mean", "var"}
    assert nets.running({}, {}) == {}


def test_a_batch_of_one_pixel_keeps_a_finite_variance() -> None:
    one = {"mean": np.zeros(1), "var": np.ones(1)}
    moved = nets.running(one, {"mean": np.ones(1), "var": np.zeros(1), "count": 1.0})
    assert moved["var"].tolist() == pytest.approx([0.9])
