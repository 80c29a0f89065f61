"""Convolutions against `lax`: values, gradients, gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close, random, two_orders
from jax import lax

from metashot import nets
from metashot.nets import convolutions

pytestmark = pytest.mark.usefixtures("quick_compile")


def plain_conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int] = (1, 1),
    padding: Any = "SAME",
    groups: int = 1,
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision="highest",
    )


def plain_depthwise(x: jax.Array, kernel: jax.Array, *options: Any) -> jax.Array:
    return plain_conv(x, kernel[:, :, None], *options, groups=x.shape[-1])


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


@pytest.mark.parametrize("kind", ["conv", "depthwise"])
@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [
        ((2, 2), (1, 1), "SAME"),
        ((3, 3), (1, 1), "VALID"),
        ((3, 3), (2, 2), "SAME"),
        ((5, 3), (2, 1), "VALID"),
        ((1, 1), (2, 2), "VALID"),
        ((3, 2), (2, 3), ((0, 3), (2, -1))),
    ],
)
def test_other_windows_strides_and_pads_equal_lax_to_the_second_gradient(
    float64: None,
    kind: str,
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: Any,
) -> None:
    """Sizes that the strides do not divide, and a picture of which a part is cut off."""
    x = random(0, 2, 7, 6, 3)
    ours, plain = {
        "conv": (nets.conv, plain_conv),
        "depthwise": (nets.depthwise, plain_depthwise),
    }[kind]
    kernel = random(1, *window, 3, 2) if kind == "conv" else random(1, *window, 3)
    assert_close(
        two_orders(lambda *a: ours(*a, strides=strides, padding=padding), x, kernel),
        two_orders(lambda *a: plain(*a, strides, padding), x, kernel),
    )


@pytest.mark.parametrize("strides", [(1, 1), (1, 2)])
def test_depthwise_on_larger_pictures_equals_lax_to_the_second_gradient(
    float64: None, strides: tuple[int, int]
) -> None:
    """Of these the kernel's gradient is made column by column."""
    x, kernel = random(0, 2, 12, 11, 2), random(1, 3, 2, 2)
    assert_close(
        two_orders(lambda *a: nets.depthwise(*a, strides=strides), x, kernel),
        two_orders(lambda *a: plain_depthwise(*a, strides), x, kernel),
    )


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_depthwise_under_vmap_equals_lax_under_vmap(
    float64: None, axes: tuple[int | None, int | None]
) -> None:
    x, kernel = random(0, 3, 2, 5, 4, 2), random(1, 3, 3, 3, 2)
    x, kernel = (a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True))
    ours = two_orders(jax.vmap(nets.depthwise, axes), x, kernel)
    assert_close(ours, two_orders(jax.vmap(plain_depthwise, axes), x, kernel))


@pytest.mark.parametrize("loop", ["scan", "map"])
@pytest.mark.parametrize("kind", ["conv", "depthwise"])
def test_gradients_inside_a_loop_equal_lax_outside(float64: None, kind: str, loop: str) -> None:
    ours, plain = {
        "conv": (nets.conv, plain_conv),
        "depthwise": (nets.depthwise, plain_depthwise),
    }[kind]
    x, kernel = random(0, 3, 2, 5, 4, 2), random(1, 3, 3, 3, 2, 2)
    kernel = kernel if kind == "conv" else kernel[..., 0]

    def looped(x: jax.Array, kernel: jax.Array) -> jax.Array:
        if loop == "map":
            return lax.map(lambda a: ours(*a), (x, kernel))
        return lax.scan(lambda carry, a: (carry, ours(*a)), 0, (x, kernel))[1]

    outside = lambda x, kernel: jnp.stack([plain(x[i], kernel[i]) for i in range(3)])
    assert_close(two_orders(looped, x, kernel), two_orders(outside, x, kernel))


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (np.ones(9), [[12, 21, 16], [27, 45, 33], [24, 39, 28]]),
        (np.arange(1, 10), [[94, 154, 106], [186, 285, 186], [106, 154, 94]]),
    ],
)
def test_a_filter_is_not_flipped(filter: np.ndarray, expected: list[list[int]]) -> None:
    picture = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
    y = jax.jit(nets.depthwise)(picture, filter.astype(np.float32).reshape(3, 3, 1))
    assert y[0, :, :, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["conv", "depthwise", "grey"])
