"""The official one-shot runs: small archives made up here."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metashot.data import omniglot_runs


def shade(run: int, part: str, i: int) -> np.ndarray:
    pixels = np.full((105, 105), 255, np.uint8)
    pixels[: 5 * i, : 3 * run] = 0
    pixels[50:, 60 if part == "test" else 80 :] = 0
    return pixels


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 runs; test item i shows class 21 - i."""
    folder = tmp_path_factory.mktemp("runs")
    with zipfile.ZipFile(folder / "all_runs.zip", "w") as file:
        for r in range(1, 21):
            for part, word in (("training", "class"), ("test", "item")):
                for i in range(1, 21):
                    png = io.BytesIO()
                    Image.fromarray(shade(r, part, i)).convert("1").save(png, "PNG")
                    file.writestr(f"run{r:02d}/{part}/{word}{i:02d}.png", png.getvalue())
            pair = f"run{r:02d}/test/item{{:02d}}.png run{r:02d}/training/class{{:02d}}.png\n"
            lines = "".join(pair.format(i, 21 - i) for i in range(1, 21))
            file.writestr(f"run{r:02d}/class_labels.txt", lines)
    return folder


def test_training_pictures_are_the_exemplars(archive: Path) -> None:
    runs = omniglot_runs(archive, size=105).arrays
    support, query = runs.support, runs.query
    assert support.inputs.shape == query.inputs.shape == (20, 20, 105, 105, 1)
    np.testing.assert_array_equal(support.inputs[3, 6, ..., 0], shade(4, "training", 7) == 0)
    np.testing.assert_array_equal(query.inputs[3, 6, ..., 0], shade(4, "test", 7) == 0)
    np.testing.assert_array_equal(query.targets, np.tile(19 - np.arange(20), (20, 1)))
    np.testing.assert_array_equal(support.targets, np.tile(np.arange(20), (20, 1)))
    assert support.mask.all()
    assert query.mask.all()


def test_or_test_pictures_are(archive: Path) -> None:
    runs = omniglot_runs(archive, size=8, exemplar="test").arrays
    plain = omniglot_runs(archive, size=8).arrays
    assert runs.query.inputs.shape == (20, 20, 20, 8, 8, 1)
    np.testing.assert_array_equal(runs.support.inputs, plain.query.inputs)
    np.testing.assert_array_equal(runs.query.inputs[2, 5], plain.support.inputs[2])
    np.testing.assert_array_equal(runs.query.targets[7], np.eye(20)[::-1])


def test_what_cannot_be_read_is_refused(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"all_runs.zip not found in .*METASHOT_DATA"):
        omniglot_runs(tmp_path)
    with zipfile.ZipFile(tmp_path / "all_runs.zip", "w") as file:
        file.writestr("run01/nothing.txt", "")
    with pytest.raises(ValueError, match="does not hold the official runs"):
        omniglot_runs(tmp_path)
    with pytest.raises(ValueError, match="sizes of 1 to 105, not 0"):
        omniglot_runs(archive, size=0)
    with pytest.raises(ValueError, match="exemplar is 'both'; it is one of training, test"):
        omniglot_runs(archive, exemplar="both")  # pyright: ignore[reportArgumentType]
