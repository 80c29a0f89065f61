"""Evaluation: the right figures, however many episodes and devices share the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets
from metashot.base import Array, Episode, Examples, Variables
from metashot.data import Episodes, episode_key, episodes, from_arrays
from metashot.evaluation import TEST, VALIDATION, evaluate, evaluator
from metashot.learners.baselines import nearest_neighbor
from metashot.learners.prototypical import prototypical
from metashot.metrics import Metric, mean_and_interval

pytestmark = pytest.mark.usefixtures("quick_compile")

ROOT = Path(__file__).parents[1]
LEARNER = prototypical(network=nets.mlp(4), way=3)


def variables() -> Variables:
    weights = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
    return {
        "params": {"Dense_0": {"kernel": weights, "bias": np.zeros(4, np.float32)}},
        "state": {},
    }


def noisy() -> Episodes:
    """Three of five places with so much noise that some answers are wrong. Quick to compile."""
    targets = jnp.asarray(np.arange(15) % 3, jnp.int32)

    def sample(key: Array, places: Array) -> Episode:
        class_key, noise_key = jax.random.split(key)
        classes = jax.random.randint(class_key, (), 0, 3) + jnp.arange(3)
        noise = 2 * jax.random.normal(noise_key, (15, 16))
        every = Examples(jnp.asarray(places)[classes][targets] + noise, targets, jnp.ones(15, bool))
        support = jax.tree.map(lambda x: x[:3], every)
        query = jax.tree.map(lambda x: x[3:], every)
        return Episode(support, query, {"classes": classes})

    return Episodes(np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32), sample)


def pictures() -> Episodes:
    """The sampler of real data."""
    rng = np.random.default_rng(0)
    images = rng.normal(128, 40, (8, 1, 4, 4, 1)) + rng.normal(0, 40, (8, 6, 4, 4, 1))
    images = np.clip(images, 0, 255).astype(np.uint8).reshape(48, 4, 4, 1)
    return episodes(from_arrays(images, np.repeat(np.arange(8), 6)), way=3, shot=1, query=4)


@pytest.fixture(scope="module")
def by_hand(quick_compile: None) -> np.ndarray:
    """Right answers of the first 11 episodes, one after the other."""
    made, given = noisy(), variables()

    @jax.jit
    def correct(i: Array) -> Array:
        sample_key, adapt_key = jax.random.split(episode_key(0, TEST, i))
        episode = made.sample(sample_key, made.arrays)
        task = LEARNER.adapt(given, episode.support, adapt_key)
        logits = LEARNER.predict(given, task, episode.query.inputs)
        return (logits.argmax(1) == episode.query.targets).sum()

    return np.array([int(correct(jnp.asarray(i))) for i in range(11)])


@pytest.mark.parametrize(("count", "chunk"), [(11, None), (11, 4), (6, 50)])
def test_evaluation_equals_a_loop(by_hand: np.ndarray, count: int, chunk: int | None) -> None:
    """Also where the chunk does not divide the count, or is larger."""
    result = evaluate(LEARNER, variables(), noisy(), count=count, chunk=chunk)
    assert result.measures["correct"].tolist() == by_hand[:count].tolist()
    assert result.measures["counted"].tolist() == [12] * count
    shares = by_hand[:count] / 12
    assert 0 < shares.mean() < 1  # neither would tell anything
    assert result.summary["accuracy"] == pytest.approx(mean_and_interval(shares))
    assert result.score == pytest.approx(shares.mean())


def test_an_evaluator_serves_many_variables(by_hand: np.ndarray) -> None:
    run = evaluator(LEARNER, noisy(), count=11)
    assert run(variables()).measures["correct"].tolist() == by_hand.tolist()
    zero = jax.tree.map(np.zeros_like, variables())
    # All embeddings are equal: the first class wins every tie.
    assert run(zero).measures["correct"].tolist() == [4] * 11
    assert run(variables()).measures["correct"].tolist() == by_hand.tolist()


def test_a_list_of_episodes_is_gone_through_whatever_the_seed(by_hand: np.ndarray) -> None:
    made = noisy()
    keys = jax.vmap(lambda i: jax.random.split(episode_key(0, TEST, i))[0])(jnp.arange(5))
    given = jax.jit(jax.vmap(made.sample, (0, None)))(keys, made.arrays)
    at = lambda i, given: jax.tree.map(lambda x: x[i], given)
    source = Episodes(given, lambda key, given: at(0, given), listed=at)
    result = evaluate(LEARNER, variables(), source, count=5, seed=1)
    assert result.measures["correct"].tolist() == by_hand[:5].tolist()


def test_seed_and_stream_choose_the_list_of_episodes(by_hand: np.ndarray) -> None:
    others = [{"seed": 1}, {"stream": VALIDATION}]
    for other in others:
        measures = evaluate(LEARNER, variables(), noisy(), count=11, **other).measures
        assert measures["correct"].tolist() != by_hand.tolist()


def test_a_metric_sees_outputs_query_and_what_the_episode_is_about() -> None:
    def measure(outputs: Array, query: Any, about: Any) -> Any:
        return {
            "shape": jnp.array(outputs.shape),
            "classes": about["classes"],
            "n": query.mask.sum(),
        }

    metric = Metric(
        measure=measure,
        summary=lambda measures: {"first": (7.0, 0.5), "second": (len(measures["n"]), 0.0)},
    )
    learner = nearest_neighbor(way=3)
    result = evaluate(learner, {"params": {}, "state": {}}, noisy(), count=4, metric=metric)
    assert result.summary == {"first": (7.0, 0.5), "second": (4, 0.0)}
    assert result.score == 7.0
    assert result.measures["shape"].tolist() == [[12, 3]] * 4
    assert result.measures["n"].tolist() == [12] * 4
    made = noisy()
    keys = [jax.random.split(episode_key(0, TEST, i))[0] for i in range(4)]
    sample = jax.jit(made.sample)
    classes = [sample(key, made.arrays).about["classes"].tolist() for key in keys]
    assert result.measures["classes"].tolist() == classes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "count is 0; it is at least 1"),
        ({"chunk": 0}, "chunk is 0; it is at least 1"),
        ({"count": -3}, "count is -3; it is at least 1"),
    ],
)
def test_counts_under_one_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluator(LEARNER, noisy(), **wrong)


COUNT, CHUNK = 40, 2  # eight devices need two rounds and a half
ON_DEVICES = """
import importlib.util, json, sys
import jax
spec = importlib.util.spec_from_file_location("here", sys.argv[1])
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)
result = here.evaluate(
    here.LEARNER, here.variables(), here.pictures(), count=here.COUNT, chunk=here.CHUNK
)
correct = result.measures["correct"].tolist()
print(json.dumps({"devices": jax.device_count(), "correct": correct}))
"""


def test_eight_devices_give_the_same_integers_as_one() -> None:
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-c", ON_DEVICES, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["devices"] == 8
    one = evaluate(LEARNER, variables(), pictures(), count=COUNT)
    assert one.measures["correct"].tolist() == told["correct"]
    assert 0 < sum(told["correct"]) < 12 * COUNT
