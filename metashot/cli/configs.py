"""`metashot configs`: what is installed, one line each."""

from __future__ import annotations

from .. import config
from .main import CallError


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    if {"-h", "--help"} & set(arguments):
        print("example:\n  metashot configs\n\nLists the installed configs, one line each.")
        return 0
    if arguments:
        raise CallError(f"configs takes no arguments, not {arguments[0]}")
    found = config.installed()
    width = max(map(len, found))
    for name, path in found.items():
        print(f"{name:{width}}  {config.summary(path)}")
    return 0
