"""One-shot segmentation: the contract with masks, and cases worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compare import assert_close
from test_contract import everything, pad, permuted, stack, train_step, types

from metashot import nets
from metashot.base import Episode, Examples, Learner, Network
from metashot.learners.segmentation import one_shot_segmentation, overlap, paper, solver
from metashot.losses import pixel_loss
from metashot.nets.branches import Branches

pytestmark = pytest.mark.usefixtures("quick_compile")

SIDE = 8


def two(hash_scale: float = 0.5) -> Branches:
    """Two small networks, the first with batch norm."""
    return nets.two_networks(
        conditioning=nets.conv4(3, blocks=2),
        segmentation=nets.from_flax(Cells((3,))),
        enlarged=lambda maps, size: nets.transposed_bilinear(maps, 4, size, 2),
        hash_scale=hash_scale,
    )


def maps() -> Network:
    """Two maps of the same cells, of a network that is trained."""
    body = nets.from_flax(Cells((3,)))

    def apply(variables: Any, x: Any, **settings: Any) -> Any:
        cells, _ = body.apply(variables, x, **settings)
        return (cells, cells[:, ::2, ::2]), {}

    return Network(body.init, apply)


class Cells(nets.MLP):
    """Features of blocks of 4x4 pixels."""

    def __call__(self, x: Any, train: bool = False, mask: Any = None) -> Any:
        n, h, w, c = x.shape
        blocks = x.reshape(n, h // 4, 4, w // 4, 4, c).swapaxes(2, 3)
        made = super().__call__(blocks.reshape(n * h * w // 16, -1))
        return made.reshape(n, h // 4, w // 4, -1)


LEARNERS: dict[str, Callable[[], Learner]] = {
    "two networks": lambda: one_shot_segmentation(branches=two()),
    "tied, mean of pixels": lambda: one_shot_segmentation(
        branches=nets.tied_branches(network=maps(), size=4, hashed_from=3, frozen=False),
        kshot="mean",
        reduction="mean",
        loss_at="cells",
        foreground_weight=3.0,
    ),
}


def sample(seed: int, shot: int = 2, query: int = 2, dtype: Any = np.float64) -> Episode:
    """Bright squares that are the class, and some pixels that do not count."""
    rng = np.random.default_rng(seed)

    def part(n: int) -> Examples:
        masks = np.zeros((n, SIDE, SIDE), np.int32)
        for mask, (top, left) in zip(masks, rng.integers(0, 4, (n, 2)), strict=True):
            mask[top : top + 4, left : left + 4] = 1
        inputs = rng.normal(size=(n, SIDE, SIDE, 2)) + 2 * masks[..., None]
        masks[:, 0, :3] = -1
        return Examples(inputs.astype(dtype), masks, np.ones(n, bool))

    return Episode(part(shot), part(query))


def doubled(tree: Any) -> Any:
    return jax.tree.map(lambda x: x if x.dtype == jnp.int32 else jnp.asarray(x, jnp.float64), tree)


class Problem:
    """A learner on a small problem; what several tests need is compiled once."""

    def __init__(self, name: str) -> None:
        self.learner = LEARNERS[name]()
        self.run = jax.jit(everything(self.learner))
        init = lambda key: self.learner.init(key, sample(0, dtype=np.float32))
        self.two_starts = jax.jit(jax.vmap(init))(jax.vmap(jax.random.key)(np.arange(2)))
        self.single = jax.tree.map(lambda x: x[0], self.two_starts)
        self.episode = sample(0)
        with jax.enable_x64(True):
            self.variables = doubled(self.single)
            self.told = self.run(self.variables, self.episode)


@pytest.fixture(scope="module", params=LEARNERS)
def problem(request: pytest.FixtureRequest, quick_compile: None) -> Problem:
    return Problem(request.param)


@pytest.mark.usefixtures("float64")
class TestContract:
    def test_shapes_and_gradients(self, problem: Problem) -> None:
        told = problem.told
        assert told["logits"].shape == (2, SIDE, SIDE)
        assert {x.shape for x in (told["loss"], *told["aux"].metrics.values())} == {()}
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(told))
        for name in ("by_query", "by_support", "answers_by_query"):
            assert np.any(told[name])
        assert any(np.any(g) for g in jax.tree.leaves(told["by_params"]))

    def test_a_padded_batch_of_episodes_equals_each_alone(self, problem: Problem) -> None:
        alone = [problem.episode, sample(1)]
        padded = stack(
            Episode(pad(alone[0].support, 1, 1), pad(alone[0].query, 0, 3)),
            Episode(pad(alone[1].support, 2, 0), pad(alone[1].query, 2, 1)),
        )
        run = jax.jit(jax.vmap(everything(problem.learner), in_axes=(None, 0)))
        together = run(problem.variables, padded)
        for e, episode in enumerate(alone):
            told = jax.tree.map(lambda x, e=e: x[e], together)
            plain = problem.run(problem.variables, episode)
            support, query = (part.mask[e] for part in padded[:2])
            for name in ("logits", "answers_by_query", "by_query"):
                assert_close(told[name][query], plain[name])
            assert_close(told["by_support"][support], plain["by_support"])
            assert not np.any(told["by_query"][~query])
            assert not np.any(told["by_support"][~support])
            for name in ("loss", "aux", "by_params"):
                assert_close(told[name], plain[name])

    def test_the_order_of_support_and_queries_does_not_matter(self, problem: Problem) -> None:
        order = np.array([1, 0])
        episode = problem.episode
        told = problem.run(problem.variables, Episode(*(permuted(x, order) for x in episode[:2])))
        turned = ("logits", "answers_by_query", "by_query", "by_support")
        assert_close(told, {k: v[order] if k in turned else v for k, v in problem.told.items()})

    def test_queries_do_not_see_each_other(self, problem: Problem) -> None:
        query = problem.episode.query
        inputs = np.concatenate([query.inputs[:1], 10 - 5 * query.inputs[1:]])
        others = Examples(inputs, 1 - query.targets, query.mask)
        told = problem.run(problem.variables, problem.episode._replace(query=others))
        assert_close(told["logits"][0], problem.told["logits"][0])
        assert np.any(told["logits"][1] != problem.told["logits"][1])

    def test_pixels_that_do_not_count_change_nothing(self, problem: Problem) -> None:
        """But for the class they are background where a support shows what it is not."""
        query = problem.episode.query
        away = query.targets.copy()
        away[:, -1] = -1
        one = problem.episode._replace(query=query._replace(targets=away))
        loss = problem.run(problem.variables, one)["loss"]
        assert loss != problem.told["loss"]
        support = problem.episode.support
        zero = support._replace(targets=np.maximum(support.targets, 0))
        told = problem.run(problem.variables, problem.episode._replace(support=zero))
        assert_close(told, problem.told)

    def test_a_support_without_the_class_tells_nothing(self, problem: Problem) -> None:
        support = problem.episode.support
        first = support._replace(targets=support.targets * (np.arange(2) < 1)[:, None, None])
        told = problem.run(problem.variables, problem.episode._replace(support=first))
        fewer = permuted(support, np.array([0]))
        answer = lambda v: problem.learner.predict(
            v, problem.learner.adapt(v, fewer), problem.episode.query.inputs
        )
        alone = jax.jit(answer)(problem.variables)
        np.testing.assert_allclose(told["logits"], alone, rtol=1e-9, atol=1e-9)
        none = support._replace(targets=0 * support.targets)
        told = problem.run(problem.variables, problem.episode._replace(support=none))
        assert np.isneginf(told["logits"]).all()
        assert told["loss"] == 0
        assert all(np.isfinite(g).all() for k, g in told.items() if k in ("by_support", "by_query"))
        assert not any(np.any(g) for g in jax.tree.leaves(told["by_params"]))

    def test_other_values_need_no_new_program(self, problem: Problem) -> None:
        again = problem.run(problem.variables, problem.episode)
        jax.tree.map(np.testing.assert_array_equal, again, problem.told)
        assert problem.run._cache_size() == 1


def test_a_training_step_keeps_dtypes_and_the_hash(problem: Problem) -> None:
    """Single precision in and out; blank pictures do no harm; the index stays an integer."""
    optimizer = optax.sgd(1e-2)
    step = jax.jit(train_step(problem.learner, optimizer))
    variables, opt_state = problem.single, optimizer.init(problem.single["params"])
    for i in range(2):
        episode = sample(i, dtype=np.float32)
        if i == 1:
            episode = jax.tree.map(lambda x: x * (x.dtype != np.float32), episode)
        variables, opt_state, told = step(variables, opt_state, episode, jax.random.key(i))
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(told))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((variables, told)))
    assert step._cache_size() == 1
    assert types(variables) == types(problem.single)
    jax.tree.map(
        np.testing.assert_array_equal, variables["state"]["hash"], problem.single["state"]["hash"]
    )


def test_another_number_of_shots_and_of_queries_is_served(problem: Problem) -> None:
    start = jax.eval_shape(problem.learner.init, jax.random.key(0), sample(0, 1, dtype=np.float32))
    assert types(start) == types(problem.single)
    (n,) = jax.export.symbolic_shape("n")
    queries = jax.ShapeDtypeStruct((n, SIDE, SIDE, 2), jnp.float32)
    support = sample(0, 5, dtype=np.float32).support
    task = jax.eval_shape(lambda v: problem.learner.adapt(v, support), problem.single)
    logits = jax.eval_shape(problem.learner.predict, problem.single, task, queries)
    assert (logits.shape, logits.dtype) == ((n, SIDE, SIDE), jnp.float32)


def test_init_draws_by_its_key(problem: Problem) -> None:
    starts = problem.two_starts
    assert any(np.any(x[0] != x[1]) for x in jax.tree.leaves(starts["params"]))
    assert np.any(starts["state"]["hash"]["index"][0] != starts["state"]["hash"]["index"][1])


# Worked out by hand


def given(maps: Any, codes: Any, enlarged: Any = lambda maps, size: maps) -> Branches:
    """Features [1, h, w, D] and classifiers [k, D + 1] as they are."""
    codes = jnp.asarray(codes, jnp.float32)
    return Branches(
        init=lambda key, x: {"params": {}, "state": {}},
        classifiers=lambda v, x, masks, **s: ((codes[:, :-1], codes[:, -1]), {}),
        features=lambda v, x, **s: (jnp.asarray(maps, jnp.float32), {}),
        enlarged=enlarged,
    )


def logits_of(branches: Branches, k: int, size: tuple[int, int], **settings: Any) -> Any:
    learner = one_shot_segmentation(branches=branches, **settings)
    none: Any = {"params": {}, "state": {}}
    support = Examples(jnp.zeros((k, 1, 1, 1)), jnp.ones((k, 1, 1), int), jnp.ones(k, bool))
    return learner.predict(none, learner.adapt(none, support), jnp.zeros((1, *size, 1)))[0]


def test_the_pixel_classifier() -> None:
    maps = [[[[1, 0, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 0]]]]
    found = logits_of(given(maps, [[-2, -0.5, 3, 2, 0.5]]), 1, (1, 3))
    np.testing.assert_allclose(found, [[-1.5, 2.0, 0.5]])
    chances = jax.nn.sigmoid(found)
    np.testing.assert_allclose(chances, [[0.182426, 0.880797, 0.622459]], atol=1e-6)


def test_several_shots_are_the_or_of_masks() -> None:
    """Zero is background. The maximum is taken after logits were enlarged."""
    shots = np.array([[[1.2, -0.3, 0], [-2, 0.1, -0.4]], [[-1, 0.5, 0], [-0.1, -3, 0.7]]])
    maps = shots.transpose(1, 2, 0)[None]  # of which each classifier picks one channel
    branches = given(maps, [[1, 0, 0], [0, 1, 0]])
    found = logits_of(branches, 2, (2, 3))
    np.testing.assert_allclose(found, [[1.2, 0.5, 0], [-0.1, 0.1, 0.7]], rtol=1e-6)
    assert (found > 0).tolist() == [[1, 1, 0], [0, 1, 1]]
    assert ((found > 0) == (shots > 0).any(0)).all()
    mean = logits_of(branches, 2, (2, 3), kshot="mean")
    np.testing.assert_allclose(mean, shots.mean(0), atol=1e-6)


def test_the_maximum_is_of_enlarged_logits() -> None:
    a, b = [2.0, -10.0], [-10.0, 2.0]
    line = lambda maps, size: nets.transposed_bilinear(
        jnp.broadcast_to(maps, (*maps.shape[:-2], 2, 2)), 2, (6, 6)
    )[..., 2:3, :]
    maps = np.array([a, b]).T[None, None]  # [1, 1, 2, shots]
    found = logits_of(given(maps, [[1, 0, 0], [0, 1, 0]], line), 2, (1, 6))
    np.testing.assert_allclose(found[0], [0.5, 1.5, -1, -1, 1.5, 0.5], atol=1e-6)
    wrong = line(jnp.maximum(jnp.array([a]), jnp.array([b])), (1, 6))
    np.testing.assert_allclose(wrong[0], [0.5, 1.5, 2, 2, 1.5, 0.5], atol=1e-6)


@pytest.mark.parametrize(("reduction", "value"), [("sum", 4.133337), ("mean", 1.377779)])
def test_the_loss(reduction: str, value: float) -> None:
    """Two queries of which one is padding; a pixel that does not count."""
    z = jnp.array([[0.0, 2, -1, 9]])
    y = jnp.array([[1, 0, 1, -1]])

    def loss(z: Any) -> Any:
        branches = given(jnp.stack([z, z + 5])[..., None], [[1.0, 0]])
        learner = one_shot_segmentation(branches=branches, reduction=reduction)
        support = Examples(jnp.zeros((1, 1, 4, 1)), jnp.ones((1, 1, 4), int), jnp.ones(1, bool))
        query = Examples(jnp.zeros((2, 1, 4, 1)), jnp.stack([y, y]), jnp.array([True, False]))
        none: Any = {"params": {}, "state": {}}
        return learner.loss(none, Episode(support, query), jax.random.key(0))

    found, aux = jax.jit(loss)(z)
    np.testing.assert_allclose(found, value, atol=1e-6)
    assert float(aux.metrics["iou"]) == 0
    slopes = jax.grad(lambda z: pixel_loss(z, jnp.array([1.0, 0, 1]), jnp.ones(3)))(z[0, :3])
    np.testing.assert_allclose(slopes, [-0.5, 0.880797, -0.731059], atol=1e-6)


def test_terms_and_weights_of_the_loss() -> None:
    one = lambda y, **settings: pixel_loss(jnp.array(2.0), jnp.array(y), jnp.array(1.0), **settings)
    np.testing.assert_allclose(one(0.0), 2.126928, atol=1e-6)
    np.testing.assert_allclose(one(1.0, foreground_weight=3.0), 3 * 0.126928, atol=1e-6)
    np.testing.assert_allclose(one(0.25), 0.75 * 2.126928 + 0.25 * 0.126928, atol=1e-6)


def test_the_overlap_of_an_episode() -> None:
    logits = jnp.array([1.0, 1, -1, -1, 1])
    shares, weights = jnp.array([1.0, 0, 1, 0, 1]), jnp.array([1.0, 1, 1, 1, 0])
    np.testing.assert_allclose(overlap(logits, shares, weights), 1 / 3, rtol=1e-6)


def test_cells_are_asked_for_the_share_of_their_pixels_that_count() -> None:
    """2x2 pixels a cell: half of three that count; none that counts."""
    targets = jnp.array([[[1, 0, 1, 1], [0, -1, -1, 1], [-1, -1, 0, 0], [-1, -1, 0, 0]]])
    maps = jnp.array([[[[2.0], [1]], [[5], [-1]]]])
    learner = one_shot_segmentation(branches=given(maps, [[1.0, 0]]), loss_at="cells")
    none: Any = {"params": {}, "state": {}}
    part = Examples(jnp.zeros((1, 4, 4, 1)), targets, jnp.ones(1, bool))
    found, _ = learner.loss(none, Episode(part, part), jax.random.key(0))
    shares, weights = np.array([1 / 3, 1, 0, 0]), np.array([0.75, 0.75, 0, 1])
    z = np.array([2.0, 1, 5, -1])
    terms = shares * np.log1p(np.exp(-z)) + (1 - shares) * np.log1p(np.exp(z))
    np.testing.assert_allclose(found, (weights * terms).sum(), rtol=1e-6)


def test_the_released_solver() -> None:
    """Rate times multiplier, decay before momentum; two steps by hand."""
    params = {"conditioning": {"kernel": 1.0}, "segmentation": {"kernel": 1.0, "bias": 1.0}}
    grads = jax.tree.map(lambda x: 2.0, params)
    plain, decayed = (solver(rate=0.1, decay=decay) for decay in (0.0, 0.5))
    by = {
        "plain": (params, plain, plain.init(params)),
        "d": (params, decayed, decayed.init(params)),
    }
    for step in range(2):
        for name, (own, optimizer, state) in by.items():
            updates, state = optimizer.update(grads, state, own)
            by[name] = optax.apply_updates(own, updates), optimizer, state
        if not step:
            assert float(by["plain"][0]["conditioning"]["kernel"]) == pytest.approx(0.98)
            assert float(by["d"][0]["segmentation"]["kernel"]) == pytest.approx(0.75)
    assert float(by["plain"][0]["conditioning"]["kernel"]) == pytest.approx(0.9402)
    assert float(by["d"][0]["segmentation"]["kernel"]) == pytest.approx(0.265)
    # A bias goes twice as fast, and does not decay.
    assert float(by["d"][0]["segmentation"]["bias"]) == pytest.approx(1 - 0.4 - 0.4 * 1.99)


def test_the_learner_of_the_paper_by_its_shapes() -> None:
    learner = one_shot_segmentation(**paper())
    shape = jax.ShapeDtypeStruct
    rows = Examples(
        shape((1, 333, 500, 3), jnp.float32), shape((1, 333, 500), jnp.int32), shape((1,), bool)
    )
    variables = jax.eval_shape(learner.init, jax.random.key(0), Episode(rows, rows))
    state = variables["state"]["hash"]
    assert (state["index"].shape, state["index"].dtype) == ((4097,), jnp.int32)

    def loss(params: Any, state: Any, episode: Episode) -> Any:
        variables: Any = {"params": params, "state": state}
        return learner.loss(variables, episode, jax.random.key(0))[0]

    episode = Episode(rows, rows)
    grads = jax.eval_shape(jax.grad(loss), variables["params"], variables["state"], episode)
    assert sum(leaf.size for leaf in jax.tree.leaves(grads)) == 272_618_088


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kshot": "or"}, "kshot is 'or'; it is one of max, mean"),
        ({"reduction": "none"}, "reduction is 'none'; it is one of sum, mean"),
        ({"loss_at": "edges"}, "loss_at is 'edges'; it is one of pixels, cells"),
        ({"foreground_weight": 0}, "foreground_weight is 0; it is above 0"),
    ],
)
def test_arguments_outside_their_values_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        one_shot_segmentation(**wrong)
