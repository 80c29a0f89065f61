"""The package as it is imported and installed, and the documents beside it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest
from PIL import Image

import metashot
from metashot import enrolment

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("tensorflow_datasets", "orbax", "grain", "matplotlib", "tyro")


def loaded_after(statement: str) -> set[str]:
    script = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(ran.stdout.splitlines()[-1])}


def test_import_is_light():
    assert not loaded_after("import metashot") & {*HEAVY, "jax"}


def test_the_library_loads_nothing_heavy_until_it_trains():
    use = "import metashot; metashot.meta_lstm, metashot.evaluate, metashot.data.glyphs"
    assert not loaded_after(use) & set(HEAVY)


def test_every_public_name_is_there():
    for name in metashot.__all__:
        assert getattr(metashot, name) is not None
    assert dir(metashot) == metashot.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        metashot.nothing  # noqa: B018


def test_results_agree_with_the_files():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import results

    page = (ROOT / "RESULTS.md").read_text()
    assert results.fill(page) == page
    for name in re.findall(r"<!-- table (\w+) -->", page):
        assert results.rows(name), name
        for row in results.rows(name):
            assert {"name", "value", "device", "versions", "command", "date"} <= set(row)


def run_code_of(page: str, **names: Any) -> dict[str, Any]:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return names


@pytest.mark.slow
def test_the_readmes_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_compile: None
):
    monkeypatch.chdir(tmp_path)
    names = run_code_of("README.md")
    assert set(names["variables"]["params"]) == {"initial", "cell"}


def test_the_learner_of_the_documents_learns(quick_compile: None):
    learner = run_code_of("docs/contract.md")["nearest_mean_of_pixels"](way=3)
    images = np.repeat(np.arange(6, dtype=np.uint8) * 40, 5 * 64).reshape(-1, 8, 8, 1)
    dataset = metashot.data.from_arrays(images, np.arange(30) // 5)
    source = metashot.episodes(dataset, way=3, shot=1, query=2)
    trained = metashot.train(learner, source, optax.sgd(0.01), steps=2, progress=False)
    figure = metashot.evaluate(learner, trained.variables, source, count=5).summary
    assert figure["accuracy"][0] == 1  # each class is one shade of grey


@pytest.mark.slow
def test_the_learned_optimiser_of_the_documents_trains_a_network(quick_compile: None):
    names = run_code_of("docs/learned_optimizer.md")
    assert names["after"] < names["before"]


@pytest.mark.slow
def test_the_classifier_of_own_pictures_is_made_and_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_compile: None
):
    monkeypatch.chdir(tmp_path)
    train = metashot.train
    monkeypatch.setattr(metashot, "train", lambda *a, **k: train(*a, **{**k, "steps": 1}), False)
    shutil.copytree(enrolment.SHIPPED / "glyphs", "runs/glyphs_imprinting")
    images = np.asarray(metashot.data.glyphs(train=2, val=2, test=2).train.arrays.images)
    for i, name in enumerate(("ant", "ox")):
        Path("letters", name).mkdir(parents=True)
        Image.fromarray(images[20 * i, :, :, 0]).save(f"letters/{name}/1.png")
    shutil.copy("letters/ant/1.png", "one.png")
    shutil.copy("letters/ox/1.png", "two.png")
    enrolment.save(metashot.enroll(enrolment.embedded(), "letters"), "runs/letters")
    labels = np.repeat(np.arange(2), 20)
    names = run_code_of("docs/own_pictures.md", images=images, labels=labels)
    answers = metashot.classify(names["mine"], ["one.png", "two.png"])
    assert [answer.ranked[0][0] for answer in answers] == ["ant", "ox"]
    assert set(names["tuned"].variables["params"]) == set(names["variables"]["params"])


def test_documents_link_to_files_that_exist():
    pages = ("README.md", "CONTRIBUTING.md", "RESULTS.md", "CHANGELOG.md")
    for page in (*pages, *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
            if not target.startswith("http"):
                assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"
