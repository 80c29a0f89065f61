"""Layers against their plain `lax` definitions: values, gradients, gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from metashot import nets
from metashot.nets import layers

pytestmark = pytest.mark.usefixtures("quick_compile")

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def random(seed: int, *shape: int, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def assert_close(actual: Any, desired: Any, **tolerance: float) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **(tolerance or CLOSE)), actual, desired
    )


def plain_conv(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int] = (1, 1), padding: str = "SAME"
) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def two_orders(f: Callable[..., jax.Array], *args: np.ndarray) -> Any:
    """f, its gradients, and the gradients of these; each for a cotangent drawn at random."""

    def first(args: Any, cotangent: Any) -> Any:
        return jax.vjp(f, *args)[1](cotangent)

    def everything(args: Any, cotangent: Any, of_first: Any) -> Any:
        return f(*args), first(args, cotangent), jax.vjp(first, args, cotangent)[1](of_first)

    cotangent = random(8, *jax.eval_shape(f, *args).shape)
    of_first = tuple(random(9 + i, *x.shape) for i, x in enumerate(args))
    return jax.jit(everything)(args, cotangent, of_first)


@pytest.mark.parametrize(
    ("size", "window", "channels"),
    [
        ((5, 6), (3, 3), 3),
        ((5, 7), (3, 3), 1),
        ((5, 4), (1, 1), 2),
        ((7, 2), (5, 5), 2),
        ((4, 5), (3, 1), 2),
    ],
)
def test_conv_equals_lax_to_the_second_gradient(
    float64: None, size: tuple[int, int], window: tuple[int, int], channels: int
) -> None:
    x, kernel = random(0, 3, *size, channels), random(1, *window, channels, 4)
    assert_close(two_orders(nets.conv, x, kernel), two_orders(plain_conv, x, kernel))


@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [
        ((2, 2), (1, 1), "SAME"),
        ((3, 3), (1, 1), "VALID"),
        ((3, 3), (2, 2), "SAME"),
        ((5, 3), (2, 1), "VALID"),
    ],
)
def test_conv_of_other_kinds_equals_lax(
    float64: None, window: tuple[int, int], strides: tuple[int, int], padding: str
) -> None:
    x, kernel = random(0, 2, 7, 6, 2), random(1, *window, 2, 3)

    def value_and_grads(conv: Callable[..., jax.Array], *options: Any, **keywords: Any) -> Any:
        total = lambda *a: jnp.sin(conv(*a, *options, **keywords)).sum()
        return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(x, kernel)

    ours = value_and_grads(nets.conv, strides=strides, padding=padding)
    assert_close(ours, value_and_grads(plain_conv, strides, padding))


@pytest.mark.parametrize(
    ("axes", "size"),
    [((0, None), 3), ((None, 0), 3), ((1, 3), 3), ((0, None), 1), ((None, 0), 1), ((0, 0), 1)],
)
def test_conv_under_vmap_equals_lax_under_vmap(
    float64: None, axes: tuple[int | None, int | None], size: int
) -> None:
    x, kernel = random(0, 2, 5, 4, 2), random(1, 3, 3, 2, 3)
    x = x if axes[0] is None else np.stack([x * (i + 1) for i in range(size)], axes[0])
    kernel = kernel if axes[1] is None else np.stack([kernel - i for i in range(size)], axes[1])
    ours = two_orders(jax.vmap(nets.conv, axes), x, kernel)
    assert_close(ours, two_orders(jax.vmap(plain_conv, axes), x, kernel))


def test_conv_under_two_vmaps_equals_lax(float64: None) -> None:
    """Own weights per episode, and within an episode the same weights for two sets of images."""
    x, kernel = random(0, 2, 3, 2, 4, 4, 2), random(1, 2, 3, 3, 2, 3)
    twice = lambda conv: jax.vmap(jax.vmap(conv, (0, None)))
    assert_close(two_orders(twice(nets.conv), x, kernel), two_orders(twice(plain_conv), x, kernel))


def test_gradients_taken_per_episode_equal_lax(float64: None) -> None:
    """`vmap` of `grad`, as in an inner loop, with weights that become the episode's own."""
    x, kernel = random(0, 3, 2, 5, 4, 2), random(1, 3, 3, 2, 3)

    def adapted(conv: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> jax.Array:
        loss = lambda kernel: jnp.sin(conv(x, kernel)).sum()
        step = lambda kernel, _: (kernel - 0.1 * jax.grad(loss)(kernel), None)
        return lax.scan(step, kernel, length=3)[0]

    def meta(conv: Callable[..., jax.Array]) -> Any:
        total = lambda kernel: jax.vmap(lambda x: adapted(conv, x, kernel))(x).sum()
        return jax.jit(jax.value_and_grad(total))(kernel)

    assert_close(meta(nets.conv), meta(plain_conv))


@pytest.mark.parametrize(("images", "channels"), [(6, 2), (7, 2), (6, 1)])
def test_kernel_gradient_in_chunks_equals_lax(
    float64: None, monkeypatch: pytest.MonkeyPatch, images: int, channels: int
) -> None:
    """6 images go in chunks of 3; 7 one by one, as no chunk of 2 to 3 divides them."""
    monkeypatch.setattr(layers, "_CHUNK_BYTES", 3.5 * 9 * channels * 20 * 8)
    x, kernel = random(0, images, 5, 4, channels), random(1, 3, 3, channels, 3)
    assert_close(two_orders(nets.conv, x, kernel), two_orders(plain_conv, x, kernel))


def test_many_images_go_in_chunks() -> None:
    """The size at which a real batch is cut, at the default bound, on a CPU."""
    x, kernel = (
        random(0, 64, 14, 14, 32, dtype=np.float32),
        random(1, 3, 3, 32, 8, dtype=np.float32),
    )

    def kernel_grad(conv: Callable[..., jax.Array]) -> Any:
        return jax.jit(jax.grad(lambda kernel: (conv(x, kernel) ** 2).sum()))

    assert_close(
        kernel_grad(nets.conv)(kernel), kernel_grad(plain_conv)(kernel), rtol=1e-3, atol=0.5
    )
    few = jax.jit(jax.grad(lambda kernel: (nets.conv(x[:2], kernel) ** 2).sum()))
    if jax.default_backend() == "cpu":
        assert "while" in kernel_grad(nets.conv).lower(kernel).compile().as_text()
        assert "while" not in few.lower(kernel).compile().as_text()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layers_keep_the_dtype_of_their_inputs(dtype: Any) -> None:
    x, kernel = jnp.ones((2, 4, 4, 2), dtype), jnp.ones((3, 3, 2, 3), dtype)

    def shapes(x: jax.Array, kernel: jax.Array) -> Any:
        y = nets.conv(x, kernel)
        vector = jnp.ones(3, dtype)
        mask = jnp.ones(2, bool)
        return (
            y,
            jax.grad(lambda k: nets.conv(x, k).sum())(kernel),
            nets.norm_relu_pool(y, vector, vector, mask=mask),
        )

    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(shapes, x, kernel))} == {
        jnp.dtype(dtype)
    }


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


def test_dense_is_an_affine_map() -> None:
    params = {"kernel": np.array([[1.0, 2.0], [3.0, 4.0]]), "bias": np.array([0.5, -0.5])}
    assert nets.dense(params, np.array([[1.0, 1.0]])).tolist() == [[4.5, 5.5]]
