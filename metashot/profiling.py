"""A profiler's trace of some dispatches of a training, and how busy the device was in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jax
from jax.profiler import ProfileData, ProfileOptions, TraceAnnotation

from .base import PyTree

DISPATCHES = 3  # that are traced
_SPAN = "metashot.dispatches"


@contextmanager
def traced(folder: Path | None) -> Iterator[Callable[[PyTree], None]]:
    """Trace some dispatches into a folder; none into None.

    Gives a function to be called before each dispatch with what the last one made. The first
    dispatch, which compiles, is left out; the next ones are traced until they are done.
    """
    count = 0
    options = ProfileOptions()
    options.python_tracer_level = 0  # each call of Python would be an event, and take its time
    with ExitStack() as stack:

        def dispatching(last: PyTree) -> None:
            nonlocal count
            if folder and count in (1, 1 + DISPATCHES):
                jax.block_until_ready(last)
            if folder and count == 1:
                stack.enter_context(jax.profiler.trace(folder, profiler_options=options))
                stack.enter_context(TraceAnnotation(_SPAN))
            if count == 1 + DISPATCHES:
                stack.close()
            count += 1

        yield dispatching


def report(folder: Path) -> str:
    """Where the last trace in a folder lies, how to open it, and how busy the device was."""
    share = busy_share(folder)
    if share is None:
        return "no profile: no dispatch was left to trace after the first"
    return (
        f"profile: {folder} (pip install xprof; xprof {folder}), or its .trace.json.gz in "
        f"https://ui.perfetto.dev; the device was busy {100 * share:.1f} % of the time"
    )


def busy_share(folder: Path) -> float | None:
    """The share of the time of the last trace in a folder in which the device did something.

    That is, in which at least one of XLA's operations was running: on a CPU on any thread, on a
    GPU on any stream. It says how long a device waits for the host, not how well its cores are
    used. None where nothing was traced.
    """
    traces = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
    if not traces:
        return None
    lines = [
        line for plane in ProfileData.from_file(str(traces[-1])).planes for line in plane.lines
    ]
    events = [event for line in lines for event in line.events]
    start, end = next((e.start_ns, e.end_ns) for e in events if e.name == _SPAN)
    running = [e for e in events if any(name == "hlo_op" for name, _ in e.stats)]
    clipped = ((max(e.start_ns, start), min(e.end_ns, end)) for e in running)
    return covered(clipped) / (end - start)


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals; those that end before they start are empty.

    Example:
        >>> covered([(4, 5), (0, 2), (1, 3), (1, 2), (9, 7)])
        4.0
    """
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(end - max(start, reached), 0)
        reached = max(end, reached)
    return total
