"""The Meta-Learner LSTM: the loop around the cell, which tests/optim covers by itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metashot import nets
from metashot.base import Episode, Examples, Learner, Network
from metashot.learners.meta_lstm import meta_lstm, paper, released
from metashot.losses import masked_nll

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]

ONE = 40.0  # sigmoid(40) is 1 to the last digit
PIXELS = Network(
    init=lambda key, x: {"params": {}, "state": {}},
    apply=lambda variables, x, *, train=False, mask=None: (x.reshape(len(x), -1), {}),
)


def examples(inputs: Any, targets: Any) -> Examples:
    targets = jnp.asarray(targets, jnp.int32)
    return Examples(jnp.asarray(inputs), targets, jnp.ones(len(targets), bool))


def made(learner: Learner, episode: Episode) -> Any:
    """Variables in double precision, with large weights and open gates: each path counts."""
    shapes = jax.eval_shape(learner.init, jax.random.key(0), episode)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: jnp.asarray(rng.uniform(-0.6, 0.6, x.shape)), shapes["params"])
    start = {"mean": jnp.zeros, "var": jnp.ones}
    state = jax.tree.map_with_path(lambda path, x: start[path[-1].key](x.shape), shapes["state"])
    return {"params": params, "state": state}


def fixed_gates(variables: Any, forget: float, input: float) -> Any:
    """The same pupil, with a cell of zero weights and these two biases."""
    cell = jax.tree.map(jnp.zeros_like, variables["params"]["cell"])
    cell["forget"]["bias"], cell["input"]["bias"] = jnp.asarray(forget), jnp.asarray(input)
    return {**variables, "params": {**variables["params"], "cell": cell}}


# What the cell is handed: numbers worked out by hand


@pytest.mark.parametrize(
    ("scale", "own", "other"), [("mean", 0.16, -0.04), ("mean_over_n", 0.032, -0.008)]
)
def test_gradient_scale(scale: str, own: float, other: float) -> None:
    """Five unit vectors and a head of zeros; both gates open, so that the step is -gradient.

    A sixth row without a target is none of the n.
    """
    support = examples(np.concatenate([np.eye(5), np.ones((1, 5))]), [0, 1, 2, 3, 4, -1])
    learner = meta_lstm(network=PIXELS, way=5, steps=1, grad_scale=scale)
    variables = fixed_gates(made(learner, Episode(support, support)), ONE, ONE)
    head = {"kernel": jnp.zeros((5, 5)), "bias": jnp.zeros(5)}
    variables["params"]["initial"]["head"] = head
    kernel = jax.jit(learner.adapt)(variables, support)["params"]["head"]["kernel"]
    expected = np.full((5, 5), other) + np.eye(5) * (own - other)
    np.testing.assert_allclose(kernel, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("support_batch", [None, 2])
def test_open_gates_make_exact_gradient_descent(support_batch: int | None) -> None:
    """f = 1, i = 0.1: plain descent at rate 0.1, over the support's batches in their order."""
    rng = np.random.default_rng(0)
    support = examples(rng.normal(size=(6, 4)), [0, 1, 2, 0, 1, 2])
    learner = meta_lstm(network=PIXELS, way=3, steps=5, support_batch=support_batch)
    episode = Episode(support, support)
    variables = fixed_gates(made(learner, episode), ONE, np.log(1 / 9))
    task = jax.jit(learner.adapt)(variables, support)

    @jax.jit
    def descend(head: Any, batch: Examples) -> Any:
        loss = lambda head: masked_nll(nets.dense(head, batch.inputs), batch)
        return jax.tree.map(lambda w, g: w - 0.1 * g, head, jax.grad(loss)(head))

    head, size = variables["params"]["initial"]["head"], support_batch or 6
    for t in range(5):
        rows = np.arange(6)[t * size % 6 :][:size]
        head = descend(head, jax.tree.map(lambda x, rows=rows: x[rows], support))
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(task["params"]["head"][name], head[name], rtol=0, atol=1e-12)


def test_a_batch_that_does_not_divide_the_support_is_refused() -> None:
    support = examples(np.eye(6), np.arange(6) % 3)
    learner = meta_lstm(network=PIXELS, way=3, support_batch=4)
    variables = jax.eval_shape(learner.init, jax.random.key(0), Episode(support, support))
    with pytest.raises(ValueError, match="support_batch is 4; it must divide 6 support examples"):
        jax.eval_shape(learner.adapt, variables, support)


