"""TensorFlow Datasets: small data sets prepared here, without TensorFlow."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metashot.data import tfds

library = pytest.importorskip("tensorflow_datasets")
MODULE = sys.modules[tfds.__module__]  # the package's attribute is the function
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "nobody")
LABELS = {"train": (3, 1, 0, 2, 5, 4, 1), "test": (1, 0, 2, 3, 4, 5, 5)}


def pixels(split: str, i: int, channels: int = 3) -> NDArray[np.uint8]:
    seed = 100 * list(LABELS).index(split) + i
    return np.random.default_rng(seed).integers(0, 256, (16, 24, channels), np.uint8)


class Animals(library.core.GeneratorBasedBuilder):
    """Six classes with 2 or 3 images each, and one without."""

    VERSION = library.core.Version("1.0.0")
    url_infos = None  # nothing to download
    channels = 3

    def _info(self) -> Any:
        shape = (None, None, self.channels)
        features = {
            "image": library.features.Image(shape=shape, encoding_format="png"),
            "label": library.features.ClassLabel(names=NAMES),
            "id": np.int64,
        }
        features = library.features.FeaturesDict(features)
        return library.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: Any) -> Any:
        return {split: self._generate_examples(split) for split in LABELS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, label in enumerate(LABELS[split]):
            file, image = io.BytesIO(), pixels(split, i, self.channels)
            Image.fromarray(image.squeeze()).save(file, "PNG")
            file.seek(0)
            yield i, {"image": file, "label": label, "id": 10 * i + len(split)}


class GreyAnimals(Animals):
    """The same with grey images."""

    channels = 1


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    for kind in (Animals, GreyAnimals):
        kind(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path))


def examples(prepared: Path, name: str, split: str) -> list[dict[str, Any]]:
    """As the library itself decodes them."""
    return list(library.data_source(name, split=split, data_dir=prepared, download=False))


def test_all_examples_are_split_by_class(prepared: Path):
    splits = tfds("animals", data_dir=prepared, size=8)
    assert [part and part.classes for part in splits] == [4, 1, 1]
    merged = examples(prepared, "animals", "train") + examples(prepared, "animals", "test")
    assert sorted(e["id"] for e in merged) == sorted(
        10 * i + len(split) for split in LABELS for i in range(7)
    )
    seen: list[str] = []
    for part in splits:
        assert part is not None
        labels = np.repeat(np.arange(part.classes), part.arrays.count)
        for image, label, path in zip(part.arrays.images, labels, part.paths, strict=True):
            example = merged[int(path)]
            assert part.names[label] == NAMES[example["label"]]
            blocks = example["image"].reshape(8, 2, 8, 3, 3).mean((1, 3))
            np.testing.assert_allclose(image, blocks, atol=1)  # rounded after each axis
        seen += part.paths
        for c, name in enumerate(part.names):
            number = NAMES.index(name)
            assert part.arrays.count[c] == sum(row.count(number) for row in LABELS.values())
    assert sorted(map(int, seen)) == list(range(14))


def test_what_was_written_is_what_is_read(prepared: Path):
    splits = tfds("animals", data_dir=prepared, split="train", size=16, val=0)
    assert splits.val is None
    images = np.concatenate([part.arrays.images for part in splits if part])
    wanted = [Image.fromarray(pixels("train", i)) for i in range(7)]
    wanted = np.stack([image.resize((16, 16), Image.Resampling.BOX) for image in wanted])
    order = lambda stack: sorted(image.tobytes() for image in stack)
    assert order(images) == order(wanted)


def test_grey_stays_grey(prepared: Path):
    train = tfds("grey_animals", data_dir=prepared, size=24).train
    assert train.shape == (24, 24, 1)
    merged = examples(prepared, "grey_animals", "train+test")
    picture = Image.fromarray(merged[int(train.paths[0])]["image"][..., 0])
    wanted = picture.resize((24, 24), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(train.arrays.images[0, ..., 0], wanted)


def test_the_seed_draws_the_split_and_nothing_is_decoded_twice(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
):
    first = tfds("animals", data_dir=prepared)
    monkeypatch.setattr(MODULE, "_decode", None)
    assert tfds("animals", data_dir=prepared).train.names == first.train.names
    drawn = {tfds("animals", data_dir=prepared, seed=seed).test.names for seed in range(9)}
    assert len(drawn) > 1
    with pytest.raises(TypeError):
        tfds("animals", data_dir=prepared, split="train")  # another entry


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image_key": "photo"}, "image_key is photo, which is no Image .* it has image"),
        ({"label_key": "id"}, "label_key is id, which is no ClassLabel .* it has label"),
        ({"split": "trian"}, r"'trian'.*train"),
        ({"size": 4}, "size is 4; it is at least 8"),
        ({"test": 1.0}, r"val and test are 0\.16 and 1\.0"),
        ({"val": 0.45, "test": 0.5}, "animals: 6 classes are too few"),
    ],
)
def test_mistakes(prepared: Path, settings: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said) as refused:
        tfds("animals", data_dir=prepared, **settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["animal", "animals:2.0.0", "mnist"])
def test_what_is_not_prepared_is_answered_with_how_to(prepared: Path, name: str):
    said = rf"no {name} prepared as array_record in {prepared}: run tfds build {name} --data_dir"
    with pytest.raises(FileNotFoundError, match=said) as refused:
        tfds(name, data_dir=prepared)
    assert "\n" not in str(refused.value)


def test_the_library_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r'pip install "metashot\[data\]"'):
        tfds("animals")


def test_no_tensorflow_is_loaded(prepared: Path):
    script = (
        "import sys; from metashot.data import tfds\n"
        f"assert tfds('animals', data_dir={str(prepared)!r}).train.classes == 4\n"
        "assert 'tensorflow' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
