"""`metashot sweep`: one run a seed, the same test episodes, and what it says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metashot import experiment, loading
from metashot.cli import train
from metashot.cli.main import main
from metashot.cli.run import config_call

pytestmark = pytest.mark.usefixtures("quick_compile")

TINY = """
from metashot.config import *


def get_config():
    return Experiment(
        data=Glyphs(train=8, val=4, test=6, drawings=4, size=8),
        learner=Prototypical(network=Conv4(filters=2, blocks=1)),
        steps=10,
        train=Sizes(way=3, shot=1, query=2),
        test=Sizes(way=3, shot=1, query=2),
        validate_every=10,
        validation_episodes=4,
        test_episodes=10,
        log_every=5,
    )
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "tiny.py"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def swept(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps") / "first"
    call = ["sweep", str(tiny), "--seeds", "2", "--seed", "4", "--workdir", str(folder)]
    assert main(call) == 0
    return folder


def sweep(*arguments: Any, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["sweep", *map(str, arguments), "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    *each, last = [
        line for line in printed.err.splitlines() if "accuracy of" in line or "±" in line
    ]
    assert [line.split(":")[0] for line in each] == [f"seed {r['seed']}" for r in result["seeds"]]
    assert f"accuracy of {len(each)} seeds: mean {100 * result['mean']:.2f} %" in last
    return result


def test_each_seed_is_a_run_of_its_own(swept: Path):
    assert {path.name for path in swept.iterdir()} == {"config.py", "seed4", "seed5"}
    assert loading.read_config(swept / "seed5").seed == 5
    first, second = (loading.load(swept / name).variables for name in ("seed4", "seed5"))
    kernels = [v["params"]["ConvBlock_0"]["kernel"] for v in (first, second)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1


def test_figures_are_those_of_evaluate(tiny: Path, swept: Path, capsys: pytest.CaptureFixture[str]):
    result = sweep(tiny, "--seeds", 2, "--workdir", swept, "--resume", capsys=capsys)
    each = [row["accuracy"] for row in result["seeds"]]
    assert [row["seed"] for row in result["seeds"]] == [4, 5]
    for row in result["seeds"]:
        assert main(["evaluate", row["run"], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["accuracy"] == row["accuracy"]
    assert result["mean"] == pytest.approx(np.mean(each))
    assert (result["lowest"], result["highest"]) == (min(each), max(each))
    assert result["deviation"] == pytest.approx(np.std(each, ddof=1))


def test_what_was_cut_short_goes_on(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    trained: list[tuple[str, bool]] = []
    run = experiment.run

    def cut_short(config: Any, workdir: Path, **keywords: Any) -> Any:
        trained.append((workdir.name, keywords["resume"]))
        if len(trained) == 2:
            raise KeyboardInterrupt
        return run(config, workdir, **keywords)

    monkeypatch.setattr(experiment, "run", cut_short)
    folder = tmp_path / "sweep"
    call = ["sweep", str(tiny), "--seeds", "2", "--workdir", str(folder)]
    assert main([*call, "--steps", "5", "--validate-every", "5"]) == 130
    said = capsys.readouterr().err
    assert f"metashot sweep {tiny} --seeds 2 --workdir {folder} --resume" in said
    metrics = (folder / "seed0" / "metrics.jsonl").read_bytes()
    result = sweep(*call[1:], "--resume", capsys=capsys)
    assert [row["step"] for row in result["seeds"]] == [5, 5], "it goes on as it began"
    assert trained == [("seed0", False), ("seed1", False), ("seed0", True), ("seed1", False)]
    assert (folder / "seed0" / "metrics.jsonl").read_bytes() == metrics, "trained again"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("sweep", "which config?"),
        ("sweep {tiny} --seeds 0", "--seeds is 0"),
        ("sweep {tiny} --workdir {swept}", "--resume continues it"),
        ("sweep {tiny} --resume --workdir nowhere", "no run to resume"),
        ("sweep {tiny} --resume --workdir {swept} --meta-batch 2", "meta_batch is 2"),
        ("sweep {tiny} --test.way 9", "test.way is 9"),
    ],
)
def test_mistakes_take_one_line(
    arguments: str,
    said: str,
    tiny: Path,
    swept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.format(tiny=tiny, swept=swept).split()) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not list(tmp_path.iterdir()), "a folder was left behind"


def test_a_run_takes_its_seed_from_the_call(tiny: Path):
    call = [str(tiny), "--seed", "3"]
    _, options, folder = config_call("train", train.Options, call, example="")
    assert options.config.seed == 3
    assert folder == Path("runs/tiny")


MASKS = """
from metashot.config import *


def get_config():
    return Experiment(
        data=GlyphScenes(train=8, val=6, test=6, drawings=4, size=8, canvas=24, objects=2, same=1),
        learner=Segmentation(network=Pyramid(8, (8,)), size=4),
        steps=2,
        train=MaskSizes(),
        test=MaskSizes(),
        validate_every=2,
        validation_episodes=2,
        test_episodes=4,
        log_every=1,
    )
"""


def test_learners_of_masks_are_told_by_their_overlap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "masks.py").write_text(MASKS)
    call = [
        "sweep",
        str(tmp_path / "masks.py"),
        "--seeds",
        "1",
        "--workdir",
        str(tmp_path / "runs"),
    ]
    assert main([*call, "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert [row["mean_iou"] for row in result["seeds"]] == [result["mean"]]
    assert "masks: 1-shot mean IoU of 1 seeds: mean" in printed.err
    seed0 = tmp_path / "runs" / "seed0"
    assert main(["plot", str(seed0)]) == 0
    assert capsys.readouterr().out.split() == [
        str(seed0 / "plots" / name) for name in ("curves.png", "masks.png")
    ]
