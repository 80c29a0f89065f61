"""What every learner owes: one suite for all of them.

A new learner is a new row of LEARNERS. Values are compared in double precision, where rounding
cannot hide a leak; what is asked of dtypes, keys and compilations is asked in single precision.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metashot import nets
from metashot.base import Episode, Examples, Learner, Network
from metashot.learners.baselines import (
    classifier,
    fine_tune,
    nearest_embedding,
    nearest_neighbor,
)
from metashot.learners.imprinting import imprinting
from metashot.learners.learnet import learnet
from metashot.learners.maml import anil, maml
from metashot.learners.matching import matching, released
from metashot.learners.memory_matching import memory_matching
from metashot.learners.meta_lstm import meta_lstm
from metashot.learners.prototypical import prototypical
from metashot.learners.siamese import siamese

WAY, SHOT, QUERY, PICTURE = 3, 2, 2, (4, 4, 1)
STREAM = (nets.Layer("conv1", 2, window=2), nets.Layer("conv2", 3, window=2), nets.Layer("out", 4))


def with_lstms(learner: Learner) -> Learner:
    """With LSTMs that do something from the start, in place of zeros."""

    def init(key: jax.Array, episode: Episode) -> Any:
        made = learner.init(key, episode)
        wave = lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
        return {**made, "params": jax.tree.map(wave, made["params"])}

    return learner._replace(init=init)


LEARNERS: dict[str, Callable[[Network, int], Learner]] = {  # one row = one learner, at its smallest
    "meta_lstm": lambda network, way: meta_lstm(network=network, way=way, steps=2),
    "meta_lstm raw": lambda network, way: meta_lstm(
        network=network, way=way, steps=2, gate_inputs="raw", gate_feedback="value"
    ),
    "meta_lstm second order": lambda network, way: meta_lstm(
        network=network, way=way, steps=2, second_order=True
    ),
    "maml": lambda network, way: maml(network=network, way=way, steps=2),
    "maml first order": lambda network, way: maml(
        network=network, way=way, steps=2, second_order=False
    ),
    "anil": lambda network, way: anil(network=network, way=way, steps=2),
    "matching": lambda network, way: matching(network=network, way=way),
    "matching released, squared": lambda network, way: matching(
        network=network, way=way, similarity="sqeuclidean", **released()
    ),
    "matching full context": lambda network, way: with_lstms(
        matching(network=network, way=way, full_context=True, fce_steps=2)
    ),
    "memory_matching": lambda network, way: memory_matching(
        filters=2, blocks=2, key_size=3, hidden=2, way=way
    ),
    "memory_matching plain": lambda network, way: memory_matching(
        filters=2,
        blocks=2,
        key_size=3,
        slots=2,
        way=way,
        share_trunk=False,
        key_norm="store",
        contextual=False,
        support_order="round_robin",
        loss_form="class_sum",
        prediction="class_sum",
    ),
    "prototypical": lambda network, way: prototypical(network=network, way=way),
    "nearest_neighbor": lambda network, way: nearest_neighbor(network=network, way=way),
    "nearest_neighbor pixels": lambda network, way: nearest_neighbor(way=way),
    "nearest_embedding": lambda network, way: nearest_embedding(
        network=network, way=way, classes=way
    ),
    "classifier": lambda network, way: classifier(network=network, way=way),
    "imprinting": lambda network, way: imprinting(network=network, way=way, size=4),
    "imprinting features": lambda network, way: imprinting(
        network=network, way=way, size=None, scale_param="log"
    ),
    "siamese": lambda network, way: siamese(network=network, way=way),
    "siamese learnet": lambda network, way: learnet(
        layers=STREAM, way=way, single_stream=False, comparison="euclidean", kshot="max"
    ),
    "learnet": lambda network, way: learnet(layers=STREAM, way=way),
    "fine_tune": lambda network, way: fine_tune(
        classifier(network=network, way=way), optax.sgd(0.1), 2
    ),
}
# They go through the support in its order, or through each class in it.
ORDER_MATTERS = {
    "matching full context",
    "memory_matching",
    "memory_matching plain",
}
NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": lambda: nets.mlp(8),
    "batch norm": lambda: nets.conv4(2, blocks=2),
}
ONE_NETWORK_IS_ENOUGH = {
    ("nearest_neighbor pixels", "batch norm"),  # it has none
    ("meta_lstm raw", "batch norm"),
    ("meta_lstm second order", "mlp"),
    ("maml", "mlp"),
    ("maml first order", "batch norm"),
    ("matching released, squared", "batch norm"),
    ("matching full context", "mlp"),
    ("memory_matching", "mlp"),  # it has layers of its own
    ("memory_matching plain", "mlp"),
    ("anil", "mlp"),
    ("nearest_embedding", "mlp"),
    ("classifier", "mlp"),
    ("imprinting", "mlp"),
    ("imprinting features", "batch norm"),
    ("siamese", "mlp"),
    ("siamese learnet", "batch norm"),  # it has layers of its own
    ("learnet", "batch norm"),
    ("fine_tune", "mlp"),
}
PROBLEMS = [
    pair for pair in itertools.product(LEARNERS, NETWORKS) if pair not in ONE_NETWORK_IS_ENOUGH
]


def sample(seed: int, shot: int = SHOT, query: int = QUERY, dtype: Any = np.float64) -> Episode:
    """Each class at a place of its own, in random order."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(WAY, *PICTURE))

    def part(n: int) -> Examples:
        targets = rng.permutation(np.repeat(np.arange(WAY, dtype=np.int32), n))
        inputs = places[targets] + rng.normal(size=(len(targets), *PICTURE))
        return Examples(inputs.astype(dtype), targets, np.ones(len(targets), bool))

    return Episode(part(shot), part(query))


