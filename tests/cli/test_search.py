"""`metashot search`: what is drawn, that it is the same again, and what decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from metashot import runs, search
from metashot.cli.main import main
from metashot.config import ConfigError

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
        log_every=5,
    )


def get_ranges():
    return {"optimizer.rate": (1e-4, 1e-1), "learner.network.eps": (1e-5, 1e-3)}
"""


def called(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[dict[str, Any], str]:
    assert main(["search", *map(str, arguments), "--json"]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def test_a_search_goes_on_with_the_same_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    config = tmp_path / "tiny.py"
    config.write_text(TINY)
    call = [config, "--seed", "4", "--workdir", tmp_path / "search"]
    (first,) = called(capsys, *call, "--trials", "1")[0]["trials"]
    validated = [r for r in runs.read_history(Path(first["folder"])) if "val_accuracy" in r]
    assert first["score"] == max(row["val_accuracy"] for row in validated)

    def diverge(_: object, folder: Path, **__: Any):
        folder.mkdir()
        raise FloatingPointError

    monkeypatch.setattr(search, "run", diverge)  # of the trials that are left
    told, said = called(capsys, *call, "--trials", "3", "--resume")
    assert told["trials"][0] == first
    assert [trial["score"] for trial in told["trials"][1:]] == [None, None]
    head, best = said.splitlines()[-4:-2]
    assert head.split()[:4] == ["validation,", "%", "optimizer.rate", "learner.network.eps"]
    assert best.split()[0] == f"{100 * first['score']:.2f}"


def test_numbers_are_even_in_their_logarithms():
    ranges = {"a": (1e-4, 1e-1), "b": (2.0, 2.0)}
    many = [search.drawn(ranges, 0, i) for i in range(500)]
    assert {each["b"] for each in many} == {2.0}
    logs = np.log10([each["a"] for each in many])
    assert stats.kstest(logs, stats.uniform(-4, 3).cdf).pvalue > 1e-3
    with pytest.raises(ConfigError, match=r"the range of a is 0 to 1; it is above 0"):
        search.drawn({"a": (0, 1)}, 0, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("get_ranges", "get_range"), "has no function get_ranges()"),
        (("optimizer.rate", "optimizer.speed"), "Adam has no field speed; its fields are rate"),
        (("(1e-4, 1e-1)", "(1.0, 0.5)"), "the range of optimizer.rate is 1.0 to 0.5"),
        (("steps=10", "steps=0"), "steps is 0"),
    ],
)
def test_mistakes_are_told_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], said: str
):
    config = tmp_path / "tiny.py"
    config.write_text(TINY.replace(*change))
    assert main(["search", str(config), "--workdir", str(tmp_path / "search")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "search").exists()
