"""Matching networks: numbers worked out by hand, in double precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets
from metashot.base import Episode, Examples, Network
from metashot.learners.matching import matching, released

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]

IDENTITY = Network(
    init=lambda key, x: {"params": {}, "state": {}},
    apply=lambda variables, x, *, train=False, mask=None, key=None: (x, {}),
)
NOTHING = {"params": {}, "state": {"support": {}, "query": {}}}
CLOSE = {"rel": 0, "abs": 1e-9}


def examples(inputs: Any, targets: Any) -> Examples:
    inputs = inputs if isinstance(inputs, jax.Array) else np.asarray(inputs, float)
    return Examples(inputs, np.asarray(targets, np.int32), np.ones(len(targets), bool))


def at(cosines: Any) -> Any:
    """Unit vectors in the plane that have these cosines with (1, 0)."""
    c = jnp.asarray(cosines)
    return jnp.stack([c, jnp.sqrt(1 - c**2)], 1)


def answer(support: Examples, query: Any, *targets: int, **options: Any) -> Any:
    """P [q, way], logits [q, way], and the loss at each of the targets, of identity embeddings."""
    way = 1 + int(support.targets.max())
    learner = matching(network=IDENTITY, way=way, **options)

    @jax.jit
    def run(support: Examples, query: jax.Array) -> Any:
        def loss(target: int) -> jax.Array:
            episode = Episode(support, examples(query, [target] * len(query)))
            return learner.loss(NOTHING, episode, jax.random.key(0))[0]

        logits = learner.predict(NOTHING, learner.adapt(NOTHING, support), query)
        return jax.nn.softmax(logits), logits, [loss(target) for target in targets]

    p, logits, losses = run(support, jnp.asarray(query, float))
    return p, logits, [float(loss) for loss in losses]


# Similarities


def test_at_one_shot_the_logits_are_the_cosines() -> None:
    """A zero vector is similar to nothing."""
    support = examples([[4, 3], [1, 0], [-3, -4], [0, 0]], range(4))
    _, logits, _ = answer(support, [[3, 4], [0, 0]])
    np.testing.assert_allclose(logits, [[0.96, 0.6, -1, 0], [0, 0, 0, 0]], rtol=0, atol=1e-9)


def test_gradients_are_finite_at_zero_vectors() -> None:
    learner = matching(network=IDENTITY, way=2)

    @jax.jit
    @jax.grad
    def grad(both: Any) -> jax.Array:
        episode = Episode(examples(both[0], [0, 1]), examples(both[1], [0]))
        return learner.loss(NOTHING, episode, jax.random.key(0))[0]

    for part in grad((jnp.zeros((2, 2)), jnp.zeros((1, 2)))):
        assert np.isfinite(part).all()


def test_the_scale_sharpens() -> None:
    support = examples(at([0.8, 0.6]), [0, 1])
    for scale, expected in ((1.0, 0.5498339973), (10.0, 0.8807970780), (100.0, 0.9999999979)):
        p, _, _ = answer(support, [[1, 0]], scale=scale)
        assert float(p[0, 0]) == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("attention", ["softmax_then_sum", "sum_then_softmax"])
def test_squared_distances(attention: str) -> None:
    """-|(1, 1) - x|^2 is -1 and -5, and half of that at half the scale."""
    support = examples([[1, 0], [0, 3]], [0, 1])
    options = {"similarity": "sqeuclidean", "attention": attention}
    p, logits, losses = answer(support, [[1, 1]], 0, **options)
    assert logits.tolist() == [[-1, -5]]
    assert p[0].tolist() == pytest.approx([0.9820137900, 0.0179862100], **CLOSE)
    assert losses == pytest.approx([0.0181499279], **CLOSE)
    assert answer(support, [[1, 1]], scale=0.5, **options)[1].tolist() == [[-0.5, -2.5]]


# Attention


def test_two_classes_at_one_shot() -> None:
    """Both vectors are normalised: raw products of the query would give (0.2689, 0.7311)."""
    support = examples([[1, 0], [0, 1]], [0, 1])
    for attention in ("softmax_then_sum", "sum_then_softmax"):
        p, _, losses = answer(support, [[3, 4]], 0, 1, attention=attention)
        assert p[0].tolist() == pytest.approx([0.4501660027, 0.5498339973], **CLOSE)
        assert losses == pytest.approx([0.7981388694, 0.5981388694], **CLOSE)


def test_the_loss_is_one_softmax_not_two() -> None:
    """Taking P for logits would give 0.4885."""
    support = examples(at([1.0, 0.0]), [0, 1])
    p, _, losses = answer(support, [[1, 0]], 1)
    assert p[0].tolist() == pytest.approx([0.7310585786, 0.2689414214], **CLOSE)
    assert losses == pytest.approx([1.3132616875], **CLOSE)


@pytest.mark.parametrize(
    ("cosines", "paper", "release"),
    [
        ([1.0, 0.0, 0.5, 0.5], 0.5299925756, 0.5),
        ([1.0, 0.2, 0.7, 0.6], 0.5066756048, 0.4750208125),  # they disagree on the class
    ],
)
def test_two_shots(cosines: list[float], paper: float, release: float) -> None:
    support = examples(at(cosines), [0, 0, 1, 1])
    p, _, losses = answer(support, [[1, 0]], 0)
    assert float(p[0, 0]) == pytest.approx(paper, **CLOSE)
    assert losses == pytest.approx([-np.log(paper)], **CLOSE)
    p, _, losses = answer(support, [[1, 0]], 0, **released())
    assert float(p[0, 0]) == pytest.approx(release, **CLOSE)
    assert losses == pytest.approx([-np.log(release)], **CLOSE)


@pytest.mark.parametrize(
    ("shot", "other", "attention", "p", "loss"),
    [
        (1, 0.0, "softmax_then_sum", 0.4046096752, 0.9048324416),
        (1, 0.0, "sum_then_softmax", 0.4046096752, 0.9048324416),
        (5, 0.0, "softmax_then_sum", 0.4046096752, 0.9048324416),
        (5, 0.0, "sum_then_softmax", 0.9737555469, 0.0265949853),
        (1, -0.25, "softmax_then_sum", 0.4659790583, 0.7636145852),
    ],
)
def test_the_best_there_is_in_five_classes(
    shot: int, other: float, attention: str, p: float, loss: float
) -> None:
    """The right class has cosine 1, the others 0, or -1/4 as corners of a simplex."""
    support = examples(at(np.repeat([1.0, *[other] * 4], shot)), np.repeat(np.arange(5), shot))
    told, _, losses = answer(support, [[1, 0]], 0, attention=attention)
    assert float(told[0, 0]) == pytest.approx(p, **CLOSE)
    assert losses == pytest.approx([loss], **CLOSE)


@pytest.mark.parametrize("attention", ["softmax_then_sum", "sum_then_softmax"])
def test_the_gradient_by_the_cosines(attention: str) -> None:
    learner = matching(network=IDENTITY, way=5, attention=attention)

    @jax.jit
    @jax.value_and_grad
    def loss(cosines: jax.Array) -> jax.Array:
        episode = Episode(examples(at(cosines), range(5)), examples([[1, 0]], [0]))
        return learner.loss(NOTHING, episode, jax.random.key(0))[0]

    value, grad = loss(jnp.full(5, 0.5))
    assert float(value) == pytest.approx(1.6094379124, **CLOSE)
    assert grad.tolist() == pytest.approx([-0.8, 0.2, 0.2, 0.2, 0.2], **CLOSE)


@pytest.mark.parametrize("attention", ["softmax_then_sum", "sum_then_softmax"])
def test_padding_and_a_class_without_support_take_no_part(attention: str) -> None:
    support = examples(at([0.8, 0.6, 1.0, 1.0]), [0, 2, 1, -1])
    support = support._replace(mask=np.array([True, True, False, True]))
    p, logits, losses = answer(support, [[1, 0]], 0, attention=attention)
    assert np.isneginf(logits[0, 1])
    assert p[0].tolist() == pytest.approx([0.5498339973, 0, 0.4501660027], **CLOSE)
    assert losses == pytest.approx([0.5981388694], **CLOSE)


# Full context


def bias_only(rows: int, size: int) -> Any:
    """All zeros but for the candidate's bias, which is 1."""
    return {"kernel": np.zeros((rows, 4 * size)), "bias": np.repeat([0.0, 0, 0, 1], size)}


