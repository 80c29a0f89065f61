"""VGG-16 and FCN-32s: the published counts and sizes, and what their pixels are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from metashot import nets

pytestmark = pytest.mark.usefixtures("quick_compile")


def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes(network: Any, *size: int) -> tuple[Any, tuple[int, ...]]:
    """Of the parameters and of the outputs; nothing is computed."""
    x = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    return variables["params"], jax.eval_shape(network.apply, variables, x)[0].shape


def test_the_conditioning_branch_has_the_published_size() -> None:
    params, out = shapes(nets.vgg16(), 224, 224)
    assert out == (1, 1000)
    assert count(params["convolutions"]) == 14_714_688
    assert count(params) == 138_357_544
    assert params["fc6"]["kernel"].shape == (25_088, 4096)


def test_the_segmentation_branch_has_the_published_size() -> None:
    params, _ = shapes(nets.fcn32s(), 224, 224)
    assert count(params) == 134_260_544


@pytest.mark.parametrize(
    ("pad", "side", "cells"),
    [(121, 500, 18), (121, 375, 14), (121, 333, 12), (121, 224, 9), (100, 500, 16)],
)
def test_cells_by_ceil_mode(pad: int, side: int, cells: int) -> None:
    assert shapes(nets.fcn32s(pad=pad), side, side)[1] == (1, cells, cells, 4096)


def test_the_dilated_variant_has_stride_8() -> None:
    params, out = shapes(nets.fcn32s(pools=3), 500, 375)
    assert out == (1, 93 - 24, 77 - 24, 4096)
    assert count(params) == 134_260_544


def test_pooling_is_in_ceil_mode() -> None:
    """As Caffe: 93 is followed by 47, whose last pixel sees one row."""
    x = np.random.default_rng(0).normal(size=(1, 5, 4, 2)).astype(np.float32)
    pooled = nets.ceil_max_pool(jnp.asarray(x))
    inside, reach = ((0, 0), (0, 1), (0, 0), (0, 0)), (1, 2, 2, 1)
    desired = lax.reduce_window(x, -np.inf, lax.max, reach, reach, inside)
    np.testing.assert_array_equal(pooled, desired)


def test_pictures_are_bgr_without_the_mean() -> None:
    pixel = nets.centred_bgr(jnp.array([200.0, 100, 50]))
    np.testing.assert_allclose(pixel, [-54.00699, -16.66877, 77.321081], atol=1e-5)
