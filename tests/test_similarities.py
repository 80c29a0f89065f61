"""None of these: similarities of classes set aside, their thresholds, and who is refused."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import metashot
from metashot import recognition
from metashot.base import Examples, Network
from metashot.config import Batch, ClassFolders, ConfigError, Experiment, Imprinting, Prototypical
from metashot.data import Prepare, from_arrays
from metashot.loading import Similarities, read_similarities, write_classes
from metashot.recognition import Classifier, Pictures
from metashot.similarities import similarities

pytestmark = pytest.mark.usefixtures("quick_compile")

PIXELS = Network(
    lambda key, x: {"params": {}, "state": {}},
    lambda variables, x, *, train=False, mask=None, key=None: (x.reshape(len(x), -1), {}),
)


def classifier_of(
    *pictures: NDArray[np.uint8], labels: list[int], scale_param: str = "raw"
) -> Classifier:
    """Of pixels as they are, which has imprinted these pictures; at most four classes."""
    learner = metashot.imprinting(network=PIXELS, way=4, size=None, scale_param=scale_param)
    images = jnp.asarray(np.stack(pictures), jnp.float32)
    support = Examples(images, jnp.array(labels), jnp.ones(len(labels), bool))
    variables = learner.init(jax.random.key(0), metashot.Episode(support, support))
    variables = metashot.imprint(learner, metashot.remove_class(variables, jnp.arange(4)), support)
    shape, count = (2, 2, 1), max(labels) + 1
    made = Imprinting(size=None, classes=4, scale_param=scale_param)  # pyright: ignore
    config = Experiment(ClassFolders(".", size=2), made, steps=1, train=Batch())
    task = learner.adapt(variables, jax.tree.map(lambda x: x[:0], support))
    reading = Pictures(shape, Prepare(1.0, 0.0))
    return Classifier(learner, variables, task, tuple("abcd"[:count]), reading, config)


def picture(*pixels: int) -> NDArray[np.uint8]:
    return np.array(pixels, np.uint8).reshape(2, 2, 1)


def test_similarities_are_cosines_of_other_pictures_with_the_mean_direction():
    """3-4-5 triangles: the cosines of the two pictures of a class are 0.6 and 0.96."""
    pictures = [picture(3, 4, 0, 0), picture(5, 0, 0, 0), picture(0, 0, 4, 3), picture(0, 0, 3, 4)]
    ready = classifier_of(pictures[0], labels=[0])
    dataset = from_arrays(np.stack(pictures), np.array([0, 0, 1, 1]))
    found = similarities(ready, dataset)
    assert set(found) == {1}  # two examples leave no other picture
    assert len(found[1]) == 101
    assert (set(found[1][:45]), set(found[1][56:])) == ({0.6}, {0.96})
    three = from_arrays(np.stack([*pictures[:2], pictures[0]]), np.zeros(3, int))
    found = similarities(ready, three)
    column = np.array([0.6 + 1, 0.8])  # of (3, 4) and (5, 0)
    least = (0.6 * column[0] + 0.8 * column[1]) / np.linalg.norm(column)
    assert {found[2][0], found[2][100]} <= {0.6, round(float(least), 4)}
    assert similarities(ready, from_arrays(np.stack(pictures[:2]), np.arange(2))) == {}


def test_many_pictures_are_embedded_as_each_alone():
    shape = (recognition.batch_size() + 3, 2, 2, 1)
    draw = np.random.default_rng(0).integers(1, 256, shape, np.uint8)
    found = recognition.embeddings(classifier_of(draw[0], labels=[0]), draw)
    rows = draw.reshape(len(draw), -1) / 1.0
    np.testing.assert_allclose(found, rows / np.linalg.norm(rows, axis=1, keepdims=True), 1e-5)


def test_a_threshold_is_of_as_many_examples_as_the_class_has():
    known = classifier_of(picture(1, 0, 0, 0), labels=[0])
    table: Similarities = {1: [0.0, 0.2, 0.6], 4: [0.4, 0.8, 1.0]}
    counts = np.array([0.0, 1, 3, 4, 9, 0, 0])
    known = known._replace(names=tuple("abcde"), task={"count": counts}, similarities=table)
    np.testing.assert_allclose(recognition.thresholds(known, 0.25), [0.1, 0.1, 0.1, 0.6, 0.6])
    np.testing.assert_allclose(recognition.thresholds(known, 0.75)[0], 0.4)


@pytest.mark.parametrize("scale_param", ["raw", "log"])
def test_a_picture_that_reaches_no_threshold_is_none_of_these(tmp_path: Path, scale_param: str):
    """Class a has one example and the threshold 0.5, b has two and 0.9."""
    a, b = picture(1, 0, 0, 0), picture(0, 1, 0, 0)
    known = classifier_of(a, b, b, labels=[0, 1, 1], scale_param=scale_param)
    known = known._replace(similarities={1: [0.0, 1.0], 2: [0.8, 1.0]})
    asked = {
        "near_a": (60, 80, 0, 0),  # cosines 0.6 and 0.8: nearer to b, but only a is reached
        "no_b": (40, 80, 40, 40),  # 0.38 and 0.76
        "far": (0, 0, 9, 9),
        "b": (0, 9, 1, 0),
    }
    for name, pixels in asked.items():
        Image.fromarray(picture(*pixels)[..., 0]).save(tmp_path / f"{name}.png")
    paths = [tmp_path / f"{name}.png" for name in asked]
    answers = metashot.classify(known, paths, reject=0.5)
    assert [answer.known for answer in answers] == [True, False, False, True]
    assert [answer.ranked[0][0] for answer in answers[:2]] == ["b", "b"]
    assert all(answer.known for answer in metashot.classify(known, paths))


def test_who_cannot_refuse_says_why(tmp_path: Path):
    known = classifier_of(picture(1, 0, 0, 0), labels=[0])
    with pytest.raises(ConfigError, match="no similarities were measured for this checkpoint"):
        metashot.classify(known, [], reject=0.1)
    known = known._replace(similarities={1: [0.0, 1.0]})
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"reject is {share}; it is a share of pictures"):
            metashot.classify(known, [], reject=share)
    other = known._replace(config=Experiment(ClassFolders("."), Prototypical(), steps=1))
    with pytest.raises(ConfigError, match=r"by an Imprinting.*Prototypical has no measure"):
        metashot.classify(other, [], reject=0.1)
    with pytest.raises(ConfigError, match="there is no class yet"):
        metashot.classify(known._replace(names=()), [])


def test_similarities_are_of_one_checkpoint(tmp_path: Path):
    assert read_similarities(tmp_path, 3) is None
    write_classes(tmp_path, ("a",))  # as runs had it
    assert read_similarities(tmp_path, 3) is None
    write_classes(tmp_path, ("a",), {1: [0.1, 0.9], 10: [0.5, 1.0]}, step=3)
    assert read_similarities(tmp_path, 3) == {1: [0.1, 0.9], 10: [0.5, 1.0]}
    assert read_similarities(tmp_path, 2) is None
