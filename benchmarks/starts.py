"""How long `metashot train` takes to its first meta-steps, without compiled programs and with them.

    METASHOT_DATA=DIR python benchmarks/starts.py [CONFIG ...]

Each config is started twice with a folder for compiled programs that was empty, and stopped at the
first report of its loss. Data are decoded before. Nothing else should run on the machine.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import results

from metashot import config

CONFIGS = ["glyphs_meta_lstm", "omniglot_meta_lstm", "omniglot_prototypical"]


def seconds(name: str, compiled: Path, workdir: Path) -> float:
    """To the first report of a training."""
    command = [sys.executable, "-m", "metashot.cli.main", "train", name]
    command += ["--log-every", "1", "--validate-every", "1000", "--workdir", str(workdir)]
    command += ["--data.repacked"] if "omniglot" in name else []
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(compiled)}
    start = time.perf_counter()
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        reported = any(line.startswith("step ") for line in process.stderr)
        took = time.perf_counter() - start
        process.kill()
    if not reported:
        sys.exit(f"{name} stopped before its first step")
    return took


def main(names: list[str]) -> None:
    for name in names:
        data = config.read(name).data
        if isinstance(data, config.Omniglot):
            data = dataclasses.replace(data, repacked=True)
        data.load()
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            first, again = (seconds(name, place / "compiled", place / run) for run in "ab")
        row = {"name": name, "value": first, "again": again}
        results.add("starts_cpu", {**row, "command": f"python benchmarks/starts.py {name}"})


if __name__ == "__main__":
    main(sys.argv[1:] or CONFIGS)
