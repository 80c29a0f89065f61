"""The cell of the Meta-Learner LSTM: numbers worked out by hand, in double precision.

Most cases have one coordinate, one hidden feature and zero weights. The support loss is
(theta - 1)^2 / 2, the query loss theta^2 / 2, and theta starts at 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot.optim import coordinate_lstm as lstm

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]

CLOSE = {"rel": 0, "abs": 1e-9}


def cell(
    forget: float = 0.0,
    input: float = 0.0,
    *,
    w_forget: tuple[float, ...] = (0, 0, 0),
    w_input: tuple[float, ...] = (0, 0, 0),
    b1: tuple[float, ...] = (0, 0, 0, 0),
) -> Any:
    """Weights for one hidden feature: two biases, all else zero unless given."""
    return {
        "forget": {"kernel": np.array(w_forget, float), "bias": np.array(float(forget))},
        "input": {"kernel": np.array(w_input, float), "bias": np.array(float(input))},
        "layer1": {"kernel": np.zeros((5, 4)), "bias": np.array(b1, float)},
    }


def quadratic(theta: jax.Array) -> jax.Array:
    return ((theta - 1) ** 2).sum() / 2


def unroll(
    params: Any,
    theta: jax.Array,
    support_loss: Callable[[jax.Array], jax.Array],
    steps: int,
    *,
    scale: float = 1.0,
    second_order: bool = False,
    **options: Any,
) -> list[lstm.CellState]:
    """The learner's loop: what the cell reads of the loss is constant, unless second order."""
    cut = (lambda x: x) if second_order else jax.lax.stop_gradient
    state, states = lstm.start(params, theta), []
    for _ in range(steps):
        loss, grad = jax.value_and_grad(support_loss)(cut(state.theta))
        state = lstm.step(params, state, cut(loss), cut(scale * grad), **options)
        states.append(state)
    return states


def thetas(params: Any, steps: int = 3) -> list[float]:
    run = jax.jit(lambda params, theta: unroll(params, theta, quadratic, steps))
    return [float(state.theta[0]) for state in run(params, np.array([2.0]))]


def logit(value: float) -> float:
    return float(np.log(value / (1 - value)))


# Preprocessing


@pytest.mark.parametrize(
    ("x", "p", "expected"),
    [
        (0.5, 10, (-0.0693147181, 1)),
        (-0.5, 10, (-0.0693147181, -1)),
        (1.0, 10, (0, 1)),
        (np.e, 10, (0.1, 1)),
        (100.0, 10, (0.4605170186, 1)),
        (1e-4, 10, (-0.9210340372, 1)),
        (1e-6, 10, (-1, 0.0220264658)),
        (-2e-5, 10, (-1, -0.4405293159)),
        (0.0, 10, (-1, 0)),
        (np.exp(-10), 10, (-1, 1)),
        (-np.exp(-10), 10, (-1, -1)),
        (0.2, 1, (-1, 0.5436563657)),
        (0.5, 1, (-0.6931471806, 1)),
        # The loss of five classes at chance, and gradients of it, averaged once and twice
        (np.log(5), 10, (0.0475884995, 1)),
        (-0.16, 10, (-0.1832581464, -1)),
        (0.04, 10, (-0.3218875825, 1)),
        (-0.032, 10, (-0.3442019376, -1)),
        (0.008, 10, (-0.4828313737, 1)),
    ],
)
def test_preprocess(x: float, p: float, expected: tuple[float, float]) -> None:
    assert preprocess(x, p).tolist() == pytest.approx(expected, **CLOSE)


preprocess = jax.jit(lstm.preprocess)


