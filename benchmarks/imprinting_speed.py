"""How fast weight imprinting's commands are beside PyTorch, and what up to 100,000 classes cost.

    METASHOT_DATA=DIR python benchmarks/imprinting_speed.py commands PYTHON [ROW ...] [--repeats 5]
    METASHOT_DATA=DIR python benchmarks/imprinting_speed.py classes [SIZE ...]

PYTHON is an interpreter that has what torch_imprinting.py needs. The pictures are 12 to enroll and
12 to predict of each of Caltech-101's 25 novel classes (DIR/caltech101). Rows `enroll` and
`predict` are whole commands that find their programs compiled; beside them stands their first
start, without. `enroll_warm` and `predict_warm` are the same work where it has been done before.
SIZE is that of an embedding: 1280 is EfficientNet-Lite0's, 64 that of drawn characters which comes
with metashot. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import results

import metashot
from metashot import bench, enrolment, runs, yardstick
from metashot.base import Array
from metashot.cli.main import COMPILED
from metashot.data.pictures import squares
from metashot.devices import compiler_options
from metashot.recognition import Classifier, embeddings, stored_task

Clock = Callable[[], float]  # does something and gives the seconds that it took

EACH = 12  # pictures of a class to enroll, and to predict
ROWS = ("enroll", "enroll_warm", "predict", "predict_warm")
THEIRS = str(Path(__file__).parent / "torch_imprinting.py")
VARIANTS = {"": (), "_channels_last": ("--channels-last",)}

CLASSES = (100, 1000, 10_000, 100_000)
BODIES = {1280: enrolment.pretrained, 64: enrolment.embedded}
SHOTS, TOP, MANY = 5, 3, 32


def unpack(place: Path) -> dict[str, list[str]]:
    """Pictures to enroll and to predict, in class folders within folders of these names."""
    source = Path(os.environ["METASHOT_DATA"]) / "caltech101"
    found: dict[str, list[str]] = {"enroll": [], "predict": []}
    with zipfile.ZipFile(source / "caltech101_128px.zip") as archive:
        for name in (source / "split_novel.txt").read_text().split():
            members = sorted(m for m in archive.namelist() if m.startswith(f"{name}/"))
            for i, part in enumerate(found):
                chosen = members[i * EACH : (i + 1) * EACH]
                found[part] += [archive.extract(member, place / part) for member in chosen]
    return found


def clock(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


# --- Commands


def whole(work: str, place: Path, pictures: list[str]) -> Clock:
    """One of our commands, from the start of its process to the end."""
    new = place / "new"
    options = {
        "enroll": ["--pretrained", str(place / work), "--out", str(new)],
        "predict": [str(place / "run"), *pictures],
    }
    command = [sys.executable, "-m", "metashot.cli.main", work, *options[work]]
    environment = {**os.environ, COMPILED: str(place / f"compiled_{work}")}

    def ours() -> float:
        shutil.rmtree(new, ignore_errors=True)
        return clock(lambda: run(command, environment))

    return ours


def warm(work: str, place: Path, pictures: list[str]) -> Clock:
    """The work of a command in this process."""
    if work == "enroll":
        before = enrolment.pretrained()
        return partial(clock, lambda: metashot.enroll(before, place / work).variables)
    mine = metashot.stored(place / "run")
    return partial(clock, lambda: metashot.classify(mine, pictures, top=TOP))


@contextmanager
def peer(command: list[str], is_warm: bool) -> Iterator[Clock]:
    """The same by PyTorch."""
    if is_warm:
        with yardstick.running([*command, "--warm"]) as seconds:
            yield lambda: seconds(1)
    else:
        yield lambda: clock(lambda: run(command))


def commands(python: str, names: list[str], repeats: int) -> None:
    _, torch = yardstick.torch_yardsticks(python, "cpu")
    facts = {**bench.about(), "versions": {**runs.versions(), "torch": torch}}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pictures = unpack(place)
        theirs = {k: [python, THEIRS, k, str(place / "torch.pt"), *v] for k, v in pictures.items()}
        run(theirs["enroll"])
        mine = metashot.enroll(enrolment.pretrained(), place / "enroll")
        enrolment.save(mine, place / "run")
        for name in names:
            work, _, is_warm = name.partition("_")
            ours = (warm if is_warm else whole)(work, place, pictures[work])
            first = ours()
            for suffix, switches in VARIANTS.items():
                with peer([*theirs[work], *switches], bool(is_warm)) as seconds:
                    found = bench.figures(*bench.alternate(ours, seconds, repeats))
                count = len(pictures[work])
                row = {"name": name + suffix, "images": count, **found, **facts}
                row |= {"value": count / found["seconds"]}
                row |= {} if is_warm else {"first_seconds": first}
                again = f"python benchmarks/imprinting_speed.py commands PYTHON {name}"
                results.add("imprinting_speed", {**row, "command": f"{again} --repeats {repeats}"})


# --- Classes


def imprinted(body: Classifier, columns: Array) -> Callable[[list[str]], Any]:
    """Answers by columns [classes, D]."""
    params, state = body.variables["params"], body.variables["state"]
    sums = {"sum": jnp.copy(columns), "count": jnp.ones(len(columns))}
    variables: Any = {"params": {**params, "columns": columns}, "state": {**state, **sums}}
    task = stored_task(body.learner, variables, body.pictures)
    names = tuple(map(str, range(len(columns))))
    classifier = body._replace(variables=variables, task=task, names=names)
    return lambda paths: metashot.classify(classifier, paths, top=TOP)


def neighbors(body: Classifier, columns: Array) -> Callable[[list[str]], Any]:
    """Answers by the nearest of some embeddings of each class; the columns stand for these."""
    stored = jnp.repeat(columns, SHOTS, axis=0)  # [classes * SHOTS, D]

    def nearest(z: Array, stored: Array) -> tuple[Array, Array]:
        each = (z @ stored.T).reshape(len(z), -1, SHOTS)
        return jax.lax.top_k(each.max(-1), TOP)

    program = jax.jit(nearest, compiler_options=compiler_options())

    def answer(paths: list[str]) -> Any:
        read = lambda i: Path(paths[i]).read_bytes()
        pixels, _ = squares(read, len(paths), **body.pictures.reading)
        return program(jnp.asarray(embeddings(body, pixels)), stored)

    return answer


KINDS = {"imprinted": imprinted, "neighbors": neighbors}


def resident() -> int:
    """The bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def latency(answer: Callable[[list[str]], Any], paths: list[str], repeats: int) -> float:
    clock(partial(answer, paths))  # which compiles
    return statistics.median(clock(partial(answer, paths)) for _ in range(repeats))