def pad(examples: Examples, before: int, after: int) -> Examples:
    """With further rows that must change nothing, whatever they hold."""
    fill = lambda x, value: np.concatenate(
        [
            np.full((before, *x.shape[1:]), value, x.dtype),
            x,
            np.full((after, *x.shape[1:]), value, x.dtype),
        ]
    )
    return Examples(
        fill(examples.inputs, 1e3), fill(examples.targets, -1), fill(examples.mask, False)
    )


def permuted(examples: Examples, order: np.ndarray) -> Examples:
    return jax.tree.map(lambda x: x[order], examples)


def stack(*trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def assert_close(actual: Any, desired: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-7)
    jax.tree.map(close, actual, desired)


def answers(learner: Learner, variables: Any, episode: Episode) -> jax.Array:
    task = learner.adapt(variables, episode.support, jax.random.key(0))
    return learner.predict(variables, task, episode.query.inputs)


def everything(learner: Learner) -> Callable[[Any, Episode], dict[str, Any]]:
    """Answers and their gradient by the queries, the loss and its gradient by all."""

    def loss(
        params: Any, support: jax.Array, query: jax.Array, state: Any, episode: Episode
    ) -> Any:
        episode = episode._replace(
            support=episode.support._replace(inputs=support),
            query=episode.query._replace(inputs=query),
        )
        return learner.loss({"params": params, "state": state}, episode, jax.random.key(0))

    def run(variables: Any, episode: Episode) -> dict[str, Any]:
        params, state = variables["params"], variables["state"]
        support, query = episode.support, episode.query
        task = learner.adapt(variables, support, jax.random.key(0))
        logits, pull = jax.vjp(lambda x: learner.predict(variables, task, x), query.inputs)
        (answers_by_query,) = pull(jnp.where(jnp.isfinite(logits), jnp.cos(logits), 0))
        value_and_grad = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
        (value, aux), (by_params, by_support, by_query) = value_and_grad(
            params, support.inputs, query.inputs, state, episode
        )
        return {
            "logits": logits,
            "answers_by_query": answers_by_query,
            "loss": value,
            "aux": aux,
            "by_params": by_params,
            "by_support": by_support,
            "by_query": by_query,
        }

    return run


class Problem:
    """A learner on a small problem; what several tests need is compiled once."""

    def __init__(self, name: str, network: str) -> None:
        self.order_matters = name in ORDER_MATTERS
        self.make = lambda way: LEARNERS[name](NETWORKS[network](), way)
        self.learner = self.make(WAY)
        self.episode = sample(0)
        self.run = jax.jit(everything(self.learner))
        init = lambda key: self.learner.init(key, sample(0, dtype=np.float32))
        keys = jax.vmap(jax.random.key)(np.arange(2))
        self.two_starts = jax.jit(jax.vmap(init))(keys)
        self.single = jax.tree.map(lambda x: x[0], self.two_starts)  # as a user makes them
        with jax.enable_x64(True):
            self.variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), self.single)
            self.told = self.run(self.variables, self.episode)


@pytest.fixture(scope="module", params=PROBLEMS, ids=", ".join)
def problem(request: pytest.FixtureRequest, quick_compile: None) -> Problem:
    return Problem(*request.param)


