"""How fast the rows of `metashot bench` are on this machine, beside PyTorch.

    python benchmarks/speed.py PYTHON [ROW ...] [--repeats 7]

PYTHON is an interpreter that has PyTorch. Each row runs in a process of its own and is written at
once, to results/speed_cpu.json or speed_gpu.json. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import results

from metashot import bench


def main(python: str, names: list[str], repeats: str) -> int:
    for name in names:
        command = [sys.executable, "-m", "metashot.cli.main", "bench", "--json", "--rows", name]
        command += ["--peer-python", python, "--repeats", repeats]
        ran = subprocess.run(command, stdout=subprocess.PIPE)
        if ran.returncode:
            return ran.returncode
        whole = json.loads(ran.stdout)
        rows, platform = whole.pop("rows"), whole.pop("platform")
        again = f"python benchmarks/speed.py PYTHON {name} --repeats {repeats}"
        for row in rows:
            results.add(
                f"speed_{platform}", {**row, **whole, "value": row["seconds"], "command": again}
            )
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("python", metavar="PYTHON")
    parser.add_argument("rows", metavar="ROW", nargs="*", choices=[[], *bench.ROWS])
    parser.add_argument("--repeats", default="7", help="rounds; fewer for long rows")
    options = parser.parse_args()
    sys.exit(main(options.python, options.rows or list(bench.ROWS), options.repeats))
