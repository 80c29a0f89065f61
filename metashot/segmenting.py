"""One's own pictures: what a picture and a mask show is marked in others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .base import Examples, Learner, PyTree, Variables
from .config import ConfigError, MaskSizes
from .data.masks import VOID
from .data.pictures import square
from .data.voc import decoded, indexed_mask
from .loading import load, read_config
from .nets.branches import half_pixel_bilinear
from .recognition import Pictures, pictures_of

Masks = NDArray[np.bool_]


class Segmenter(NamedTuple):
    """A learner of masks that was shown what to mark."""

    learner: Learner
    variables: Variables
    task: PyTree
    pictures: Pictures


def segmenter(
    run: str | Path,
    support: Iterable[tuple[str | Path, str | Path]],
    *,
    checkpoint: str | int = "best",
) -> Segmenter:
    """A trained learner of masks that knows one class by some pictures.

    Args:
        run: folder of the run.
        support: files of pictures and of their masks. A mask is an indexed or grey PNG of its
            picture's size: 0 is background, the other value the class; a third, 255, does not
            count.
        checkpoint: "best" by validation, "last", or a step.

    Raises:
        OSError: a file cannot be opened.
        ValueError: no run of a learner of masks; no support; a file that cannot be decoded; a mask
            of another size, without the class, in colour, or of several classes.

    Example:
        marks = metashot.segmenter("runs/glyphs_segmentation", [("one.png", "mask.png")])
        mask, = metashot.segment(marks, ["two.png"])
    """
    config = read_config(run)
    if not isinstance(config.test, MaskSizes):
        kind = type(config.learner).__name__
        raise ConfigError(f"{run} is a {kind}, which answers with classes: name a Segmentation")
    pictures = pictures_of(Path(run))
    pairs = [_shown(Path(image), Path(mask), pictures) for image, mask in support]
    if not pairs:
        raise ConfigError("there is nothing to go by: give a picture and its mask")
    images, masks = map(np.stack, zip(*pairs, strict=True))
    learner, variables, *_ = load(run, checkpoint=checkpoint)
    shown = Examples(
        pictures.prepare(jnp.asarray(images)), jnp.asarray(masks), jnp.ones(len(masks), bool)
    )
    return Segmenter(learner, variables, jax.jit(learner.adapt)(variables, shown), pictures)


def segment(segmenter: Segmenter, images: Iterable[str | Path]) -> list[Masks]:
    """[H, W] for each picture file, at its own size: where it shows what the support did.

    Raises:
        OSError: a file cannot be opened.
        ValueError: a file that cannot be decoded.
    """
    learner, variables, task, pictures = segmenter
    predict = jax.jit(learner.predict)
    masks = list[Masks]()
    for path in images:
        image = decoded(Path(path).read_bytes(), str(path))
        pixels = square(image, pictures.shape[0], pictures.shape[2])
        logits = predict(variables, task, pictures.prepare(jnp.asarray(pixels)[None]))
        masks.append(np.asarray(half_pixel_bilinear(logits, image.size[::-1])[0] > 0))
    return masks


def overlay(image: str | Path, mask: Masks) -> Image.Image:
    """A picture with what is marked in colour, for the eye."""
    pixels = np.asarray(decoded(Path(image).read_bytes(), str(image)))
    marked = (pixels * 0.4 + np.array([255, 60, 0]) * 0.6).astype(np.uint8)
    return Image.fromarray(np.where(mask[..., None], marked, pixels))


def _shown(
    image_path: Path, mask_path: Path, pictures: Pictures
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """A picture [size, size, C] and its mask [size, size] of 1, 0 and -1."""
    image = decoded(image_path.read_bytes(), str(image_path))
    mask = indexed_mask(mask_path.read_bytes(), str(mask_path), image.size, set(range(256)))
    values = [value for value in np.unique(mask).tolist() if value]
    if not values:
        raise ConfigError(f"{mask_path} marks nothing: give the pixels of the class another value")
    own = values[0]
    if values[1:] not in ([], [VOID]):
        told = ", ".join(map(str, values))
        raise ConfigError(
            f"{mask_path} has pixels of {told}, and a mask shows one class: make the others 0"
        )
    targets = np.where(mask == own, 1, np.where(mask == 0, 0, -1)).astype(np.int32)
    size = pictures.shape[0]
    stretched = Image.fromarray(targets).resize((size, size), Image.Resampling.NEAREST)
    if not (np.asarray(stretched) > 0).any():
        raise ConfigError(
            f"what {mask_path} marks is too small to be seen at {size} x {size} pixels: cut the "
            "picture and its mask to the part around it"
        )
    return square(image, size, pictures.shape[2]), np.asarray(stretched)
