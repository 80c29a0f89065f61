"""`metashot predict`: what is printed, and what is refused before work starts."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from metashot import nearest_neighbor, recognition
from metashot.base import Examples, Variables
from metashot.cli.main import main
from metashot.config import Experiment

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A call whose classifier knows a black and a white picture."""

    def few_shot(run: Path, support: Path, *, checkpoint: str) -> recognition.Classifier:
        assert (run.name, support.name, checkpoint) == ("run", "support", "best")
        learner = nearest_neighbor(way=2)
        pixels = jnp.array([[1.0, 0, 0, 0], [0, 0, 0, 1]]).reshape(2, 2, 2, 1)
        variables: Variables = {"params": {}, "state": {}}
        task = learner.adapt(variables, Examples(pixels, jnp.arange(2), jnp.ones(2, bool)))
        config = Experiment(data=None, learner=None, steps=1)
        pictures = recognition.Pictures((2, 2, 1))
        names = ("first", "last")
        return recognition.Classifier(learner, variables, task, names, pictures, config)

    monkeypatch.setattr(recognition, "few_shot", few_shot)
    for name, pixels in {"a": [[255, 0], [0, 0]], "b": [[0, 0], [0, 255]]}.items():
        Image.fromarray(np.array(pixels, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "torn.png").write_bytes(b"torn")
    monkeypatch.chdir(tmp_path)
    return ["predict", "run", "--support", "support"]


def test_a_line_for_each_picture(call: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*call, "a.png", "b.png"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    chance = f"{100 * np.e / (np.e + 1):.1f} %"  # cosines 1 and 0
    assert first.startswith(f"a.png: first {chance}, last ")
    assert second.startswith(f"b.png: last {chance}, first ")
    assert main([*call, "a.png", "--top", "1"]) == 0
    assert capsys.readouterr().out == f"a.png: first {chance}\n"


def test_csv_and_json(call: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*call, "a.png", "b.png", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["image"], row["class"]) for row in rows] == [("a.png", "first"), ("b.png", "last")]
    assert main([*call, "a.png", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert (found["image"], found["class"]) == ("a.png", "first")
    assert float(rows[0]["probability"]) == found["probability"] == pytest.approx(np.e / (np.e + 1))
    assert [each["class"] for each in found["top"]] == ["first", "last"]


def test_none_of_these(
    call: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert main([*call, "a.png", "--reject", "0.05"]) == 2  # the nearest neighbour has no cosines
    assert "by an Imprinting" in capsys.readouterr().err

    def classify(
        _: object, images: tuple[Path], *, top: int, reject: float
    ) -> list[recognition.Prediction]:
        assert (top, reject) == (3, 0.05)
        return [recognition.Prediction(images[0].name, (("first", 0.7), ("last", 0.3)), False)]

    monkeypatch.setattr(recognition, "classify", classify)
    call += ["a.png", "--reject", "0.05"]
    assert main(call) == 0
    assert capsys.readouterr().out == "a.png: none of these (first 70.0 %, last 30.0 %)\n"
    assert main([*call, "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["a.png,none of these,"]
    assert main([*call, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert (found["class"], found["probability"]) == (None, None)
    assert found["top"][0] == {"class": "first", "probability": 0.7}


def test_a_torn_picture_is_named_and_the_rest_goes_on(
    call: list[str], capsys: pytest.CaptureFixture[str]
):
    assert main([*call, "torn.png", "b.png"]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("b.png: last")
    assert printed.err == "torn.png is not a picture that can be decoded: it is left out\n"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "which pictures?"),
        (["a.png", "c.png"], "c.png is no file: name pictures"),
        (["."], ". is a folder: name pictures"),
        (["a.png", "--top", "0"], "--top is 0; it is at least 1"),
        (["a.png", "--reject", "1"], "--reject is 1.0; it is a share, above 0 and under 1"),
        (["a.png", "--csv", "--json"], "--csv and --json: choose one"),
    ],
)
def test_mistakes_are_refused_in_a_sentence(
    call: list[str], wrong: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main([*call, *wrong]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"metashot: {message}")
    assert len(printed.err.splitlines()) == 1
