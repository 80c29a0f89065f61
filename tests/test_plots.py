"""Pictures: what is drawn, in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

import metashot
from metashot import Episode, Examples, plots
from metashot.data import INK

EPISODES, T = 5, 7


def gate_tree(rng: np.random.Generator) -> dict[str, Any]:
    draw = lambda *shape: rng.uniform(size=(EPISODES, T, *shape))
    network = {f"ConvBlock_{i}": {"kernel": draw(3, 3, 1, 2), "bias": draw(2)} for i in range(2)}
    return {"network": network, "head": {"kernel": draw(8, 3), "bias": draw(3)}}


@pytest.fixture(scope="module")
def gates() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"forget": gate_tree(rng), "input": gate_tree(rng)}


def episode(way: int = 3, shot: int = 2, query: int = 4, channels: int = 1) -> Episode:
    def examples(each: int) -> Examples:
        targets = jnp.tile(jnp.arange(way), each)
        level = targets / way  # class c is a picture of one grey
        inputs = jnp.broadcast_to(level[:, None, None, None], (way * each, 6, 6, channels))
        return Examples(inputs, targets, jnp.ones(way * each, bool))

    return Episode(examples(shot), examples(query))


def answers(example: Episode, wrong: int = 0) -> jnp.ndarray:
    """Logits that are right but for the first queries, which get the next class."""
    targets = np.array(example.query.targets)
    way = targets.max() + 1
    targets[:wrong] = (targets[:wrong] + 1) % way
    return jnp.eye(way)[targets]


def drawn_frames(axes: Any) -> list[str]:
    return [to_hex(p.get_edgecolor()) for p in axes.patches if isinstance(p, Rectangle)]


def test_gates_have_a_point_a_step_and_a_line_an_episode(gates: dict[str, Any]):
    figure = plots.gates(gates)
    assert [a.get_title() for a in figure.axes[:3]] == [
        "convolution block 1",
        "convolution block 2",
        "head",
    ]
    for row, gate in enumerate(("forget", "input")):
        head = gates[gate]["head"]
        values = np.concatenate([head["bias"], head["kernel"].reshape(EPISODES, T, -1)], -1)
        axes = figure.axes[3 * row + 2]
        assert len(axes.lines) == EPISODES
        for line, each in zip(axes.lines, values, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, T + 1))
            np.testing.assert_allclose(line.get_ydata(), each.mean(-1))
        band = axes.collections[0].get_paths()[0].vertices
        low, high = np.quantile(values, (0.1, 0.9), axis=(0, 2))
        assert band[:, 1].min() == pytest.approx(low.min())
        assert band[:, 1].max() == pytest.approx(high.max())


def test_right_and_wrong_answers_are_framed_and_named():
    example = episode()
    figure = plots.episode(example, answers(example, wrong=2))
    axes = figure.axes[0]
    frames = drawn_frames(axes)
    assert frames.count(plots.RIGHT) == 10
    assert frames.count(plots.WRONG) == 2
    assert frames[:2] == [plots.CLASSES[0]] * 2  # the support of the first class
    assert axes.get_title() == "10 of 12 queries right, 83.3 %"
    # Classes 1 to 3 name the rows; the wrong answers 2 and 3 stand in rows 1 and 2.
    assert [text.get_text() for text in axes.texts] == ["1", "2", "2", "3", "3"]


def test_a_row_holds_its_class_and_pixels_as_they_were_stored():
    example = episode()
    axes = plots.episode(example, answers(example), prepare=INK).figure.axes[0]
    for image in axes.images:
        left, right, bottom, top = image.get_extent()
        row = round(top / plots.ROW)
        np.testing.assert_allclose(image.get_array(), 1 - row / 3, atol=1e-6)  # ink is dark
        assert right - left == pytest.approx(bottom - top)


def test_padding_and_targets_that_do_not_count_are_left_out():
    example = episode()
    support = example.support._replace(mask=example.support.mask.at[0].set(False))
    query = example.query._replace(targets=example.query.targets.at[1].set(-1))
    axes = plots.episode(Episode(support, query), answers(example)).axes[0]
    assert len(axes.images) == 5 + 11
    assert axes.get_title().startswith("11 of 11")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("way", [3, 12])
def test_any_number_of_classes_and_both_kinds_of_picture(way: int, channels: int):
    example = episode(way=way, channels=channels)
    axes = plots.episode(example, answers(example)).axes[0]
    assert len(axes.images) == way * 6
    assert axes.images[0].get_array().shape == ((6, 6) if channels == 1 else (6, 6, 3))


def test_outputs_that_are_not_logits_are_refused():
    example = episode()
    with pytest.raises(ValueError, match=r"logits \[12, 6, 6\] do not fit targets \[12\]"):
        plots.episode(example, jnp.zeros((12, 6, 6)))
    with pytest.raises(ValueError, match=r"logits \[5, 3\]"):
        plots.episode(example, jnp.zeros((5, 3)))


def test_curves_hold_the_history():
    history = [{"step": s, "episodes": 2 * s, "loss": 1 / s, "accuracy": 0.5} for s in (5, 10)]
    alone = plots.curves(history).axes[1]
    assert alone.get_legend_handles_labels()[1] == ["training"]
    history.append({"step": 10, "val_accuracy": 0.6, "val_interval": 0.1})
    left, right = plots.curves(history).axes
    np.testing.assert_array_equal(left.lines[0].get_xydata(), [[10, 0.2], [20, 0.1]])
    assert right.get_legend_handles_labels()[1] == ["training", "validation classes"]


def test_without_a_row_of_training_there_are_no_curves():
    with pytest.raises(ValueError, match="no row of training yet"):
        plots.curves([])


def test_a_saved_picture_is_a_png_of_the_promised_size(tmp_path: Path, gates: dict[str, Any]):
    figure = plots.gates(gates)
    path = plots.save(figure, tmp_path / "new" / "gates.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
        np.testing.assert_allclose(image.size, figure.get_size_inches() * plots.DPI, atol=1)


def test_similarities_are_sorted_by_class_and_each_row_has_its_own_scale():
    """Rows and columns of classes 1, 0, 1; the second query's nearest example is of another."""
    values = jnp.array([[10.0, 20, 12], [1.0, 0.5, 0], [0, 1, 4]])
    classes = jnp.array([1, 0, 1])
    axes = plots.similarities({"one": values}, classes, classes).axes[0]
    drawn = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(drawn, [[0.5, 1, 0], [1, 0, 0.2], [0.25, 0, 1]])
    assert axes.get_title() == "one\nnearest example of the class: 33.3 %"
    assert [line.get_ydata()[0] for line in axes.lines[:1]] == [0.5]


