"""The learned optimiser in optax loops: the learner's own loop, and numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metashot import nets
from metashot.base import Episode, Examples, Network
from metashot.learners.meta_lstm import meta_lstm
from metashot.losses import masked_nll
from metashot.optim import init_cell, learned_optimizer, preprocess

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]


def cell(forget: float, input: float) -> Any:
    """One hidden feature and constant gates: two biases, all else zero."""
    return {
        "forget": {"kernel": np.zeros(3), "bias": np.array(float(forget))},
        "input": {"kernel": np.zeros(3), "bias": np.array(float(input))},
        "layer1": {"kernel": np.zeros((5, 4)), "bias": np.zeros(4)},
    }


def lively_cell(hidden: int = 5, dtype: Any = np.float64) -> Any:
    """Weights large enough that every path of the cell matters."""
    made = init_cell(jax.random.key(0), hidden=hidden, w_init=0.5, input_range=(-3.0, -2.0))
    return jax.tree.map(lambda x: x.astype(dtype), made)


def quadratic(params: Any) -> jax.Array:
    """(theta - 1)^2 / 2, summed over all coordinates."""
    return sum(((x.astype(float) - 1) ** 2).sum() / 2 for x in jax.tree.leaves(params))


def path(optimizer: Any, params: Any, steps: int, loss: Any = quadratic) -> Any:
    """The parameters after each step of the plain optax loop, as a scan."""

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[1]


# Numbers worked out by hand


@pytest.mark.parametrize(
    ("forget", "input", "expected"),
    [
        (4.5, -4.5, (1.9670391721, 1.9348026217, 1.9032744335)),
        (40.0, np.log(1 / 9), (1.9, 1.81, 1.729)),
    ],
    ids=["descent with decay", "exact gradient descent"],
)
def test_constant_gates(forget: float, input: float, expected: tuple[float, ...]) -> None:
    run = jax.jit(lambda cell, theta: path(learned_optimizer(cell), theta, 3))
    assert run(cell(forget, input), np.array(2.0)).tolist() == pytest.approx(expected, abs=1e-9)


GOLDEN = {
    "forget": {"kernel": np.array([0.3, -0.2, 0.1]), "bias": np.array(2.0)},
    "input": {"kernel": np.array([-0.3, 0.2, 0.1]), "bias": np.array(-1.0)},
    "layer1": {
        "kernel": np.array(
            [
                [-0.10, -0.09, -0.08, -0.07],
                [-0.06, -0.05, -0.04, -0.03],
                [-0.02, -0.01, 0.00, 0.01],
                [0.02, 0.03, 0.04, 0.05],
                [0.06, 0.07, 0.08, 0.09],
            ]
        ),
        "bias": np.array([0.1, -0.1, 0.2, 0.3]),
    },
}
THETA_0 = {"a": np.array(1.0), "b": np.array([[-0.5]])}


def golden_support(theta: Any) -> jax.Array:
    return (theta["a"] - 2) ** 2 / 2 + ((theta["b"] - 0.25) ** 2).sum()


def golden_query(cell: Any, theta: Any, *, cut: bool = True, **options: Any) -> Any:
    """The query loss after two steps, and the path; cut: what the cell reads is constant."""
    constant = jax.lax.stop_gradient if cut else lambda x: x
    optimizer = learned_optimizer(cell, **options)
    state, seen = optimizer.init(theta), []
    for _ in range(2):
        value, grads = constant(jax.value_and_grad(golden_support)(theta))
        updates, state = optimizer.update(grads, state, theta, value=value)
        theta = optax.apply_updates(theta, updates)
        seen.append(theta)
    return ((theta["a"] - 1) ** 2 + ((theta["b"] - 1) ** 2).sum()) / 2, seen


def assert_golden(actual: Any, *expected: float) -> None:
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(actual)])
    np.testing.assert_allclose(flat, expected, rtol=0, atol=1e-8)


def test_two_steps_and_their_first_order_meta_gradient() -> None:
    run = jax.jit(jax.value_and_grad(golden_query, argnums=(0, 1), has_aux=True))
    (query, (one, two)), (by_cell, by_theta) = run(GOLDEN, THETA_0)
    assert_golden(one, 1.1665813268, -0.0765172502)
    assert_golden(two, 1.2696562144, 0.0874280298)
    assert_golden(query, 0.4527510373)
    assert_golden(by_theta, 0.2106061766, -0.8152924052)
    assert_golden(by_cell["forget"], 0.1131207803, 0.0076887411, 0.0503241969, 0.0739126760)
    assert_golden(by_cell["input"], -0.2538011817, -0.0164640422, 0.2419732046, 0.0832721599)
    assert_golden(by_cell["layer1"]["bias"], 0.0035661838, 0.0004289714, 0.0034226885, 0.0313636492)


def test_the_uncut_loop_has_the_true_meta_gradient() -> None:
    run = jax.jit(lambda theta: jax.grad(golden_query, 1, has_aux=True)(GOLDEN, theta, cut=False))
    assert_golden(run(THETA_0)[0], 0.0920422427, -0.1930974688)


def test_gate_values_fed_back() -> None:
    run = jax.jit(lambda theta: golden_query(GOLDEN, theta, gate_feedback="value")[0])
    assert_golden(run(THETA_0), 0.4388426179)


def test_p_is_that_of_the_preprocessing() -> None:
    """Without a layer 1, an input gate that reads log|grad| alone: sigmoid(log|grad| / p)."""
    raw = {
        "forget": {"kernel": np.zeros(6), "bias": np.array(40.0)},
        "input": {"kernel": np.eye(6)[2], "bias": np.array(0.0)},
    }
    run = jax.jit(lambda theta: path(learned_optimizer(raw, p=2.0), theta, 1))
    gate = 1 / (1 + np.exp(-preprocess(jnp.array(3.0), 2.0)[0]))  # at theta 4 the gradient is 3
    assert float(run(np.array(4.0))[0]) == pytest.approx(4 - 3 * float(gate), abs=1e-12)
    assert float(gate) == pytest.approx(1 / (1 + 3**-0.5), abs=1e-12)


# The learner's own loop


WAY, STEPS, BLOCK = 3, 4, nets.conv4(2, blocks=1)


def episode(dtype: Any) -> Episode:
    rng = np.random.default_rng(3)

    def part(n: int) -> Examples:
        inputs = rng.uniform(size=(n, 5, 5, 1)).astype(dtype)
        return Examples(inputs, np.arange(n, dtype=np.int32) % WAY, np.ones(n, bool))

    return Episode(part(6), part(3))


@pytest.mark.parametrize(
    ("network", "options", "dtype", "close"),
    [
        (nets.mlp(4), {}, np.float32, 1e-6),
        (nets.mlp(4), {}, np.float64, 1e-12),
        (BLOCK, {"gate_inputs": "raw", "gate_feedback": "value"}, np.float64, 1e-12),
        (BLOCK, {"grad_scale": "mean_over_n"}, np.float32, 1e-6),
    ],
    ids=["float32", "float64", "batch norm, raw gates", "batch norm, gradient averaged twice"],
)
def test_an_optax_loop_gives_what_the_learner_gives(
    network: Network, options: dict[str, Any], dtype: Any, close: float
) -> None:
    """The running statistics of a batch norm have no part in the adapted parameters."""
    learner = meta_lstm(network=network, way=WAY, steps=STEPS, **options)
    support = episode(dtype).support
    shapes = jax.eval_shape(learner.init, jax.random.key(0), episode(dtype))
    rng = np.random.default_rng(1)
    variables: Any = jax.tree.map(lambda x: rng.uniform(-0.6, 0.6, x.shape).astype(dtype), shapes)
    optimizer = learned_optimizer(
        variables["params"]["cell"], gate_feedback=options.get("gate_feedback", "preact")
    )
    if "grad_scale" in options:
        optimizer = optax.chain(optax.scale(1 / len(support.mask)), optimizer)

    def support_loss(theta: Any) -> jax.Array:
        pupil = {"params": theta["network"], "state": variables["state"]}
        features, _ = network.apply(pupil, support.inputs, train=True)
        return masked_nll(nets.dense(theta["head"], features), support)

    run = jax.jit(lambda theta: path(optimizer, theta, STEPS, support_loss))
    start = variables["params"]["initial"]
    thetas = run(start)
    task = jax.jit(learner.adapt)(variables, support)

    def same(many: jax.Array, one: jax.Array, start: jax.Array) -> None:
        assert many.dtype == one.dtype == dtype
        np.testing.assert_allclose(many[-1], one, rtol=0, atol=close)
        assert np.abs(one - start).max() > 1e-2

    jax.tree.map(same, thetas, task["params"], start)


# Any parameters, any loop


def mixed() -> Any:
    """Nested, with a scalar, an empty subtree, and three dtypes."""
    return {
        "dense": [jnp.array([[0.5, -1.0], [2.0, 3.0]], jnp.float32), jnp.array(0.25, jnp.bfloat16)],
        "nothing": {},
        "none": None,
        "wide": (jnp.array([1.5, -0.5], jnp.float64),),
    }


def test_trees_keep_their_shapes_and_dtypes() -> None:
    """Each coordinate goes its own way, to the precision of its leaf."""
    weights = lively_cell()
    optimizer = learned_optimizer(weights)

    @jax.jit
    def step(params: Any) -> Any:
        grads = jax.tree.map(lambda x: 0.5 * x, params)
        return optimizer.update(grads, optimizer.init(params), params, value=jnp.array(0.7))[0]

    updates = step(mixed())
    assert jax.tree.structure(updates) == jax.tree.structure(mixed())
    exact = step(jnp.array([0.5, -1.0, 2.0, 3.0, 0.25, 1.5, -0.5]))
    desired = (exact[:4].reshape(2, 2), exact[4], exact[5:])
    leaves = jax.tree.leaves(mixed())
    for update, theta, value in zip(jax.tree.leaves(updates), leaves, desired, strict=True):
        assert (update.shape, update.dtype) == (theta.shape, theta.dtype)
        rounding = 2 * float(jnp.finfo(theta.dtype).eps)
        np.testing.assert_allclose(update.astype(float), value, rtol=rounding)


def test_half_precision_is_rounded_once_a_step() -> None:
    """The gates and the state of bfloat16 parameters are the cell's float32."""
    weights = lively_cell(dtype=np.float32)
    theta = jnp.array([0.5, -1.0, 2.0], jnp.bfloat16)
    optimizer = learned_optimizer(weights)
    grads, value = jnp.array([0.25, 0.5, -1.0], jnp.bfloat16), jnp.array(0.75, jnp.bfloat16)
    run = jax.jit(lambda grads, theta: optimizer.update(grads, init, theta, value=value))
    init = optimizer.init(theta)
    updates, state = run(grads, theta)
    assert {x.dtype for x in init} == {x.dtype for x in state} == {np.dtype(np.float32)}
    init = optimizer.init(theta.astype(np.float32))
    exact, same = jax.jit(lambda grads, theta: optimizer.update(grads, init, theta, value=value))(
        grads.astype(np.float32), theta.astype(np.float32)
    )
    assert updates.tolist() == exact.astype(jnp.bfloat16).tolist()
    jax.tree.map(np.testing.assert_array_equal, state, same)


