"""Weight imprinting: numbers worked out by hand, in double precision, and what storing keeps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets
from metashot.base import Episode, Examples, Learner, Network, merged
from metashot.learners.baselines import nearest_neighbor
from metashot.learners.imprinting import (
    grow,
    imprint,
    imprinting,
    random_columns,
    remove_class,
    stored_classes,
)

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.usefixtures("float64"),
]

IDENTITY = Network(
    init=lambda key, x: {"params": {}, "state": {}},
    apply=lambda variables, x, *, train=False, mask=None, key=None: (x, {}),
)
BLOCK = nets.conv4(2, blocks=1)
PLAIN = imprinting(network=IDENTITY, size=None)
R = 0.5**0.5


def examples(inputs: Any, targets: Any) -> Examples:
    targets = jnp.asarray(targets, jnp.int32)
    return Examples(jnp.asarray(inputs, float), targets, jnp.ones(len(targets), bool))


def stored(*columns: Any, capacity: int | None = None, scale: float = 10.0) -> Any:
    """Variables of PLAIN whose base classes have these columns."""
    base = jnp.asarray(columns, float)
    sums = {"sum": jnp.zeros_like(base), "count": jnp.zeros(len(base))}
    variables = {
        "params": {"network": {}, "columns": base, "scale": jnp.asarray(scale)},
        "state": {"network": {}, **sums},
    }
    return grow(variables, capacity or len(base))


NOBODY = Examples(np.zeros((0, 2)), np.zeros(0, np.int32), np.zeros(0, bool))


@jax.jit
def store(variables: Any, support: Examples) -> Any:
    return imprint(PLAIN, variables, support)


@jax.jit
def joint(variables: Any, queries: jax.Array) -> jax.Array:
    """Logits by all stored columns."""
    return PLAIN.predict(variables, PLAIN.adapt(variables, NOBODY), queries)


def softmax(logits: Any) -> np.ndarray:
    return np.asarray(jax.nn.softmax(jnp.asarray(logits)))


def column(variables: Any, label: int) -> np.ndarray:
    return np.asarray(variables["params"]["columns"][label])


def after(*shots: Any, label: int = 0, start: Any = None) -> np.ndarray:
    """The column that these embeddings leave behind, one call of `imprint` each."""
    variables = stored([0.0, 0.0]) if start is None else start
    for shot in shots:
        rows = np.reshape(shot, (-1, 2))
        variables = store(variables, examples(rows, [label] * len(rows)))
    return column(variables, label)


def close(actual: Any, desired: Any, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(actual, desired, rtol=0, atol=atol)


# The classifier of cosines


@pytest.mark.parametrize(
    ("classes", "others", "scale", "probability"),
    [
        (100, -1, 1, 0.0694532),
        (100, -1, 5, 0.9955255),
        (200, 0, 1, 0.0134756),
        (200, 0, 10, 0.9910463),
    ],
)
def test_without_a_scale_no_class_is_probable(
    classes: int, others: int, scale: float, probability: float
) -> None:
    """The true column along the embedding, the others against it or across."""
    rest = [[others, 1 - abs(others)]] * (classes - 1)
    logits = joint(stored([1, 0], *rest, scale=scale), jnp.array([[1.0, 0]]))
    assert softmax(logits)[0, 0] == pytest.approx(probability, abs=1e-7)


def test_the_loss_has_a_floor_that_the_scale_lowers() -> None:
    """That of 100 classes, the others against the embedding."""
    loss = jax.jit(lambda variables: PLAIN.loss(variables, batch, jax.random.key(0))[0])
    batch = Episode(NOBODY, examples([[1, 0]], [0]))
    for scale, floor in ((1, 2.667103), (5, 0.00448452), (10, 2.0405e-7)):
        variables = stored([1, 0], *[[-1, 0]] * 99, scale=scale)
        assert float(loss(variables)) == pytest.approx(floor, rel=1e-4)


def test_the_length_of_a_column_does_not_matter() -> None:
    logits = joint(stored([3, 4], [21, 28]), jnp.array([[1.0, 0]]))
    close(logits, [[6, 6]])


def test_on_the_sphere_the_nearest_is_the_most_similar() -> None:
    """|u - v|^2 = 2 - 2 u . v: (1, 0) and (0.6, 0.8) are 0.8 apart."""
    u, v = nets.unit(jnp.array([[5.0, 0], [3, 4]]))
    close(((u - v) ** 2).sum(), 0.8)
    close(2 - 2 * u @ v, 0.8)


def test_the_gradient_of_a_column_is_across_it() -> None:
    """Through the normalisation of (3, 4), the cotangent (1, 0) becomes (0.128, -0.096)."""
    query = jnp.array([[1.0, 0]])

    def logit(columns: jax.Array) -> jax.Array:
        variables = stored([3, 4], scale=1.0)
        variables["params"]["columns"] = columns
        return joint(variables, query)[0, 0]

    grad = jax.jit(jax.grad(logit))(jnp.array([[3.0, 4]]))
    close(grad, [[0.128, -0.096]])
    close(grad @ jnp.array([3.0, 4]), [0])


@pytest.mark.parametrize("scale_param", ["raw", "log"])
def test_gradient_of_the_scale(scale_param: str) -> None:
    """Cosines 1 and 0.6 at scale 2; of its logarithm, s times as much."""
    learner = imprinting(network=IDENTITY, size=None, scale_param=scale_param)
    start = 2.0 if scale_param == "raw" else np.log(2.0)
    variables = stored([1, 0], [0.6, 0.8], scale=start)
    batch = Episode(NOBODY, examples([[1, 0]], [0]))

    def loss(params: Any) -> Any:
        return learner.loss({**variables, "params": params}, batch, jax.random.key(0))[0]

    value, grads = jax.jit(jax.value_and_grad(loss))(variables["params"])
    assert float(value) == pytest.approx(0.371101, abs=1e-6)
    by_scale = -0.124010 * (1 if scale_param == "raw" else 2)
    assert float(grads["scale"]) == pytest.approx(by_scale, abs=1e-6)
    close(
        softmax(joint(stored([1, 0], [0.6, 0.8], scale=2.0), jnp.array([[1.0, 0]]))),
        [[0.689974, 0.310026]],
        1e-6,
    )


@pytest.mark.parametrize(
    ("features", "size", "way", "embedding", "head"),
    [(1024, 64, 100, 65_600, 6_400), (1024, 64, 200, 65_600, 12_800), (2048, 256, 1, 524_544, 256)],
)
def test_parameter_counts(features: int, size: int, way: int, embedding: int, head: int) -> None:
    learner = imprinting(network=IDENTITY, size=size, way=way)
    part = Examples(
        *(
            jax.ShapeDtypeStruct(s, d)
            for s, d in [((1, features), jnp.float32), ((1,), jnp.int32), ((1,), bool)]
        )
    )
    params = jax.eval_shape(learner.init, jax.random.key(0), Episode(part, part))["params"]
    assert sum(x.size for x in jax.tree.leaves(params["embedding"])) == embedding
    assert params["columns"].size == head
    assert params["scale"].shape == ()


@pytest.mark.parametrize(("way", "bound"), [(200, 0.150756), (100, 0.191273)])
def test_columns_start_uniformly_within_xaviers_bound(way: int, bound: float) -> None:
    learner = imprinting(network=IDENTITY, size=64, way=way)
    batch = examples(np.ones((1, 4)), [0])
    columns = learner.init(jax.random.key(0), Episode(batch, batch))["params"]["columns"]
    assert 0.999 * bound < np.abs(columns).max() < bound + 1e-6


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"scale_param": "exp"}, "raw, log"), ({"scale": 0.0}, "scale is 0.0; it is above 0")],
)
def test_a_scale_outside_its_values_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        imprinting(**wrong)


# Imprinting


@pytest.mark.parametrize(
    ("scale", "logits", "probabilities"),
    [
        (10, (6, 8, 10), (0.015876, 0.117310, 0.866813)),
        (2, (1.2, 1.6, 2), (0.211983, 0.316241, 0.471776)),
    ],
)
def test_one_example_is_its_column(scale: float, logits: Any, probabilities: Any) -> None:
    shot = examples([[3, 4]], [2])
    variables = store(stored([1, 0], [0, 1], capacity=3, scale=scale), shot)
    close(column(variables, 2), [0.6, 0.8])
    told = joint(variables, shot.inputs)
    close(told, [logits])
    close(softmax(told), [probabilities], 1e-6)


def test_base_classes_keep_their_logits_and_share_the_rest_of_the_probability() -> None:
    before = stored([1, 0], [0, 1], capacity=4)
    variables = store(before, examples([[3, 4]], [2]))
    query = jnp.array([[1.0, 2]])
    old, new = np.asarray(joint(before, query)), np.asarray(joint(variables, query))
    np.testing.assert_array_equal(new[:, :2], old[:, :2])
    close(new, [[4.472136, 8.944272, 9.838699, -np.inf]], 1e-6)
    close(softmax(old), [[0.011294, 0.988706, 0, 0]], 1e-6)
    close(softmax(new), [[0.003304, 0.289238, 0.707458, 0]], 1e-6)
    close(softmax(new)[0, :2] / softmax(old)[0, :2], [1 - softmax(new)[0, 2]] * 2)


def test_several_examples_are_averaged_and_brought_to_length_one() -> None:
    two, three = [[1, 0], [0, 1]], [[1, 0], [0, 1], [0, 1]]
    close(after(two), [R, R])
    close(after(three), [0.2**0.5, 0.8**0.5])
    for shots, length in ((two, 2**0.5), (three, 5**0.5)):
        variables = store(stored([0, 0]), examples(shots, [0] * len(shots)))
        close(jnp.linalg.norm(variables["state"]["sum"][0]), length)
        assert variables["state"]["count"].tolist() == [len(shots)]


def test_a_later_example_adds_to_the_sum() -> None:
    """Neither a mean of means, (2 w + f) / 3, nor w + f."""
    column = after([[1, 0], [0, 1]], [0, 1])
    close(column, [0.447214, 0.894427], 1e-6)
    for wrong in ([0.505449, 0.862856], [0.382683, 0.923880]):
        assert np.abs(column - wrong).max() > 0.02


@pytest.mark.parametrize("seed", range(4))
def test_order_and_division_into_calls_do_not_matter(seed: int) -> None:
    """Seven examples of two classes, at once or in any pieces."""
    rng = np.random.default_rng(seed)
    inputs, labels = rng.normal(size=(7, 5)), np.array([1, 3, 1, 1, 3, 1, 3])
    start = stored(*rng.normal(size=(1, 5)), capacity=4)
    at_once = store(start, examples(inputs, labels))
    pieces = start
    cuts = np.sort(rng.choice(np.arange(1, 7), size=rng.integers(1, 6), replace=False))
    for rows in np.split(rng.permutation(7), cuts):
        pieces = store(pieces, examples(inputs[rows], labels[rows]))
    jax.tree.map(lambda a, b: close(a, b, 1e-12), pieces, at_once)
    assert stored_classes(pieces).tolist() == [True, True, False, True]


def test_embeddings_are_brought_to_length_one_before_they_are_averaged() -> None:
    """Of the raw ones the longer would decide: (0.995, 0.0995)."""
    close(after([[10, 0], [0, 1]]), [R, R])


def test_opposite_embeddings_leave_a_column_of_zeros() -> None:
    support = examples([[1, 2], [-1, -2]], [0, 0])
    variables = store(stored([0, 0], [1, 0]), support)
    assert column(variables, 0).tolist() == [0, 0]
    close(joint(variables, jnp.array([[1.0, 0]])), [[0, 10]])
    task = PLAIN.adapt(variables, support)
    close(PLAIN.predict(variables, task, jnp.array([[1.0, 0]])), [[0, -np.inf]])
    grad = jax.grad(lambda v: joint(v, jnp.array([[1.0, 0]]))[0, 0])(variables)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grad))


def test_augmented_copies_are_averaged_with_the_rest_at_once() -> None:
    """A mean for each image first would give (0.811242, 0.584710)."""
    close(after([[1, 0], [1, 0], [0, 1], [0.6, 0.8]]), [0.822192, 0.569210], 1e-6)


def test_the_mean_may_answer_otherwise_than_the_nearest_neighbour() -> None:
    """At one shot they are the same, as the neighbour is the column."""
    support = examples([[1, 0], [0, 1], [0.9, 0.19**0.5]], [0, 0, 1])
    query = jnp.array([[1.0, 0]])
    nearest = nearest_neighbor(way=2)
    variables = stored([0, 0], [0, 0], scale=1.0)

    def answers(support: Examples) -> Any:
        voted = nearest.adapt(variables, support)
        return (
            joint(store(variables, support), query),
            PLAIN.predict(variables, PLAIN.adapt(variables, support), query),
            nearest.predict(variables, voted, query),
        )

    imprinted, adapted, neighbour = answers(support)
    close(imprinted, [[0.707107, 0.9]], 1e-6)
    close(adapted, imprinted)
    close(neighbour, [[1, 0.9]])
    imprinted, adapted, neighbour = answers(jax.tree.map(lambda x: x[1:], support))
    close(imprinted, neighbour)
    close(adapted, neighbour)


def test_rows_that_do_not_count_change_nothing() -> None:
    start = stored([1, 0], capacity=3)
    support = examples([[3, 4], [np.nan, 1], [5, 5]], [1, 1, -1])
    support = support._replace(mask=jnp.array([True, False, True]))
    plainly = store(start, jax.tree.map(lambda x: x[:1], support))
    jax.tree.map(np.testing.assert_array_equal, store(start, support), plainly)
    same = store(start, support._replace(mask=jnp.zeros(3, bool)))
    jax.tree.map(np.testing.assert_array_equal, same, start)
    jax.tree.map(np.testing.assert_array_equal, imprint(PLAIN, start, NOBODY), start)


def test_a_trained_class_is_refused_by_its_label() -> None:
    start, support = stored([1, 0], [0, 1], capacity=3), examples([[3, 4], [1, 1]], [1, 2])
    with pytest.raises(ValueError, match=r"class 1 was trained.*base_pseudo_count"):
        imprint(PLAIN, start, support)
    with pytest.raises(ValueError, match=r"label 3 is beyond the last of 3 .*grow\(variables, 6\)"):
        imprint(PLAIN, start, examples([[3, 4]], [3]))
    variables = store(start, support)
    np.testing.assert_array_equal(column(variables, 1), [0, 1])
    close(column(variables, 2), [R, R])
    assert variables["state"]["count"].tolist() == [0, 0, 1]


def test_a_trained_class_may_stand_for_a_number_of_examples() -> None:
    """The column (0, 2) for two: their sum (0, 2), then (1, 2)."""
    start = stored([5, 0], [0, 2])
    variables = imprint(PLAIN, start, examples([[3, 0]], [1]), base_pseudo_count=2)
    close(column(variables, 1), [0.447214, 0.894427], 1e-6)
    assert variables["state"]["count"].tolist() == [0, 3]
    np.testing.assert_array_equal(column(variables, 0), [5, 0])
    close(column(store(variables, examples([[3, 0]], [1])), 1), [R, R])


# Networks, capacity, training


def pictures(n: int, way: int, seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    targets = np.arange(n, dtype=np.int32) % way
    return Examples(rng.normal(size=(n, 4, 4, 1)) + seed, targets, np.ones(n, bool))


def plain(query: Examples) -> Episode:
    """A batch for ordinary classification: the support has no rows."""
    return Episode(jax.tree.map(lambda x: x[:0], query), query)


def made(learner: Learner, episode: Episode) -> Any:
    variables = jax.jit(learner.init)(jax.random.key(0), episode)
    return jax.tree.map(lambda x: jnp.asarray(x, float), variables)


@pytest.fixture(scope="module")
def small() -> Any:
    """A learner with batch norm, its variables, and a compiled `imprint`."""
    learner = imprinting(network=BLOCK, way=4, size=3)
    with jax.enable_x64(True):
        variables = made(learner, plain(pictures(6, 3)))
    compiled = jax.jit(lambda variables, support: imprint(learner, variables, support))
    return learner, variables, compiled


def test_training_goes_by_the_batch_and_returns_running_statistics(small: Any) -> None:
    learner, variables, _ = small
    batch = pictures(6, 4)
    params, scale = variables["params"], variables["params"]["scale"]
    body = {"params": params["network"], "state": variables["state"]["network"]}

    @jax.jit
    def run(variables: Any) -> Any:
        loss, aux = learner.loss(variables, plain(batch), jax.random.key(0))
        return loss, aux, BLOCK.apply(body, batch.inputs, train=True)

    loss, aux, (z, stats) = run(variables)
    z = np.asarray(z @ params["embedding"]["kernel"] + params["embedding"]["bias"])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    w = np.asarray(params["columns"])
    logits = scale * z @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T
    by_hand = -jax.nn.log_softmax(logits)[np.arange(6), batch.targets].mean()
    assert float(loss) == pytest.approx(float(by_hand), abs=1e-9)
    batch_mean = stats["ConvBlock_0"]["mean"]
    close(aux.state["network"]["ConvBlock_0"]["mean"], 0.1 * batch_mean, 1e-12)


def test_a_column_does_not_depend_on_what_is_imprinted_beside_it(small: Any) -> None:
    """Embeddings are those of evaluation."""
    _, variables, compiled = small
    variables, support = remove_class(variables, jnp.array([2, 3])), pictures(4, 2)
    support = support._replace(targets=support.targets + 2)
    others = support._replace(inputs=support.inputs * np.array([1, 9, 1, 9])[:, None, None, None])
    columns = [column(compiled(variables, each), 2) for each in (support, others)]
    close(*columns, 1e-12)


def test_columns_and_logits_of_others_keep_their_bits_within_the_capacity() -> None:
    """In single precision; a larger capacity is another product."""
    with jax.enable_x64(False):
        learner = imprinting(network=nets.mlp(8), way=64, size=16)
        shots = pictures(10, 5, 1)
        shots = shots._replace(
            inputs=shots.inputs.astype(np.float32), targets=shots.targets + np.int32(64)
        )
        before = grow(jax.jit(learner.init)(jax.random.key(0), plain(shots)), 128)

        @jax.jit
        def answer(variables: Any) -> jax.Array:
            nobody = jax.tree.map(lambda x: x[:0], shots)
            return learner.predict(variables, learner.adapt(variables, nobody), shots.inputs)

        variables = jax.jit(lambda v: imprint(learner, v, shots))(before)
        old, new = np.asarray(answer(before)), np.asarray(answer(variables))
        np.testing.assert_array_equal(
            variables["params"]["columns"][:64], before["params"]["columns"][:64]
        )
        np.testing.assert_array_equal(new[:, :64], old[:, :64])
        assert np.isfinite(new[:, 64:69]).all()
        assert np.isneginf(new[:, 69:]).all()
        doubled = np.asarray(answer(grow(variables, 256)))
        np.testing.assert_allclose(doubled[:, :69], new[:, :69], rtol=0, atol=1e-5)
        assert np.isneginf(doubled[:, 69:]).all()


def test_imprinting_is_compiled_once_and_maps_over_supports(small: Any) -> None:
    learner, variables, compiled = small
    variables = remove_class(variables, jnp.array([2, 3]))
    supports = [pictures(4, 2, seed) for seed in (1, 2)]
    supports = [s._replace(targets=s.targets + 2) for s in supports]
    alone = [compiled(variables, support) for support in supports]
    assert compiled._cache_size() == 1
    both = jax.tree.map(lambda *x: jnp.stack(x), *supports)
    together = jax.jit(jax.vmap(lambda s: imprint(learner, variables, s)))(both)
    for i, one in enumerate(alone):
        jax.tree.map(lambda a, b, i=i: close(a[i], b, 1e-12), together, one)
        eager = imprint(learner, variables, supports[i])
        jax.tree.map(lambda a, b: close(a, b, 1e-12), one, eager)


def test_answers_are_differentiable_through_the_imprinted_column() -> None:
    """The column of the shot (3, 4), seen from (1, 0): the gradient of a cosine, as above."""
    query = jnp.array([[1.0, 0]])

    def logit(shot: jax.Array) -> jax.Array:
        variables = imprint(PLAIN, stored([0, 0], scale=1.0), examples(shot[None], [0]))
        return PLAIN.predict(variables, PLAIN.adapt(variables, NOBODY), query)[0, 0]

    close(jax.jit(jax.grad(logit))(jnp.array([3.0, 4])), [0.128, -0.096])


def test_a_removed_class_is_forgotten_and_its_place_free() -> None:
    start = store(stored([1, 0], [0, 1], capacity=3), examples([[1, 1]], [2]))
    for gone in (2, jnp.array([2])):
        variables = remove_class(start, gone)
        assert np.isneginf(joint(variables, jnp.ones((1, 2)))[0]).tolist() == [False, False, True]
        close(column(store(variables, examples([[0, 3]], [2])), 2), [0, 1])
    bare = remove_class(start, jnp.arange(3))
    assert not stored_classes(bare).any()
    transferred = store(bare, examples([[3, 4]], [0]))  # where a base class was
    close(joint(transferred, jnp.array([[1.0, 0]])), [[6, -np.inf, -np.inf]])


def test_random_columns_take_the_places_of_some_classes() -> None:
    start = stored([1, 0], capacity=3)
    one, other = (random_columns(jax.random.key(seed), start, jnp.array([1, 2])) for seed in (0, 1))
    np.testing.assert_array_equal(column(one, 0), [1, 0])
    assert stored_classes(one).all()
    assert np.all(one["params"]["columns"][1:] != other["params"]["columns"][1:])
    with pytest.raises(ValueError, match="class 1 was trained"):
        imprint(PLAIN, one, examples([[1, 1]], [1]))


def test_columns_cannot_become_fewer() -> None:
    with pytest.raises(ValueError, match="capacity is 1, but there are 2 columns"):
        grow(stored([1, 0], [0, 1]), 1)


def test_training_makes_trained_classes_of_imprinted_ones(small: Any) -> None:
    """Their sums are of embeddings that the network no longer makes."""
    learner, variables, compiled = small
    support = pictures(4, 1)._replace(targets=np.full(4, 3, np.int32))
    variables = compiled(remove_class(variables, 3), support)
    assert variables["state"]["count"].tolist() == [0, 0, 0, 4]

    def loss(params: Any) -> Any:
        given = {**variables, "params": params}
        value, aux = learner.loss(given, plain(pictures(6, 4)), jax.random.key(0))
        return value, aux.state

    grads, moved = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert np.all(grads["columns"])
    state = merged(variables["state"], moved)
    np.testing.assert_array_equal(state["sum"], variables["state"]["sum"])
    trained = {"params": variables["params"], "state": state}
    assert stored_classes(trained).all()
    with pytest.raises(ValueError, match="class 3 was trained"):
        imprint(learner, trained, support)
