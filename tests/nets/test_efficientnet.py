"""EfficientNet-Lite0: its published sizes, and a small one against plain `lax`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close
from jax import lax

from metashot import nets
from metashot.base import Network
from metashot.nets.efficientnet import EfficientNetLite, Group

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = (Group(1, 3, 1, 1, 6), Group(1, 5, 2, 3, 5), Group(1, 3, 1, 2, 5))
EVERY = (2, 4, 8, 16, 32, "head")


def small(endpoints: tuple[int | str, ...] = (), dtype: Any = None) -> Network:
    return nets.from_flax(EfficientNetLite(SMALL, 4, 9, endpoints, dtype))


def started(network: Network) -> Any:
    """Shapes of a network's variables."""
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), x)


@pytest.fixture(scope="module")
def whole() -> Any:
    return started(nets.efficientnet_lite0())


def test_it_has_the_published_size_but_for_the_classifier(whole: Any) -> None:
    size = sum(leaf.size for leaf in jax.tree.leaves(whole["params"]))
    assert size == 4_652_008 - 1_281_000
    assert len(whole["params"]) == 1 + 16 + 1


@pytest.mark.parametrize(
    ("picture", "sizes"),
    [
        ((224, 224), [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7), (7, 7)]),
        ((97, 131), [(49, 66), (25, 33), (13, 17), (7, 9), (4, 5), (4, 5)]),
    ],
)
def test_a_map_has_a_cell_for_each_stride_begun(
    whole: Any, picture: tuple[int, int], sizes: list[tuple[int, int]]
) -> None:
    network = nets.efficientnet_lite0(endpoints=EVERY)
    x = jax.ShapeDtypeStruct((2, *picture, 3), jnp.float32)
    maps, _ = jax.eval_shape(network.apply, whole, x)
    channels = (16, 24, 40, 112, 320, 1280)
    assert [m.shape for m in maps] == [(2, *s, c) for s, c in zip(sizes, channels, strict=True)]


def test_variables_are_the_same_whatever_is_asked_for() -> None:
    assert started(small((4, 2))) == started(small())


def test_an_endpoint_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"64 is no endpoint .*; they are 2, 4, 8, 16, 32, 'head'"):
        nets.efficientnet_lite0(endpoints=(8, 64))


# The same by `lax`


def normalised(layer: Any, state: Any, y: jax.Array, rows: Any, stats: dict[str, Any]) -> Any:
    """By `state`, or by the rows that count, whose statistics are put into `stats`."""
    if rows is not None:
        state = {"mean": y[rows].mean((0, 1, 2)), "var": y[rows].var((0, 1, 2))}
        stats |= {**state, "count": y[rows][..., 0].size}
    y = (y - state["mean"]) / jnp.sqrt(state["var"] + 1e-3)
    return y * layer["scale"] + layer["shift"]


def oracle(variables: Any, x: jax.Array, rows: Any = None) -> Any:
    """The small network's map at each endpoint, and statistics of `rows` if any."""
    params, state, stats = variables["params"], variables["state"], {}

    def layer(x: jax.Array, name: str, kernel: jax.Array, stride: int, groups: int) -> jax.Array:
        places: Any = params, state, stats
        for step in name.split("/"):
            places = places[0][step], places[1][step], places[2].setdefault(step, {})
        y = lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        return normalised(*places[:2], y, rows, places[2])

    relu6 = lambda x: jnp.clip(x, 0, 6)
    x = relu6(layer(x, "stem", params["stem"]["kernel"], 2, 1))
    maps = {}
    settings = {"block_0": (1, 2), "block_1": (2, 4), "block_2": (1, 4)}
    for name, (stride, reached) in settings.items():
        y, block = x, params[name]
        if name != "block_0":
            y = relu6(layer(y, f"{name}/expand", block["expand"]["kernel"][None, None], 1, 1))
        each = block["depthwise"]["kernel"][:, :, None]
        y = relu6(layer(y, f"{name}/depthwise", each, stride, y.shape[-1]))
        y = layer(y, f"{name}/project", block["project"]["kernel"][None, None], 1, 1)
        maps[str(reached)] = x = x + y if name == "block_2" else y  # the only one that fits
    maps["head"] = relu6(layer(x, "head", params["head"]["kernel"][None, None], 1, 1))
    return maps, stats


@pytest.fixture(scope="module")
def made() -> tuple[Any, np.ndarray]:
    """Variables of the small network, none of them as at the start, and odd pictures."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 13, 10, 3))

    def draw(path: Any, leaf: Any) -> np.ndarray:
        values = rng.normal(size=leaf.shape)
        like = {
            "kernel": values * (8 / np.prod(leaf.shape[:-1])) ** 0.5,  # some reach ReLU6's end
            "scale": 1 + values / 2,
            "var": 0.5 + values**2,
        }
        return like.get(path[-1].key, values)

    return jax.tree.map_with_path(draw, started(small())), x


def test_maps_and_embedding_equal_plain_lax(made: Any, float64: None) -> None:
    def both(variables: Any, x: jax.Array) -> Any:
        maps, _ = small((2, 4, "head")).apply(variables, x)
        return maps, small().apply(variables, x)[0], oracle(variables, x)[0]

    maps, embedding, expected = jax.jit(both)(*made)
    assert_close(maps, tuple(expected[name] for name in ("2", "4", "head")))
    assert_close(embedding, expected["head"].mean((1, 2)))
    assert float(expected["head"].max()) == 6


def test_training_equals_plain_lax_on_the_unmasked_rows(made: Any, float64: None) -> None:
    variables, x = made
    rows = np.array([0, 1, 3])
    mask = jnp.zeros(5, bool).at[rows].set(True)

    def both(variables: Any, x: jax.Array) -> Any:
        padded = jnp.where(mask[:, None, None, None], x, 1e3)
        out, stats = small().apply(variables, padded, train=True, mask=mask)
        maps, expected = oracle(variables, x, rows)
        return (out, stats), (maps["head"].mean((1, 2)), expected)

    (out, stats), (plain, expected) = jax.jit(both)(variables, x)
    assert_close((out[rows], stats), (plain[rows], expected))
    without_counts = jax.tree.map(
        lambda layer: {"mean": 0, "var": 0}, stats, is_leaf=lambda node: "count" in node
    )
    assert jax.tree.structure(without_counts) == jax.tree.structure(variables["state"])


def test_half_precision_stays_inside(made: Any) -> None:
    network = small(dtype=jnp.bfloat16)
    made = jax.tree.map(lambda a: a.astype(np.float32), made)
    out, stats = jax.jit(lambda v, x: network.apply(v, x, train=True))(*made)
    full, _ = jax.jit(lambda v, x: small().apply(v, x, train=True))(*made)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((out, stats, started(network)))}
    assert dtypes == {jnp.dtype("float32")}
    assert 0 < np.abs(out - full).max() < 0.1


def test_features_raised_to_a_power_have_finite_gradients_where_they_are_zero() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    x = x.at[0].set(0)  # whose features are zero
    plain, rooted = (nets.from_flax(EfficientNetLite(SMALL, 4, 9, power=p)) for p in (1.0, 0.5))
    variables = jax.jit(plain.init)(jax.random.key(1), x)
    features = jax.jit(plain.apply)(variables, x)[0]
    assert not features[0].any()
    assert features[1].any()
    assert_close(jax.jit(rooted.apply)(variables, x)[0], np.sqrt(features), rtol=1e-6)
    slopes = jax.jit(jax.grad(lambda x: rooted.apply(variables, x)[0].sum()))(x)
    assert np.isfinite(slopes).all()
