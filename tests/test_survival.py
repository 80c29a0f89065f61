"""Training over a kill, and over eight devices: what takes processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import metashot

sys.path.insert(0, str(Path(__file__).parent))
from test_training import LEARNER, assert_same_bits, train

KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_training import train
train(steps=20000, workdir={folder!r})
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path):
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "killed"))
    process = subprocess.Popen([sys.executable, "-c", script])
    checkpoints = tmp_path / "killed" / "checkpoints"
    saved = lambda: [int(path.name) for path in checkpoints.glob("*") if path.name.isdigit()]
    deadline = time.monotonic() + 120
    while max(saved(), default=0) < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert saved(), "the run saved nothing before it was killed"
    stop = max(saved()) + 40
    train(steps=stop, workdir=tmp_path / "killed", resume=True)
    train(steps=stop, workdir=tmp_path / "whole")
    killed, whole = (
        metashot.load(tmp_path / name, learner=LEARNER, checkpoint="last")
        for name in ("killed", "whole")
    )
    assert killed.step == whole.step == stop
    assert_same_bits(killed.variables, whole.variables)


EIGHT = """
import re, sys
import jax, numpy as np
sys.path.insert(0, {tests!r})
from test_training import gradient_step, one_device
from metashot.devices import episode_mesh
assert jax.device_count() == 8
many, (state, told) = gradient_step(episode_mesh(24), meta_batch=24, chunk=1)
one, (state_1, told_1) = gradient_step(one_device(), meta_batch=24, chunk=1)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), state, state_1)
np.testing.assert_allclose(told["loss"], told_1["loss"], rtol=1e-5)
for compiled in (many, one):
    print("PROGRAM", *re.findall(r'known_trip_count\\W+n\\W+(\\d+)', compiled.as_text()))
"""


@pytest.mark.slow
def test_eight_devices_give_what_one_gives_and_share_the_loop():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    script = EIGHT.format(tests=str(Path(__file__).parent))
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    trips = [line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("PROGRAM")]
    assert "24" in trips[1], "one device goes round 24 times"
    assert "3" in trips[0], "eight devices go round 3 times"
    assert "24" not in trips[0], "a device computes the other devices' episodes"
