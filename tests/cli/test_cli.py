"""The command line: what it does, what it refuses, and in how many words."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from metashot.cli.main import main

pytestmark = pytest.mark.usefixtures("quick_compile")

TINY = """
\"\"\"A tiny run.\"\"\"
from metashot.config import *


def get_config():
    return Experiment(
        data=Glyphs(train=12, val=6, test=8, drawings=6, size=16),
        learner=Prototypical(network=Conv4(filters=4, blocks=2)),
        steps=20,
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
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", str(tiny), "--workdir", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["train", "glyphs_meta_lstm", "--help"],
        ["evaluate", "--help"],
        ["plot", "--help"],
        ["sweep", "--help"],
        ["sweep", "glyphs_meta_lstm", "--help"],
        ["data", "--help"],
        ["data", "prepare", "--help"],
        ["data", "prepare", "omniglot", "--help"],
        ["data", "show", "--help"],
        ["data", "show", "tfds", "--help"],
        ["bench", "--help"],
        ["configs", "--help"],
        ["configs"],
    ],
)
def test_help_shows_an_example_and_loads_no_jax(arguments: list[str]):
    script = (
        "import sys; from metashot.cli.main import main\n"
        f"try: code = main({arguments!r})\n"
        "except SystemExit as stop: code = stop.code\n"
        "assert 'jax' not in sys.modules; sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    if arguments != ["configs"]:
        assert ran.stdout.startswith("example:\n  metashot ")


def test_train_ends_with_what_was_reached(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = str(tmp_path / "run")
    assert main(["train", str(tiny), "--workdir", folder, "--steps", "10", "--profile"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "3-way 1-shot accuracy" in out
    assert "nearest neighbour on pixels" in out
    kept = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.py", "run.json", "metrics.jsonl", "checkpoints", "plots", "profile"} <= kept
    assert f"profile: {folder}/profile" in err
    assert "steps=10," in (tmp_path / "run" / "config.py").read_text()


def test_evaluate_json(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(run), "--json", "--episodes", "10"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    wanted = {"accuracy", "interval", "episodes", "way", "shot", "split", "step", "learner"}
    assert wanted <= set(row)
    assert 0 <= row["accuracy"] <= 1
    assert (row["episodes"], row["way"], row["shot"], row["split"]) == (10, 3, 1, "test")


def test_evaluate_lists_make_rows(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(run), "--way", "2,5", "--shot", "1,3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [(r["way"], r["shot"]) for r in rows] == [(2, 1), (2, 3), (5, 1), (5, 3)]


def test_evaluate_tells_the_mean_of_several_runs(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(run), str(run), "--shot", "1,3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    once, other = told["rows"][:2], told["rows"][2:]
    assert once == other
    for row, mean in zip(once, told["mean"], strict=True):
        assert mean["accuracy"] == pytest.approx(row["accuracy"])
        assert mean["interval"] == pytest.approx(row["interval"] / 2**0.5)
        assert (mean["run"], mean["shot"]) == ("mean of 2", row["shot"])


def test_evaluate_lists_make_a_table_and_compile_once_a_shape(
    run: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    import jax

    sizes = ["--way", "2,5,2", "--shot", "1,3", "--episodes", "4"]
    with jax.log_compiles(), caplog.at_level("WARNING"):
        assert main(["evaluate", str(run), *sizes]) == 0
    said = [record.getMessage() for record in caplog.records]
    assert sum("Finished XLA compilation of jit(measure_all)" in line for line in said) == 4
    *rows, empty, head, two, five = capsys.readouterr().out.splitlines()
    assert [row.split(",")[0] for row in rows] == [
        "2-way 1-shot",
        "2-way 3-shot",
        "5-way 1-shot",
        "5-way 3-shot",
    ]
    assert (empty, head.split()) == ("", ["1-shot", "3-shot"])
    figures = [row.split(": ")[1].split(" %")[0] for row in rows]
    assert re.split(" {2,}", two) == ["2-way", *figures[:2]]
    assert re.split(" {2,}", five) == ["5-way", *figures[2:]]


def test_resume_goes_on(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = str(tmp_path / "run")
    assert main(["train", str(tiny), "--workdir", folder, "--steps", "10"]) == 0
    assert main(["train", str(tiny), "--workdir", folder, "--steps", "20", "--resume"]) == 0
    steps = [
        json.loads(line)["step"]
        for line in (Path(folder) / "metrics.jsonl").read_text().split("\n")
        if line
    ]
    assert steps == [5, 10, 10, 15, 20, 20]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("trane", ["no command trane", "train, evaluate"]),
        ("train", ["which config?", "glyphs_meta_lstm"]),
        ("train glyphs_meta_lst", ["did you mean glyphs_meta_lstm"]),
        ("train glyphs_meta_lstm --stepz 3", ["--stepz", "did you mean --steps", "--seed"]),
        ("train glyphs_meta_lstm --steps many", ["--steps", "many"]),
        ("train glyphs_meta_lstm --learner.gate-inputs x", ["gate-inputs", "hidden", "raw"]),
        ("train glyphs_meta_lstm --steps 0", ["steps is 0", "at least 1"]),
        ("train {tiny} --train.way 13", ["train.way is 13", "12 classes"]),
        ("train {tiny} --test.way 7", ["test.way is 7", "6 classes"]),
        ("train {tiny} --train.shot 5", ["train.shot + query is 5 + 2", "6 images"]),
        ("train {tiny} --meta-batch 4 --chunk 3", ["chunk is 3", "4"]),
        ("train {tiny} --learner.network.blocks 6", ["learner"]),
        ("train {tiny} --workdir {tiny}/run", ["workdir", "cannot be written"]),
        ("train {tiny} --workdir {full}", ["not empty"]),
        ("train {tiny} --resume", ["no run to resume"]),
        ("train {tiny} --profile --steps 5", ["--profile", "steps, 5,", "log-every"]),
        ("evaluate nowhere", ["nowhere holds no run"]),
        ("evaluate {run} --way 0", ["--way is 0"]),
        ("evaluate {run} --way 9", ["way is 9", "8 classes"]),
        ("evaluate {run} --split rest", ["rest", "test"]),
        ("evaluate {run} --checkpoint 7", ["no checkpoint 7", "20"]),
        ("evaluate {run} --episodes 0", ["count is 0"]),
        ("evaluate {run} --query 0", ["query is 0"]),
        ("data prepare cifar", ["cifar", "omniglot"]),
        ("data remove", ["remove", "prepare"]),
        ("configs all", ["all"]),
    ],
)
def test_mistakes_take_one_line(
    arguments: str,
    said: list[str],
    tiny: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("keep")
    capsys.readouterr()
    given = arguments.format(tiny=tiny, run=run, full=full).split()
    assert main(given) == 2
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1, printed.err
    assert all(word in lines[0] for word in said), lines[0]
    assert "Traceback" not in printed.err
    assert [p.name for p in tmp_path.iterdir()] == ["full"], "a folder was left behind"
    assert (full / "mine.txt").read_text() == "keep"


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="no run"):
        main(["evaluate", "nowhere", "--debug"])
