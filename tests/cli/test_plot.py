"""`metashot plot`: which pictures a run gets, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from PIL import Image

from metashot import experiment, plots
from metashot.cli.main import main
from metashot.config import (
    Conv4,
    Experiment,
    Glyphs,
    Learnet,
    MemoryMatching,
    MetaLSTM,
    Pairs,
    Sizes,
    Stream,
)

pytestmark = pytest.mark.usefixtures("quick_compile")

TINY = Experiment(
    data=Glyphs(train=6, val=4, test=4, drawings=4, size=8),
    learner=MetaLSTM(network=Conv4(filters=2, blocks=1), steps=2),
    steps=4,
    train=Sizes(way=3, shot=1, query=2),
    test=Sizes(way=3, shot=1, query=2),
    validate_every=4,
    validation_episodes=2,
    log_every=2,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    experiment.run(TINY, folder, progress=False)
    return folder


def pictures(printed: str) -> list[str]:
    for path in printed.split():
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert min(image.size) > 200
    return [Path(path).name for path in printed.split()]


def test_a_meta_lstm_run_gets_three_pictures(run: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    assert main(["plot", str(run)]) == 0
    printed = capsys.readouterr().out
    assert pictures(printed) == ["curves.png", "gates.png", "episode.png"]
    assert {Path(path).parent for path in printed.split()} == {run / "plots"}


def test_another_episode_is_another_picture(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for episode in ("0", "1"):
        choice = ["--episode", episode, "--split", "val", "--checkpoint", "4"]
        assert main(["plot", str(run), "--out", str(tmp_path / episode), *choice]) == 0
    drawn = [(tmp_path / episode / "episode.png").read_bytes() for episode in ("0", "1")]
    assert drawn[0] != drawn[1]


def test_a_run_of_the_library_gets_curves(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name in ("run.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    assert main(["plot", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert pictures(printed.out) == ["curves.png"]
    assert "no config.py" in printed.err


def test_two_runs_of_a_learner_that_compares_are_drawn_side_by_side(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    learner = MemoryMatching(filters=2, blocks=2, key_size=2, contextual=False)
    one, other = tmp_path / "one", tmp_path / "other"
    experiment.run(dataclasses.replace(TINY, learner=learner), one, progress=False)
    shutil.copytree(one, other)
    capsys.readouterr()
    assert main(["plot", str(one), "--beside", str(other), "--beside-checkpoint", "4"]) == 0
    printed = capsys.readouterr().out
    names = ["curves.png", "episode.png", "embeddings.png", "similarities.png"]
    assert pictures(printed) == names
    for name in names[2:]:
        with Image.open(one / "plots" / name) as image:
            assert image.width > 1.5 * image.height
    assert main(["plot", str(one), "--beside", str(run)]) == 2
    said = f"--beside draws embeddings of Matching and MemoryMatching; {run} is a MetaLSTM"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("plot nowhere", "nowhere holds no run"),
        ("plot {run} --episode -1", "--episode is -1; the first is 0"),
        ("plot {run} --source there", "come from no folder"),
        ("plot {run} --checkpoint 7", "no checkpoint 7"),
        ("plot {run} --checkpoint worst", "best, last or a step"),
    ],
)
def test_mistakes_take_one_line(
    arguments: str, said: str, run: Path, capsys: pytest.CaptureFixture[str]
):
    capsys.readouterr()
    assert main(arguments.format(run=run).split()) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_without_matplotlib_the_remedy_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(plots, "available", lambda: False)
    assert main(["plot", str(run)]) == 2
    assert "pip install 'metashot[plots]'" in capsys.readouterr().err


def test_a_learnet_gets_its_problems_and_filters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tiny = dataclasses.replace(
        TINY,
        data=Glyphs(train=6, val=4, test=4, drawings=4, size=16),
        learner=Learnet(stream=Stream((2, 3, 4))),
        train=Pairs(2, 2),
    )
    experiment.run(tiny, tmp_path, progress=False)
    capsys.readouterr()
    assert main(["plot", str(tmp_path)]) == 0
    drawn = pictures(capsys.readouterr().out)
    assert drawn == ["curves.png", "episode.png", "matches.png", "filters_conv2.png"]
