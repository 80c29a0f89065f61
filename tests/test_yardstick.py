"""Yardsticks: programs that are started, asked, and always stopped."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from metashot import yardstick

FAKE = """
import json, os, pathlib, sys
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
print("{}", flush=True)
for line in sys.stdin:
    if int(line) > 100:
        print("some words\\nRuntimeError: too many", file=sys.stderr)
        sys.exit(3)
    print(json.dumps({"seconds": 0.25 * int(line)}), flush=True)
"""


@pytest.fixture
def fake(tmp_path: Path) -> list[str]:
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    return [sys.executable, str(script), str(tmp_path / "pid")]


def alive(pid_file: str) -> bool:
    try:
        os.kill(int(Path(pid_file).read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_it_answers_and_is_stopped(fake: list[str]):
    with yardstick.running(fake) as seconds:
        assert [seconds(1), seconds(8)] == [0.25, 2.0]
        assert alive(fake[2])
    assert not alive(fake[2])


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_it_is_stopped_when_we_are(fake: list[str], stop: type[BaseException]):
    def interrupted() -> None:
        raise stop

    with pytest.raises(stop), yardstick.running(fake):
        interrupted()
    assert not alive(fake[2])


def test_its_last_words_are_told(fake: list[str]):
    with (
        pytest.raises(ChildProcessError, match=r"fake\.py .* code 3: RuntimeError: too many$"),
        yardstick.running(fake) as seconds,
    ):
        seconds(101)
    with (
        pytest.raises(ChildProcessError, match="code 1: IndexError"),
        yardstick.running(fake[:2]),  # fails when it is ready
    ):
        pass


def interpreter(folder: Path, does: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return str(path)


def test_the_interpreter_is_asked_for_its_torch(tmp_path: Path):
    python = interpreter(tmp_path, "echo 2.9.1+cpu False")
    command, version = yardstick.torch_yardsticks(python, "cpu")
    assert command == [python, str(yardstick.SCRIPT), "--device=cpu"]
    assert version == "2.9.1+cpu"
    assert yardstick.SCRIPT.exists()
    python = interpreter(tmp_path, "echo 2.9.1 True")
    assert yardstick.torch_yardsticks(python, "gpu")[0][-1] == "--device=cuda"


@pytest.mark.parametrize(
    ("does", "platform", "said"),
    [
        (None, "cpu", "No such file"),
        ("echo a; echo ModuleNotFoundError: no torch >&2; exit 1", "cpu", "Error: no torch"),
        ("echo 2.9.1 False", "gpu", "does not run on this gpu"),
        ("echo 2.9.1 True", "tpu", "does not run on this tpu"),
    ],
)
def test_an_interpreter_that_will_not_do(
    does: str | None, platform: str, said: str, tmp_path: Path
):
    python = str(tmp_path / "none") if does is None else interpreter(tmp_path, does)
    with pytest.raises(ValueError, match=said) as refused:
        yardstick.torch_yardsticks(python, platform)
    assert python in str(refused.value)
    assert "pip install torch" in str(refused.value)


def test_an_installed_package_has_no_yardsticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(yardstick, "SCRIPT", tmp_path / "none.py")
    with pytest.raises(ValueError, match="run from a checkout"):
        yardstick.torch_yardsticks(interpreter(tmp_path, "echo 2.9.1 False"), "cpu")