def test_embeddings_of_apart_classes_stay_apart_in_the_plane():
    rng = np.random.default_rng(0)
    classes = np.arange(20) % 2
    z = jnp.asarray(rng.normal(size=(20, 5)) + 50 * classes[:, None])
    figure = plots.embeddings({"one": (z, classes), "other": (z, classes)})
    assert [axes.get_title() for axes in figure.axes] == ["one", "other"]
    places = np.asarray(figure.axes[0].collections[0].get_offsets())
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert (classes[apart.argmin(1)] == classes).all()


def test_matches_stand_by_their_scores():
    candidates = np.arange(12, dtype=np.float32).reshape(2, 6, 1, 1, 1) / 12
    match = np.zeros((2, 6), int)
    match[0, 4], match[1, 0] = 1, 1
    example = metashot.data.paired(
        np.tile(np.eye(3, dtype=np.float32)[..., None], (2, 1, 1, 1)),
        np.broadcast_to(candidates, (2, 6, 3, 3, 1)),
        match,
    )
    scores = np.array([[0.0, 3, 1, 2, 9, 5], [-4.0, 3, 1, 2, 9, 5]])
    (axes,) = plots.matches(example, scores, most=4).axes
    shown = [round(12 * float(image.get_array()[0, 0])) for image in axes.images]
    assert shown == [12, 4, 5, 1, 3, 12, 10, 11, 7, 6]  # the last is the match, in place 6
    frames = [to_hex(p.get_edgecolor()) for p in axes.patches if isinstance(p, Rectangle)]
    assert [frames[i] for i in (1, 2, 6, 9)] == [plots.RIGHT, "#bbbbbb", plots.WRONG, plots.RIGHT]
    assert [text.get_text() for text in axes.texts][-1] == "\N{MINUS SIGN}4.0  (#6)"
    assert axes.get_title() == "1 of 2 matches have the best score"
    with pytest.raises(ValueError, match=r"scores \[2, 5\] do not fit targets \[2, 6\]"):
        plots.matches(example, scores[:, :5])


def test_the_filters_that_differ_most_are_drawn_beside_what_they_see():
    rng = np.random.default_rng(0)
    maps = np.ones((3, 4, 4, 6)) * np.array([1, 1, 1, 1, 1e-6, 1e-6])
    maps[:, :, :, 2] += rng.normal(size=(3, 1, 1))  # which differs
    maps[:, :, :, 5] *= rng.normal(size=(3, 1, 1))  # but is faint
    filters = np.broadcast_to(np.arange(6.0), (3, 5, 5, 6))
    pictures = np.zeros((3, 8, 8, 1))
    (axes,) = plots.predicted_filters(pictures, pictures[0], filters, maps, most=1).axes
    drawn = [np.asarray(image.get_array()) for image in axes.images]
    assert [x.shape for x in drawn] == [(8, 8), *[(8, 8), (5, 5), (4, 4)] * 3]
    assert all((x == 2).all() for x in drawn[2::3])
    np.testing.assert_array_equal(drawn[3], maps[0, :, :, 2])


def test_masks_mark_pictures_in_colour():
    """An 8-bit grey picture of which one pixel is marked."""
    picture = np.full((1, 2, 2, 1), 0.4, np.float32)
    logits = np.array([[[3.0, -1], [0, -2]]], np.float32)
    figure = plots.masks({"query": (picture, np.zeros((1, 2, 2))), "answer": (picture, logits)})
    plain, marked = (axes.images[0].get_array() for axes in figure.axes)
    np.testing.assert_allclose(plain, 0.4, rtol=1e-6)
    np.testing.assert_allclose(marked[0, 0], 0.45 * 0.4 + 0.55 * plots.MARKED, rtol=1e-6)
    np.testing.assert_allclose(marked[0, 1:], 0.4, rtol=1e-6)
    assert [axes.get_title() for axes in figure.axes] == ["query", "answer"]
    with pytest.raises(
        ValueError, match=r"query: masks \[1, 2, 3\] do not fit pictures \[1, 2, 2, 1\]"
    ):
        plots.masks({"query": (picture, np.zeros((1, 2, 3)))})
