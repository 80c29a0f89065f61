"""What every learner should beat: plain classification, nearest neighbours, fine-tuning."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metashot import nets
from metashot.base import Aux, Episode, Examples, Learner, Network
from metashot.learners.baselines import (
    classifier,
    fine_tune,
    nearest_embedding,
    nearest_neighbor,
)

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]

NOTHING = {"params": {}, "state": {}}
IDENTITY = Network(
    init=lambda key, x: {"params": {}, "state": {}},
    apply=lambda variables, x, *, train=False, mask=None, key=None: (x, {}),
)
BLOCK = nets.conv4(2, blocks=1)


def examples(inputs: Any, targets: Any) -> Examples:
    targets = jnp.asarray(targets, jnp.int32)
    return Examples(jnp.asarray(inputs, float), targets, jnp.ones(len(targets), bool))


# Nearest neighbour


def logits(
    support: Examples, queries: Any, way: int, variables: Any = NOTHING, **options: Any
) -> Any:
    learner = nearest_neighbor(way=way, **options)

    @jax.jit
    def run(variables: Any, support: Examples, queries: jax.Array) -> jax.Array:
        return learner.predict(variables, learner.adapt(variables, support), queries)

    return np.asarray(run(variables, support, jnp.asarray(queries, float)))


def test_the_nearest_is_the_most_similar_by_cosine() -> None:
    """By Euclidean distance it would be the other class: 9.22 against 0.71."""
    support = examples([[10, 2], [0.5, 0.5]], [0, 1])
    scores = logits(support, [[1, 0]], way=2)
    np.testing.assert_allclose(scores, [[0.9805806757, 0.7071067812]], rtol=0, atol=1e-9)


def test_one_neighbour_decides_at_any_shot() -> None:
    """Neither the mean of a class (0.5 against 0.6 here) nor a vote."""
    support = examples([[1, 0], [0, 1], [0.6, 0.8], [0.6, -0.8]], [0, 0, 1, 1])
    scores = logits(support, [[1, 0]], way=2)
    np.testing.assert_allclose(scores, [[1, 0.6]], rtol=0, atol=1e-9)


def test_a_class_without_support_has_no_chance() -> None:
    support = examples([[-1, 0], [1, 1]], [2, 0])
    support = support._replace(mask=jnp.array([True, False]))
    scores = logits(support, [[1, 0]], way=3)
    assert np.isneginf(scores[0, :2]).all()
    assert scores[0, 2] == pytest.approx(-1, abs=1e-9)


def test_a_zero_vector_is_similar_to_nothing_and_has_a_finite_gradient() -> None:
    learner = nearest_neighbor(way=2)
    support = examples([[1, 0], [0, 0]], [0, 1])

    @jax.jit
    def run(query: jax.Array) -> Any:
        episode = Episode(support, examples(query, [0]))
        loss = lambda query: learner.loss(
            NOTHING, episode._replace(query=episode.query._replace(inputs=query)), jax.random.key(0)
        )[0]
        task = learner.adapt(NOTHING, support)
        return learner.predict(NOTHING, task, query), jax.grad(loss)(query)

    scores, grad = run(jnp.zeros((1, 2)))
    assert scores.tolist() == [[0, 0]]
    assert np.isfinite(grad).all()


def test_a_network_embeds_what_is_compared() -> None:
    swap = Network(
        init=lambda key, x: {"params": {"sign": jnp.array(-1.0)}, "state": {}},
        apply=lambda variables, x, *, train=False, mask=None: (
            x[:, ::-1] * jnp.array([variables["params"]["sign"], 1.0]),
            {},
        ),
    )
    support = examples([[0, 1], [1, 0]], [0, 1])  # embedded at (-1, 0) and (0, 1)
    variables = jax.jit(nearest_neighbor(network=swap).init)(
        jax.random.key(0), Episode(support, support)
    )
    scores = logits(support, [[0.6, 0.8]], way=2, variables=variables, network=swap)
    np.testing.assert_allclose(scores, [[0.8, 0.6]], rtol=0, atol=1e-9)
    changed = {"params": {"sign": jnp.array(1.0)}, "state": {}}
    same = logits(support, [[0.6, -0.8]], way=2, variables=changed, network=swap)
    np.testing.assert_allclose(same, [[-0.8, 0.6]], rtol=0, atol=1e-9)


def test_pixels_are_compared_flattened() -> None:
    pictures = np.random.default_rng(0).normal(size=(3, 2, 2, 1))
    support = examples(pictures, [0, 1, 2])
    assert logits(support, pictures, way=3).argmax(1).tolist() == [0, 1, 2]
    flat = logits(examples(pictures.reshape(3, 4), [0, 1, 2]), pictures.reshape(3, 4), way=3)
    np.testing.assert_allclose(logits(support, pictures, way=3), flat, rtol=1e-12)


# Classification


def pictures(n: int, way: int, seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    return examples(rng.uniform(size=(n, 5, 5, 1)) + seed, np.arange(n) % way)


def plain(query: Examples) -> Episode:
    """A batch for ordinary classification: the support has no rows."""
    return Episode(jax.tree.map(lambda x: x[:0], query), query)


def made(learner: Learner, episode: Episode) -> Any:
    """Variables in double precision, away from where any of them is special."""
    shapes = jax.eval_shape(learner.init, jax.random.key(0), episode)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.uniform(0.1, 0.9, x.shape), shapes)


def block_nll(variables: Any, part: Examples) -> Any:
    """Of a classifier on BLOCK, by the batch's own statistics; and these, the variance unbiased."""
    params = variables["params"]
    body = {"params": params["network"], "state": variables["state"]}
    z, stats = BLOCK.apply(body, part.inputs, train=True)
    log_p = jax.nn.log_softmax(z @ params["head"]["kernel"] + params["head"]["bias"])
    n, batch = part.inputs.size, stats["ConvBlock_0"]
    moved = {"mean": batch["mean"], "var": batch["var"] * n / (n - 1)}
    return -log_p[np.arange(len(part.targets)), part.targets].mean(), {"ConvBlock_0": moved}


