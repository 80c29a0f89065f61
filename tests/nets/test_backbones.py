"""Backbones: sizes, starts, and the bridge from other people's flax modules."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets
from metashot.base import Network

pytestmark = pytest.mark.usefixtures("quick_compile")


def random(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def shapes(network: Network, *picture: int) -> Any:
    """Of variables and features, without computing either."""
    x = jax.ShapeDtypeStruct((2, *picture), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    return variables, jax.eval_shape(lambda v, x: network.apply(v, x)[0], variables, x)


def size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("filters", "picture", "features", "parameters"),
    [
        (64, (84, 84, 3), 1600, 113_088),
        (32, (84, 84, 3), 800, 28_896),
        (64, (28, 28, 1), 64, 111_936),
    ],
)
def test_conv4_has_the_published_sizes(
    filters: int, picture: tuple[int, ...], features: int, parameters: int
) -> None:
    variables, outputs = shapes(nets.conv4(filters), *picture)
    assert outputs.shape == (2, features)
    assert size(variables["params"]) == parameters
    assert size(variables["state"]) == 4 * 2 * filters


def test_blocks_halve_the_picture_and_drop_an_odd_row() -> None:
    assert shapes(nets.conv4(4, blocks=2), 11, 9, 3)[1].shape == (2, 2 * 2 * 4)


def test_mlp_flattens_and_ends_in_its_last_size() -> None:
    variables, outputs = shapes(nets.mlp(8, 5), 4, 4, 1)
    assert outputs.shape == (2, 5)
    assert size(variables["params"]) == 16 * 8 + 8 + 8 * 5 + 5
    assert shapes(nets.mlp(), 4)[1].shape == (2, 64)


def test_conv4_starts_uniformly_within_the_root_of_its_fan_in() -> None:
    made = jax.jit(nets.conv4(32, blocks=2).init)(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    for name, fan_in in {"ConvBlock_0": 27, "ConvBlock_1": 288}.items():
        block, bound = made["params"][name], fan_in**-0.5
        for weight in (block["kernel"], block["bias"]):
            assert np.abs(weight).max() <= bound
            assert np.abs(weight).max() > 0.8 * bound  # 32 draws or more
        assert np.std(block["kernel"]) == pytest.approx(bound / 3**0.5, rel=0.1)
        assert (np.asarray(block["scale"]) == 1).all()
        assert (np.asarray(block["shift"]) == 0).all()
        state = made["state"][name]
        assert (np.asarray(state["mean"]) == 0).all()
        assert (np.asarray(state["var"]) == 1).all()


def test_the_scale_may_start_uniformly_between_zero_and_one() -> None:
    network = nets.conv4(64, blocks=1, bn_scale_init="uniform")
    made = jax.jit(network.init)(jax.random.key(0), jnp.ones((1, 4, 4, 1)))
    scale = np.asarray(made["params"]["ConvBlock_0"]["scale"])
    assert 0 <= scale.min() < 0.1
    assert 0.9 < scale.max() <= 1


def test_an_unknown_start_of_the_scale_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="bn_scale_init is 'half'; it is one of ones, uniform"):
        nets.conv4(bn_scale_init="half")


def test_a_fresh_linear_layer_is_uniform_within_the_root_of_its_features() -> None:
    params = jax.jit(nets.init_dense, static_argnums=(1, 2))(jax.random.key(0), 100, 40)
    assert params["kernel"].shape == (100, 40)
    assert params["bias"].shape == (40,)
    for weight in params.values():
        assert 0.08 < np.abs(weight).max() <= 0.1
    assert len(np.unique(params["bias"])) > 30


def test_a_network_follows_float64_inputs(float64: None) -> None:
    network = nets.conv4(2, blocks=1)

    def both(key: jax.Array, x: jax.Array) -> Any:
        variables = network.init(key, x)
        return variables, network.apply(variables, x, train=True)

    made = jax.eval_shape(both, jax.random.key(0), jnp.ones((2, 4, 4, 1), jnp.float64))
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype(jnp.float64)}


@pytest.fixture(scope="module")
def conv4() -> tuple[Network, Any, jax.Array]:
    network = nets.conv4(4, blocks=2)
    x = random(0, 5, 8, 8, 2)
    return network, jax.jit(network.init)(jax.random.key(0), x), x


def test_conv4_in_training_uses_the_unmasked_rows_alone(conv4: Any) -> None:
    network, variables, x = conv4
    mask = jnp.array([True, True, False, True, False])
    padded = jnp.where(mask[:, None, None, None], x, 1e3)
    train = jax.jit(lambda v, x, mask: network.apply(v, x, train=True, mask=mask))
    masked, masked_stats = train(variables, padded, mask)
    kept, kept_stats = train(variables, x[mask], None)
    np.testing.assert_allclose(masked[mask], kept, rtol=1e-4, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        masked_stats,
        kept_stats,
    )


def test_conv4_in_evaluation_answers_each_row_by_itself(conv4: Any) -> None:
    network, variables, x = conv4
    evaluate = jax.jit(lambda v, x: network.apply(v, x))
    together, stats = evaluate(variables, x)
    assert stats == {}
    alone, _ = evaluate(variables, x[2:3])
    np.testing.assert_allclose(together[2:3], alone, rtol=1e-5, atol=1e-6)


def test_stats_are_shaped_like_the_state(conv4: Any) -> None:
    network, variables, x = conv4
    _, stats = jax.eval_shape(lambda v, x: network.apply(v, x, train=True), variables, x)
    assert set(stats) == set(variables["state"]) == {"ConvBlock_0", "ConvBlock_1"}
    assert {name: leaf.shape for name, leaf in stats["ConvBlock_0"].items()} == {
        "mean": (4,),
        "var": (4,),
        "count": (),
    }


# Other people's modules


class Theirs(nn.Module):
    """What a user may bring: flax's own layers, and a dropout that asks for a key."""

    ways_to_say_train: str = "call"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(3, (3, 3))(x)
        if self.ways_to_say_train == "call":
            x = nn.BatchNorm(momentum=0.8)(x, use_running_average=not train)
        else:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.8)(x)
        x = nn.Dropout(0.5)(nn.relu(x), deterministic=not train)
        return nn.Dense(2)(x.reshape(len(x), -1))


