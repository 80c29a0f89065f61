"""The training loop: what it must give, and what it must survive."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

import metashot
from metashot import meta_step, nets, training
from metashot.checkpoints import Checkpoints
from metashot.data import from_arrays

pytestmark = pytest.mark.usefixtures("quick_compile")

WAY = 3


def source() -> metashot.Episodes:
    """Episodes of noisy copies of twelve patterns."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 255, (12, 1, 8, 8, 1))
    noisy = patterns + rng.normal(0, 80, (12, 8, 8, 8, 1))
    images = np.clip(noisy, 0, 255).astype(np.uint8).reshape(-1, 8, 8, 1)
    dataset = from_arrays(images, np.arange(96) // 8)
    return metashot.episodes(dataset, way=WAY, shot=1, query=2)


EPISODES = source()
LEARNER = metashot.prototypical(network=nets.conv4(4, blocks=2), way=WAY)


def train(steps: int = 20, learner: metashot.Learner = LEARNER, **settings: Any):
    defaults: dict[str, Any] = {
        "validation": EPISODES,
        "validation_episodes": 5,
        "validate_every": 10,
        "log_every": 5,
        "progress": False,
    }
    optimizer = settings.pop("optimizer", optax.adam(1e-2))
    return metashot.train(learner, EPISODES, optimizer, steps=steps, **(defaults | settings))


def assert_same_bits(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def gradient_step(mesh: Mesh, meta_batch: int, chunk: int) -> tuple[Any, Any]:
    """The compiled program and what one step of plain gradient descent gives."""
    optimizer = optax.sgd(1.0)
    step = meta_step.make_meta_steps(
        LEARNER, optimizer, EPISODES.sample, mesh, meta_batch=meta_batch, chunk=chunk, seed=0
    )
    first = EPISODES.sample(jax.random.key(0), EPISODES.arrays)
    state = meta_step.init_state(LEARNER, optimizer, first, 0)
    state = metashot.devices.replicate(state, mesh)
    arrays = metashot.devices.replicate(EPISODES.arrays, mesh)
    compiled = step.lower(state, arrays, 1).compile()
    state, told = compiled(state, arrays)
    return compiled, jax.tree.map(np.asarray, (state.variables, told))


def one_device() -> Mesh:
    return Mesh(jax.devices()[:1], ("episodes",), axis_types=(AxisType.Auto,))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, train(workdir=folder)


def test_learns_what_can_be_learned():
    trained = train(steps=200, log_every=50, validate_every=200, validation=None)
    chance = np.log(WAY)
    assert trained.history[-1]["loss"] < chance / 2


def test_the_best_checkpoint_is_returned(uninterrupted: Any):
    folder, trained = uninterrupted
    scores = {r["step"]: r["val_accuracy"] for r in trained.history if "val_accuracy" in r}
    assert set(scores) == {10, 20}
    assert scores[trained.step] == max(scores.values())
    _, variables, step, _ = metashot.load(folder, learner=LEARNER)
    assert step == trained.step
    assert_same_bits(variables, trained.variables)


def test_it_goes_on_from_given_variables(uninterrupted: Any):
    """An optimiser that does nothing leaves them as they were, and whoever gave them keeps his."""
    _, trained = uninterrupted
    given = jax.tree.map(jnp.array, trained.variables)
    still = train(5, optimizer=optax.sgd(0.0), variables=given, validation=None, validate_every=5)
    assert_same_bits(still.variables["params"], trained.variables["params"])
    assert_same_bits(given, trained.variables)


def test_metrics_are_written_as_they_are_returned(uninterrupted: Any):
    folder, trained = uninterrupted
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == trained.history
    assert [r["step"] for r in rows if "loss" in r] == [5, 10, 15, 20]


def test_the_meta_gradient_is_the_mean_over_single_episodes():
    _, (together, _) = gradient_step(one_device(), meta_batch=4, chunk=4)
    _, (in_rounds, _) = gradient_step(one_device(), meta_batch=4, chunk=2)
    optimizer = optax.sgd(1.0)
    first = EPISODES.sample(jax.random.key(0), EPISODES.arrays)
    state = meta_step.init_state(LEARNER, optimizer, first, 0)

    @jax.jit
    def grad(key: jax.Array) -> Any:
        sample_key, loss_key = jax.random.split(key)
        episode = EPISODES.sample(sample_key, EPISODES.arrays)
        return jax.grad(
            lambda params: LEARNER.loss({**state.variables, "params": params}, episode, loss_key)[0]
        )(state.variables["params"])

    keys = [metashot.data.episode_key(0, meta_step.TRAINING, i) for i in range(4)]
    mean = jax.tree.map(lambda *g: sum(g) / 4, *[grad(key) for key in keys])
    by_hand = jax.tree.map(jnp.subtract, state.variables["params"], mean)
    close = lambda a, b: np.testing.assert_allclose(
        a, b, rtol=1e-4, atol=2e-5
    )  # float32, of gradients near 1
    jax.tree.map(close, together["params"], by_hand)
    jax.tree.map(close, in_rounds, together)


def test_how_many_steps_a_dispatch_holds_changes_nothing(uninterrupted: Any):
    _, trained = uninterrupted
    other = train(log_every=2)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, other.variables, trained.variables)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path):
    explode = optax.chain(optax.sgd(1.0), optax.scale_by_schedule(lambda t: 1.0 + (t > 11) * 1e38))
    with pytest.raises(FloatingPointError) as stopped:
        train(steps=40, optimizer=explode, workdir=tmp_path)
    said = str(stopped.value)
    first = int(re.search(r"at step (\d+)", said)[1])  # pyright: ignore[reportOptionalSubscript]
    assert 12 < first <= 20
    assert "the checkpoint of step 10 is good" in said
    assert "learning rate" in said
    assert np.isfinite(
        metashot.load(tmp_path, learner=LEARNER)[1]["params"]["ConvBlock_0"]["bias"]
    ).all()


def test_ctrl_c_saves_and_the_run_goes_on_to_the_same_bits(
    tmp_path: Path, uninterrupted: Any, monkeypatch: pytest.MonkeyPatch
):
    shown = training.Progress.show

    def interrupt(self: Any, step: int, **figures: Any) -> None:
        if step == 10 and "loss" in figures:
            os.kill(os.getpid(), signal.SIGINT)
        shown(self, step, **figures)

    with monkeypatch.context() as patch:
        patch.setattr(training.Progress, "show", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(workdir=tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.last() in (10, 15)
    checkpoints.close()
    trained = train(workdir=tmp_path, resume=True)
    _, whole = uninterrupted
    assert_same_bits(
        metashot.load(tmp_path, learner=LEARNER, checkpoint="last").variables,
        metashot.load(uninterrupted[0], learner=LEARNER, checkpoint="last").variables,
    )
    assert [r["step"] for r in trained.history] == [r["step"] for r in whole.history]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"meta_batch": 0}, "meta_batch is 0"),
        ({"meta_batch": 4, "chunk": 3}, "chunk is 3"),
        ({"validate_every": 7}, "validate_every is 7"),
        ({"resume": True}, "resume needs the workdir"),
    ],
)
def test_impossible_arguments_are_refused(settings: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        train(**settings)
