"""`metashot data prepare NAME` and `metashot data show NAME`: fill the cache, and look."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import tyro

from .. import config as configs
from .main import CallError, parse
from .run import left_out_named

if TYPE_CHECKING:
    from ..data import Dataset, Splits

Source = TypeVar("Source")

HELP = """example:
  metashot data prepare omniglot --source ~/Downloads
  metashot data show glyphs --classes 5 --out glyphs.png

usage: metashot data prepare|show NAME [OPTIONS]

prepare decodes a data set into the cache that training reads; show draws a contact sheet of it.

names, each with options of its own (metashot data prepare NAME --help):
{names}"""


@dataclass(frozen=True)
class Omniglot(configs.Omniglot):
    """1,623 handwritten characters of 50 alphabets, 20 drawings each."""

    download: bool = False
    """fetch the official archives first"""

    def load(self) -> Splits:
        from ..data import prepare_omniglot

        given = vars(self).copy()
        if given.pop("download"):
            prepare_omniglot(self.source, size=self.size, repacked=self.repacked, download=True)
        return configs.Omniglot(**given).load()


SOURCES = {**configs.SOURCES, "omniglot": Omniglot}
EXAMPLES = {  # options of some
    "omniglot": " --source ~/Downloads",
    "class_folders": " --source photos.zip",
    "tfds": " --name mnist",
}


@dataclass(frozen=True)
class Prepare(Generic[Source]):
    """Decode a data set once, into the cache that training reads."""

    data: Annotated[Source, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class Show(Generic[Source]):
    """Draw a contact sheet: some images of some classes, a row a class."""

    data: Annotated[Source, tyro.conf.arg(name="")]
    part: Literal["train", "val", "test"] = "train"
    """whose classes"""
    out: Path | None = None
    """file of the sheet; NAME_PART.png by default"""
    overwrite: bool = False
    """replace that file if it exists"""
    classes: int = 10
    """rows"""
    images: int = 10
    """of each class"""
    draw: int = 0
    """number of the random draw of classes and images"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    if not arguments or {"-h", "--help"} & set(arguments[:2]):
        names = (f"  {name:15}{kind.__doc__}" for name, kind in SOURCES.items())
        print(HELP.format(names="\n".join(names)))
        return 0
    command, *rest = arguments
    if command not in ("prepare", "show"):
        raise CallError(f"there is no data command {command}; there are prepare and show")
    if not rest or rest[0] not in SOURCES:
        asked = f"there are no data {rest[0]}:" if rest else "which data?"
        raise CallError(f"{asked} after {command} comes one of {', '.join(SOURCES)}")
    name, *rest = rest
    kind: Any = Prepare if command == "prepare" else Show
    options = parse(
        kind[SOURCES[name]],
        rest,
        command=f"data {command} {name}",
        example=f"metashot data {command} {name}{EXAMPLES.get(name, '')}",
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff),
    )
    return _prepare(name, options) if command == "prepare" else _show(name, options)


def _prepare(name: str, options: Prepare[Any]) -> int:
    print(f"preparing {name}", file=sys.stderr)
    splits, whole = _load(options.data)

    from ..data import cache

    for part, dataset in splits._asdict().items():
        if dataset:
            print(f"{name} {part}: {_described(dataset)}")
    print(f"ready in {cache.folder()}")
    return 0 if whole else 1


def _show(name: str, options: Show[Any]) -> int:
    out = options.out or Path(f"{name}_{options.part}.png")
    if out.suffix.lower() != ".png":
        raise CallError(f"--out is {out}; a contact sheet is a PNG file, so its name ends in .png")
    if out.exists() and not options.overwrite:
        raise CallError(f"{out} exists: name another file with --out, or give --overwrite")
    if not out.parent.is_dir():
        raise CallError(f"there is no folder {out.parent} for {out.name}: make it, or change --out")
    splits, whole = _load(options.data)
    dataset = getattr(splits, options.part)
    if dataset is None:
        raise CallError(f"{name} has no {options.part} part: --part is train or test")

    from ..data.contact_sheet import contact_sheet

    counts = {"classes": options.classes, "images": options.images}
    contact_sheet(dataset, **counts, seed=options.draw).save(out)
    print(f"{name} {options.part}: {_described(dataset)}")
    print(f"contact sheet: {out}")
    return 0 if whole else 1


def _load(source: Any) -> tuple[Splits, bool]:
    """The data, and whether no file was left out; those that were are named."""
    with left_out_named() as left_out:  # from here on, jax
        splits = source.load()
    return splits, not left_out


def _described(dataset: Dataset) -> str:
    """What it holds, in one line."""
    images, side = len(dataset.arrays.images), "x".join(map(str, dataset.shape))
    return (
        f"{dataset.classes:,} classes, {images:,} images of {side}, {dataset.smallest} in the "
        "smallest class"
    )