# The whole loop against one that is written again, coordinates as rows


FILTERS, WAY, STEPS, SIDE = 2, 3, 3, 5


def small_episode() -> Episode:
    rng = np.random.default_rng(3)
    part = lambda n: examples(rng.uniform(size=(n, SIDE, SIDE, 1)), np.arange(n) % WAY)
    return Episode(part(3), part(6))


def plain_pupil(params: Any, x: jax.Array, stats: Any = None) -> Any:
    """Convolution, batch norm, ReLU, pool, linear; and the batch's mean and unbiased variance."""
    block, head = params["network"]["ConvBlock_0"], params["head"]
    y = jax.lax.conv_general_dilated(
        x, block["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = y + block["bias"]
    mean, var = (y.mean((0, 1, 2)), y.var((0, 1, 2))) if stats is None else stats
    n = y.size // y.shape[-1]
    y = (y - mean) / jnp.sqrt(var + 1e-3) * block["scale"] + block["shift"]
    window = (1, 2, 2, 1)
    y = jnp.maximum(jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, window, window, "VALID"), 0)
    logits = y.reshape(len(x), -1) @ head["kernel"] + head["bias"]
    return logits, (mean, var * n / (n - 1))


def nll(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return -jax.nn.log_softmax(logits)[np.arange(len(targets)), targets].mean()


def pairs(x: jax.Array) -> jax.Array:
    """[n] to [n, 2]."""
    big = jnp.abs(x) >= np.exp(-10)
    log = jnp.log(jnp.where(big, jnp.abs(x), 1)) / 10
    first = jnp.where(big, log, -1)
    return jnp.stack([first, jnp.where(big, jnp.sign(x), x * np.exp(10))], 1)


def plain_adapt(params: Any, support: Examples, raw: bool, kappa: float, weight: float) -> Any:
    """theta_T and the running statistics, by the paper's formulas; theta [P, 1], inputs [P, 4]."""
    cell = params["cell"]
    leaves, tree = jax.tree.flatten(params["initial"])
    cuts = np.cumsum([leaf.size for leaf in leaves])[:-1]
    sigma = jax.nn.sigmoid

    def as_tree(theta: jax.Array) -> Any:
        parts = zip(jnp.split(theta, cuts), leaves, strict=True)
        return jax.tree.unflatten(tree, [part.reshape(leaf.shape) for part, leaf in parts])

    def support_loss(theta: jax.Array) -> Any:
        logits, stats = plain_pupil(as_tree(theta), support.inputs)
        return nll(logits, support.targets), stats

    def step(carry: Any, _: None) -> Any:
        theta, h, s, fed_f, fed_i, mean, var = carry
        frozen = jax.lax.stop_gradient(theta)
        (loss, stats), g = jax.value_and_grad(support_loss, has_aux=True)(frozen)
        loss, g = jax.lax.stop_gradient((loss, kappa * g))
        x = seen = jnp.concatenate([jnp.tile(pairs(loss[None]), (theta.size, 1)), pairs(g)], 1)
        if not raw:
            z = jnp.concatenate([x, h], 1) @ cell["layer1"]["kernel"] + cell["layer1"]["bias"]
            zi, zf, zo, zc = jnp.split(z, 4, 1)
            s = sigma(zf) * s + sigma(zi) * jnp.tanh(zc)
            h = seen = sigma(zo) * jnp.tanh(s)

        def gate(name: str, fed: jax.Array) -> jax.Array:
            inputs = jnp.concatenate([seen, theta[:, None], fed[:, None]], 1)
            return inputs @ cell[name]["kernel"] + cell[name]["bias"]

        pre_f, pre_i = gate("forget", fed_f), gate("input", fed_i)
        theta = sigma(pre_f) * theta - sigma(pre_i) * g
        fed = (sigma(pre_f), sigma(pre_i)) if raw else (pre_f, pre_i)
        mean = weight * stats[0] + (1 - weight) * mean
        var = weight * stats[1] + (1 - weight) * var
        return (theta, h, s, *fed, mean, var), None

    theta = jnp.concatenate([leaf.ravel() for leaf in leaves])
    h, fed = jnp.zeros((theta.size, 20)), jnp.zeros(theta.size)
    start = (theta, h, h, fed, fed, jnp.zeros(FILTERS), jnp.ones(FILTERS))
    (theta, *_, mean, var), _ = jax.lax.scan(step, start, length=STEPS)
    return as_tree(theta), (mean, var)


@pytest.mark.parametrize(
    ("switches", "kappa", "weight"),
    [
        ({}, 1.0, 0.9),
        (
            {
                "gate_inputs": "raw",
                "gate_feedback": "value",
                "grad_scale": "mean_over_n",
                "bn_new_weight": 0.95,
            },
            1 / 3,
            0.95,
        ),
    ],
    ids=["default", "raw gates, values fed back, gradient averaged twice"],
)
def test_the_loop_equals_one_written_again(
    switches: dict[str, Any], kappa: float, weight: float
) -> None:
    """Adapted weights, statistics, answers, meta-loss and meta-gradient of three steps."""
    network = nets.conv4(FILTERS, blocks=1)
    learner = meta_lstm(network=network, way=WAY, steps=STEPS, **switches)
    episode = small_episode()
    variables = made(learner, episode)
    raw = "gate_inputs" in switches

    def ours(params: Any) -> Any:
        given = {**variables, "params": params}
        loss, grads = jax.value_and_grad(
            lambda params: learner.loss({**given, "params": params}, episode, jax.random.key(0))[0]
        )(params)
        task = learner.adapt(given, episode.support)
        return loss, grads, task, learner.predict(given, task, episode.query.inputs)

    def again(params: Any) -> Any:
        def loss(params: Any) -> Any:
            theta, stats = plain_adapt(params, episode.support, raw, kappa, weight)
            value = nll(plain_pupil(theta, episode.query.inputs)[0], episode.query.targets)
            return value, (theta, stats)

        (value, (theta, stats)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, grads, theta, stats, plain_pupil(theta, episode.query.inputs, stats)[0]

    loss, grads, task, logits = jax.jit(ours)(variables["params"])
    value, plain_grads, theta, (mean, var), plain_logits = jax.jit(again)(variables["params"])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)
    jax.tree.map(close, task["params"], theta)
    close(task["state"]["ConvBlock_0"]["mean"], mean)
    close(task["state"]["ConvBlock_0"]["var"], var)
    close(logits, plain_logits)
    close(loss, value)
    jax.tree.map(close, grads, plain_grads)


# The meta-gradient, and the two conditions


class Blocks(NamedTuple):
    """A batch-normalised pupil whose gates are constant: f = 0.9, i = 0.2."""

    learner: Learner
    variables: Any
    episode: Episode
    first_order: Any  # its params -> (meta-loss, gradient)
    second_order: Any


@pytest.fixture(scope="module")
def blocks(quick_compile: None) -> Blocks:
    def value_and_grad(learner: Learner) -> Any:
        def loss(params: Any) -> jax.Array:
            given = {**variables, "params": params}
            return learner.loss(given, episode, jax.random.key(0))[0]

        return jax.jit(jax.value_and_grad(loss))

    with jax.enable_x64(True):
        make = lambda **k: meta_lstm(network=nets.conv4(2, blocks=1), way=WAY, steps=2, **k)
        episode = small_episode()
        variables = fixed_gates(made(make(), episode), np.log(9), np.log(0.25))
        orders = [value_and_grad(make(second_order=second)) for second in (False, True)]
        return Blocks(make(), variables, episode, *orders)


def test_the_meta_gradient_of_the_start_is_the_forget_gates_times_the_querys(
    blocks: Blocks,
) -> None:
    """With constant gates, f^T times the query loss's gradient; not so with second order."""
    query, params = blocks.episode.query, blocks.variables["params"]

    @jax.jit
    def query_grad(variables: Any) -> Any:
        theta = blocks.learner.adapt(variables, blocks.episode.support)["params"]
        loss = lambda theta: nll(plain_pupil(theta, query.inputs)[0], query.targets)
        return jax.grad(loss)(theta)

    expected = jax.tree.map(lambda g: 0.9**2 * g, query_grad(blocks.variables))
    first = blocks.first_order(params)[1]["initial"]
    second = blocks.second_order(params)[1]["initial"]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    jax.tree.map(close, first, expected)
    apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), second, expected)
    assert max(jax.tree.leaves(apart)) > 1e-3


