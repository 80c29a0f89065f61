"""The command `metashot`: one file a command, none of which loads jax before it must."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import os
import re
import sys
from typing import Any

from ..places import cache_folder

COMPILED = "JAX_COMPILATION_CACHE_DIR"
LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"  # of what is kept there, 1 by default

COMMANDS = {
    "train": "meta-train a learner from a config",
    "evaluate": "measure a trained learner on episodes of new classes",
    "enroll": "add classes to a trained classifier from a folder of pictures",
    "predict": "name what pictures show",
    "segment": "mark in pictures what a picture and a mask show",
    "classes": "list the classes that a classifier stores, or remove some",
    "export": "write a classifier as one file that needs jax, but not metashot",
    "plot": "draw a run, and an episode with its answers",
    "sweep": "train and test one run a seed",
    "search": "train with numbers drawn at random, and rank them by validation",
    "data": "prepare a data set, or look at it",
    "bench": "how fast training and evaluation run here, and beside PyTorch",
    "configs": "list the installed configs",
}

HELP = """example:
  metashot train glyphs_meta_lstm

usage: metashot COMMAND [--help]

commands:
{commands}

--debug after a command shows the traceback of an error. Compiled programs are kept in
{compiled} (JAX_COMPILATION_CACHE_DIR names another folder), so that the
second start of the same work need not compile; --no-compilation-cache keeps none.
Exit codes: 0 done, 1 a failure in the work, 2 a mistake in the call, 130 interrupted."""


class CallError(Exception):
    """A mistake in the call, in one sentence."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    switches = {"--debug", "--no-compilation-cache"} & set(arguments)
    arguments = [a for a in arguments if a not in switches]
    compiled = os.environ.get(COMPILED) or str(cache_folder() / "compiled")
    if not arguments or arguments[0] in ("-h", "--help"):
        commands = "\n".join(f"  {k:10}{v}" for k, v in COMMANDS.items())
        print(HELP.format(commands=commands, compiled=compiled))
        return 0
    if "--no-compilation-cache" in switches or arguments[0] == "bench":  # which times compiling
        os.environ.pop(COMPILED, None)
    elif "jax" not in sys.modules:  # which reads its environment once
        os.environ[COMPILED] = compiled
        os.environ.setdefault(LEAST, "0")  # dozens of small programs take a second to compile
    name = arguments[0]
    try:
        if name not in COMMANDS:
            raise CallError(f"there is no command {name}; there are {', '.join(COMMANDS)}")
        return importlib.import_module(f".{name}", __package__).main(arguments[1:])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if "--debug" in switches:
            raise
        print(f"metashot: {_one_line(error)}", file=sys.stderr)
        # ValueError is what the library says of wrong arguments; the rest went wrong in the work.
        return 2 if isinstance(error, (CallError, ValueError)) else 1


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, (CallError, ValueError, FloatingPointError, OSError)):
        return text
    return f"{type(error).__name__}: {text}"


def parse(kind: Any, arguments: list[str], *, command: str, example: str, **keywords: Any) -> Any:
    """Parse arguments into a dataclass by tyro; its complaints become one sentence.

    Raises:
        CallError: an unknown option or a value of a wrong type.
    """
    import tyro

    settings = {"prog": f"metashot {command}", "config": (tyro.conf.AvoidSubcommands,), **keywords}
    said = io.StringIO()

    def run(*arguments: str) -> Any:
        said.seek(said.truncate(0))
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return tyro.cli(kind, args=arguments, return_unknown_args=True, **settings)

    if {"-h", "--help"} & set(arguments):
        print(f"example:\n  {example}\n")
        tyro.cli(kind, args=["--help"], **settings)
    try:
        parsed, unknown = run(*arguments)
    except SystemExit as stop:
        raise CallError(_complaint(said.getvalue())) from stop
    if unknown:
        with contextlib.suppress(SystemExit):
            run("--help")
        raise CallError(_unknown(unknown[0], said.getvalue()))
    return parsed


def _complaint(box: str) -> str:
    """What tyro's box says between its title and its first rule or gap."""
    words: list[str] = []
    for line in box.splitlines()[1:]:
        text = line.strip(" │|")
        if not text.strip("─-╰╯+"):
            if words:
                break
            continue
        words.append(text)
    return " ".join(words)


def _unknown(argument: str, help: str) -> str:
    options = sorted(set(re.findall(r"--\w[\w.-]*", help)))
    close = difflib.get_close_matches(argument, options, n=1, cutoff=0.5)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"there is no option {argument}: {meant}there are {', '.join(options)}"


if __name__ == "__main__":
    sys.exit(main())
