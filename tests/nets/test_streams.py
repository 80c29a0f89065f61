"""Streams: the paper's shapes and counts, and what is refused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets
from metashot.nets import CHARACTERS, Layer

pytestmark = pytest.mark.usefixtures("quick_compile")

PICTURES = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
SMALL = (Layer("conv1", 3, window=3, pool=True), Layer("out", 4, relu=False))


def params_of(x: Any = PICTURES, layers: Any = CHARACTERS, **options: Any) -> Any:
    make = lambda key, x: nets.init_stream(key, layers, x, **options)
    return jax.eval_shape(make, jax.random.key(0), x)


def count(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def test_the_papers_shapes_and_counts() -> None:
    params = params_of()
    assert [count(params[layer.name]) for layer in CHARACTERS] == [416, 25_664, 524_800]
    assert count(params) == 550_880
    seen = [
        jax.eval_shape(lambda p, x, n=n: nets.apply_stream(CHARACTERS[:n], p, x), params, PICTURES)
        for n in (1, 2, 3)
    ]
    assert [x.shape[1:] for x in seen] == [(12, 12, 16), (4, 4, 64), (512,)]
    unpooled = [layer._replace(pool=False) for layer in CHARACTERS]
    first = jax.eval_shape(lambda p, x: nets.apply_stream(unpooled[:1], p, x), params, PICTURES)
    assert first.shape == (2, 24, 24, 16)
    second = (CHARACTERS[0], unpooled[1])
    found = jax.eval_shape(lambda p, x: nets.apply_stream(second, p, x), params, PICTURES)
    assert found.shape == (2, 8, 8, 64)


@pytest.mark.parametrize(("width", "layer", "whole"), [(None, 6784, 532_000), (16, 1744, 526_960)])
def test_counts_with_a_factorised_layer(width: int | None, layer: int, whole: int) -> None:
    params = params_of(factorised=["conv2"], inner_width=width)
    assert (count(params["conv2"]), count(params)) == (layer, whole)


def test_a_factorised_linear_layer_equals_the_plain_one(float64: None) -> None:
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 1))
    make = lambda key: nets.init_stream(key, SMALL, x, factorised=["conv1", "out"])
    params = jax.jit(make)(jax.random.key(0))
    plain = {
        name: {
            "kernel": nets.assembled(own["first"], own["kernel"], own["last"]),
            "bias": own["bias"],
        }
        for name, own in params.items()
    }
    assert params["out"]["kernel"].shape == (4,)
    run = jax.jit(lambda params: nets.apply_stream(SMALL, params, x))
    np.testing.assert_allclose(run(params), run(plain), rtol=0, atol=1e-12)


def test_relu_and_pooling_may_change_places(float64: None) -> None:
    """Here pooling comes first, also before the bias."""
    x = np.random.default_rng(1).normal(size=(3, 8, 8, 2))
    layer = Layer("conv", 5, window=3, pool=True)
    own = nets.init_stream(jax.random.key(0), [layer], x)["conv"]
    own["bias"] = jnp.linspace(-2, 1, 5)

    @jax.jit
    def both(x: Any) -> Any:
        y = jax.nn.relu(nets.conv(x, own["kernel"], padding="VALID") + own["bias"])
        return nets.apply_layer(layer, own, x), nets.max_pool(y)

    np.testing.assert_array_equal(*both(x))


def test_weights_start_as_asked() -> None:
    @jax.jit
    def starts(key: jax.Array) -> Any:
        small = Layer("small", 64, window=5), Layer("out", 64)
        return (
            nets.init_stream(key, small, jnp.zeros((1, 12, 12, 16)), factorised=["small"])["small"],
            nets.init_stream(key, small, jnp.zeros((1, 6, 6, 16)), std=0.05)["out"],
        )

    factors, out = starts(jax.random.key(0))
    fans = {"first": 16, "kernel": 25, "last": 64}
    for name, fan in fans.items():
        assert float(factors[name].std()) == pytest.approx((2 / fan) ** 0.5, rel=0.1)
    assert not np.any(factors["bias"])
    assert float(out["kernel"].std()) == pytest.approx(0.05, rel=0.05)


def test_other_pictures_than_it_was_made_for_are_refused() -> None:
    params = params_of()
    for shape, said in (
        ((2, 32, 32, 1), "layer conv3 was made for 1024 numbers, and gets 1600: give pictures of"),
        ((2, 28, 28, 3), "layer conv1 was made for 1 channels, and gets 3: give pictures of the"),
    ):
        with pytest.raises(ValueError, match=said):
            jax.eval_shape(lambda p, x: nets.apply_stream(CHARACTERS, p, x), params, np.ones(shape))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"factorised": ["conv4"]}, "factorised names 'conv4'; the layers are conv1, conv2, conv3"),
        ({"factorised": ["conv2"], "inner_width": 0}, "inner_width is 0; it is at least 1"),
        ({"x": jnp.zeros((1, 15, 15, 1))}, "5 x 5 pixels are left for layer conv2, whose filters"),
    ],
)
def test_streams_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        params_of(**options)
