"""Branches: sizes and places, what masking hides, and where tied ones start."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import random

from metashot import nets
from metashot.base import Network, Variables

pytestmark = pytest.mark.usefixtures("quick_compile")


def averages(*strides: int) -> Network:
    """Maps that are means of blocks, and nothing to train."""

    def apply(variables: Variables, x: Any, **settings: Any) -> Any:
        n, h, w, c = x.shape
        blocks = [x.reshape(n, h // s, s, w // s, s, c).mean((2, 4)) for s in strides]
        return tuple(blocks), {}

    return Network(lambda key, x: {"params": {}, "state": {}}, apply)


def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def of_shape(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("settings", "grid"), [({}, (18, 14)), ({"pad": 100}, (16, 12)), ({"dilated": True}, (69, 53))]
)
def test_the_branches_of_the_paper_by_their_shapes(
    settings: dict[str, Any], grid: tuple[int, int]
) -> None:
    branches = nets.vgg_branches(**settings)
    picture, mask = of_shape(1, 500, 375, 3), of_shape(1, 500, 375)
    variables = jax.eval_shape(branches.init, jax.random.key(0), picture)
    assert count(variables["params"]) == 272_618_088
    (w, b), _ = jax.eval_shape(branches.classifiers, variables, picture, mask)
    assert (w.shape, b.shape) == ((1, 4096), (1,))
    maps, _ = jax.eval_shape(branches.features, variables, picture)
    assert maps.shape == (1, *grid, 4096)
    logits = jax.eval_shape(lambda x: branches.enlarged(x, (500, 375)), of_shape(2, 1, *grid))
    assert logits.shape == (2, 1, 500, 375)


@pytest.mark.parametrize(("pad", "offset"), [(121, 40), (100, 19)])
def test_enlarged_maps_are_cut_where_the_release_cuts(pad: int, offset: int) -> None:
    cells = jnp.asarray(random(0, 9, 9, dtype=np.float32))
    ours = nets.vgg_branches(pad=pad).enlarged(cells, (224, 224))
    whole = nets.transposed_bilinear(cells, 32, (320, 320))
    np.testing.assert_allclose(ours, whole[offset:, offset:][:224, :224], atol=1e-6)


def test_what_is_masked_out_has_the_mean_colour() -> None:
    """And a support picture is stretched after its mean was taken, its mask by nearest pixels."""
    seen = []

    def apply(variables: Variables, x: Any, **settings: Any) -> Any:
        seen.append(x)
        return x.reshape(len(x), -1), {}

    reader = Network(lambda key, x: {"params": {}, "state": {}}, apply)
    branches = nets.two_networks(
        conditioning=reader,
        segmentation=averages(1)._replace(apply=lambda v, x, **s: (x, {})),
        enlarged=lambda maps, size: maps,
        centred=nets.centred_bgr,
        size=4,
    )
    picture = jnp.full((1, 2, 2, 3), jnp.array([200.0, 100, 50]))
    variables = branches.init(jax.random.key(0), picture)
    branches.classifiers(variables, picture, jnp.array([[[1.0, 0], [0, 0]]]))
    shown = np.asarray(seen[-1])[0]
    np.testing.assert_allclose(shown[:2, :2], [[[-54.00699, -16.66877, 77.321081]] * 2] * 2, 1e-5)
    assert not shown[2:].any()
    assert not shown[:, 2:].any()


def test_a_classifier_is_hashed_weights_and_bias() -> None:
    """Both read all codes; the index is no parameter."""
    flat = Network(
        lambda key, x: {"params": {}, "state": {}}, lambda v, x, **s: (x.reshape(len(x), -1), {})
    )
    same = flat._replace(apply=lambda v, x, **s: (x, {}))
    branches = nets.two_networks(
        conditioning=flat, segmentation=same, enlarged=lambda maps, size: maps, hash_scale=0.5
    )
    picture = jnp.asarray(random(0, 2, 2, 2, 3, dtype=np.float32))
    variables = branches.init(jax.random.key(0), picture)
    assert variables["params"] == {"conditioning": {}, "segmentation": {}}
    code = variables["state"]["hash"]
    (w, b), _ = branches.classifiers(variables, picture, jnp.ones((2, 2, 2)))
    theta = 0.5 * nets.hashed(code, picture.reshape(2, 12))
    np.testing.assert_array_equal(jnp.concatenate([w, b[:, None]], 1), theta)


@pytest.mark.parametrize("hashed_from", [None, 12])
def test_tied_branches_start_as_products_of_projected_features(hashed_from: int | None) -> None:
    """Before training, w F is that of masked means and features under the same projection."""
    branches = nets.tied_branches(network=averages(2, 4), size=16, hashed_from=hashed_from)
    with jax.enable_x64(True):
        picture = jnp.asarray(random(0, 1, 8, 8, 3))
        mask = jnp.zeros((1, 8, 8)).at[:, :4, :4].set(1)
        variables = jax.jit(branches.init)(jax.random.key(0), picture)
        (w, b), _ = jax.jit(branches.classifiers)(variables, picture, mask)
        maps, _ = jax.jit(branches.features)(variables, picture)
        assert maps.shape == (1, 4, 4, 16)
        evened = lambda x: np.sqrt(3) * x / np.linalg.norm(x, axis=-1, keepdims=True)
        inside = np.asarray(picture[0, :4, :4]).mean((0, 1))
        project = np.concatenate([variables["params"]["project"][i] for i in "01"])
        theta = np.concatenate([evened(inside)] * 2) @ project
        if hashed_from:
            code = variables["state"]["hash"]
            matrix = np.zeros((16, 12))
            matrix[np.arange(16), np.asarray(code["index"])] = code["sign"]
            theta = theta @ matrix @ matrix.T
        np.testing.assert_allclose(w[0], 10 * theta / np.linalg.norm(theta), rtol=1e-9)
        np.testing.assert_array_equal(b, [-1])
        np.testing.assert_allclose(np.linalg.norm(maps, axis=-1), 1)


def test_an_empty_mask_and_a_blank_picture_have_finite_gradients() -> None:
    branches = nets.tied_branches(network=averages(2, 4), size=4)
    blank = jnp.zeros((1, 8, 8, 3))
    variables = branches.init(jax.random.key(0), blank)

    def total(variables: Variables, x: Any) -> Any:
        (w, b), _ = branches.classifiers(variables, x, jnp.zeros((1, 8, 8)))
        maps, _ = branches.features(variables, x)
        return jnp.einsum("qhwd,kd->", maps, w) + b.sum()

    grads = jax.jit(jax.grad(total, argnums=(0, 1)))(variables, blank)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("side", [128, 160])
def test_the_small_branches_have_a_million_parameters(side: int) -> None:
    branches = nets.small_branches()
    variables = jax.eval_shape(branches.init, jax.random.key(0), of_shape(1, side, side, 3))
    assert count(variables["params"]) == 1_029_026
    maps, _ = jax.eval_shape(branches.features, variables, of_shape(2, side, side, 3))
    assert maps.shape == (2, side // 4, side // 4, 256)


def test_tied_branches_of_efficientnet_have_cells_of_16_pixels() -> None:
    branches = nets.tied_branches()
    picture = of_shape(1, 288, 288, 3)
    variables = jax.eval_shape(branches.init, jax.random.key(0), picture)
    maps, stats = jax.eval_shape(branches.features, variables, picture)
    assert maps.shape == (1, 18, 18, 256)
    assert stats == {}  # frozen
    trained = {k: v for k, v in variables["params"].items() if k != "network"}
    assert count(trained) == 2 * (432 * 256 + 256) + 2


def test_a_frozen_network_gets_no_gradient() -> None:
    network = Network(
        lambda key, x: {"params": {"gain": jnp.ones(3)}, "state": {}},
        lambda v, x, **s: ((x + v["params"]["gain"],), {}),
    )
    picture = jnp.asarray(random(0, 1, 2, 2, 3, dtype=np.float32))
    for frozen in (True, False):
        branches = nets.tied_branches(network=network, size=4, frozen=frozen)
        variables = branches.init(jax.random.key(0), picture)
        own = lambda variables, b=branches: b.features(variables, picture, train=True)[0].std()
        grads = jax.jit(jax.grad(own))(variables)["params"]
        assert any(np.any(g) for g in jax.tree.leaves(grads["network"])) != frozen
        assert np.any(grads["project"]["0"])
