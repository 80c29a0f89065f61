"""The benchmark: its arithmetic, its order, and that each kind of work runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metashot
from metashot import bench, nets

pytestmark = pytest.mark.usefixtures("quick_compile")

ROOT = Path(__file__).resolve().parent.parent
TINY = bench.Setting(16, 1, classes=4, images=4, way=3, query=2)
FAKE = """
import json, sys
print("{}", flush=True)
for line in sys.stdin:
    seconds = int(line) * (2.0 if "--fastest" in sys.argv else 4.0)
    seconds = seconds * 2 if "--channels-last" in sys.argv else seconds
    print(json.dumps({"seconds": seconds}), flush=True)
"""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"LEAST": 0, "EVALUATED": 2, "SAMPLED": 3}.items():
        monkeypatch.setattr(bench, name, value)


def nothing() -> bench.Work:
    return bench.Work(lambda: jnp.zeros(()), 5, {"compile_seconds": 1.0, "temporary_bytes": 7})


def test_figures_by_hand():
    found = bench.figures([1.0, 2.0, 4.0, 3.0, 5.0], [3.0, 5.0, 4.0, 6.0, 5.0])
    assert found == {
        "seconds": 3.0,
        "spread": {"min": 1.0, "lower_quartile": 2.0, "upper_quartile": 4.0, "max": 5.0},
        "repeats": 5,
        "peer_seconds": 5.0,
        "peer_spread": {"min": 3.0, "lower_quartile": 4.0, "upper_quartile": 5.0, "max": 6.0},
        "ratio": 2.0,  # of 3, 2.5, 1, 2, 1: not 5 / 3
        "ratio_low": 1.0,
        "ratio_high": 3.0,
    }
    assert set(bench.figures([1.0], [])) == {"seconds", "spread", "repeats"}


def test_ours_and_the_peer_take_turns():
    order: list[str] = []

    def clock(name: str, value: float) -> Callable[[], float]:
        def seconds() -> float:
            order.append(name)
            return value

        return seconds

    assert bench.alternate(clock("a", 1.0), clock("b", 2.0), 3) == ([1.0] * 3, [2.0] * 3)
    assert order == ["a", "b"] * 3
    assert bench.alternate(clock("a", 1.0), None, 2) == ([1.0, 1.0], [])


def test_a_row_beside_pytorch_and_its_other_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setitem(bench.ROWS, "mine", bench.Row(nothing, 3, ("conv4_step",)))
    found = list(bench.measure("mine", repeats=2, torch=[sys.executable, str(script)]))
    assert [(row["name"], row["peer"], row["peer_seconds"]) for row in found] == [
        ("mine", "PyTorch", 4.0),
        ("mine_channels_last", "PyTorch channels last", 8.0),
        ("mine_fastest", "PyTorch fastest", 2.0),
    ]
    for row in found:
        assert row["episodes_per_second"] == 3 / row["seconds"]
        assert (row["compile_seconds"], row["temporary_bytes"]) == (1.0, 7)
        assert (row["steps"], row["repeats"]) == (5, 2)
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    (alone,) = bench.measure("mine", repeats=2)
    assert alone["peer"] is None
    assert "ratio" not in alone


def test_a_share_is_the_inverse_of_the_ratio(monkeypatch: pytest.MonkeyPatch):
    row = bench.Row(nothing, 1, peer=("the whole", nothing), share=True)
    monkeypatch.setitem(bench.ROWS, "mine", row)
    (found,) = bench.measure("mine", repeats=3)
    assert found["peer"] == "the whole"
    assert found["share"] == 1 / found["ratio"]


def test_training_goes_on_from_dispatch_to_dispatch():
    learner = metashot.prototypical(network=nets.conv4(2, blocks=1), way=3)
    work = bench.training(learner, optax.adam(1e-2), TINY, meta_batch=2, steps=3)
    first, second = work.run(), work.run()
    assert work.steps == 3
    assert first["loss"].shape == (3,)
    assert np.isfinite(second["loss"]).all()
    assert not np.array_equal(first["loss"], second["loss"])
    assert work.made["temporary_bytes"] > 0


def test_evaluation_measures_each_episode():
    found = bench.evaluation(TINY).run()
    assert {len(leaf) for leaf in found.values()} == {2}


def test_sampling_makes_the_last_episode_of_those_counted():
    source = TINY.source()
    last = source.sample(bench.episode_key(0, bench.TRAINING, 2), source.arrays)
    np.testing.assert_array_equal(bench.sampling(TINY).run().query.inputs, last.query.inputs)


def test_eight_calls_give_what_one_gives():
    together = bench.own_weights(2, together=True).run()
    single = bench.own_weights(2, together=False).run()
    for i, one in enumerate(single):
        for a, b in zip(together, one, strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-3)


def test_yardsticks_have_the_sizes_of_the_rows():
    assert bench.ROWS["meta_lstm_84_e8"].torch == (
        *("meta_lstm", "--size=84", "--channels=3", "--way=5", "--shot=1", "--query=15"),
        "--episodes=8",
    )
    for row in bench.ROWS.values():
        assert bool(row.torch) != bool(row.peer)


def test_where_and_how_much_memory():
    assert {"platform", "device", "threads", "versions"} == set(bench.about())
    found = bench.memory()
    assert found["peak_bytes"] > 1e7
    assert "device_peak_bytes" in found


def test_a_row_of_the_table():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import results

    row: dict[str, Any] = {"name": "mine", "peer": "PyTorch"}
    row |= {"compile_seconds": 1.5, "temporary_bytes": 7e6} | bench.figures([0.5], [1.0])
    assert results.speed([row])[2:] == [
        "| `mine` | 500.00 | 1,000.00 | 2.00 (2.00 to 2.00) | 1.5 | 7 |"
    ]
    row["peer"] = "eight single calls"
    assert "1,000.00 (eight single calls) |" in results.speed([row])[2]
