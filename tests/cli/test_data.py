"""`metashot data`: what it prepares, shows and refuses."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metashot
from metashot import config
from metashot.cli.main import main

GLYPHS = ["glyphs", "--train", "12", "--val", "6", "--test", "8", "--drawings", "4", "--size", "16"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METASHOT_DATA", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four classes of two pictures each."""
    for name in "abcd":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            shade = np.full((9, 9, 3), 20 * i, np.uint8)
            Image.fromarray(shade).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def test_the_table_names_functions_and_lists_every_source():
    for name, kind in config.SOURCES.items():
        assert callable(getattr(metashot.data, name))
        assert name.replace("_", "") == kind.__name__.lower()
    kinds = inspect.getmembers(config.data, inspect.isclass)
    ours = {kind for _, kind in kinds if kind.__module__ == config.data.__name__}
    ours = {kind for kind in ours if not hasattr(kind, "episodes")}  # those with masks
    assert set(config.SOURCES.values()) == ours


def test_prepare_says_what_the_parts_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "prepare", *GLYPHS]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "glyphs train: 12 classes, 48 images of 16x16x1, 4 in the smallest class",
        "glyphs val: 6 classes, 24 images of 16x16x1, 4 in the smallest class",
        "glyphs test: 8 classes, 32 images of 16x16x1, 4 in the smallest class",
        f"ready in {tmp_path / 'cache'}",
    ]
    assert len(list((tmp_path / "cache").glob("glyphs-*"))) == 3


def test_prepare_names_damaged_pictures_and_keeps_the_others(
    photos: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["data", "prepare", "class_folders", "--source", str(photos), "--size", "8"]
    assert main(arguments) == 0
    (photos / "b" / "2.png").write_bytes(b"no picture")
    for _ in range(2):
        capsys.readouterr()
        assert main(arguments) == 1
        printed = capsys.readouterr()
        assert printed.err.splitlines() == [
            "preparing class_folders",
            f"b/2.png in {photos} is not a picture that can be decoded: it is left out",
        ]
        assert "class_folders train: 2 classes, 4 images of 8x8x3" in printed.out


def test_omniglot_keeps_its_options(capsys: pytest.CaptureFixture[str]):
    for option in ("--download", "--repacked", "--source", "--no-rotations"):
        with pytest.raises(SystemExit):
            main(["data", "prepare", "omniglot", "--help"])
        assert option in capsys.readouterr().out
    assert main(["data", "prepare", "omniglot", "--source", "nowhere"]) == 1
    assert "images_background.zip and images_evaluation.zip not found" in capsys.readouterr().err


def test_show_writes_a_sheet(photos: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "show", *GLYPHS, "--part", "val", "--classes", "3"]) == 0
    holds, where = capsys.readouterr().out.splitlines()
    assert holds == "glyphs val: 6 classes, 24 images of 16x16x1, 4 in the smallest class"
    assert where == "contact sheet: glyphs_val.png"
    assert Image.open("glyphs_val.png").height == 3 * (64 + 4) + 4
    show = ["data", "show", "class_folders", "--source", str(photos), "--seed", "3"]
    assert main([*show, "--part", "test", "--out", "my.png", "--images", "1"]) == 0
    assert Image.open("my.png").mode == "RGB"


def test_a_sheet_is_not_overwritten_unasked(capsys: pytest.CaptureFixture[str]):
    Path("mine.png").write_text("keep")
    show = ["data", "show", *GLYPHS, "--out", "mine.png"]
    assert main(show) == 2
    assert "mine.png exists" in capsys.readouterr().err
    assert Path("mine.png").read_text() == "keep"
    assert main([*show, "--overwrite"]) == 0
    assert Image.open("mine.png").format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("remove", 2, "no data command remove; there are prepare and show"),
        ("prepare", 2, "which data? after prepare comes one of glyphs, omniglot, caltech101"),
        ("show cifar", 2, "there are no data cifar: after show comes one of glyphs"),
        ("prepare class_folders", 2, "--source"),
        ("prepare class_folders --source nowhere", 1, "there is no nowhere"),
        ("prepare glyphs --sise 3", 2, "no option --sise: did you mean --size? there are --draw"),
        ("prepare mini_imagenet", 1, "there is no train.csv in"),
        ("prepare tiny_imagenet", 1, "there is no"),
        ("prepare tfds --name a_b_c --data-dir .", 1, "run tfds build a_b_c"),
        ("show glyphs --part rest", 2, "rest"),
        ("show glyphs --out sheet.pdf", 2, "ends in .png"),
        ("show glyphs --out no/sheet.png", 2, "there is no folder no"),
        ("show glyphs --train 5 --classes 0", 2, "classes is 0; it is at least 1"),
        ("show class_folders --source {photos} --val 0 --part val", 2, "has no val part"),
    ],
)
def test_mistakes_take_one_line(
    arguments: str, code: int, said: str, photos: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["data", *arguments.format(photos=photos).split()]) == code
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("metashot: ")
    assert said in line
    assert not list(Path().iterdir())