def test_second_order_is_the_gradient_of_the_function_itself(blocks: Blocks) -> None:
    params = blocks.variables["params"]
    rng, h = np.random.default_rng(0), 1e-6
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), params["initial"])

    def moved(by: float) -> float:
        initial = jax.tree.map(lambda x, d: x + by * d, params["initial"], direction)
        return float(blocks.first_order({**params, "initial": initial})[0])

    def slope(grad: Any) -> float:
        return sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), grad, direction)))

    measured = (moved(h) - moved(-h)) / (2 * h)
    assert slope(blocks.second_order(params)[1]["initial"]) == pytest.approx(measured, rel=1e-5)
    assert slope(blocks.first_order(params)[1]["initial"]) != pytest.approx(measured, rel=1e-2)


def test_the_loss_sees_the_querys_statistics_and_prediction_the_supports(blocks: Blocks) -> None:
    learner, variables, episode = blocks[:3]
    asks_together = meta_lstm(network=nets.conv4(2, blocks=1), way=WAY, steps=2, transductive=True)

    @jax.jit
    def run(variables: Any) -> Any:
        task = learner.adapt(variables, episode.support)
        logits = [
            one.predict(variables, task, episode.query.inputs) for one in (learner, asks_together)
        ]
        loss, aux = learner.loss(variables, episode, jax.random.key(0))
        return loss, aux, [masked_nll(x, episode.query) for x in logits]

    loss, aux, (by_support, by_query) = run(variables)
    assert float(by_query) == pytest.approx(float(loss), rel=1e-12)
    assert abs(float(by_support) - float(loss)) > 1e-3
    assert not aux.state  # every episode starts from the same statistics
    assert 0 <= aux.metrics["accuracy"] <= 1