@pytest.mark.parametrize(
    ("support", "part"), [([], [0, 1, 2]), ([2, 0, 2], [0, 2])], ids=["all", "two"]
)
def test_a_support_says_which_classes_take_part(support: list[int], part: list[int]) -> None:
    """Softmax regression: the gradient of the kernel is x^T (P - Y) / n."""
    learner = classifier(network=IDENTITY, way=3)
    rng = np.random.default_rng(0)
    kernel, bias, x = rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=(5, 4))
    targets = np.array([0, 2, 2, 0, 2])
    episode = Episode(examples(rng.normal(size=(len(support), 4)), support), examples(x, targets))
    params = {"network": {}, "head": {"kernel": kernel, "bias": bias}}

    @jax.jit
    def run(params: Any) -> Any:
        of = lambda params: {"params": params, "state": {}}
        loss = lambda params: learner.loss(of(params), episode, jax.random.key(0))
        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
        task = learner.adapt(of(params), episode.support)
        return learner.predict(of(params), task, x), value, aux.metrics["accuracy"], grads["head"]

    scores, value, accuracy, grads = run(params)
    logits = (x @ kernel + bias)[:, part]
    p = np.zeros((5, 3))
    p[:, part] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(scores[:, part], logits, rtol=0, atol=1e-12)
    assert np.isneginf(np.delete(scores, part, 1)).all()
    assert float(value) == pytest.approx(-np.log(p[np.arange(5), targets]).mean(), abs=1e-9)
    assert float(accuracy) == pytest.approx((p.argmax(1) == targets).mean())
    error = (p - np.eye(3)[targets]) / 5
    np.testing.assert_allclose(grads["kernel"], x.T @ error, rtol=0, atol=1e-9)
    np.testing.assert_allclose(grads["bias"], error.sum(0), rtol=0, atol=1e-9)