@pytest.mark.parametrize("hidden", [5, 0], ids=["hidden", "raw"])
def test_the_state_does_not_hold_the_parameters(hidden: int) -> None:
    params = {"w": np.ones((2, 3)), "b": np.ones(1)}
    state = learned_optimizer(lively_cell(hidden)).init(params)
    assert [x.shape for x in state] == [(7,), (7,), (hidden, 7), (hidden, 7)]
    assert not any(np.any(x) for x in state)


def test_many_networks_at_once() -> None:
    """`vmap` over parameters and over cells gives what each gives alone."""
    cells = jax.vmap(lambda key: init_cell(key, w_init=0.5))(jax.random.split(jax.random.key(1)))
    params = {"w": np.array([[0.5, 2.0], [-1.0, 3.0]]), "b": np.array([1.5, -2.0])}
    last = lambda cell, params: path(learned_optimizer(cell), params, 3)
    together = jax.jit(jax.vmap(last))(cells, params)
    one = jax.jit(last)
    for i in range(2):
        alone = one(*jax.tree.map(lambda x, i=i: x[i], (cells, params)))
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-12), together, alone
        )


def test_after_clipping_in_a_chain() -> None:
    """Exact descent at rate 0.1 with a gradient of norm at most 1, the extra argument handed on."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), learned_optimizer(cell(40, np.log(1 / 9)))
    )
    run = jax.jit(lambda params: path(optimizer, params, 2))
    thetas = run({"a": np.array(4.0), "b": np.array([5.0])})  # gradients 3 and 4, of norm 5
    a, b = [4 - 0.1 * 0.6], [5 - 0.1 * 0.8]  # and then in the same direction
    np.testing.assert_allclose(thetas["a"], [*a, a[0] - 0.06], rtol=1e-12)
    np.testing.assert_allclose(thetas["b"][:, 0], [*b, b[0] - 0.08], rtol=1e-12)


def test_masked_parameters_stay() -> None:
    """What the mask leaves out has no state either; the rest moves as if it were alone."""
    weights = lively_cell()
    params = {"moves": np.array([0.5, 2.0]), "stays": np.array([3.0])}
    inner = learned_optimizer(weights)
    optimizer = optax.chain(
        optax.masked(inner, {"moves": True, "stays": False}),
        optax.masked(optax.set_to_zero(), {"moves": False, "stays": True}),
    )
    assert optimizer.init(params)[0].inner_state.forget.shape == (2,)
    thetas = jax.jit(lambda params: path(optimizer, params, 3))(params)
    np.testing.assert_array_equal(thetas["stays"], np.full((3, 1), 3.0))
    loss = lambda moves: quadratic({**params, "moves": moves})
    alone = jax.jit(lambda moves: path(inner, moves, 3, loss))(params["moves"])
    np.testing.assert_allclose(thetas["moves"], alone, rtol=1e-12)


def test_nothing_to_optimise() -> None:
    optimizer = learned_optimizer(lively_cell())
    run = jax.jit(lambda value: optimizer.update({}, optimizer.init({}), {}, value=value)[0])
    assert run(1.0) == {}


# Refusals


def test_an_update_without_what_the_gates_see_is_refused() -> None:
    optimizer = learned_optimizer(cell(4.5, -4.5))
    theta = np.array([1.0])
    state = optimizer.init(theta)
    remedy = r"call update\(grads, state, params, value=loss\)"
    with pytest.raises(ValueError, match=rf"shrinks the parameters and has none; {remedy}"):
        optimizer.update(theta, state, value=1.0)
    with pytest.raises(ValueError, match=rf"reads the loss and has none; {remedy}"):
        optimizer.update(theta, state, theta)


def test_what_is_no_cell_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"has initial, cell; pass variables\[.params.\]\[.cell.\]"
    ):
        learned_optimizer({"initial": {}, "cell": {}})
    with pytest.raises(ValueError, match="gate_feedback is 'gate'; it is one of preact, value"):
        learned_optimizer(cell(4.5, -4.5), gate_feedback="gate")
