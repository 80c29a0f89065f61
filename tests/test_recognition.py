"""A support folder makes a trained learner a classifier of one's own pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import metashot
from metashot import experiment, recognition
from metashot.config import ConfigError, Conv4, Experiment, Glyphs, MetaLSTM, Prototypical, Sizes
from metashot.data.pictures import LeftOut

pytestmark = pytest.mark.usefixtures("quick_compile")

SIZE = 8
TINY = Experiment(
    data=Glyphs(train=6, val=4, test=4, drawings=4, size=SIZE),
    learner=Prototypical(network=Conv4(filters=2, blocks=1)),
    steps=1,
    train=Sizes(way=3, shot=1, query=2),
    test=Sizes(way=3, shot=1, query=2),
    validate_every=1,
    validation_episodes=2,
    log_every=1,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    experiment.run(TINY, folder, progress=False)
    return folder


def drawing(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE), np.uint8)


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of ox and one each of ant, bee and cat."""
    folder = tmp_path_factory.mktemp("letters")
    for seed, name in enumerate(("ant", "bee", "cat", "ox", "ox")):
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(drawing(seed)).save(folder / name / f"{seed}.png")
    return folder


def test_answers_are_those_of_the_learner(run: Path, letters: Path, tmp_path: Path):
    """More classes than in training, of unlike sizes; ink is 1 as it was in training."""
    classifier = metashot.few_shot(run, letters)
    assert classifier.names == ("ant", "bee", "cat", "ox")
    learner, variables = metashot.load(run, way=4)[:2]
    ink = lambda *seeds: jnp.stack([1 - drawing(s) / jnp.float32(255) for s in seeds])[..., None]
    targets = jnp.array([0, 1, 2, 3, 3])
    support = metashot.Examples(ink(0, 1, 2, 3, 4), targets, jnp.ones(5, bool))
    task = learner.adapt(variables, support)
    wanted = jax.nn.softmax(learner.predict(variables, task, ink(7)))[0]

    Image.fromarray(drawing(7)).save(tmp_path / "seven.png")
    (answer,) = metashot.classify(classifier, [tmp_path / "seven.png"])
    assert answer.image == str(tmp_path / "seven.png")
    (first,) = metashot.classify(classifier, [tmp_path / "seven.png"], top=2)
    assert first.ranked == answer.ranked[:2]
    chances = [chance for _, chance in answer.ranked]
    assert chances == sorted(chances, reverse=True)
    np.testing.assert_allclose([dict(answer.ranked)[n] for n in classifier.names], wanted, 1e-5)


def test_many_pictures_are_answered_as_each_alone(run: Path, letters: Path):
    classifier = metashot.few_shot(run, letters)
    images = np.stack([drawing(i) for i in range(recognition.batch_size() + 3)])[..., None]
    together = recognition.probabilities(classifier, images)
    assert together.shape == (recognition.batch_size() + 3, 4)
    np.testing.assert_allclose(together.sum(1), 1, 1e-5)
    np.testing.assert_allclose(
        together[-1:], recognition.probabilities(classifier, images[-1:]), 1e-5
    )
    assert recognition.probabilities(classifier, images[:0]).shape == (0, 4)


def test_what_cannot_be_decoded_is_left_out_by_name(run: Path, letters: Path, tmp_path: Path):
    support = tmp_path / "letters"
    shutil.copytree(letters, support)
    (support / "ox" / "torn.png").write_bytes((support / "ox" / "3.png").read_bytes()[:40])
    with pytest.warns(LeftOut, match=r"ox/torn.png in .* is not a picture"):
        classifier = metashot.few_shot(run, support)
    good, torn = support / "ant" / "0.png", support / "ox" / "torn.png"
    with pytest.warns(LeftOut, match=r"torn.png is not a picture"):
        answers = metashot.classify(classifier, [torn, good])
    assert [answer.image for answer in answers] == [str(good)]
    assert answers[0].ranked[0][0] == "ant"


def test_fewer_classes_than_the_parameters_are_for(letters: Path, tmp_path: Path):
    learner = MetaLSTM(network=Conv4(filters=2, blocks=1), steps=1)
    sizes = Sizes(way=5, shot=1, query=1)
    data = Glyphs(train=6, val=5, test=5, drawings=4, size=SIZE)
    config = Experiment(data=data, learner=learner, steps=1, train=sizes, test=sizes)
    experiment.run(config, tmp_path / "run", progress=False)
    classifier = metashot.few_shot(tmp_path / "run", letters)
    found = recognition.probabilities(classifier, drawing(0)[None, :, :, None])
    assert found.shape == (1, 4)
    np.testing.assert_allclose(found.sum(), 1, 1e-5)
    for name in ("dog", "elk"):
        shutil.copytree(letters / "ant", tmp_path / "letters" / name)
    shutil.copytree(letters, tmp_path / "letters", dirs_exist_ok=True)
    with pytest.raises(ConfigError, match="trained for 5-way and its parameters depend on that"):
        metashot.few_shot(tmp_path / "run", tmp_path / "letters")


def test_what_is_no_run_or_no_support_is_refused(run: Path, letters: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="holds no run of metashot"):
        metashot.few_shot(tmp_path, letters)
    with pytest.raises(FileNotFoundError, match="there is no"):
        metashot.few_shot(run, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="neither class folders nor"):
        metashot.few_shot(run, tmp_path)
    (tmp_path / "run.json").write_text('{"input_shape": [3], "prepare": null}')
    with pytest.raises(ConfigError, match="does not say how a picture becomes an input"):
        metashot.few_shot(tmp_path, letters)