def test_a_classifier_trains_by_the_batch_and_answers_by_the_running_statistics() -> None:
    learner = classifier(network=BLOCK, way=3, bn_new_weight=0.3)
    batch = pictures(6, 3)
    variables = made(learner, plain(batch))

    @jax.jit
    def run(variables: Any) -> Any:
        loss, aux = learner.loss(variables, plain(batch), jax.random.key(0))
        task = learner.adapt(variables, plain(batch).support)
        scores = learner.predict(variables, task, batch.inputs)
        body = {"params": variables["params"]["network"], "state": variables["state"]}
        head = variables["params"]["head"]
        by_hand = BLOCK.apply(body, batch.inputs)[0] @ head["kernel"] + head["bias"]
        return (loss, aux.state, scores), (*block_nll(variables, batch), by_hand)

    (loss, state, scores), (desired, moved, by_hand) = run(variables)
    assert float(loss) == pytest.approx(float(desired), abs=1e-9)
    np.testing.assert_allclose(scores, by_hand, rtol=0, atol=1e-9)
    old = variables["state"]
    jax.tree.map(
        lambda new, old, batch: np.testing.assert_allclose(new, 0.7 * old + 0.3 * batch, rtol=1e-9),
        *(state, old, moved),
    )


def test_a_classifiers_dropout_draws_from_the_losses_key() -> None:
    learner = classifier(network=nets.conv4(2, blocks=1, dropout=0.5), way=3)
    batch = plain(pictures(6, 3))
    variables = made(learner, batch)
    loss = jax.jit(lambda key: learner.loss(variables, batch, key)[0])
    first = loss(jax.random.key(0))
    assert first == loss(jax.random.key(0))
    assert first != loss(jax.random.key(1))


@pytest.mark.parametrize(
    ("learner", "total"),
    [(classifier(), 215_552), (nearest_embedding(), 215_552), (classifier(way=5), 121_093)],
    ids=["classifier", "nearest_embedding", "5 classes"],
)
def test_parameter_counts(learner: Learner, total: int) -> None:
    part = Examples(
        jax.ShapeDtypeStruct((5, 84, 84, 3), jnp.float32),
        jax.ShapeDtypeStruct((5,), jnp.int32),
        jax.ShapeDtypeStruct((5,), bool),
    )
    params = jax.eval_shape(learner.init, jax.random.key(0), Episode(part, part))["params"]
    assert sum(x.size for x in jax.tree.leaves(params["network"])) == 113_088
    assert sum(x.size for x in jax.tree.leaves(params)) == total


def test_the_nearest_embedding_trains_as_a_classifier_and_answers_as_a_neighbour() -> None:
    learner = nearest_embedding(network=BLOCK, way=3, classes=7, bn_new_weight=0.3)
    batch, support, query = plain(pictures(8, 7)), pictures(6, 3, 1), pictures(4, 3, 2)
    variables = made(learner, batch)
    trained = classifier(network=BLOCK, way=7, bn_new_weight=0.3)
    neighbour = nearest_neighbor(network=BLOCK, way=3)

    @jax.jit
    def run(variables: Any) -> Any:
        body = {"params": variables["params"]["network"], "state": variables["state"]}
        ours = learner.predict(variables, learner.adapt(variables, support), query.inputs)
        plainly = neighbour.predict(body, neighbour.adapt(body, support), query.inputs)
        losses = [one.loss(variables, batch, jax.random.key(0)) for one in (learner, trained)]
        return (ours, losses[0]), (plainly, losses[1])

    jax.tree.map(np.testing.assert_array_equal, *run(variables))


# Fine-tuning


def quadratic() -> Learner:
    """theta^2 / 2; the state counts the calls of `loss` and holds a number that none changes."""

    def loss(variables: Any, episode: Episode, key: jax.Array) -> Any:
        seen = variables["state"]["seen"] + 1
        return variables["params"]["theta"] ** 2 / 2, Aux({}, {"seen": seen})

    return Learner(
        init=lambda key, episode: {
            "params": {"theta": jnp.array(1.0)},
            "state": {"seen": jnp.array(0.0), "index": jnp.array(7)},
        },
        adapt=lambda variables, support, key=None: variables["params"]["theta"],
        predict=lambda variables, task, inputs: jnp.stack([task, variables["params"]["theta"]]),
        loss=loss,
    )


