"""How fast the rows of `metashot bench` are on this machine, beside PyTorch.

    python benchmarks/speed.py PYTHON [ROW ...]

PYTHON is an interpreter that has PyTorch. Each row runs in a process of its own and is written at
once, to results/speed_cpu.json or speed_gpu.json. Nothing else should run on the machine.
"""

from __future__ import annotations

import json
import subprocess
import sys

import results

from metashot import bench


def main(python: str, names: list[str]) -> int:
    unknown = set(names) - set(bench.ROWS)
    if unknown:
        sys.exit(f"there is no row {', '.join(unknown)}; there are {', '.join(bench.ROWS)}")
    for name in names or bench.ROWS:
        command = [sys.executable, "-m", "metashot.cli.main", "bench", "--json", "--rows", name]
        ran = subprocess.run([*command, "--peer-python", python], stdout=subprocess.PIPE)
        if ran.returncode:
            return ran.returncode
        whole = json.loads(ran.stdout)
        rows, platform = whole.pop("rows"), whole.pop("platform")
        for row in rows:
            told = {"value": row["seconds"], "command": f"python benchmarks/speed.py PYTHON {name}"}
            results.add(f"speed_{platform}", {**row, **whole, **told})
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("which Python has PyTorch? python benchmarks/speed.py PYTHON [ROW ...]")
    sys.exit(main(sys.argv[1], sys.argv[2:]))
