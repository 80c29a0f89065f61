"""Glyphs: the embedded data, handwriting in invented scripts. Nothing to download.

A character is a few pen strokes; a stroke is the pen's way through points of a grid, straight or
bowed, with sharp or round corners. An alphabet has its own taste in all of these, and twenty or
so drawers, each with a hand of their own that is never quite steady.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .cache import cached
from .dataset import INK, Dataset, Splits, from_arrays

VERSION = 1  # of the generator: raise it whenever the same arguments give other pictures
ALPHABET = 26  # characters
POINTS = 16  # of a stroke's polyline
FINE = 3  # drawn at this many times the size, then reduced by area
GRID = np.stack(np.meshgrid([0, 0.5, 1], [0, 0.5, 1]), -1).reshape(9, 2)  # where strokes turn
BEND = np.linspace(0, 1, 6)[:, None]  # along a segment

Floats = NDArray[np.float64]


def glyphs(
    *,
    train: int = 1000,
    val: int = 100,
    test: int = 200,
    drawings: int = 20,
    size: int = 28,
    seed: int = 0,
) -> Splits:
    """Characters of invented alphabets, drawn by hand, so to speak; the same for the same seed.

    Args:
        train, val, test: classes of each split; no split shares an alphabet with another.
        drawings: of each class, one by each drawer of its alphabet.
        size: pixels along a side.
        seed: 0 or larger.

    Returns:
        Images [n, size, size, 1] uint8, dark ink (0) on white paper (255), with alphabets as
        groups and drawers 0..drawings-1. The first start draws them, later ones read a cache.

    Raises:
        ValueError: a split without a class, fewer than 2 drawings, a size below 8 or a negative
            seed.
    """
    splits = {"train": train, "val": val, "test": test}
    given = {**splits, "drawings": drawings, "size": size, "seed": seed}
    least = {"drawings": 2, "size": 8, "seed": 0}
    for name, value in given.items():
        if value < least.get(name, 1):
            raise ValueError(f"glyphs: {name} must be at least {least.get(name, 1)}, not {value}")

    def split(number: int, name: str, classes: int) -> Dataset:
        arguments = (name, classes, drawings, size, seed)
        return cached(
            "glyphs-" + "-".join(map(str, arguments)),
            hashlib.sha256(repr((VERSION, arguments)).encode()).hexdigest(),
            lambda: _split([seed, number], name, classes, drawings, size),
        )

    return Splits(*(split(number, *item) for number, item in enumerate(splits.items())))


class Style(NamedTuple):
    """What the characters of an alphabet have in common."""

    segments: Floats  # [4] the chances of a character of 2..5 segments
    lift: float  # the chance that the pen is lifted between two segments
    bow: float  # how far a segment bends, over its length
    corner: float  # how far a corner is rounded, in points of the polyline
    loops: float  # the chance that a stroke of one segment is a loop instead
    joined: float  # the chance that a stroke starts on an earlier one
    width: float  # of a character, over its height


class Hands(NamedTuple):
    """How each drawer of an alphabet writes: [drawings] each, shift [drawings, 2]."""

    slant: Floats
    turn: Floats
    scale: Floats
    width: Floats
    shift: Floats
    pen: Floats


def _split(entropy: list[int], name: str, classes: int, drawings: int, size: int) -> Dataset:
    """One split; every alphabet and character has random numbers of its own."""
    images = np.empty((classes, drawings, size, size), np.uint8)
    names, groups = list[str](), list[str]()
    for alphabet, first in enumerate(range(0, classes, ALPHABET)):
        rng = np.random.default_rng([*entropy, alphabet])
        style, hands = _style(rng), _hands(rng, drawings)
        for letter in range(min(ALPHABET, classes - first)):
            rng = np.random.default_rng([*entropy, alphabet, letter])
            written = _written(rng, _character(rng, style), hands)
            images[first + letter] = _draw(written, hands.pen, size)
            groups.append(f"{name}{alphabet + 1:02d}")
            names.append(f"{groups[-1]}/character{letter + 1:02d}")
    return from_arrays(
        images.reshape(-1, size, size, 1),
        np.repeat(np.arange(classes), drawings),
        tuple(names),
        groups=tuple(groups),
        drawers=np.tile(np.arange(drawings), classes),
        prepare=INK,
    )


def _style(rng: np.random.Generator) -> Style:
    return Style(
        segments=rng.dirichlet([1.0, 4.0, 4.0, 2.0]),
        lift=rng.uniform(0.2, 0.7),
        bow=rng.uniform(0.0, 0.4),
        corner=rng.uniform(0.3, 1.5),
        loops=rng.uniform(0.0, 0.5),
        joined=rng.uniform(0.4, 0.9),
        width=rng.uniform(0.65, 1.1),
    )


def _hands(rng: np.random.Generator, drawings: int) -> Hands:
    return Hands(
        slant=rng.normal(0.0, 0.12, drawings),
        turn=rng.normal(0.0, 0.06, drawings),
        scale=rng.uniform(0.62, 0.88, drawings),
        width=rng.uniform(0.8, 1.2, drawings),
        shift=rng.normal(0.0, 0.03, (drawings, 2)),
        pen=rng.uniform(1.0, 2.0, drawings) / 28,
    )


def _character(rng: np.random.Generator, style: Style) -> Floats:
    """[strokes, POINTS, 2]: around the origin, its longer side 1."""
    segments = 2 + rng.choice(4, p=style.segments)
    lifts = rng.random(segments - 1) < style.lift
    strokes = list[Floats]()
    for length in np.diff(np.flatnonzero(np.r_[True, lifts, True])):
        stops = rng.permutation(GRID)[: length + 1] + rng.normal(0, 0.06, (length + 1, 2))
        if strokes and rng.random() < style.joined:
            stops[0] = strokes[rng.integers(len(strokes))][rng.choice([0, POINTS // 2, -1])]
        loop = length == 1 and rng.random() < style.loops
        way = _loop(rng, stops[0]) if loop else _way(rng, stops, style.bow)
        strokes.append(_along(way, style.corner))
    character = np.stack(strokes) * [style.width, 1.0]
    low, high = character.min((0, 1)), character.max((0, 1))
    return (character - (low + high) / 2) / max(high - low)


def _way(rng: np.random.Generator, stops: Floats, bow: float) -> Floats:
    """[n, 2] through all stops, each segment bowed."""
    start, chord = stops[:-1, None], np.diff(stops, axis=0)[:, None]
    across = chord[..., ::-1] * [-1, 1] * rng.normal(0, bow, (len(chord), 1, 1))
    return (start + chord * BEND + across * 4 * BEND * (1 - BEND)).reshape(-1, 2)


def _loop(rng: np.random.Generator, start: Floats) -> Floats:
    """[n, 2] once around, or nearly so."""
    angle = rng.uniform(0, 2 * np.pi) + np.linspace(0, rng.uniform(0.85, 1.1) * 2 * np.pi, 16)
    radius = rng.uniform(0.15, 0.35) * np.array([1.0, rng.uniform(0.7, 1.3)])
    circle = np.stack([np.cos(angle), np.sin(angle)], -1) * radius
    return start + circle - circle[0]


def _along(way: Floats, corner: float) -> Floats:
    """[POINTS, 2]: equal steps along a way, its corners rounded."""
    reached = np.cumsum(np.r_[0.0, np.linalg.norm(np.diff(way, axis=0), axis=1)])
    steps = np.linspace(0, float(reached[-1]), POINTS)
    line = np.stack([np.interp(steps, reached, way[:, axis]) for axis in (0, 1)], -1)
    near = np.subtract.outer(np.arange(POINTS), np.arange(POINTS)) / corner
    weight = np.exp(-0.5 * near**2)
    return weight @ line / weight.sum(1, keepdims=True)


def _written(rng: np.random.Generator, character: Floats, hands: Hands) -> Floats:
    """[drawings, strokes, POINTS, 2] in a unit box: a character as each drawer writes it."""
    many = (len(hands.pen), len(character), 1, 2)
    t = np.linspace(-1, 1, POINTS)[:, None]
    # No stroke is quite where it was, as long, as steep or as bent.
    wobble = rng.normal(0, 0.07, many) + rng.normal(0, 0.07, many) * t
    wobble = wobble + rng.normal(0, 0.06, many) * (t**2 - 1 / 3)
    turn = hands.turn + rng.uniform(-0.2, 0.2, len(hands.pen))  # radians
    scale = hands.scale * rng.uniform(0.92, 1.08, len(hands.pen))
    cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
    # Turned after slanted: [2, 2, drawings].
    pose = np.array(
        [
            [cos * hands.width, cos * hands.slant - sin],
            [sin * hands.width, sin * hands.slant + cos],
        ]
    )
    shift = hands.shift + rng.normal(0, 0.03, hands.shift.shape)
    placed = np.einsum("ijd,dspj->dspi", pose, character + wobble) + shift[:, None, None]
    # Rather smaller than cut off.
    room = 0.46 / np.abs(placed).max((1, 2, 3), keepdims=True)
    return 0.5 + placed * np.minimum(room, 1)


def _draw(written: Floats, pen: Floats, size: int) -> NDArray[np.uint8]:
    """[drawings, size, size]: all drawings of a character side by side on one sheet."""
    fine = size * FINE
    sheet = Image.new("L", (fine * len(written), fine), 255)
    draw = ImageDraw.Draw(sheet)
    left = np.arange(len(written))[:, None, None, None] * [fine, 0]
    lines = (written * fine + left).reshape(*written.shape[:2], -1).tolist()
    for strokes, width in zip(lines, np.rint(pen * fine).astype(int).tolist(), strict=True):
        for stroke in strokes:
            draw.line(stroke, fill=0, width=width)
    cells = np.asarray(sheet.reduce(FINE)).reshape(size, len(written), size)
    return cells.swapaxes(0, 1)