def with_lstms(forward: Any, backward: Any, attention: Any) -> Any:
    lstms = {"forward": forward, "backward": backward, "attention": attention}
    return {"params": {"network": {}, **lstms}, "state": NOTHING["state"]}


def in_context(variables: Any, support: Any, query: Any, mask: Any = None, **options: Any) -> Any:
    """Embeddings of the support [n, d], and cosines of the queries with them [q, n]."""
    known = examples(support, range(len(support)))
    known = known if mask is None else known._replace(mask=np.asarray(mask))
    learner = matching(network=IDENTITY, way=len(support), full_context=True, **options)

    @jax.jit
    def run(support: Examples, query: jax.Array) -> Any:
        task = learner.adapt(variables, support)
        return task["embeddings"], learner.predict(variables, task, query)

    return run(known, jnp.asarray(query, float))


def test_lstms_of_zeros_are_no_context() -> None:
    shapes = examples(np.zeros((3, 2)), range(3))
    learner = matching(network=IDENTITY, way=3, full_context=True)
    variables = learner.init(jax.random.key(0), Episode(shapes, shapes))
    support = [[1, 0], [0, 1], [0.5, 0.5]]
    g, cosines = in_context(variables, support, [[0.6, 0.8]])
    np.testing.assert_array_equal(g, support)
    np.testing.assert_allclose(cosines[0], [0.6, 0.8, 0.9899494937], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("bilstm", "support", "expected"),
    [
        ("aligned", [1, 2], [1.4398181441, 2.4398181441]),
        ("released", [1, 2], [1.3633994844, 2.5162368037]),
        ("aligned", [1, 2, 3], [1.4730014637, 2.5162368037, 3.4730014637]),
        ("released", [1, 2, 3], [1.3633994844, 2.5162368037, 3.5826034430]),
    ],
)
def test_the_support_in_context(bilstm: str, support: list[float], expected: list[float]) -> None:
    """Padding between changes nothing."""
    variables = with_lstms(bias_only(2, 1), bias_only(2, 1), bias_only(3, 1))
    padded = np.insert(np.asarray(support, float), 1, 1e3)[:, None]
    mask = padded[:, 0] < 1e3
    g, _ = in_context(variables, padded, [[1]], mask, bilstm=bilstm)
    assert np.asarray(g)[mask, 0].tolist() == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize(
    ("bilstm", "g"),
    [
        (
            "aligned",
            [
                (0.9844053546, 0.0440976763),
                (0.0155624993, 1.0337264111),
                (0.5212986045, 0.4878246903),
            ],
        ),
        (
            "released",
            [
                (1.0344837695, 0.0625329825),
                (0.0155624993, 1.0337264111),
                (0.4712201896, 0.4693893840),
            ],
        ),
    ],
)
def test_full_context_by_hand(bilstm: str, g: Any) -> None:
    """Two readings; entry e of a kernel is s cos e, to three digits."""

    def waves(rows: int, s: float) -> Any:
        kernel = np.round(s * np.cos(np.arange(8.0 * rows)), 3).reshape(rows, 8)
        return {"kernel": kernel, "bias": np.zeros(8)}

    variables = with_lstms(waves(4, 0.3), waves(4, -0.3), waves(6, 0.2))
    support = [[1, 0], [0, 1], [0.5, 0.5]]
    told, cosines = in_context(variables, support, [[0.6, 0.8]], fce_steps=2, bilstm=bilstm)
    np.testing.assert_allclose(told, g, rtol=0, atol=1e-9)
    if bilstm == "aligned":
        expected = [0.6683375211, 0.7824837096, 0.9913857194]
        assert cosines[0].tolist() == pytest.approx(expected, **CLOSE)
        p = [0.2855309010, 0.3200561492, 0.3944129498]
        assert jax.nn.softmax(cosines[0]).tolist() == pytest.approx(p, **CLOSE)


