"""MAML and ANIL: a case worked out by hand, and loops written again, in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets
from metashot.base import Episode, Examples, Learner, Network
from metashot.learners.maml import anil, maml

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]

MAKERS = pytest.mark.parametrize("make", [maml, anil])
PIXELS = Network(
    init=lambda key, x: {"params": {}, "state": {}},
    apply=lambda variables, x, *, train=False, mask=None, key=None: (x, {}),
)


def examples(inputs: Any, targets: Any) -> Examples:
    targets = np.asarray(targets, np.int32)
    return Examples(np.asarray(inputs, float), targets, np.ones(len(targets), bool))


def value_and_grad(learner: Learner, state: Any, episode: Episode) -> Callable[[Any], Any]:
    def loss(params: Any) -> jax.Array:
        variables = {"params": params, "state": state}
        return learner.loss(variables, episode, jax.random.key(0))[0]

    return jax.jit(jax.value_and_grad(loss))


# By hand: two classes at the two unit vectors, and a head that starts at zero. By symmetry the
# kernel stays a * SIGN and the bias zero, with a <- a + lr * sigma(-2a) / 2.


SIGN = np.array([[1.0, -1.0], [-1.0, 1.0]])
CORNERS = Episode(examples(np.eye(2), [0, 1]), examples([[1, 0]], [0]))
HEAD = {"network": {}, "head": {"kernel": np.zeros((2, 2)), "bias": np.zeros(2)}}


def sigma(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


@MAKERS
def test_descent_by_hand(make: Any) -> None:
    """At rate 0.4: a = 0.1 after one step, 0.1900332005 after two, then 0.2713141."""
    path = [0.1, 0.1 + 0.2 * sigma(-0.2)]
    path.append(path[1] + 0.2 * sigma(-2 * path[1]))
    assert path[1] == pytest.approx(0.1900332005, abs=1e-10)
    for steps, a in enumerate(path, 1):
        learner = make(network=PIXELS, way=2, steps=steps, lr=0.4)
        task = jax.jit(learner.adapt)({"params": HEAD, "state": {}}, CORNERS.support)
        np.testing.assert_allclose(task["params"]["head"]["kernel"], a * SIGN, rtol=0, atol=1e-12)
        np.testing.assert_allclose(task["params"]["head"]["bias"], 0, rtol=0, atol=1e-12)


@MAKERS
def test_meta_gradients_by_hand(make: Any) -> None:
    """Two steps; the query is the first corner, its loss log(1 + exp(-2a)).

    First order: the gradient at the adapted head. Second order, along SIGN: times da'/da of both
    steps, which is 1 - lr * sigma(-2a) * sigma(2a).
    """
    a = 0.1900332005375
    wrong = sigma(-2 * a)
    first = np.array([[-wrong, wrong], [0, 0]])
    shrunk = (1 - 0.4 * 0.25) * (1 - 0.4 * sigma(-0.2) * sigma(0.2))
    assert shrunk == pytest.approx(0.8108940338, abs=1e-9)

    def run(second_order: bool) -> tuple[float, np.ndarray]:
        learner = make(network=PIXELS, way=2, steps=2, lr=0.4, second_order=second_order)
        value, grads = value_and_grad(learner, {}, CORNERS)(HEAD)
        return float(value), np.asarray(grads["head"]["kernel"])

    (value, grad), (same, through) = run(False), run(True)
    assert value == same == pytest.approx(np.log1p(np.exp(-2 * a)), abs=1e-12)
    np.testing.assert_allclose(grad, first, rtol=0, atol=1e-12)
    assert (grad * SIGN).sum() == pytest.approx(-2 * wrong, abs=1e-12)
    assert (through * SIGN).sum() == pytest.approx(-2 * wrong * shrunk, abs=1e-12)


# The loops written again, around a batch-normalised pupil


WAY, LR, WEIGHT, BLOCK = 3, 0.3, 0.7, nets.conv4(2, blocks=1)
COUNT = 6 * 5 * 5  # pixels that the support's statistics average


def small_episode() -> Episode:
    rng = np.random.default_rng(3)

    def part(n: int, shade: float) -> Examples:
        return examples(rng.uniform(size=(n, 5, 5, 1)) + shade, np.arange(n) % WAY)

    return Episode(part(6, 0), part(9, 0.5))


def made(learner: Learner) -> Any:
    """Variables in double precision, away from where any of them is special."""
    shapes = jax.eval_shape(learner.init, jax.random.key(0), small_episode())
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.uniform(0.1, 0.9, x.shape), shapes)


def nll(params: Any, state: Any, part: Examples) -> Any:
    """By the statistics of the part itself; and these."""
    body = {"params": params["network"], "state": state}
    z, stats = BLOCK.apply(body, part.inputs, train=True)
    log_p = jax.nn.log_softmax(z @ params["head"]["kernel"] + params["head"]["bias"])
    return -log_p[np.arange(len(part.targets)), part.targets].mean(), stats["ConvBlock_0"]


def plain_adapt(params: Any, state: Any, support: Examples, steps: int, body_moves: bool) -> Any:
    """Gradient descent with the body's rate at LR or at zero, and the running statistics."""
    running = state["ConvBlock_0"]
    rates = {"network": LR if body_moves else 0.0, "head": LR}
    for _ in range(steps):
        grads, stats = jax.grad(nll, has_aux=True)(params, state, support)
        params = {
            name: jax.tree.map(lambda p, g, r=rate: p - r * g, params[name], grads[name])
            for name, rate in rates.items()
        }
        batch = {"mean": stats["mean"], "var": stats["var"] * COUNT / (COUNT - 1)}
        running = jax.tree.map(lambda old, new: (1 - WEIGHT) * old + WEIGHT * new, running, batch)
    return params, {"ConvBlock_0": running}


