"""Pictures of every kind and damaged ones, from enrolling to predicting; what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import metashot
from metashot.cli.main import main
from metashot.data import glyphs

pytestmark = pytest.mark.usefixtures("quick_compile")

Drawing = NDArray[np.uint8]  # [56, 56], dark on white


def grey(drawing: Drawing) -> Image.Image:
    return Image.fromarray(drawing)


def rgb(drawing: Drawing) -> Image.Image:
    return grey(drawing).convert("RGB")


def clear(drawing: Drawing) -> Image.Image:
    """Black, and the more opaque the darker it was."""
    made = Image.new("RGBA", drawing.shape)
    made.putalpha(Image.fromarray(255 - drawing))
    return made


def turned(drawing: Drawing, path: Path) -> None:
    """Stored lying on its side, and marked so, as cameras do."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(drawing))).save(path, exif=exif)


KINDS: dict[str, Callable[[Drawing, Path], None]] = {
    "plain.png": lambda d, path: grey(d).save(path),
    "upper.JPG": lambda d, path: rgb(d).save(path, quality=95),
    "grey.jpg": lambda d, path: grey(d).save(path, quality=95),
    "cmyk.jpg": lambda d, path: rgb(d).convert("CMYK").save(path, quality=95),
    "turned.jpg": turned,
    "lossless.webp": lambda d, path: rgb(d).save(path, lossless=True),
    "rgba.png": lambda d, path: clear(d).save(path),
    "rgba.webp": lambda d, path: clear(d).save(path),
    "grey_alpha.png": lambda d, path: clear(d).convert("LA").save(path),
    "sixteen.png": lambda d, path: Image.fromarray(d.astype(np.uint16) * 257).save(path),
    "sixteen.tiff": lambda d, path: Image.fromarray(d.astype(np.uint16) * 257).save(path),
    "palette.png": lambda d, path: rgb(d).quantize(16).save(path),
    "palette.gif": lambda d, path: grey(d).save(path),
    "bits.png": lambda d, path: grey(d).convert("1").save(path),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Letters enrolled from a plain drawing each, a class a kind, and the drawings in that kind."""
    place = tmp_path_factory.mktemp("pictures")
    letters = glyphs(train=len(KINDS), val=1, test=1, drawings=2, size=56).train.arrays.images
    (place / "asked").mkdir()
    for (name, write), drawing in zip(KINDS.items(), np.asarray(letters)[::2, ..., 0], strict=True):
        (place / "letters" / name).mkdir(parents=True)
        grey(drawing).save(place / "letters" / name / "1.png")
        write(drawing, place / "asked" / name)
    assert main(["enroll", str(place / "letters"), "--out", str(place / "mine")]) == 0
    return place


def test_pictures_of_every_kind_show_the_same(place: Path, capsys: pytest.CaptureFixture[str]):
    asked = [str(place / "asked" / name) for name in KINDS]
    assert main(["predict", str(place / "mine"), *asked, "--json", "--reject", "0.5"]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    found = json.loads(printed.out)["predictions"]
    assert {Path(each["image"]).name: each["class"] for each in found} == {n: n for n in KINDS}


def header(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds next to nothing."""
    chunk = lambda kind, data: (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def damage(place: Path) -> list[Path]:
    whole = {name: (place / "asked" / name).read_bytes() for name in ("plain.png", "upper.JPG")}
    files = {
        "truncated.png": whole["plain.png"][:200],
        "truncated.jpg": whole["upper.JPG"][:700],
        "empty.png": b"",
        "text.jpg": b"no picture",
        "bomb.png": header(30_000, 30_000),
    }
    for name, content in files.items():
        (place / name).write_bytes(content)
    return [place / name for name in files]


def test_what_cannot_be_decoded_is_named_and_the_rest_goes_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(place / "asked", tmp_path / "asked")
    bad, good = damage(tmp_path), tmp_path / "asked" / "plain.png"
    assert main(["predict", str(place / "mine"), *map(str, bad), str(good), "--csv"]) == 1
    printed = capsys.readouterr()
    named = [line.split(" is not a picture")[0] for line in printed.err.splitlines()]
    assert named == [str(path) for path in bad]
    assert [line.split(",")[:2] for line in printed.out.splitlines()[1:]] == [
        [str(good), good.name]
    ]
    assert main(["predict", str(place / "mine"), *map(str, bad), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"predictions": []}

    for path in bad:  # beside a good one, in a class of its own
        (tmp_path / "new" / path.stem).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "new" / path.stem / path.name)
        shutil.copy(good, tmp_path / "new" / path.stem)
    (tmp_path / "new" / "raw").mkdir()
    (tmp_path / "new" / "raw" / "1.heic").write_bytes(b"")
    out = tmp_path / "more"
    assert main(["enroll", str(place / "mine"), str(tmp_path / "new"), "--out", str(out)]) == 1
    named = capsys.readouterr().err.splitlines()
    assert sorted(line.split(" in ")[0].split("/")[-1] for line in named[:-1]) == sorted(
        path.name for path in bad
    )
    assert named[-1].startswith(f"{tmp_path / 'new' / 'raw'} has no pictures (.bmp, .gif, ")
    assert len(metashot.stored(out).names) == len(KINDS) + 4  # truncated are two files


def test_a_large_picture_is_read_in_silence_and_twice_as_large_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked = str(place / "asked" / "plain.png")
    for limit, code in ((56 * 40, 0), (56 * 20, 1)):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert main(["predict", str(place / "mine"), asked]) == code
        assert bool(capsys.readouterr().err) == bool(code)


def everything(folder: Path) -> dict[str, str]:
    """What its files hold."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def replace(old: str, new: str) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        text = (run / "config.py").read_text()
        assert text.count(old) == 1
        (run / "config.py").write_text(text.replace(old, new))

    return change


def torn(run: Path) -> None:
    path = run / "checkpoints" / "0" / "variables" / "manifest.ocdbt"
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: None, "there is a class bits.png already: rename the folder, or merge"),
        (torn, "checkpoint 0 of {run} is damaged, or was not made by this learner"),
        (
            replace("size=64,\n            scale", "size=32,\n            scale"),
            "checkpoint 0 of {run} is damaged, or was not made by this learner",
        ),
        (replace("filters=32", "filters=16"), "checkpoint 0 of {run} is damaged, or was not"),
        (lambda run: shutil.rmtree(run / "checkpoints" / "0"), "{run} has no checkpoint best"),
        (lambda run: (run / "run.json").write_text("{"), "{run}/run.json is damaged: restore it"),
        (lambda run: (run / "classes.json").write_text("[]"), "{run}/classes.json is damaged"),
        (
            lambda run: (run / "classes.json").write_text('{"names": ["a"]}'),
            "{run} names 1 classes, but its checkpoint has 14",
        ),
        (lambda run: (run / "config.py").write_text("1 / 0"), "{run}/config.py cannot be read"),
        (lambda run: (run / "classes.json").unlink(), "{run} stores no classes: give a support"),
    ],
)
def test_what_is_refused_leaves_everything_as_it_was(
    place: Path,
    tmp_path: Path,
    change: Callable[[Path], object],
    said: str,
    capsys: pytest.CaptureFixture[str],
):
    run = tmp_path / "run"
    shutil.copytree(place / "mine", run)
    change(run)
    before = everything(tmp_path)
    letters, out = str(place / "letters"), str(tmp_path / "new")
    assert main(["enroll", str(run), letters, "--out", out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"metashot: {said.format(run=run)}")
    assert everything(tmp_path) == before


def test_class_folders_without_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    (tmp_path / "empty" / "cat" / "notes.txt").write_text("none")
    assert main(["enroll", str(tmp_path / "empty"), "--out", str(tmp_path / "new")]) == 2
    assert "empty has neither class folders nor" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
