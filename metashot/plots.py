"""Pictures of runs, episodes, gates and embeddings, by matplotlib (the extra "plots").

A picture is a function of numbers that returns a figure: a notebook shows it, `save` writes it.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray

from .base import Array, Episode, Examples, PyTree
from .data import Prepare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT, WRONG = "#2a9d4e", "#d1232a"
MARKED = np.array([1.0, 0.24, 0.0])  # what a mask marks, as RGB
# Of the first classes of an episode; green and red are for the answers.
CLASSES = ("#1f77b4", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#7f7f7f")
DPI = 150
TILE, PITCH, ROW = 0.9, 1.0, 1.32  # an episode's pictures: side, and from one to the next


def available(package: str = "matplotlib") -> bool:
    """Whether matplotlib is installed, or another package that a picture needs."""
    return importlib.util.find_spec(package) is not None


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, making its folder; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path


def curves(history: list[dict[str, float]]) -> Figure:
    """Loss, and accuracy or intersection over union, over the episodes seen.

    Args:
        history: rows of metrics.jsonl (`Trained.history`).

    Raises:
        ValueError: no row of training.
    """
    training = [row for row in history if "loss" in row]
    if not training:
        raise ValueError("the history has no row of training yet; there is nothing to draw")
    masks = "iou" in training[0]
    own, name = ("iou", "mean_iou") if masks else ("accuracy", "accuracy")
    validation = [row for row in history if f"val_{name}" in row]
    seen = {row["step"]: row["episodes"] for row in training}
    episodes = list(seen.values())
    figure = _figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    left.plot(episodes, [row["loss"] for row in training], lw=0.8, color="tab:blue")
    left.set(xlabel="training episodes", ylabel="query loss", ylim=(0, None))
    right.plot(episodes, [row[own] for row in training], lw=0.8, color="tab:blue", label="training")
    if validation:
        right.errorbar(
            [seen[row["step"]] for row in validation],
            [row[f"val_{name}"] for row in validation],
            yerr=[row["val_interval"] for row in validation],
            marker="o",
            capsize=3,
            color="tab:orange",
            label="validation classes",
        )
    right.set(xlabel="training episodes", ylabel="IoU" if masks else name, ylim=(0, 1))
    right.legend(loc="lower right", frameon=False)
    for axes in (left, right):
        _plain(axes)
    return figure


def gates(values: PyTree) -> Figure:
    """The gates of the Meta-Learner LSTM over its steps, after figure 3 of the paper.

    A column a layer of the pupil, a row a gate; a line is the mean over a layer's coordinates in
    one episode, the band holds 10 to 90 % of the coordinates of all episodes.

    Args:
        values: {"forget": tree, "input": tree} in the shape of the pupil's parameters, each leaf
            [episodes, T, ...]: what `meta_lstm(trace=True)` leaves in `task["gates"]`, stacked.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows = {gate: _by_layer(values[gate]) for gate in ("forget", "input")}
    layers = list(rows["forget"])
    figure = _figure(1.2 + 1.9 * len(layers), 4.4)
    grid = figure.subplots(2, len(layers), sharex=True, sharey="row", squeeze=False)
    for axes_row, (gate, by_layer), color in zip(
        grid, rows.items(), ("tab:blue", "tab:orange"), strict=True
    ):
        for axes, (layer, value) in zip(axes_row, by_layer.items(), strict=True):
            steps = np.arange(1, value.shape[1] + 1)
            low, high = np.quantile(value, (0.1, 0.9), axis=(0, 2))
            axes.fill_between(steps, low, high, color=color, alpha=0.18, lw=0)
            axes.plot(steps, value.mean(-1).T, color=color, lw=0.9, marker=".", ms=4, alpha=0.8)
            axes.set_xticks(steps[:: -(-len(steps) // 6)])
            axes.ticklabel_format(axis="y", useOffset=False)
            _plain(axes)
            if gate == "forget":
                axes.set_title(layer, fontsize=10)
            else:
                axes.set_xlabel("step")
        axes_row[0].set_ylabel(f"{gate} gate")
    line = Line2D([], [], color="grey", marker=".", label="mean over coordinates, one episode")
    band = Patch(color="grey", alpha=0.3, lw=0, label="10 to 90 % of the coordinates")
    figure.legend(handles=[line, band], loc="outside lower center", ncols=2, frameon=False)
    return figure


def episode(example: Episode, logits: Array, *, prepare: Prepare = Prepare()) -> Figure:
    """One episode with its answers: a row a class, its support left, its queries right of the gap.

    A query is framed green where the answer is right, red where it is wrong, with the class that
    was answered above it. Padding is left out, and so are queries whose target is -1.

    Args:
        example: with images [n, H, W, C] and classes [n] as targets.
        logits: [queries, way].
        prepare: of the data set; undone, so that pictures look as they were stored.

    Raises:
        ValueError: targets that are not classes, or logits of another shape.
    """
    from matplotlib import colormaps

    support, query = example.support, example.query
    scores = np.asarray(logits)
    if scores.ndim != 2 or np.shape(query.targets) != scores.shape[:1]:
        raise ValueError(
            f"logits {list(scores.shape)} do not fit targets {list(np.shape(query.targets))}; "
            "an episode is drawn with logits [queries, way] and targets [queries]"
        )
    way, answers = scores.shape[1], scores.argmax(-1)
    colors = CLASSES if way <= len(CLASSES) else colormaps["plasma"](np.linspace(0, 0.9, way))
    shown = [[_rows(part, c) for c in range(way)] for part in (support, query)]
    start = PITCH * max(map(len, shown[0])) + 0.5  # of the queries
    width = start + PITCH * max(map(len, shown[1]))
    figure = _figure(0.56 * (width + 0.6), 0.56 * ROW * way + 0.4)
    axes = figure.subplots()

    right = counted = 0
    for c in range(way):
        y = ROW * c
        axes.text(-0.3, y + TILE / 2, str(c + 1), color=colors[c], weight="bold", va="center")
        for i, row in enumerate(shown[0][c]):
            _tile(axes, PITCH * i, y, support.inputs[row], prepare, colors[c], 1.8)
        for i, row in enumerate(shown[1][c]):
            x, answer, counted = start + PITCH * i, answers[row], counted + 1
            right += int(answer == c)
            color = RIGHT if answer == c else WRONG
            _tile(axes, x, y, query.inputs[row], prepare, color, 1.2)
            if answer != c:
                said = {"color": colors[answer], "weight": "bold", "size": 8}
                axes.text(x + TILE / 2, y - 0.06, str(answer + 1), ha="center", **said)
    axes.set(xlim=(-0.5, width), ylim=(ROW * way - 0.35, -0.35), aspect="equal")
    axes.axis("off")
    share = f", {100 * right / counted:.1f} %" if counted else ""
    axes.set_title(f"{right} of {counted} queries right{share}", fontsize=11)
    return figure


def matches(
    example: Episode, scores: Array, *, prepare: Prepare = Prepare(), most: int = 10
) -> Figure:
    """Matching problems, a row each: the exemplar, and right of the gap its best candidates.

    Candidates stand by their scores, which are written below them, the best first; the match is
    framed green, and red a better one that is none. A match that is not among the best is shown
    last, with its place.

    Args:
        example: a paired episode, exemplars [p, H, W, C], candidates [p, q, H, W, C] and targets
            [p, q].
        scores: [p, q].
        prepare: of the data set; undone, so that pictures look as they were stored.
        most: candidates of a row.

    Raises:
        ValueError: an episode that is not paired, or scores of another shape.
    """
    scored, right = np.asarray(scores), np.asarray(example.query.targets) > 0
    if right.ndim != 2 or scored.shape != right.shape:
        raise ValueError(
            f"scores {list(scored.shape)} do not fit targets {list(right.shape)}; matches are "
            "drawn of a paired episode, with scores and targets [exemplars, candidates]"
        )
    problems, shown = len(scored), min(most, scored.shape[1])
    start, row = PITCH + 0.35, 1.36
    figure = _figure(0.62 * (start + PITCH * shown + 0.2), 0.62 * row * problems + 0.5)
    axes = figure.subplots()
    first = 0
    for i in range(problems):
        y, order = row * i, np.argsort(-scored[i], kind="stable")
        place = int(np.flatnonzero(right[i][order])[0])
        first += place == 0
        kept = order[:shown] if place < shown else np.append(order[: shown - 1], order[place])
        _tile(axes, 0, y, example.support.inputs[i], prepare, "black", 1.6)
        for j, candidate in enumerate(kept):
            x, matched = start + PITCH * j, right[i, candidate]
            color, line = (RIGHT, 2.0) if matched else (WRONG if j < place else "#bbbbbb", 0.9)
            _tile(axes, x, y, example.query.inputs[i, candidate], prepare, color, line)
            told = f"{scored[i, candidate]:.1f}".replace("-", "\N{MINUS SIGN}")
            told += f"  (#{place + 1})" if matched and j < place else ""
            ink = RIGHT if matched else "#444444"
            axes.text(x + TILE / 2, y + TILE + 0.05, told, color=ink, size=8, ha="center", va="top")
    axes.set(xlim=(-0.1, start + PITCH * shown), ylim=(row * problems, -0.1), aspect="equal")
    axes.axis("off")
    axes.set_title(f"{first} of {problems} matches have the best score", fontsize=11)
    return figure


def predicted_filters(
    exemplars: Array,
    picture: Array,
    filters: Array,
    maps: Array,
    *,
    prepare: Prepare = Prepare(),
    most: int = 7,
) -> Figure:
    """What a learnet predicts from several exemplars, and what that sees in one picture.

    A row an exemplar: filters of the channels whose maps differ most between exemplars, and what
    these see. Red is above 0, blue below; a column of maps has one scale, a row of filters too.

    Args:
        exemplars: [p, H, W, C].
        picture: [H, W, C], that all look at.
        filters: [p, h, w, D].
        maps: [p, H', W', D], as `metashot.filter_responses` gives them.
        prepare: of the data set.
        most: channels that are drawn.
    """
    w, seen = np.asarray(filters), np.asarray(maps)
    spread = seen.std(0).mean((0, 1)) / np.maximum(np.abs(seen).mean((0, 1, 2)), 1e-12)
    strong = np.abs(seen).mean((0, 1, 2)) >= np.median(np.abs(seen).mean((0, 1, 2)))
    channels = np.argsort(-np.where(strong, spread, -1), kind="stable")[:most]
    count, shown = len(exemplars), len(channels)
    filters_at, maps_at = 1.35, 1.35 + PITCH * shown + 0.35
    width = maps_at + PITCH * shown
    figure = _figure(0.62 * (width + 0.3), 0.62 * (PITCH * (count + 1) + 1.6))
    axes = figure.subplots()

    def signed(x: float, y: float, values: NDArray[Any], most: float) -> None:
        extent = (x, x + TILE, y + TILE, y)
        axes.imshow(values, extent=extent, cmap="RdBu_r", vmin=-most, vmax=most)

    top = PITCH + 0.75
    _tile(axes, maps_at, 0, picture, prepare, "black", 1.6)
    heads = {0: "exemplar", filters_at: "predicted filters", maps_at: "what they see"}
    for x, head in heads.items():
        axes.text(x, top - 0.12, head, size=9, va="bottom")
    axes.text(maps_at + PITCH, TILE / 2, "the picture that all look at", size=9, va="center")
    for i in range(count):
        y, most_of_row = top + PITCH * i, np.abs(w[i][..., channels]).max()
        _tile(axes, 0, y, exemplars[i], prepare, "black", 1.6)
        for j, channel in enumerate(channels):
            signed(filters_at + PITCH * j, y, w[i][..., channel], most_of_row)
            most_of_column = np.abs(seen[..., channel]).max()
            signed(maps_at + PITCH * j, y, seen[i][..., channel], most_of_column)
    axes.set(xlim=(-0.1, width), ylim=(top + PITCH * count, -0.1), aspect="equal")
    axes.axis("off")
    return figure


def masks(shown: dict[str, tuple[Array, Array]], *, prepare: Prepare = Prepare()) -> Figure:
    """Pictures with what a mask marks in colour, a row each, and a column for each name.

    Args:
        shown: {title: (pictures [n, H, W, C], masks [n, H, W])}; marked is what is above 0, such as
            logits of foreground.
        prepare: of the data set; undone, so that pictures look as they were stored.

    Raises:
        ValueError: a mask of another size than its picture.
    """
    rows = max(len(pictures) for pictures, _ in shown.values())
    figure = _figure(1.7 * len(shown), 1.7 * rows + 0.35)
    panels = figure.subplots(rows, len(shown), squeeze=False)
    for column, (title, (pictures, marks)) in zip(panels.T, shown.items(), strict=True):
        if np.shape(marks) != np.shape(pictures)[:3]:
            raise ValueError(
                f"{title}: masks {list(np.shape(marks))} do not fit pictures "
                f"{list(np.shape(pictures))}"
            )
        column[0].set_title(title, fontsize=9)
        for axes, picture, mark in zip(column, pictures, np.asarray(marks) > 0, strict=True):
            pixels = _as_stored(picture, prepare)
            pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
            axes.imshow(np.where(mark[..., None], 0.45 * pixels + 0.55 * MARKED, pixels))
            axes.axis("off")
    return figure


def embeddings(shown: dict[str, tuple[Array, Array]]) -> Figure:
    """Embeddings in the plane, by scikit-learn's t-SNE: a panel each, a colour a class.

    Args:
        shown: {title: (embeddings [n, d], classes [n])}.
    """
    from sklearn.manifold import TSNE

    figure = _figure(4.2 * len(shown), 4.4)
    for axes, (title, (z, targets)) in zip(_panels(figure, shown), shown.items(), strict=True):
        near = min(30.0, (len(z) - 1) / 3)
        tsne = TSNE(perplexity=near, init="pca", random_state=0)
        places = tsne.fit_transform(np.asarray(z, np.float64))
        axes.scatter(*places.T, c=_class_colors(np.asarray(targets)), s=22)
        axes.set(title=title, xticks=[], yticks=[])
    return figure


def similarities(shown: dict[str, Array], support: Array, query: Array) -> Figure:
    """How similar each query is to each support example, both sorted by class: a panel each.

    Args:
        shown: {title: similarities [q, n]}, drawn dark where large; each row has its own scale.
        support: classes [n] of the columns.
        query: classes [q] of the rows.
    """
    rows, columns = (np.argsort(np.asarray(x), kind="stable") for x in (query, support))
    row_classes, column_classes = np.asarray(query)[rows], np.asarray(support)[columns]
    figure = _figure(4.4 * len(shown), 4.6)
    for axes, (title, values) in zip(_panels(figure, shown), shown.items(), strict=True):
        matrix = np.asarray(values)[rows][:, columns]
        least, most = matrix.min(1, keepdims=True), matrix.max(1, keepdims=True)
        scaled = (matrix - least) / np.maximum(most - least, 1e-12)
        axes.imshow(scaled, cmap="Blues", aspect="auto", interpolation="nearest")
        for edge in np.flatnonzero(np.diff(row_classes)) + 0.5:
            axes.axhline(edge, color="black", lw=0.6)
        for edge in np.flatnonzero(np.diff(column_classes)) + 0.5:
            axes.axvline(edge, color="black", lw=0.6)
        right = (column_classes[matrix.argmax(1)] == row_classes).mean()
        axes.set(title=f"{title}\nnearest example of the class: {100 * right:.1f} %")
        axes.set(xlabel="support, by class", ylabel="queries, by class", xticks=[], yticks=[])
    return figure


def speed(rows: list[dict[str, Any]]) -> Figure:
    """How fast rows of `metashot bench` are: beside their peers if all have one, or in episodes/s.

    A bar begins at 1 and ends at the median of the rounds; a line is the range of the rounds.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    name = "ratio" if all("ratio" in row for row in rows) else "episodes_per_second"
    shown = [row for row in reversed(rows) if name in row]
    values = np.array([row[name] for row in shown])
    figure = _figure(8, 1.2 + 0.32 * len(shown))
    axes = figure.subplots()
    axes.set_xscale("log")
    titles = [row["name"] for row in shown]
    bars = axes.barh(titles, values - 1, left=1, color="tab:blue", alpha=0.6)
    axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=10, fontsize=9)
    if name == "ratio":
        ends = np.array([[row["ratio_low"], row["ratio_high"]] for row in shown]).T
        axes.errorbar(values, titles, xerr=abs(ends - values), fmt="none", color="black")
        axes.set_xlabel("time of the peer / ours (above 1: ours is faster)")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axes.set_xlabel("episodes a second")
    axes.axvline(1, color="black", lw=0.8)
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    _plain(axes)
    return figure


def _tile(
    axes: Axes, x: float, y: float, inputs: Array, prepare: Prepare, color: Any, line: float
) -> None:
    """A picture [H, W, C] as it was stored, in a frame."""
    from matplotlib.patches import Rectangle

    pixels = _as_stored(inputs, prepare)
    picture = pixels if pixels.shape[-1] == 3 else pixels.mean(-1)
    axes.imshow(picture, extent=(x, x + TILE, y + TILE, y), cmap="gray", vmin=0, vmax=1)
    axes.add_patch(Rectangle((x, y), TILE, TILE, fill=False, ec=color, lw=line))


def _as_stored(inputs: Array, prepare: Prepare) -> NDArray[Any]:
    """[..., C] of 0..1: the pixels that inputs were made of."""
    return np.clip((np.asarray(inputs) - prepare.offset) / prepare.scale / 255, 0, 1)


def _figure(width: float, height: float) -> Figure:
    """A figure of so many inches; pyplot, which keeps what it makes, is not needed."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _panels(figure: Figure, shown: dict[str, Any]) -> list[Axes]:
    """Axes side by side, one for each of what is shown."""
    return list(figure.subplots(1, len(shown), squeeze=False)[0])


def _class_colors(targets: NDArray[Any]) -> Any:
    """Of each target, the colour of its class."""
    from matplotlib import colormaps

    classes = targets.max() + 1
    if classes <= len(CLASSES):
        return [CLASSES[c] for c in targets]
    return colormaps["plasma"](0.9 * targets / (classes - 1))


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def _by_layer(tree: PyTree) -> dict[str, NDArray[Any]]:
    """The coordinates of each layer of the pupil, [episodes, T, coordinates], by its title."""
    layers = {**tree["network"], "head": tree["head"]}
    flat = lambda x: np.reshape(x, (*np.shape(x)[:2], -1))
    return {
        re.sub(r"^ConvBlock_(\d+)$", lambda m: f"convolution block {int(m[1]) + 1}", name): (
            np.concatenate([flat(x) for x in jax.tree.leaves(layer)], -1)
        )
        for name, layer in layers.items()
    }


def _rows(examples: Examples, c: int) -> NDArray[np.integer]:
    """The rows of a class that are no padding."""
    return np.flatnonzero(np.asarray(examples.mask) & (np.asarray(examples.targets) == c))