@pytest.mark.parametrize(
    ("lr", "decay", "path"),
    [
        (0.1, 1.0, {1: 0.9, 2: 0.855, 3: 0.8265}),
        (0.01, 0.1, {15: 0.9093526157}),
        (0.01, 0.0, {15: 0.8600583546}),
    ],
)
def test_a_falling_rate(lr: float, decay: float, path: dict[int, float]) -> None:
    """Descent on theta^2 / 2 from 1 at the rates lr / (1 + s decay), s = 0, 1, ..."""
    for steps, expected in path.items():
        optimizer = optax.sgd(lambda s: lr / (1 + s * decay))
        learner = fine_tune(quadratic(), optimizer, steps)
        nobody = examples(np.zeros((0, 1)), [])

        @jax.jit
        def run(learner: Learner = learner, nobody: Examples = nobody) -> Any:
            variables = learner.init(jax.random.key(0), Episode(nobody, nobody))
            task = learner.adapt(variables, nobody)
            return task[0], learner.predict(variables, task, nobody.inputs)

        tuned, answer = run()
        assert float(tuned["params"]["theta"]) == pytest.approx(expected, abs=1e-9)
        assert tuned["state"] == {"seen": steps, "index": 7}
        assert answer.tolist() == pytest.approx([expected, expected], abs=1e-9)


def test_fine_tuning_equals_a_loop_written_again() -> None:
    """All weights move, by the support's own statistics; the running ones move on by a tenth."""
    learner = classifier(network=BLOCK, way=3)
    tuning = fine_tune(learner, optax.sgd(0.2), 3)
    support, query = pictures(6, 3), pictures(4, 3, 1)
    variables = made(learner, plain(support))
    before = jax.tree.map(np.copy, variables)

    @jax.jit
    def again(variables: Any) -> Any:
        params, state = variables["params"], variables["state"]
        for _ in range(3):
            given = lambda params, state=state: {"params": params, "state": state}
            loss = lambda params, given=given: block_nll(given(params), support)
            grads, batch = jax.grad(loss, has_aux=True)(params)
            params = jax.tree.map(lambda p, g: p - 0.2 * g, params, grads)
            state = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state, batch)
        z, _ = BLOCK.apply({"params": params["network"], "state": state}, query.inputs)
        scores = z @ params["head"]["kernel"] + params["head"]["bias"]
        return {"params": params, "state": state}, scores

    @jax.jit
    def ours(variables: Any) -> Any:
        task = tuning.adapt(variables, support)
        return task[0], tuning.predict(variables, task, query.inputs)

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    jax.tree.map(close, ours(variables), again(variables))
    jax.tree.map(np.testing.assert_array_equal, variables, before)
    assert (tuning.init, tuning.loss) == (learner.init, learner.loss)


def test_a_fresh_head_is_drawn_from_the_key() -> None:
    """At rate zero it stays as it was drawn: 3 classes in place of 7, U(-1/sqrt(8), 1/sqrt(8))."""
    learner = fine_tune(classifier(network=BLOCK, way=7), optax.sgd(0.0), 1, way=3)
    support = pictures(6, 3)
    variables = made(learner, plain(support))

    @jax.jit
    def run(key: jax.Array) -> Any:
        task = learner.adapt(variables, support, key)
        return task[0]["params"], learner.predict(variables, task, support.inputs)

    (one, scores), (same, _), (other, _) = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    assert scores.shape == (6, 3)
    assert np.isfinite(scores).all()
    for name, shape in (("kernel", (8, 3)), ("bias", (3,))):
        assert one["head"][name].shape == shape
        assert 0 < np.abs(one["head"][name]).max() <= 8**-0.5
        np.testing.assert_array_equal(one["head"][name], same["head"][name])
        assert np.all(one["head"][name] != other["head"][name])
    jax.tree.map(np.testing.assert_array_equal, one["network"], variables["params"]["network"])
    with pytest.raises(ValueError, match="a fresh head is drawn at random: give adapt a key"):
        jax.eval_shape(learner.adapt, variables, support)


def test_fine_tuning_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="steps is 0; fine-tuning needs at least one update"):
        fine_tune(quadratic(), optax.sgd(0.1), 0)
