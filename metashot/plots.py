"""Pictures of runs, by matplotlib (the extra "plots")."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .runs import read_history


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def curves(run: str | Path) -> Path:
    """Draw loss and accuracy over the episodes seen into `run/plots/curves.png`.

    Raises:
        ValueError: a run without metrics.
    """
    from matplotlib.figure import Figure

    history = read_history(run)
    training = [row for row in history if "loss" in row]
    validation = [row for row in history if "val_accuracy" in row]
    if not training:
        raise ValueError(f"{run} has no metrics to draw (metrics.jsonl)")
    seen = {row["step"]: row["episodes"] for row in training}
    episodes = list(seen.values())
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(episodes, [row["loss"] for row in training], lw=0.8, color="tab:blue")
    left.set(xlabel="training episodes", ylabel="query loss", ylim=(0, None))
    right.plot(
        episodes, [row["accuracy"] for row in training], lw=0.8, color="tab:blue", label="training"
    )
    right.errorbar(
        [seen[row["step"]] for row in validation],
        [row["val_accuracy"] for row in validation],
        yerr=[row["val_interval"] for row in validation],
        marker="o",
        capsize=3,
        color="tab:orange",
        label="validation classes",
    )
    right.set(xlabel="training episodes", ylabel="accuracy", ylim=(0, 1))
    right.legend(loc="lower right", frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    path = Path(run) / "plots" / "curves.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
