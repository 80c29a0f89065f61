"""An exported classifier answers as metashot does, on every platform and without metashot."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import metashot
from metashot import enrolment, recognition
from metashot.config import Batch, ConfigError, Conv4, Experiment, Glyphs, Imprinting, MetaLSTM
from metashot.data import INK
from metashot.data.pictures import squares
from metashot.recognition import Classifier, Pictures

pytestmark = pytest.mark.usefixtures("quick_compile")

SIZE = 8
GREY = Pictures((SIZE, SIZE, 1), INK)
TINY = Conv4(filters=2, blocks=1)
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "export.md"
# Runs a script as if metashot were not installed.
ELSEWHERE = "import sys; sys.modules['metashot'] = None; exec(open(sys.argv[1]).read())"


def drawings(*seeds: int, size: int = SIZE) -> NDArray[np.uint8]:
    draw = lambda seed: np.random.default_rng(seed).integers(0, 256, (size, size, 1), np.uint8)
    return np.stack([draw(seed) for seed in seeds])


def untrained(made: Any, **examples: int) -> Classifier:
    """Adapted to one drawing of each class; without any, of the stored classes x, y and z."""
    learner = made.build(3)
    batch = recognition.as_examples(drawings(0, 1, 2), np.arange(3), GREY)
    variables = jax.jit(learner.init)(jax.random.key(0), metashot.Episode(batch, batch))
    config = Experiment(data=Glyphs(size=SIZE), learner=made, steps=1, train=Batch())
    if not examples:
        task = recognition.stored_task(learner, variables, GREY)
        return Classifier(learner, variables, task, ("x", "y", "z"), GREY, config)
    shown = drawings(*examples.values())
    support = recognition.as_examples(shown, np.arange(len(shown)), GREY)
    task = jax.jit(learner.adapt)(variables, support, jax.random.key(0))
    return Classifier(learner, variables, task, tuple(examples), GREY, config)


@pytest.fixture(scope="module")
def base() -> Classifier:
    """As trained on classes x, y and z."""
    return untrained(Imprinting(network=TINY, size=4, classes=3))


@pytest.mark.parametrize(
    "made",
    [
        Imprinting(network=TINY, size=None, classes=3, scale_param="log"),
        MetaLSTM(network=TINY, steps=1),
    ],
)
def test_it_answers_as_the_classifier(made: Any, tmp_path: Path):
    classifier = untrained(made, ant=3, ox=4)
    metashot.export(classifier, tmp_path / "new" / "it.npz")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["it.npz"]
    file = np.load(tmp_path / "new" / "it.npz")
    assert tuple(file["names"]) == classifier.names
    model = jax.export.deserialize(bytearray(file["model"]))
    images = drawings(*range(7))
    every = recognition.probabilities(classifier, images)
    for answer, count in ((model.call, 1), (jax.jit(model.call), 7)):
        found, wanted = answer(images[:count]), every[:count]
        np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-5)
        if "scale" in file:
            cosines = found["embeddings"] @ file["columns"].T
            np.testing.assert_allclose(jax.nn.softmax(file["scale"] * cosines), wanted, atol=1e-5)


def test_each_platforms_program_gives_the_same(base: Classifier, tmp_path: Path):
    """They are found by their platform's place in the list, so that a CPU can run them all."""
    metashot.export(base, tmp_path / "it.npz")
    model = jax.export.deserialize(bytearray(np.load(tmp_path / "it.npz")["model"]))
    assert model.platforms == ("cpu", "cuda", "tpu")
    images = drawings(0, 1)
    wanted = model.call(images)
    for platforms in (("cuda", "cpu", "tpu"), ("cuda", "tpu", "cpu")):
        found = dataclasses.replace(model, platforms=platforms).call(images)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)
    # Of one grey channel a CPU adds up shifted pictures; the others convolve.
    assert "stablehlo.convolution" in model.mlir_module()


def test_the_documents_lines_need_no_metashot(base: Classifier, tmp_path: Path):
    """What is imprinted there is what `enroll` makes here of the same pictures."""
    (tmp_path / "new" / "yak").mkdir(parents=True)
    asked = [tmp_path / f"{seed}.png" for seed in range(3)]
    shown = [tmp_path / "new" / "yak" / f"{seed}.png" for seed in (5, 6)]
    for path in (*asked, *shown):
        Image.fromarray(drawings(int(path.stem), size=3 * SIZE)[0, ..., 0]).save(path)
    metashot.export(base, tmp_path / "letters.npz")
    pixels = {}
    for name, paths in (("images", asked), ("yak", shown)):
        read = lambda i, paths=paths: paths[i].read_bytes()
        pixels[name], _ = squares(read, len(paths), **GREY.reading)
        np.save(tmp_path / f"{name}.npy", pixels[name])
    lines = "\n".join(re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S))
    ends = "chances=chances, probabilities=found['probabilities'], pixels=read('0.png')"
    (tmp_path / "script.py").write_text(f"{lines}\nnp.savez('told.npz', {ends})\n")
    call = [sys.executable, "-I", "-c", ELSEWHERE, "script.py"]
    ran = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert not ran.returncode, ran.stderr
    told = np.load(tmp_path / "told.npz")
    np.testing.assert_array_equal(told["pixels"], pixels["images"][0])
    larger = metashot.enroll(base, tmp_path / "new")
    for classifier, found in ((base, told["probabilities"]), (larger, told["chances"])):
        for row, answer in zip(found, metashot.classify(classifier, asked), strict=True):
            wanted = [dict(answer.ranked)[name] for name in classifier.names]
            np.testing.assert_allclose(row, wanted, atol=1e-5)


def test_an_embedding_without_classes_can_be_exported(tmp_path: Path):
    metashot.export(enrolment.embedded(), tmp_path / "it.npz")
    file = np.load(tmp_path / "it.npz")
    assert file["columns"].shape == (0, 64)
    model = jax.export.deserialize(bytearray(file["model"]))
    found = model.call(drawings(0, 1, size=28))
    np.testing.assert_allclose(np.linalg.norm(found["embeddings"], axis=1), 1, 1e-5)
    assert found["probabilities"].shape == (2, 0)


def test_a_file_that_exists_is_kept(base: Classifier, tmp_path: Path):
    (tmp_path / "it.npz").write_text("mine")
    with pytest.raises(ConfigError, match="exists: name a new file"):
        metashot.export(base, tmp_path / "it.npz")
    assert (tmp_path / "it.npz").read_text() == "mine"
