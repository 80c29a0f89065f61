"""`metashot enroll` and `metashot classes`: from a run to a larger one, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from metashot import experiment
from metashot.cli.main import main
from metashot.config import Batch, Conv4, Experiment, Glyphs, Imprinting, Sizes

pytestmark = pytest.mark.usefixtures("quick_compile")

TINY = Experiment(
    data=Glyphs(train=3, val=2, test=2, drawings=3, size=8),
    learner=Imprinting(network=Conv4(filters=2, blocks=1), size=4, classes=3),
    steps=1,
    train=Batch(4),
    test=Sizes(way=2, shot=1, query=1),
    validate_every=1,
    validation_episodes=2,
    log_every=1,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a folder with a class ant, and a picture."""
    place = tmp_path_factory.mktemp("enroll")
    experiment.run(TINY, place / "run", progress=False)
    (place / "new" / "ant").mkdir(parents=True)
    for path in (place / "new" / "ant" / "a.png", place / "ask.png"):
        Image.radial_gradient("L").resize((9, 9)).save(path)
    return place


def test_enroll_then_predict(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(place)
    assert main(["enroll", "run", "new", "--out", "mine"]) == 0
    assert capsys.readouterr().out == "4 classes, 1 of them new, in mine: ant\n"
    assert main(["classes", "mine"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ant"
    assert main(["classes", "run", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["names"]) == 3
    assert main(["predict", "mine", "ask.png", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert found["class"] == "ant"
    for run in ("run", "mine"):  # its own picture is as like as can be; training measured the rest
        assert main(["predict", run, "ask.png", "--reject", "0.1", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)["predictions"]
        similarities = json.loads((place / run / "classes.json").read_text())["similarities"]
        assert (similarities["step"], set(similarities["quantiles"])) == (run == "run", {"1", "2"})
    assert found["class"] == "ant"
    assert main(["classes", "mine", "--remove", "ant", "--out", "less", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["names"]) == 3
    assert main(["classes", "less"]) == main(["classes", "mine"]) == 0
    assert capsys.readouterr().out.splitlines().count("ant") == 1  # only in the old one
    (place / "new" / "ant" / "torn.png").write_bytes(b"torn")
    assert main(["enroll", "mine", "new", "--out", "more", "--merge"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "4 classes, 0 of them new, in more: \n"
    assert "torn.png" in printed.err
    (place / "new" / "ant" / "torn.png").unlink()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["--out", "x"], "which folder?"),
        (["run", "--out", "x"], "run has neither class folders nor"),
        (["run", "run", "new", "--out", "x"], "run run new is named where RUN FOLDER is wanted"),
        (["run", "new", "--pretrained", "--out", "x"], "run new is named where FOLDER is wanted"),
        (["run", "new", "--out", "run"], "run exists: name a new folder"),
        (["new", "new", "--out", "x"], "new holds no run of metashot"),
        (["run", "nowhere", "--out", "x"], "there is no nowhere"),
    ],
)
def test_mistakes_leave_nothing_behind(
    place: Path,
    call: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(place)
    assert main(["enroll", *call]) != 0
    assert capsys.readouterr().err.startswith(f"metashot: {message}")
    assert not (place / "x").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["--remove", "ant"], "--remove changes nothing in place: name a new folder"),
        (["--out", "x"], "--out is for a classifier without some classes"),
        (["--remove", "ant", "--out", "run"], "run exists: name a new folder"),
        (["--remove", "ant", "--out", "x"], "there is no class ant: see `metashot classes`"),
    ],
)
def test_what_cannot_be_removed(
    place: Path,
    call: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(place)
    assert main(["classes", "run", *call]) == 2
    assert capsys.readouterr().err.startswith(f"metashot: {message}")
    assert not (place / "x").exists()


def test_a_run_without_classes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["classes", str(tmp_path)]) == 2
    assert "stores no classes" in capsys.readouterr().err