# Batch norm and dropout


def pictures(seed: int, targets: list[int]) -> Examples:
    rng = np.random.default_rng(seed)
    return examples(rng.normal(size=(len(targets), 4, 4, 1)) * (seed + 1) + seed, targets)


def probabilities(z: np.ndarray, g: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[q, 2] by the paper's formula, written again."""
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    weights = np.exp(unit(z) @ unit(g).T)
    weights /= weights.sum(1, keepdims=True)
    return weights @ np.eye(2)[targets]


def test_each_role_has_its_own_batch_statistics() -> None:
    """In training those of its batch, by which its own running ones move; then its running ones."""
    network = nets.conv4(2, blocks=1)
    learner = matching(network=network, way=2, bn_new_weight=0.3)
    episode = Episode(pictures(0, [0, 1, 0, 1]), pictures(1, [1, 0]))
    variables = jax.jit(learner.init)(jax.random.key(0), episode)
    assert sorted(variables["state"]) == ["query", "support"]

    @jax.jit
    def run(variables: Any) -> Any:
        loss, aux = learner.loss(variables, episode, jax.random.key(0))
        after = {**variables, "state": aux.state}
        logits = learner.predict(after, learner.adapt(after, episode.support), episode.query.inputs)
        parts = {"support": episode.support.inputs, "query": episode.query.inputs}
        own = {r: {**variables, "state": variables["state"][r]} for r in parts}
        trained = {r: network.apply(own[r], x, train=True) for r, x in parts.items()}
        own = {r: {**variables, "state": aux.state[r]} for r in parts}
        tested = {r: network.apply(own[r], x)[0] for r, x in parts.items()}
        return loss, aux.state, logits, trained, tested

    loss, state, logits, trained, tested = run(variables)
    p = probabilities(*(np.asarray(trained[r][0]) for r in ("query", "support")), [0, 1, 0, 1])
    assert float(loss) == pytest.approx(-np.log(p[[0, 1], [1, 0]]).mean(), **CLOSE)
    p = probabilities(*(np.asarray(tested[r]) for r in ("query", "support")), [0, 1, 0, 1])
    np.testing.assert_allclose(jax.nn.softmax(logits), p, rtol=0, atol=1e-9)
    for role, count in (("support", 4 * 16), ("query", 2 * 16)):
        batch, moved = trained[role][1]["ConvBlock_0"], state[role]["ConvBlock_0"]
        var = 0.7 + 0.3 * batch["var"] * count / (count - 1)
        np.testing.assert_allclose(moved["mean"], 0.3 * batch["mean"], atol=1e-12)
        np.testing.assert_allclose(moved["var"], var, atol=1e-12)
    apart = np.abs(state["support"]["ConvBlock_0"]["mean"] - state["query"]["ConvBlock_0"]["mean"])
    assert apart.max() > 0.01


def test_dropout_leaves_out_a_tenth_in_training_alone() -> None:
    """What survives grows by 1 / 0.9; without a key, or without training, nothing is left out."""
    network = nets.conv4(4, blocks=1, dropout=0.1)
    x = np.random.default_rng(0).normal(size=(20, 32, 32, 1))
    variables = jax.jit(network.init)(jax.random.key(0), x)

    @jax.jit
    def run(variables: Any, key: jax.Array) -> Any:
        dropped, stats = network.apply(variables, x, train=True, key=key)
        whole, same = network.apply(variables, x, train=True)
        tested = [network.apply(variables, x, key=k)[0] for k in (key, None)]
        return dropped, whole, (stats, same), tested

    dropped, whole, (stats, same), tested = jax.tree.map(
        np.asarray, run(variables, jax.random.key(1))
    )
    alive = whole > 0
    kept = dropped[alive] / whole[alive]
    survived = kept[kept > 0]
    np.testing.assert_allclose(survived, 1.1111111111, rtol=1e-6)
    assert survived.size / kept.size == pytest.approx(0.9, abs=0.01)
    assert dropped.mean() == pytest.approx(whole.mean(), rel=0.01)
    jax.tree.map(np.testing.assert_array_equal, stats, same)
    np.testing.assert_array_equal(*tested)


def test_the_loss_draws_its_dropout_from_the_key_and_answers_draw_none() -> None:
    learner = matching(network=nets.conv4(4, blocks=1, dropout=0.5), way=2)
    both = pictures(0, [0, 1, 0, 1])
    episode = Episode(both, both)
    variables = jax.jit(learner.init)(jax.random.key(0), episode)
    loss = jax.jit(lambda key: learner.loss(variables, episode, key)[0])
    assert loss(jax.random.key(0)) != loss(jax.random.key(1))
    assert loss(jax.random.key(0)) == loss(jax.random.key(0))

    @jax.jit
    def answers(key: jax.Array) -> jax.Array:
        task = learner.adapt(variables, both, key)
        return learner.predict(variables, task, both.inputs)

    logits = answers(jax.random.key(0))
    np.testing.assert_array_equal(logits, answers(jax.random.key(1)))


# Sizes and arguments


def test_the_default_network_has_113_088_parameters_and_1600_features() -> None:
    part = Examples(
        jax.ShapeDtypeStruct((5, 84, 84, 3), jnp.float32),
        jax.ShapeDtypeStruct((5,), jnp.int32),
        jax.ShapeDtypeStruct((5,), bool),
    )
    learner = matching(way=5)
    variables = jax.eval_shape(learner.init, jax.random.key(0), Episode(part, part))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 113_088
    task = jax.eval_shape(learner.adapt, variables, part)
    assert task["embeddings"].shape == (5, 1600)


def test_full_context_of_1600_features_has_71_699_200_parameters_more() -> None:
    part = Examples(
        jax.ShapeDtypeStruct((1, 84, 84, 3), jnp.float32),
        jax.ShapeDtypeStruct((1,), jnp.int32),
        jax.ShapeDtypeStruct((1,), bool),
    )
    learner = matching(full_context=True)
    params = jax.eval_shape(learner.init, jax.random.key(0), Episode(part, part))["params"]
    count = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in params.items()}
    assert count.pop("network") == 113_088
    assert count == {"forward": 20_486_400, "backward": 20_486_400, "attention": 30_726_400}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attention": "sum"}, "attention is 'sum'; it is one of softmax_then_sum, sum_then_"),
        ({"similarity": "dot"}, "similarity is 'dot'; it is one of cosine, sqeuclidean"),
        ({"bilstm": "both"}, "bilstm is 'both'; it is one of aligned, released"),
        ({"fce_steps": 0}, "fce_steps is 0; it is at least 1"),
    ],
)
def test_arguments_outside_their_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matching(**wrong)
