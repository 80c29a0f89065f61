"""`metashot bench`: what it prints, compares and draws, and what it refuses before it starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from metashot import bench, plots
from metashot.cli.main import main

FAKE = """
import json, sys
if sys.argv[1] == "-c":
    print("2.9.1 False")
    sys.exit()
print("{}", flush=True)
for line in sys.stdin:
    print(json.dumps({"seconds": 1.0}), flush=True)
"""


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rows are made up; the list holds the names of those that were asked for."""
    asked: list[str] = []

    def measure(name: str, *, repeats: int, torch: Any) -> Iterator[dict[str, Any]]:
        asked.append(name)
        peer = "PyTorch" if torch else None
        found = bench.figures([0.25] * repeats, [0.5] * repeats if torch else [])
        facts = {"compile_seconds": 1.0, "temporary_bytes": 8, "steps": 1, "peer": peer}
        yield {"name": name, **found, "episodes_per_second": 4.0, **facts}

    monkeypatch.setattr(bench, "measure", measure)
    return asked


@pytest.fixture
def python(tmp_path: Path) -> str:
    """An interpreter that says it has PyTorch."""
    (tmp_path / "fake.py").write_text(FAKE)
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/fake.py "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_all_rows_in_lines(measured: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["bench"]) == 0
    assert measured == list(bench.ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == measured
    assert lines[1].split() == ["conv4_step_28", "250", "4.00", "1.00"]
    assert lines[-1].startswith("at most ")


def test_json_is_one_object_on_stdout(
    measured: list[str], python: str, capsys: pytest.CaptureFixture[str]
):
    rows = ["meta_lstm_28", "evaluate_600"]
    call = ["bench", "--rows", *rows, "--repeats", "2", "--peer-python", python, "--json"]
    assert main(call) == 0
    printed = capsys.readouterr()
    whole = json.loads(printed.out)
    assert [row["name"] for row in whole["rows"]] == rows
    for row in whole["rows"]:
        wanted = {"seconds", "peer_seconds", "ratio", "ratio_low", "ratio_high", "temporary_bytes"}
        assert wanted <= set(row)
        assert (row["seconds"], row["ratio"], row["repeats"]) == (0.25, 2.0, 2)
    assert {"platform", "device", "threads", "peak_bytes", "device_peak_bytes"} <= set(whole)
    assert whole["versions"]["torch"] == "2.9.1"
    assert "2.00 (2.00 to 2.00)" in printed.err


def test_a_yardstick_runs_beside_us(
    python: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    work = bench.Work(lambda: 0, 1, {"compile_seconds": 0.0, "temporary_bytes": 0})
    monkeypatch.setattr(bench, "LEAST", 0)
    monkeypatch.setattr(bench, "ROWS", {"mine": bench.Row(lambda: work, 1, ("conv4_step",))})
    assert main(["bench", "--repeats", "2", "--peer-python", python, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["name"], row["peer_seconds"]) for row in rows] == [
        ("mine", 1.0),
        ("mine_channels_last", 1.0),
        ("mine_fastest", 1.0),
    ]


def test_what_was_measured_earlier_is_told(
    measured: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    before = tmp_path / "before.json"
    before.write_text(json.dumps({"rows": [{"name": "meta_lstm_28", "seconds": 0.75}]}))
    call = ["bench", "--rows", "meta_lstm_28", "evaluate_600", "--json", "--compare", str(before)]
    assert main(call) == 0
    printed = capsys.readouterr()
    first, second = json.loads(printed.out)["rows"]
    assert first["earlier_over_now"] == 3.0
    assert "earlier_over_now" not in second
    assert printed.err.splitlines()[2].split()[-1] == "3.00"


@pytest.mark.parametrize("beside", [False, True])
def test_a_chart(beside: bool, measured: list[str], python: str, tmp_path: Path):
    chart = tmp_path / "speed.png"
    peer = ["--peer-python", python] if beside else []
    assert main(["bench", "--plot", str(chart), *peer]) == 0
    with Image.open(chart) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--rows conv5", ["no row conv5", "conv4_step_28", "sampling_share"]),
        ("--repeats 0", ["--repeats is 0"]),
        ("--compare {tmp}/none.json", ["none.json cannot be read: No such file"]),
        ("--compare {tmp}/cut.json", ["cut.json holds no rows", "--json"]),
        ("--compare {tmp}/other.json", ["other.json holds no rows"]),
        ("--plot {tmp}/speed.pdf", ["speed.pdf", "PNG"]),
        ("--plot {tmp}/none/speed.png", ["no folder"]),
        ("--peer-python {tmp}/none", ["none cannot be run", "pip install torch"]),
    ],
)
def test_mistakes_take_one_line_and_no_work(
    arguments: str,
    said: list[str],
    measured: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "cut.json").write_text('{"rows": [')
    (tmp_path / "other.json").write_text('["conv4_step_28"]')
    assert main(["bench", *arguments.format(tmp=tmp_path).split()]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert all(words in lines[0] for words in said), lines[0]
    assert measured == []


def test_without_matplotlib_the_remedy_comes_first(
    measured: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(plots, "available", lambda: False)
    assert main(["bench", "--plot", str(tmp_path / "speed.png")]) == 2
    assert "pip install 'metashot[plots]'" in capsys.readouterr().err
    assert measured == []


def test_a_peer_that_stops_is_a_failure_in_one_line(
    python: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "fake.py").write_text(FAKE.replace('print("{}", flush=True)', "1 / 0"))
    work = bench.Work(lambda: 0, 1, {})
    monkeypatch.setattr(bench, "LEAST", 0)
    monkeypatch.setattr(bench, "ROWS", {"mine": bench.Row(lambda: work, 1, ("conv4_step",))})
    assert main(["bench", "--peer-python", python]) == 1
    measuring, line = capsys.readouterr().err.splitlines()
    assert measuring == "measuring mine"
    assert line.endswith("stopped with exit code 1: ZeroDivisionError: division by zero")