@pytest.mark.parametrize(("dtype", "close"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2**-6)])
def test_lower_precisions_are_as_close_as_their_digits(kind: str, dtype: Any, close: float) -> None:
    """Against double precision, relative to the largest entry; gradients of both arguments."""
    channels = 1 if kind == "grey" else 8
    x = random(0, 4, 9, 8, channels)
    kernel = random(1, 3, 3, channels) if kind == "depthwise" else random(1, 3, 3, channels, 8)
    ours, plain = (
        (nets.depthwise, plain_depthwise) if kind == "depthwise" else (nets.conv, plain_conv)
    )
    dy = random(2, 4, 9, 8, 8 if kind != "depthwise" else channels)

    def everything(f: Any, *a: Any) -> Any:
        y, pull = jax.vjp(f, *a[:2])
        return (y, *pull(a[2]))

    low = [jnp.asarray(a, dtype) for a in (x, kernel, dy)]
    with jax.default_matmul_precision("highest"):
        got = jax.jit(lambda *a: everything(ours, *a))(*low)
    exact = [np.asarray(a).astype(np.float64) for a in low]
    with jax.enable_x64(True):
        wanted = jax.jit(lambda *a: everything(plain, *a))(*exact)
    for a, b in zip(got, map(np.asarray, wanted), strict=True):
        assert a.dtype == dtype
        assert np.abs(np.asarray(a).astype(np.float64) - b).max() <= close * np.abs(b).max()


def test_arguments_of_other_kinds_go_to_lax(float64: None) -> None:
    """Dilated, grouped, channels-first and one-dimensional convolutions, as a module asks them."""
    x, kernel = random(0, 2, 7, 6, 4), random(1, 3, 3, 4, 4)
    last = ("NHWC", "HWIO", "NHWC")
    cases = [
        (x, kernel, {"dimension_numbers": last}),
        (x, kernel, {"dimension_numbers": last, "rhs_dilation": (2, 1)}),
        (x, kernel, {"dimension_numbers": last, "lhs_dilation": (1, 2)}),
        (x, kernel[:, :, :2], {"dimension_numbers": last, "feature_group_count": 2}),
        (x, kernel[:, :, :1], {"dimension_numbers": last, "feature_group_count": 4}),
        (x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), {}),
        (x[0], kernel[0], {"dimension_numbers": ("NHC", "HIO", "NHC")}),
    ]
    for lhs, rhs, options in cases:
        strides = (2,) * (lhs.ndim - 2)
        pads = ((0, 0), (1, 1))[: lhs.ndim - 2]
        run = lambda f, *a: jax.jit(lambda *a: f(*a, strides, pads, **options))(*a)  # noqa: B023
        assert_close(
            run(nets.conv_general_dilated, lhs, rhs), run(lax.conv_general_dilated, lhs, rhs)
        )


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_layers_lower_for_other_platforms(platform: str) -> None:
    """Forward and gradients, shared weights and own weights, on a machine without the device."""
    x, kernel = jnp.ones((3, 2, 5, 4, 2)), jnp.ones((3, 3, 3, 2, 2))

    def total(x: Any, kernel: Any) -> jax.Array:
        own = jax.vmap(nets.conv)(x, kernel)
        shared = jax.vmap(lambda x: nets.conv(x, kernel[0], strides=(2, 2)))(x)
        channels = jax.vmap(nets.depthwise)(x, kernel[..., 0])
        return own.sum() + shared.sum() + channels.sum()

    lowered = jax.export.export(jax.jit(jax.grad(total, (0, 1))), platforms=[platform])(x, kernel)
    assert lowered.platforms == (platform,)
    # What no device of this machine was measured for stays XLA's own convolution.
    assert "stablehlo.convolution" in lowered.mlir_module()


@pytest.mark.parametrize(
    ("axes", "size"),
    [
        ((0, None), 3),
        ((None, 0), 3),
        ((1, 3), 3),
        ((0, 0), 9),  # on a CPU a loop; in a row up to eight
        ((0, None), 1),
        ((None, 0), 1),
        ((0, 0), 1),
    ],
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
    monkeypatch.setattr(convolutions, "_CHUNK_BYTES", 3.5 * 9 * channels * 20 * 8)
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
