"""Configurations as files: found, read, checked, and written as text that runs again."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.resources
import re
import runpy
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from .experiment import Experiment, MaskSizes, Redraw, Sizes

Ranges = dict[str, tuple[float, float]]  # the least and most of numbers, by dotted names


class ConfigError(ValueError):
    """A configuration that cannot run: what is wrong, in which field, and what would do."""


def installed() -> dict[str, Path]:
    """The configurations that come with metashot, by name."""
    folder = Path(str(importlib.resources.files("metashot.configs")))
    return {p.stem: p for p in sorted(folder.glob("*.py")) if not p.stem.startswith("_")}


def summary(path: Path) -> str:
    """The first line of a configuration's docstring."""
    match = re.search(r'"""(.+)', path.read_text())
    return match[1].strip().rstrip('"') if match else ""


def read(name_or_path: str | Path) -> Experiment:
    """The configuration of an installed name or of a file.

    Raises:
        ConfigError: no such name or file, a file without get_config, a field that does not exist.
    """
    path = _path(name_or_path)
    try:
        namespace = runpy.run_path(str(path))
        if not callable(namespace.get("get_config")):
            raise ConfigError(f"{path} has no function get_config() that returns an Experiment")
        config = namespace["get_config"]()
    except TypeError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(config, Experiment):
        kind = type(config).__name__
        raise ConfigError(f"{path}: get_config() returns {kind}, not an Experiment")
    check(config)
    return config


def ranges(name_or_path: str | Path) -> Ranges:
    """What a configuration's get_ranges() gives to `metashot search`.

    Raises:
        ConfigError: no such name or file, a file without get_ranges.
    """
    path = _path(name_or_path)
    namespace = runpy.run_path(str(path))
    if not callable(namespace.get("get_ranges")):
        raise ConfigError(
            f"{path} has no function get_ranges(); it returns what to draw by dotted names, "
            'such as {"optimizer.rate": (1e-4, 1e-1)}'
        )
    return namespace["get_ranges"]()


def _path(name_or_path: str | Path) -> Path:
    known = installed()
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    path = Path(name_or_path)
    if not path.is_file():
        close = difflib.get_close_matches(str(name_or_path), known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(
            f"there is no config {name_or_path}: {hint}installed are {', '.join(known)}; "
            "or give the path of a file"
        )
    return path


def _explain(error: TypeError) -> str:
    """A constructor's complaint about a field that does not exist, with the fields that do."""
    match = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    kind = match and getattr(importlib.import_module("metashot.config"), match[1], None)
    if not (match and kind):
        return str(error)
    return f"{match[1]} has no field {match[2]}; its fields are {', '.join(_names(kind))}"


def _names(kind: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]


def check(config: Experiment) -> None:
    """Refuse values of a wrong type, and numbers that no run can have.

    Raises:
        ConfigError: naming the field.
    """
    for name, hint, value in _leaves(config):
        if not _fits(value, hint):
            wanted = getattr(hint, "__name__", None) or str(hint)
            if typing.get_origin(hint) is Literal:
                wanted = "one of " + ", ".join(map(repr, typing.get_args(hint)))
            raise ConfigError(f"{name} is {value!r}; it must be {wanted.replace('typing.', '')}")
    if not isinstance(config.test, Sizes | MaskSizes):
        raise ConfigError(f"test is {config.test}; it must be Sizes, with one way and one shot")
    if isinstance(config.train, MaskSizes) != isinstance(config.test, MaskSizes):
        raise ConfigError(
            f"train is {config.train} and test is {config.test}; with masks, both are MaskSizes"
        )
    least = {"meta_batch": 1, "validation_episodes": 2, "test_episodes": 2, "log_every": 1}
    least |= {"steps": 1, "validate_every": 1, "seed": 0}
    least |= {"optimizer.warmup": 0, "optimizer.decay_every": 1, "optimizer.halve_every": 1}
    least |= {f"{part}.{name}": 1 for part in ("train", "test") for name in _names(Sizes)}
    least |= {"train.size": 1, "train.shift": 0}
    least |= {f"redraw.{name}": 0 for name in _names(Redraw)}
    # An optimiser has fields that another has not.
    values = {name: value for name, _, value in _leaves(config) if value is not None}
    for name, bound in least.items():
        value = values.get(name, bound)
        if isinstance(value, str):  # one of a few words
            continue
        if (min(value) if isinstance(value, tuple) else value) < bound:
            raise ConfigError(f"{name} is {values[name]}; it is at least {bound}")
    for name in ("optimizer.rate", "optimizer.clip", "chunk"):
        if name in values and values[name] <= 0:
            raise ConfigError(f"{name} is {values[name]}; it is above 0")
    if config.validate_every % config.log_every:
        raise ConfigError(
            f"validate_every is {config.validate_every}; it must be a multiple of log_every, "
            f"{config.log_every}"
        )


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, type, value) of every field, dataclasses opened."""
    hints = typing.get_type_hints(type(config))
    for part in dataclasses.fields(config):
        value = getattr(config, part.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{part.name}.")
        else:
            yield prefix + part.name, hints[part.name], value


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return dataclasses.is_dataclass(value)  # the parts of an Experiment that a user may write
    if origin is Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = arguments[:1] * len(value) if ... in arguments else arguments
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def as_text(config: Experiment) -> str:
    """A Python file whose get_config() returns this configuration."""
    kinds = sorted({(_home(type(c)), type(c).__name__) for c in _parts(config)})
    for module, name in kinds:
        if module in ("__main__", "<run_path>"):
            raise ConfigError(f"{name} is defined in a config file; put it into a module")
    imports = "\n".join(f"from {module} import {name}" for module, name in kinds)
    return f'"""What ran."""\n\n{imports}\n\n\ndef get_config():\n    return {_source(config)}\n'


def _home(kind: type) -> str:
    """The module to import it from: our own are all in metashot.config."""
    ours = "metashot.config"
    return ours if kind.__module__.startswith(f"{ours}.") else kind.__module__


def _source(value: Any, indent: str = "    ") -> str:
    if not dataclasses.is_dataclass(value):
        return repr(value)
    inner = indent + "    "
    lines = [
        f"{inner}{part.name}={_source(getattr(value, part.name), inner)},\n"
        for part in dataclasses.fields(value)
    ]
    return f"{type(value).__name__}(\n{''.join(lines)}{indent})"


def _parts(config: Any) -> Iterator[Any]:
    """The configuration and the dataclasses within it."""
    yield config
    for part in dataclasses.fields(config):
        value = getattr(config, part.name)
        if dataclasses.is_dataclass(value):
            yield from _parts(value)
