"""A progress bar with figures on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

PLAIN_EVERY = 10.0  # seconds between plain lines


class Progress:
    """Shows how far `total` steps are, on stderr."""

    def __init__(self, total: int, *, start: int = 0, shown: bool = True) -> None:
        self._total = total
        self._shown = shown
        self._figures: dict[str, float] = {}
        self._bar = None
        self._start = start
        self._began = self._last = time.perf_counter()
        self._printed = 0.0
        console = Console(stderr=True)
        if shown and console.is_terminal:
            columns = (
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(bar_width=24),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=console)
            self._task = self._bar.add_task("compiling", total=total, completed=start)
            self._bar.start()

    def say(self, what: str) -> None:
        """Say what is being done, on a terminal."""
        if self._bar:
            self._bar.update(self._task, description=f"{self._text()}  {what}")

    def show(self, step: int, episodes: float = 0, **figures: float) -> None:
        """Tell of a step reached, of `episodes` more since the last call, and their figures."""
        now = time.perf_counter()
        self._figures.update(figures)
        if episodes:
            self._figures["episodes/s"] = episodes / max(now - self._last, 1e-9)
            self._last = now
        if self._bar:
            self._bar.update(self._task, completed=step, description=self._text())
        elif self._shown and (now - self._printed > PLAIN_EVERY or step == self._total):
            self._printed = now
            done = step - self._start
            left = (self._total - step) * (now - self._began) / max(done, 1)
            line = f"step {step}/{self._total}  {self._text()}  {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)

    def _text(self) -> str:
        wanted = ("loss", "accuracy", "iou", "val_accuracy", "val_mean_iou", "episodes/s")
        return "  ".join(f"{k} {self._figures[k]:.3g}" for k in wanted if k in self._figures)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
