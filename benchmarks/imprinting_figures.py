"""The figures of Qi, Brown & Lowe (2018), from the rows of imprinting_scratch.py on Caltech-101.

python benchmarks/imprinting_figures.py          writes docs/imprinting.png
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import results

PICTURE = results.HERE.parent / "docs" / "imprinting.png"
TUNED = ("1", "5", "20")  # shots whose curves are drawn


def main() -> None:
    rows = {row["name"]: row for row in results.rows("imprinting_caltech101")}
    figure, panels = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    tuning(panels[0, 0], rows, 1, "novel classes, among all")
    tuning(panels[0, 1], rows, 2, "all classes")
    by_shots(
        panels[1, 0],
        {
            "softmax, average": rows["imprinting"]["transfer"],
            "softmax, nearest": rows["nearest"]["transfer"],
            "lifted, average": rows["lifted_imprinting"]["transfer"],
            "lifted, nearest": rows["lifted_nearest"]["transfer"],
        },
        "the average against the nearest shot",
    )
    sizes = {size: rows[f"size_{size}"]["novel"] for size in (128, 512)}
    sizes = {64: rows["imprinting"]["novel"], **sizes}
    by_shots(panels[1, 1], {f"D = {d}": row for d, row in sizes.items()}, "size of the embedding")
    figure.suptitle("Weight imprinting on Caltech-101 at 32 pixels, from scratch")
    figure.savefig(PICTURE, dpi=100)


def tuning(panel: Any, rows: dict[str, Any], column: int, title: str) -> None:
    """Accuracy while a classifier is tuned, from imprinted columns and from random ones."""
    for name, style in (("imprinting_ft", "-"), ("random_ft", "--")):
        for color, n in enumerate(TUNED):
            curve = rows[name]["curve"][n]
            x, y = [point[0] for point in curve], [100 * point[column] for point in curve]
            label = f"n = {n}" if style == "-" else None
            panel.plot(x, y, style, color=f"C{color}", label=label)
    panel.margins(y=0.25)
    finish(panel, title, "steps of fine-tuning (dashed: from random columns)")


def by_shots(panel: Any, lines: dict[str, dict[str, Any]], title: str) -> None:
    for label, cells in lines.items():
        panel.plot(list(cells), [100 * mean for mean, _ in cells.values()], "o-", label=label)
    finish(panel, title, "images of a novel class")


def finish(panel: Any, title: str, below: str) -> None:
    panel.set(title=title, xlabel=below, ylabel="accuracy, %")
    panel.legend(fontsize="small", loc="upper left")
    panel.grid(alpha=0.3)


if __name__ == "__main__":
    main()