@pytest.mark.parametrize(
    ("make", "steps", "second_order"),
    [(maml, 1, True), (maml, 2, True), (maml, 2, False), (anil, 2, True), (anil, 2, False)],
    ids=["maml, 1 step", "maml", "maml, first order", "anil", "anil, first order"],
)
def test_the_loop_equals_one_written_again(make: Any, steps: int, second_order: bool) -> None:
    """Adapted weights, statistics, answers, meta-loss and meta-gradient.

    ANIL is MAML with the rate of the body at zero. First order is the gradient at the adapted
    weights; second order that of the function itself, as finite differences measure it.
    """
    learner = make(
        network=BLOCK, way=WAY, steps=steps, lr=LR, second_order=second_order, bn_new_weight=WEIGHT
    )
    episode, variables = small_episode(), made(learner)
    state = variables["state"]

    @jax.jit
    def again(params: Any) -> Any:
        adapt = lambda params: plain_adapt(params, state, episode.support, steps, make is maml)
        theta, running = adapt(params)
        loss = lambda theta: nll(theta, state, episode.query)[0]
        through = lambda params: loss(adapt(params)[0])
        grads = jax.grad(through)(params) if second_order else jax.grad(loss)(theta)
        z, _ = BLOCK.apply({"params": theta["network"], "state": running}, episode.query.inputs)
        return (
            theta,
            running,
            z @ theta["head"]["kernel"] + theta["head"]["bias"],
            loss(theta),
            grads,
        )

    @jax.jit
    def ours(params: Any) -> Any:
        given = {"params": params, "state": state}
        task = learner.adapt(given, episode.support)
        logits = learner.predict(given, task, episode.query.inputs)
        _, aux = learner.loss(given, episode, jax.random.key(0))
        return task["params"], task["state"], logits, aux.state

    params = variables["params"]
    theta, running, logits, loss, grads = again(params)
    *told, moved = ours(params)
    run = value_and_grad(learner, state, episode)
    value, by_params = run(params)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    jax.tree.map(close, [*told, value, by_params], [theta, running, logits, loss, grads])
    assert not moved  # every episode starts from the same statistics

    rng, h = np.random.default_rng(0), 1e-6
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
    ends = [run(jax.tree.map(lambda x, d, s=s: x + s * d, params, direction))[0] for s in (h, -h)]
    measured = float(ends[0] - ends[1]) / (2 * h)
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), by_params, direction)))
    assert (slope == pytest.approx(measured, rel=1e-5)) == second_order


@MAKERS
def test_asked_together_queries_are_answered_as_in_training(make: Any) -> None:
    learner = make(network=BLOCK, way=WAY, steps=1, transductive=True)
    episode, variables = small_episode(), made(learner)

    @jax.jit
    def run(variables: Any) -> Any:
        task = learner.adapt(variables, episode.support)
        logits = learner.predict(variables, task, episode.query.inputs)
        return logits, learner.loss(variables, episode, jax.random.key(0))[0]

    logits, loss = run(variables)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    by_hand = -log_p[np.arange(9), episode.query.targets].mean()
    assert float(loss) == pytest.approx(by_hand, rel=1e-12)


# Sizes and arguments


@MAKERS
def test_the_default_pupil(make: Any) -> None:
    part = Examples(
        jax.ShapeDtypeStruct((5, 28, 28, 1), jnp.float32),
        jax.ShapeDtypeStruct((5,), jnp.int32),
        jax.ShapeDtypeStruct((5,), bool),
    )
    params = jax.eval_shape(make(way=5).init, jax.random.key(0), Episode(part, part))["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == 28_485
    assert sorted(params) == ["head", "network"]


@MAKERS
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps is 0; the pupil needs at least one update"),
        ({"lr": 0.0}, "lr is 0.0; it is above 0"),
        ({"lr": float("nan")}, "lr is nan; it is above 0"),
    ],
)
def test_arguments_outside_their_values_are_refused(
    make: Any, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**wrong)