def test_preprocess_keeps_the_shape_behind_its_pair() -> None:
    x = np.array([[1.0, 0.0, -1.0]])
    assert preprocess(x, 10.0).tolist() == [[[0, -1, 0]], [[1, 0, -1]]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_preprocess_has_finite_gradients_at_any_size(dtype: Any) -> None:
    x = np.array([0, 1e-30, -1e-30, np.exp(-10), 1, -1e30, -0.0], dtype)
    pair, pull = jax.vjp(preprocess, x)
    assert pair.dtype == dtype
    assert np.isfinite(pair).all()
    (grad,) = pull(jnp.ones_like(pair))
    assert np.isfinite(grad).all()
    assert grad[0] == pytest.approx(np.exp(10), rel=1e-6)  # linear at zero


# Layer 1


def test_a_zero_layer_1_stays_silent() -> None:
    run = jax.jit(lambda params, theta: unroll(params, theta, quadratic, 3))
    for state in run(cell(), np.array([2.0, -1.0])):
        assert not np.asarray(state.hidden).any()
        assert not np.asarray(state.memory).any()


def test_a_layer_1_of_biases_alone() -> None:
    params = cell(b1=(0, 0, 0, 1))
    states = jax.jit(lambda params, theta: unroll(params, theta, quadratic, 3))(
        params, np.array([2.0])
    )
    memory = [float(state.memory[0, 0]) for state in states]
    hidden = [float(state.hidden[0, 0]) for state in states]
    assert memory == pytest.approx([0.3807970780, 0.5711956170, 0.6663948865], **CLOSE)
    assert hidden == pytest.approx([0.1816997422, 0.2581184019, 0.2913017215], **CLOSE)


# Updates


def test_sgd_with_decay() -> None:
    assert thetas(cell(4.5, -4.5)) == pytest.approx(
        [1.9670391721, 1.9348026217, 1.9032744335], **CLOSE
    )


def test_exact_gradient_descent() -> None:
    assert thetas(cell(40, np.log(1 / 9))) == pytest.approx([1.9, 1.81, 1.729], **CLOSE)


@pytest.mark.parametrize(
    ("feedback", "shown", "gates"),
    [
        ("preact", (-4.0, -6.0, -7.0), (0.0179862100, 0.0024726232, 0.0009110512)),
        (
            "value",
            (-4.0, -3.9910068950, -3.9909271285),
            (0.0179862100, 0.0181457430, 0.0181471642),
        ),
    ],
)
def test_gates_are_fed_back(
    feedback: str, shown: tuple[float, ...], gates: tuple[float, ...]
) -> None:
    params = cell(0, -4, w_input=(0, 0, 0.5))
    flat = lambda theta: 0 * theta.sum()
    run = jax.jit(lambda params, theta: unroll(params, theta, flat, 3, gate_feedback=feedback))
    states = run(params, np.array([2.0]))
    fed_back = [float(state.input[0]) for state in states]
    assert fed_back == pytest.approx(shown if feedback == "preact" else gates, **CLOSE)
    if feedback == "preact":
        fed_back = [float(jax.nn.sigmoid(value)) for value in fed_back]
    assert fed_back == pytest.approx(gates, **CLOSE)
    assert [logit(i) for i in fed_back] == pytest.approx(shown, abs=1e-8)


# Meta-gradients


def meta_gradient(
    params: Any,
    steps: int,
    support_loss: Callable[[jax.Array], jax.Array] = quadratic,
    **options: Any,
) -> tuple[list[float], Any, Any]:
    """theta after each step, and the query loss's gradients by weights and by theta_0."""

    def query_loss(params: Any, theta: jax.Array) -> Any:
        states = unroll(params, theta, support_loss, steps, **options)
        return (states[-1].theta ** 2).sum() / 2, [state.theta[0] for state in states]

    grad = jax.jit(jax.grad(query_loss, argnums=(0, 1), has_aux=True))
    (by_params, by_theta), path = grad(params, np.array([2.0]))
    return [float(theta) for theta in path], by_params, float(by_theta[0])


@pytest.fixture(scope="module")
def first_order() -> Any:
    with jax.enable_x64(True):
        return meta_gradient(cell(np.log(9), np.log(0.25)), 3)


def test_the_meta_gradient_is_of_first_order(first_order: Any) -> None:
    path, _, by_theta = first_order
    assert path == pytest.approx([1.6, 1.32, 1.124], **CLOSE)
    assert path[-1] ** 2 / 2 == pytest.approx(0.631688, **CLOSE)
    assert by_theta == pytest.approx(0.819396, **CLOSE)


def test_bias_gradients(first_order: Any) -> None:
    _, by_params, _ = first_order
    assert float(by_params["input"]["bias"]) == pytest.approx(-0.30033280, **CLOSE)
    assert float(by_params["forget"]["bias"]) == pytest.approx(0.44308080, **CLOSE)


def test_gate_weight_gradients(first_order: Any) -> None:
    _, by_params, _ = first_order
    assert by_params["input"]["kernel"].tolist() == pytest.approx(
        [0, -0.522686976, 0.214407613], **CLOSE
    )
    assert by_params["forget"]["kernel"].tolist() == pytest.approx(
        [0, 0.737092224, 0.6134686176], **CLOSE
    )


def test_second_order_gives_the_other_numbers() -> None:
    params = cell(np.log(9), np.log(0.25))
    path, by_params, by_theta = meta_gradient(params, 3, second_order=True)
    assert path == pytest.approx([1.6, 1.32, 1.124], **CLOSE)
    assert by_theta == pytest.approx(0.385532, **CLOSE)
    assert float(by_params["input"]["bias"]) == pytest.approx(-0.2212032, **CLOSE)
    assert float(by_params["forget"]["bias"]) == pytest.approx(0.3459672, **CLOSE)


@pytest.mark.parametrize(
    ("support_loss", "second_order", "slope"),
    [
        (lambda theta: 3 * theta.sum(), False, 0.9276705119),
        (quadratic, False, 0.9276705119),
        (quadratic, True, 0.7276705119),
    ],
    ids=["linear", "quadratic", "quadratic, second order"],
)
def test_the_gate_sees_the_last_theta(
    support_loss: Callable[[jax.Array], jax.Array], second_order: bool, slope: float
) -> None:
    params = cell(0, np.log(0.25), w_forget=(0, 0.5, 0))

    def last(theta: jax.Array) -> jax.Array:
        return unroll(params, theta, support_loss, 1, second_order=second_order)[-1].theta[0]

    value, grad = jax.jit(jax.value_and_grad(last))(np.array([2.0]))
    f, g = 0.7310585786, (3 if support_loss is not quadratic else 1)
    assert float(value) == pytest.approx(f * 2 - 0.2 * g, **CLOSE)
    assert float(grad[0]) == pytest.approx(slope, **CLOSE)


# Coordinates


def random_cell(hidden: int = 5) -> Any:
    """Weights large enough that every path of the cell matters."""
    return lstm.init_cell(jax.random.key(0), hidden=hidden, w_init=0.7)


@pytest.mark.parametrize("hidden", [5, 0], ids=["hidden", "raw"])
def test_coordinates_are_treated_alike(hidden: int) -> None:
    """Permuting them permutes the result, and equal ones with equal gradients stay equal."""
    target = np.array([0.3, -1.0, 2.0, 0.3])
    start = np.array([1.0, 0.2, -0.4, 1.0])
    order = np.array([2, 0, 3, 1])

    @jax.jit
    def run(params: Any, start: jax.Array, target: jax.Array) -> jax.Array:
        loss = lambda theta: ((theta - target) ** 2).sum()
        return unroll(params, start, loss, 3)[-1].theta

    plain = run(random_cell(hidden), start, target)
    permuted = run(random_cell(hidden), start[order], target[order])
    np.testing.assert_allclose(permuted, plain[order], rtol=1e-12)
    assert plain[0] == pytest.approx(float(plain[3]), rel=1e-12)
    assert len({round(float(theta), 6) for theta in plain}) == 3


def test_the_raw_cell_reads_loss_gradient_theta_and_gate() -> None:
    """Without layer 1: F = w . (pre(loss), pre(grad), theta, F) + b."""
    w = np.array([0.1, -0.2, 0.3, -0.4, 0.5, -0.6])
    gate = {"kernel": w, "bias": np.array(0.7)}
    still = {"kernel": np.zeros(6), "bias": np.array(0.0)}
    theta, loss, grad = np.array([2.0]), np.array(0.5), np.array([-1e-6])
    state = lstm.start({"forget": gate, "input": still}, theta)
    assert state.hidden.shape == (0, 1)
    state = state._replace(forget=jnp.array([1.5]))
    new = jax.jit(lstm.step)({"forget": gate, "input": still}, state, loss, grad)
    seen = np.array([np.log(0.5) / 10, 1, -1, -1e-6 * np.exp(10), 2.0, 1.5])
    forget = seen @ w + 0.7
    assert float(new.forget[0]) == pytest.approx(forget, **CLOSE)
    expected = 2 / (1 + np.exp(-forget)) - 0.5 * -1e-6
    assert float(new.theta[0]) == pytest.approx(expected, **CLOSE)


# All together

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
THETA_0 = np.array([1.0, -0.5])


def golden_support(theta: jax.Array) -> jax.Array:
    return (theta[0] - 2) ** 2 / 2 + (theta[1] - 0.25) ** 2


def golden(**options: Any) -> Any:
    """(query loss, states), gradients by weights and theta_0, of two steps on two coordinates."""

    def query_loss(params: Any, theta: jax.Array) -> Any:
        states = unroll(params, theta, golden_support, 2, **options)
        return ((states[-1].theta - 1) ** 2).sum() / 2, states

    grad = jax.jit(jax.value_and_grad(query_loss, argnums=(0, 1), has_aux=True))
    return grad(GOLDEN, THETA_0)


def assert_golden(actual: Any, *expected: float) -> None:
    np.testing.assert_allclose(np.ravel(actual), expected, rtol=0, atol=1e-8)


def test_golden_case() -> None:
    (query, (one, two)), (by_params, by_theta) = golden()
    assert_golden(one.hidden, 0.0575800172, 0.0576591994)
    assert_golden(one.forget, 1.8172740052, 2.1172977598)
    assert_golden(one.input, -0.8172740052, -1.1172977598)
    assert_golden(one.theta, 1.1665813268, -0.0765172502)
    assert_golden(golden_support(one.theta), 0.4539068571)
    assert_golden(two.hidden, 0.0871161232, 0.0871110816)
    assert_golden(two.forget, 1.9745459721, 2.2531665505)
    assert_golden(two.theta, 1.2696562144, 0.0874280298)
    assert_golden(query, 0.4527510373)
    assert_golden(by_theta, 0.2106061766, -0.8152924052)
    assert_golden(by_params["forget"]["kernel"], 0.0076887411, 0.0503241969, 0.0739126760)
    assert_golden(by_params["input"]["kernel"], -0.0164640422, 0.2419732046, 0.0832721599)
    assert_golden(by_params["forget"]["bias"], 0.1131207803)
    assert_golden(by_params["input"]["bias"], -0.2538011817)
    assert_golden(
        by_params["layer1"]["bias"], 0.0035661838, 0.0004289714, 0.0034226885, 0.0313636492
    )


def test_golden_case_with_gate_values_fed_back() -> None:
    (query, _), (_, by_theta) = golden(gate_feedback="value")
    assert_golden(query, 0.4388426179)
    assert_golden(by_theta, 0.2136577268, -0.7897528200)


def test_golden_case_of_second_order_agrees_with_finite_differences() -> None:
    _, (_, by_theta) = golden(second_order=True)
    assert_golden(by_theta, 0.0920422427, -0.1930974688)

    @jax.jit
    def query(theta: jax.Array) -> jax.Array:
        return ((unroll(GOLDEN, theta, golden_support, 2)[-1].theta - 1) ** 2).sum() / 2

    h = 1e-5
    slopes = [float(query(THETA_0 + h * e) - query(THETA_0 - h * e)) / (2 * h) for e in np.eye(2)]
    assert slopes == pytest.approx(by_theta.tolist(), abs=1e-8)


def test_golden_case_at_half_the_gradient() -> None:
    run = jax.jit(lambda theta: unroll(GOLDEN, theta, golden_support, 1, scale=0.5)[0].theta)
    assert_golden(run(THETA_0), 1.0134094485, -0.2613942915)


# The start


@pytest.mark.parametrize(("hidden", "layer1", "gates"), [(20, 2000, 46), (0, 0, 14)])
def test_sizes_of_a_fresh_cell(hidden: int, layer1: int, gates: int) -> None:
    params = jax.eval_shape(lambda key: lstm.init_cell(key, hidden=hidden), jax.random.key(0))
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert size(params.get("layer1", {})) == layer1
    assert size([params["forget"], params["input"]]) == gates


def test_a_fresh_cell_forgets_little_and_writes_little() -> None:
    many = jax.jit(jax.vmap(lstm.init_cell))(jax.random.split(jax.random.key(0), 50))
    for name, low, high in (("forget", 4, 5), ("input", -5, -4)):
        bias = np.asarray(many[name]["bias"])
        assert low <= bias.min() < low + 0.1
        assert high - 0.1 < bias.max() <= high
    for weight in (many["forget"]["kernel"], many["input"]["kernel"], *many["layer1"].values()):
        assert 0.009 < np.abs(weight).max() <= 0.01
        assert abs(np.mean(weight)) < 0.002
    assert not np.allclose(many["forget"]["kernel"], many["input"]["kernel"])