class TestValues:
    """In double precision."""

    @pytest.fixture(autouse=True)
    def _float64(self) -> Iterator[None]:
        with jax.enable_x64(True):
            yield

    def test_shapes(self, problem: Problem) -> None:
        told = problem.told
        assert told["logits"].shape == (WAY * QUERY, WAY)
        assert told["loss"].shape == ()
        assert {x.shape for x in told["aux"].metrics.values()} == {()}
        assert np.isfinite(told["logits"]).all()
        assert np.isfinite(told["loss"])

    def test_gradients_exist_and_are_finite(self, problem: Problem) -> None:
        told = problem.told
        by = {name: grad for name, grad in told.items() if "by_" in name}
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(by))
        assert np.any(told["by_query"])
        assert np.any(told["answers_by_query"])
        if problem.variables["params"]:
            assert any(np.any(g) for g in jax.tree.leaves(told["by_params"]))

    def test_answers_are_differentiable_by_parameters_and_support(self, problem: Problem) -> None:
        """Traced only: for some learners it is the loss that goes this way, for others not."""

        def total(params: Any, support: jax.Array) -> jax.Array:
            episode = problem.episode
            episode = episode._replace(support=episode.support._replace(inputs=support))
            return answers(problem.learner, {**problem.variables, "params": params}, episode).sum()

        params, support = problem.variables["params"], problem.episode.support.inputs
        grads = jax.eval_shape(jax.grad(total, argnums=(0, 1)), params, support)
        assert types(grads) == types((params, support))

    def test_a_padded_batch_of_episodes_equals_each_alone(self, problem: Problem) -> None:
        """Under `vmap`, with rows of support and queries and a class that nobody has seen."""
        learner = problem.make(WAY + 1)
        alone = [problem.episode, sample(1)]
        padded = stack(
            Episode(pad(alone[0].support, 1, 1), pad(alone[0].query, 0, 3)),
            Episode(pad(alone[1].support, 2, 0), pad(alone[1].query, 2, 1)),
        )
        shapes = jax.eval_shape(learner.init, jax.random.key(0), alone[0])

        def widen(small: jax.Array, big: Any) -> np.ndarray:
            """A head grows a column of 7, which must not matter."""
            wide = np.full(big.shape, 7.0)
            wide[tuple(slice(n) for n in small.shape)] = small
            return wide

        def narrow(big: jax.Array, small: Any) -> jax.Array:
            return big[tuple(slice(n) for n in small.shape)]

        variables = jax.tree.map(widen, problem.variables, shapes)
        together = jax.jit(jax.vmap(everything(learner), in_axes=(None, 0)))(variables, padded)
        for e, episode in enumerate(alone):
            told = jax.tree.map(lambda x, e=e: x[e], together)
            plain = problem.run(problem.variables, episode)
            support, query = (part.mask[e] for part in padded[:2])
            assert np.isneginf(told["logits"][:, WAY]).all()
            assert_close(told["logits"][query, :WAY], plain["logits"])
            assert_close(told["answers_by_query"][query], plain["answers_by_query"])
            assert_close(told["loss"], plain["loss"])
            assert_close(jax.tree.map(narrow, told["aux"], plain["aux"]), plain["aux"])
            by_params = jax.tree.map(narrow, told["by_params"], plain["by_params"])
            assert_close(by_params, plain["by_params"])
            for name, mask in (("by_support", support), ("by_query", query)):
                assert_close(told[name][mask], plain[name])
                assert not np.any(told[name][~mask])

    def test_the_order_of_the_support_does_not_matter(self, problem: Problem) -> None:
        if problem.order_matters:
            return
        order = np.random.default_rng(0).permutation(WAY * SHOT)
        episode = problem.episode._replace(support=permuted(problem.episode.support, order))
        told = problem.run(problem.variables, episode)
        desired = dict(problem.told, by_support=problem.told["by_support"][order])
        assert_close(told, desired)

    def test_answers_follow_the_order_of_the_queries(self, problem: Problem) -> None:
        order = np.random.default_rng(0).permutation(WAY * QUERY)
        episode = problem.episode._replace(query=permuted(problem.episode.query, order))
        told = problem.run(problem.variables, episode)
        names = ("logits", "answers_by_query", "by_query")
        desired = dict(problem.told, **{name: problem.told[name][order] for name in names})
        assert_close(told, desired)

    def test_queries_do_not_see_each_other(self, problem: Problem) -> None:
        """Nor their labels: what the others hold doesn't touch the answer to the first."""
        query = problem.episode.query
        others = Examples(
            inputs=np.concatenate([query.inputs[:1], 10 - 5 * query.inputs[1:]]),
            targets=(query.targets + 1) % WAY,
            mask=query.mask,
        )
        told = problem.run(problem.variables, problem.episode._replace(query=others))
        assert_close(told["logits"][0], problem.told["logits"][0])
        assert_close(told["answers_by_query"][0], problem.told["answers_by_query"][0])
        assert np.any(told["logits"][1:] != problem.told["logits"][1:])

    def test_variables_made_at_one_shot_serve_another(self, problem: Problem) -> None:
        one_shot = sample(2, shot=1)
        init = lambda episode: jax.eval_shape(problem.learner.init, jax.random.key(0), episode)
        assert types(init(one_shot)) == types(init(problem.episode))
        logits = jax.eval_shape(
            lambda variables, episode: answers(problem.learner, variables, episode),
            problem.variables,
            one_shot,
        )
        assert (logits.shape, logits.dtype) == ((WAY * QUERY, WAY), np.float64)

    def test_the_same_values_give_the_same_bits_and_others_no_new_program(
        self, problem: Problem
    ) -> None:
        again = problem.run(problem.variables, problem.episode)
        jax.tree.map(np.testing.assert_array_equal, again, problem.told)
        moved = jax.tree.map(lambda x: x + 0.01, problem.variables)
        told = problem.run(moved, sample(5))
        assert told["loss"] != problem.told["loss"]
        assert problem.run._cache_size() == 1