def answers(kind: str, size: int) -> None:
    """Prints a line for each number of classes."""
    body = BODIES[size]()
    with tempfile.TemporaryDirectory() as folder:
        paths = unpack(Path(folder))["predict"][:MANY]
        for count in CLASSES:
            columns = np.random.default_rng(0).standard_normal((count, size), np.float32)
            answer = KINDS[kind](body, jnp.asarray(columns))
            del columns
            seconds = {"one": latency(answer, paths[:1], 11), "many": latency(answer, paths, 3)}
            told = {**seconds, "bytes": resident()}
            print(json.dumps({f"{kind}_{k}": v for k, v in told.items()}), flush=True)
            del answer


def classes(sizes: list[int]) -> None:
    for size in sizes:
        lines = []
        for kind in KINDS:
            command = [sys.executable, __file__, "answers", kind, str(size)]
            told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            lines.append([json.loads(line) for line in told.splitlines()])
        for count, *parts in zip(CLASSES, *lines, strict=True):
            row = {"name": f"{size}_{count}", "size": size, "classes": count}
            for part in parts:
                row |= part
            again = f"python benchmarks/imprinting_speed.py classes {size}"
            results.add(
                "imprinting_speed", {**row, "value": row["imprinted_one"], "command": again}
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("commands")
    part.add_argument("python", metavar="PYTHON")
    part.add_argument("rows", metavar="ROW", nargs="*", choices=[[], *ROWS])
    part.add_argument("--repeats", type=int, default=5)
    part = parts.add_parser("classes")
    part.add_argument("sizes", metavar="SIZE", nargs="*", type=int, choices=[[], *BODIES])
    part = parts.add_parser("answers")
    part.add_argument("kind", choices=KINDS)
    part.add_argument("size", type=int)
    options = parser.parse_args()
    if options.part == "commands":
        commands(options.python, options.rows or list(ROWS), options.repeats)
    elif options.part == "classes":
        classes(options.sizes or list(BODIES))
    else:
        answers(options.kind, options.size)
