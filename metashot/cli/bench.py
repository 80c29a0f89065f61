"""`metashot bench`: how fast training and evaluation run here, and beside PyTorch."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from .main import CallError, parse

EXAMPLE = "metashot bench --rows conv4_step_28 meta_lstm_28 --peer-python ~/torch/bin/python"
COLUMNS = ("ours, ms", "peer, ms", "peer / ours", "episodes/s", "compile, s", "earlier / now")


@dataclass(frozen=True)
class Options:
    """Time training and evaluation on random pictures, in turn with a peer where there is one."""

    rows: tuple[str, ...] = ()
    """which; all by default"""
    repeats: int = 7
    """times that each is measured; medians are told"""
    peer_python: Path | None = None
    """a Python that has PyTorch, to compare with; it needs nothing else"""
    compare: Path | None = None
    """what --json printed earlier: tells how many times faster each row is now"""
    plot: Path | None = None
    """PNG file for a bar chart of what is told"""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """print one JSON object as the last line"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = parse(Options, arguments, command="bench", example=EXAMPLE)
    if options.repeats < 1:
        raise CallError(f"--repeats is {options.repeats}; it is at least 1")
    if options.plot and options.plot.suffix.lower() != ".png":
        raise CallError(f"--plot is {options.plot}; it is a PNG file, so its name ends in .png")
    if options.plot and not options.plot.parent.is_dir():
        raise CallError(f"--plot is {options.plot}, but there is no folder {options.plot.parent}")
    earlier = _earlier(options.compare) if options.compare else {}

    from .. import bench, plots, yardstick  # from here on, jax

    unknown = [name for name in options.rows if name not in bench.ROWS]
    if unknown:
        raise CallError(f"there is no row {unknown[0]}; there are {', '.join(bench.ROWS)}")
    if options.plot and not plots.available():
        raise CallError("--plot needs matplotlib: pip install 'metashot[plots]'")
    whole = bench.about()
    torch = None
    if options.peer_python:
        python = str(options.peer_python.expanduser())
        torch, whole["versions"]["torch"] = yardstick.torch_yardsticks(python, whole["platform"])

    report = sys.stderr if options.json else sys.stdout
    rows: list[dict[str, Any]] = []
    print(_line("", COLUMNS), file=report)
    for name in options.rows or bench.ROWS:
        print(f"measuring {name}", file=sys.stderr)
        for row in bench.measure(name, repeats=options.repeats, torch=torch):
            if row["name"] in earlier:
                row["earlier_over_now"] = earlier[row["name"]] / row["seconds"]
            rows.append(row)
            print(_line(row["name"], _cells(row)), file=report, flush=True)
    whole = {"rows": rows, **whole, **bench.memory()}
    print(f"at most {whole['peak_bytes'] / 1e6:,.0f} MB resident", file=report)
    if options.plot:
        print(f"chart: {plots.save(plots.speed(rows), options.plot)}", file=report)
    if options.json:
        print(json.dumps(whole))
    return 0


def _earlier(path: Path) -> dict[str, float]:
    """The seconds of each row in a file that `--json` made.

    Raises:
        CallError: no such file, or another one.
    """
    try:
        return {row["name"]: float(row["seconds"]) for row in json.loads(path.read_text())["rows"]}
    except OSError as error:
        raise CallError(f"--compare {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        remedy = "give what `metashot bench --json` printed"
        raise CallError(f"--compare {path} holds no rows of metashot bench; {remedy}") from error


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """What a row says under each of COLUMNS."""
    cells = [_short(1e3 * row["seconds"]), "", "", "", _short(row["compile_seconds"]), ""]
    if row["peer"]:
        cells[1] = _short(1e3 * row["peer_seconds"])
        middle, low, high = (_short(row[name]) for name in ("ratio", "ratio_low", "ratio_high"))
        cells[2] = f"{middle} ({low} to {high})"
    if "episodes_per_second" in row:
        cells[3] = _short(row["episodes_per_second"])
    if "earlier_over_now" in row:
        cells[5] = _short(row["earlier_over_now"])
    return tuple(cells)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _line(name: str, cells: tuple[str, ...]) -> str:
    widths = (9, 9, 23, 12, 12, 15)
    aligned = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{name:31}{aligned}".rstrip()