def train_step(learner: Learner, optimizer: optax.GradientTransformation) -> Any:
    """As in training: gradients into the optimiser, changed entries into the state."""

    def merge(old: Any, new: Any) -> Any:
        if isinstance(old, dict):
            return {k: merge(v, new[k]) if k in new else v for k, v in old.items()}
        return new

    def step(variables: Any, opt_state: Any, episode: Episode, key: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            value, aux = learner.loss({**variables, "params": params}, episode, key)
            return value, (value, aux)

        grads, (value, aux) = jax.grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(grads, opt_state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        new = {"params": params, "state": merge(variables["state"], aux.state)}
        return new, opt_state, (value, aux, grads)

    return step


def types(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def is_float32_and_finite(tree: Any) -> bool:
    return all(x.dtype == jnp.float32 and np.isfinite(x).all() for x in jax.tree.leaves(tree))


def test_training_steps_keep_dtypes_compile_once_and_survive_blank_pictures(
    problem: Problem,
) -> None:
    """Single precision in, single precision out."""
    optimizer = optax.sgd(1e-2)
    step = jax.jit(train_step(problem.learner, optimizer))
    variables, opt_state = problem.single, optimizer.init(problem.single["params"])
    told = []
    for i in range(3):
        episode = sample(i, dtype=np.float32)
        if i == 2:
            episode = jax.tree.map(lambda x: x * (x.dtype != np.float32), episode)
        variables, opt_state, aux = step(variables, opt_state, episode, jax.random.key(i))
        assert is_float32_and_finite((variables, aux))
        told.append(aux)
    assert step._cache_size() == 1
    assert types(variables) == types(problem.single)
    assert told[0][0] != told[1][0]


def test_answers_are_single_precision_for_single_precision(problem: Problem) -> None:
    logits = jax.eval_shape(
        lambda variables, episode: answers(problem.learner, variables, episode),
        problem.single,
        sample(0, dtype=np.float32),
    )
    assert logits.dtype == jnp.float32


def test_queries_may_be_of_a_symbolic_number(problem: Problem) -> None:
    """So that `jax.export` makes one program for any number of them."""
    (n,) = jax.export.symbolic_shape("n")
    queries = jax.ShapeDtypeStruct((n, *PICTURE), jnp.float32)
    support = sample(0, dtype=np.float32).support
    adapt = lambda variables: problem.learner.adapt(variables, support, jax.random.key(0))
    task = jax.eval_shape(adapt, problem.single)
    logits = jax.eval_shape(problem.learner.predict, problem.single, task, queries)
    assert logits.shape == (n, WAY)


def test_init_draws_by_its_key(problem: Problem) -> None:
    """Two keys under `vmap` give two starts; a key by itself gives what it gives there."""
    if not problem.single["params"]:
        assert problem.single == {"params": {}, "state": {}}
        return
    leaves = jax.tree.leaves(problem.two_starts["params"])
    assert any(np.any(x[0] != x[1]) for x in leaves)
    shapes = jax.eval_shape(problem.learner.init, jax.random.key(0), problem.episode)
    assert jax.tree.structure(shapes) == jax.tree.structure(problem.single)
