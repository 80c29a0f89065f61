"""`metashot export`: from a run to one file, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metashot.cli.main import main
from metashot.enrolment import SHIPPED

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run, one that stores no classes, a damaged one, and a folder with classes ant and ox."""
    for name in ("run", "bare", "torn"):
        shutil.copytree(SHIPPED / "glyphs", tmp_path / name)
    (tmp_path / "bare" / "classes.json").unlink()
    (tmp_path / "torn" / "run.json").write_text("")
    for name in ("ant", "ox"):
        (tmp_path / "letters" / name).mkdir(parents=True)
        Image.radial_gradient("L").save(tmp_path / "letters" / name / "a.png")
    (tmp_path / "old.npz").write_text("old")
    monkeypatch.chdir(tmp_path)


def test_a_support_makes_the_classes(capsys: pytest.CaptureFixture[str]):
    (Path("letters") / "ox" / "torn.png").write_bytes(b"torn")
    assert main(["export", "bare", "--support", "letters", "--out", "new/it.npz"]) == 1
    printed = capsys.readouterr()
    wanted = "2 classes of 28x28x1 pictures, for cpu, cuda, tpu, in new/it.npz: 0.2 MB\n"
    assert printed.out == wanted
    assert "torn.png" in printed.err
    assert np.load("new/it.npz")["names"].tolist() == ["ant", "ox"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["bare", "--out", "x"], "bare stores no classes: give a support folder"),
        (["run", "--out", "old.npz"], "old.npz exists: name a new file"),
        (["torn", "--out", "x"], "torn/run.json is damaged: restore it from a copy of the run"),
        (["letters", "--out", "x"], "letters holds no run of metashot"),
        (["run", "--out", "x", "--support", "nowhere"], "there is no nowhere"),
        (["run", "--out", "x", "--checkpoint", "7"], "run has no checkpoint 7"),
    ],
)
def test_mistakes_leave_nothing_behind(
    call: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["export", *call]) != 0
    assert capsys.readouterr().err.startswith(f"metashot: {message}")
    assert not Path("x").exists()
    assert Path("old.npz").read_text() == "old"