class WithoutDropout(nn.Module):
    """The same layers under the same names, for flax to run by itself."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(3, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(momentum=0.8)(x, use_running_average=not train))
        return nn.Dense(2)(x.reshape(len(x), -1))


@pytest.fixture(scope="module")
def theirs() -> tuple[Any, jax.Array]:
    """Variables with statistics and scales that are not those of the start."""
    x = random(1, 6, 4, 4, 2) * 2 + 1
    made = jax.jit(nets.from_flax(Theirs()).init)(jax.random.key(1), x)
    norm = made["params"]["BatchNorm_0"]
    norm |= {"scale": jnp.array([1.5, -0.5, 2.0]), "bias": jnp.array([0.3, 0.1, -0.2])}
    state = {"mean": jnp.array([0.2, -0.4, 0.1]), "var": jnp.array([0.5, 2.0, 1.5])}
    return {**made, "state": {"BatchNorm_0": state}}, x


def flax_itself(variables: Any, x: jax.Array, train: bool) -> Any:
    collections = {"params": variables["params"], "batch_stats": variables["state"]}
    run = lambda c, x: WithoutDropout().apply(c, x, train=train, mutable=["batch_stats"])
    out, moved = jax.jit(run)(collections, x)
    return out, moved["batch_stats"]


@pytest.mark.parametrize("way", ["call", "constructor"])
@pytest.mark.parametrize("train", [True, False])
def test_a_foreign_batch_norm_normalises_as_flax_does(theirs: Any, way: str, train: bool) -> None:
    variables, x = theirs
    network = nets.from_flax(Theirs(way))
    made = jax.eval_shape(network.init, jax.random.key(0), x)
    assert jax.tree.structure(made) == jax.tree.structure(variables)
    out, _ = jax.jit(lambda v, x: network.apply(v, x, train=train))(variables, x)
    np.testing.assert_allclose(out, flax_itself(variables, x, train)[0], rtol=1e-4, atol=1e-5)


def test_running_equals_flax_when_the_variance_is_biased(theirs: Any) -> None:
    variables, x = theirs
    network = nets.from_flax(Theirs())
    _, stats = jax.jit(lambda v, x: network.apply(v, x, train=True))(variables, x)
    moved = nets.running(variables["state"], stats, new_weight=1 - 0.8, unbiased=False)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        moved,
        flax_itself(variables, x, True)[1],
    )


def test_a_foreign_batch_norm_respects_the_mask(theirs: Any) -> None:
    variables, x = theirs
    network = nets.from_flax(Theirs())
    mask = jnp.array([True, False, True, True, False, True])
    padded = jnp.where(mask[:, None, None, None], x, 1e3)

    def total(v: Any, x: jax.Array, mask: jax.Array | None, weight: jax.Array) -> Any:
        out, stats = network.apply(v, x, train=True, mask=mask)
        return (jnp.sin(out).sum(1) * weight).sum(), (out, stats)

    grad = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, (masked, masked_stats)), masked_grads = grad(variables, padded, mask, mask * 1.0)
    (_, (kept, kept_stats)), kept_grads = grad(variables, x[mask], None, jnp.ones(4))
    np.testing.assert_allclose(masked[mask], kept, rtol=1e-4, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
        (masked_stats, masked_grads),
        (kept_stats, kept_grads),
    )


def test_gradients_flow_through_the_statistics_as_in_flax(theirs: Any) -> None:
    variables, x = theirs
    network = nets.from_flax(Theirs())

    def ours(params: Any) -> jax.Array:
        return jnp.sin(network.apply({**variables, "params": params}, x, train=True)[0]).sum()

    def flaxs(params: Any) -> jax.Array:
        collections = {"params": params, "batch_stats": variables["state"]}
        out = WithoutDropout().apply(collections, x, train=True, mutable=["batch_stats"])
        return jnp.sin(out[0]).sum()

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        jax.jit(jax.grad(ours))(variables["params"]),
        jax.jit(jax.grad(flaxs))(variables["params"]),
    )


def test_a_module_without_train_or_mask_is_called_without_them() -> None:
    network = nets.from_flax(nn.Dense(3))
    x = jnp.ones((2, 5))
    variables = network.init(jax.random.key(0), x)
    assert variables["state"] == {}
    plain, none = network.apply(variables, x)
    assert plain.shape == (2, 3)
    assert none == {}
    trained, stats = network.apply(variables, x, train=True, mask=jnp.ones(2, bool))
    assert stats == {}
    np.testing.assert_array_equal(plain, trained)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_is_on_where_training_has_a_key(rate: float) -> None:
    """Survivors are divided by the share that survives, so that the mean stays."""
    network = nets.conv4(8, blocks=1, dropout=rate)
    x = random(1, 64, 8, 8, 1)
    variables = network.init(jax.random.key(0), x)
    apply = jax.jit(lambda key: network.apply(variables, x, train=True, key=key)[0])
    plain, _ = network.apply(variables, x, train=True)
    dropped = apply(jax.random.key(1))
    kept = np.asarray(dropped) != 0
    np.testing.assert_allclose(dropped[kept], plain[kept] / (1 - rate), rtol=1e-5, atol=1e-6)
    alive = np.asarray(plain) > 0
    assert kept[alive].mean() == pytest.approx(1 - rate, abs=5 * (rate / alive.sum()) ** 0.5)
    assert np.any(apply(jax.random.key(2)) != dropped)
    tested = network.apply(variables, x, key=jax.random.key(1))[0]
    np.testing.assert_array_equal(tested, network.apply(variables, x)[0])


def test_a_foreign_dropout_runs_with_a_key(theirs: Any) -> None:
    variables, x = theirs
    network = nets.from_flax(Theirs())
    run = jax.jit(lambda key: network.apply(variables, x, train=True, key=key)[0])
    one, other = run(jax.random.key(1)), run(jax.random.key(2))
    assert np.any(one != other)
    np.testing.assert_array_equal(one, run(jax.random.key(1)))


JIT = jax.jit  # `quick_compile` has another one, which cannot be nested


class Plain(nn.Module):
    """One block as flax users write it; the pool jitted or not."""

    jitted: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(3, (3, 3), strides=(1, 1))(x)
        pool = lambda x: nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = (JIT(pool) if self.jitted else pool)(x)
        return nn.Conv(2, (3, 3), strides=(2, 2), kernel_dilation=2)(x).reshape(len(x), -1)


@pytest.mark.parametrize("jitted", [False, True])
def test_a_foreign_module_gets_our_layers_and_keeps_its_values(jitted: bool) -> None:
    """Odd pictures; of the two convolutions, ours does the one that is not dilated."""
    module, x = Plain(jitted), random(1, 3, 9, 7, 2)
    network = nets.from_flax(module)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    ours = lambda params: network.apply({"params": params, "state": {}}, x)[0]
    theirs = lambda params: module.apply({"params": params}, x)
    both = [
        jax.jit(lambda p, f=f: (f(p), jax.grad(lambda p: (f(p) ** 2).sum())(p)))
        for f in (ours, theirs)
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        *(f(variables["params"]) for f in both),
    )
    used = str(jax.make_jaxpr(jax.grad(lambda p: ours(p).sum()))(variables["params"]))
    plain = str(jax.make_jaxpr(jax.grad(lambda p: theirs(p).sum()))(variables["params"]))
    assert "select_and_scatter" in plain
    assert "select_and_scatter" not in used
    assert used.count("custom_vmap_call") > 0


def test_a_convolution_given_by_the_user_is_kept() -> None:
    def doubled(*args: Any, **options: Any) -> jax.Array:
        return 2 * jax.lax.conv_general_dilated(*args, **options)

    x = random(1, 2, 4, 4, 1)
    own, plain = nn.Conv(3, (3, 3), conv_general_dilated=doubled), nn.Conv(3, (3, 3))
    variables = nets.from_flax(plain).init(jax.random.key(0), x)
    np.testing.assert_allclose(
        nets.from_flax(own).apply(variables, x)[0],
        2 * nets.from_flax(plain).apply(variables, x)[0],
        rtol=1e-5,
    )
    assert plain.conv_general_dilated is None


def test_a_batch_norm_over_another_axis_is_refused() -> None:
    network = nets.from_flax(nn.BatchNorm(use_running_average=False, axis=1))
    with pytest.raises(ValueError, match=r"BatchNorm\(axis=1\): channels must be on the last axis"):
        network.init(jax.random.key(0), jnp.ones((2, 3, 4)))


def test_half_precision_stays_inside() -> None:
    """Parameters, statistics and features are float32; values agree within bfloat16's digits."""
    x = random(1, 12, 16, 16, 1)
    half, full = nets.conv4(8, blocks=2, dtype="bfloat16"), nets.conv4(8, blocks=2)
    variables = jax.jit(half.init)(jax.random.key(0), x)

    def everything(network: Network) -> Any:
        def loss(params: Any) -> Any:
            features, stats = network.apply({**variables, "params": params}, x, train=True)
            return (features**2).mean(), (features, stats)

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    (grads, (features, stats)), (_, (exact, _)) = everything(half), everything(full)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((variables, grads, features, stats))}
    assert dtypes == {jnp.dtype("float32")}
    error = np.abs(features - exact)
    assert 0 < error.max() < 0.1
    assert error.mean() < 0.02


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_conv4_lowers_for_other_platforms(platform: str) -> None:
    network, x = nets.conv4(4, blocks=1), jnp.ones((2, 6, 6, 1))
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    loss = lambda v, x: network.apply(v, x, train=True)[0].sum()
    exported = jax.export.export(jax.jit(jax.grad(loss)), platforms=[platform])(variables, x)
    assert exported.platforms == (platform,)


def test_an_embedding_is_the_networks_features_by_a_matrix():
    network = nets.conv4(4, blocks=1)
    made = nets.with_embedding(network, 3)
    x = random(0, 2, 4, 4, 1)
    variables = made.init(jax.random.key(0), x)
    body = {"params": variables["params"]["network"], "state": variables["state"]["network"]}
    z, stats = network.apply(body, x, train=True)
    layer = variables["params"]["embedding"]
    found, own = made.apply(variables, x, train=True)
    np.testing.assert_allclose(found, np.asarray(z) @ layer["kernel"] + layer["bias"], atol=1e-5)
    assert jax.tree.structure(own) == jax.tree.structure({"network": stats})
    plain, _ = nets.with_embedding(network, None).apply(variables, x, train=True)
    np.testing.assert_array_equal(plain, z)
