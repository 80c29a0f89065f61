"""Compiled programs are kept: the second start of the same work need not compile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY = """
from metashot.config import *


def get_config():
    return Experiment(
        data=Glyphs(train=4, val=3, test=3, drawings=4, size=8),
        learner=Prototypical(network=Conv4(filters=2, blocks=1)),
        steps=2,
        train=Sizes(way=2, shot=1, query=1),
        test=Sizes(way=2, shot=1, query=1),
        validate_every=2,
        validation_episodes=2,
        test_episodes=2,
        log_every=2,
    )
"""


def start(folder: Path, workdir: str, *more: str, **environment: str) -> str:
    """What a fresh process says on stderr."""
    settings = {**os.environ, "METASHOT_CACHE": str(folder), **environment}
    call = [sys.executable, "-m", "metashot.cli.main", "train", "tiny.py", "--workdir", workdir]
    ran = subprocess.run([*call, *more], cwd=folder, env=settings, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


@pytest.mark.slow
def test_a_second_start_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (tmp_path / "tiny.py").write_text(TINY)
    compiled = tmp_path / "compiled"
    first = start(tmp_path, "first").splitlines()[0]
    assert first == f"compiled programs are kept in {compiled}"
    written = {path.name for path in compiled.glob("*-cache")}
    assert any("meta_steps" in name for name in written)
    start(tmp_path, "second")
    assert {path.name for path in compiled.glob("*-cache")} == written

    elsewhere = tmp_path / "elsewhere"
    said = start(tmp_path, "third", JAX_COMPILATION_CACHE_DIR=str(elsewhere))
    assert said.startswith(f"compiled programs are kept in {elsewhere}\n")
    assert any(elsewhere.iterdir())
    without = start(tmp_path, "fourth", "--no-compilation-cache")
    assert "compiled programs" not in without