# Sizes, presets, arguments


@pytest.mark.parametrize(
    ("picture", "coordinates", "total"),
    [((84, 84, 3), 32_901, 34_947), ((28, 28, 1), 28_485, 30_531)],
)
def test_parameter_counts(picture: tuple[int, ...], coordinates: int, total: int) -> None:
    part = Examples(
        jax.ShapeDtypeStruct((5, *picture), jnp.float32),
        jax.ShapeDtypeStruct((5,), jnp.int32),
        jax.ShapeDtypeStruct((5,), bool),
    )
    params = jax.eval_shape(meta_lstm(way=5).init, jax.random.key(0), Episode(part, part))["params"]
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert size(params["initial"]) == coordinates
    assert size(params["cell"]["layer1"]) == 2000
    assert size(params["cell"]) == 2046
    assert size(params) == total


def test_presets_are_the_two_sources_settings() -> None:
    assert released() == {"grad_scale": "mean_over_n", "steps": 12, "bn_new_weight": 0.9}
    assert released(5) == {"grad_scale": "mean_over_n", "steps": 8, "bn_new_weight": 0.95}
    gates = {"gate_inputs": "raw", "gate_feedback": "value"}
    assert paper() == {**gates, "steps": 12, "bn_new_weight": 0.9}
    assert paper(5) == {**gates, "steps": 5, "bn_new_weight": 0.95}
    for preset in (released, paper):
        assert isinstance(meta_lstm(**preset(5)), Learner)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gate_inputs": "both"}, "gate_inputs is 'both'; it is one of hidden, raw"),
        ({"gate_feedback": "gate"}, "gate_feedback is 'gate'; it is one of preact, value"),
        ({"grad_scale": "sum"}, "grad_scale is 'sum'; it is one of mean, mean_over_n"),
        ({"steps": 0}, "steps is 0; the pupil needs at least one update"),
    ],
)
def test_arguments_outside_their_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta_lstm(**wrong)


# The published optimiser, as optax has it


def test_clip_by_global_norm() -> None:
    clip = optax.clip_by_global_norm(0.25)
    run = jax.jit(lambda g: clip.update(g, clip.init(g))[0])
    assert run(np.array([3.0, 4.0])).tolist() == pytest.approx([0.15, 0.20], abs=1e-12)
    for within in ([0.15, 0.2], [0.1, -0.1]):
        assert run(np.array(within)).tolist() == pytest.approx(within, abs=1e-12)


def test_first_step_of_adam() -> None:
    adam = optax.adam(1e-3)
    run = jax.jit(lambda g: adam.update(g, adam.init(g))[0])
    step = run(np.array([0.15, -0.2, 1e-9]))
    np.testing.assert_allclose(step, [-9.99999933e-4, 9.99999950e-4, -9.0909091e-5], rtol=1e-8)
