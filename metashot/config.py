"""What a configuration is: frozen dataclasses of plain data, returned by `get_config()` in a file.

Nothing here imports jax, so that a command can show and check a configuration at once. The fields
of a learner's or a network's dataclass are the keywords of its constructor, with the same defaults.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import re
import runpy
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from . import base
    from .data import Splits


class ConfigError(ValueError):
    """A configuration that cannot run: what is wrong, in which field, and what would do."""


@dataclass(frozen=True)
class Glyphs:
    """Procedural handwriting: nothing to download."""

    train: int = 1000
    """classes for meta-training"""
    val: int = 100
    """classes for validation"""
    test: int = 200
    """classes for testing"""
    drawings: int = 20
    """drawings of each class"""
    size: int = 28
    """side of a picture in pixels"""
    seed: int = 0
    """of the glyphs"""

    def load(self) -> Splits:
        from .data import glyphs

        return glyphs(**vars(self))


@dataclass(frozen=True)
class Omniglot:
    """1,623 handwritten characters of 50 alphabets, 20 drawings each."""

    source: str | None = None
    """folder of the archives; by default METASHOT_DATA, or what `metashot data prepare` stored"""
    size: int = 28
    """side of a picture in pixels"""
    split: Literal["tuning", "characters", "alphabets"] = "tuning"
    """1,028/172/423 characters; 1,200/none/423 characters; 30/none/20 alphabets"""
    rotations: bool = True
    """turned by 90, 180 and 270 degrees, a character is three more classes"""
    repacked: bool = False
    """accept archives other than the official ones"""

    def load(self) -> Splits:
        from .data import omniglot

        return omniglot(**vars(self))


@dataclass(frozen=True)
class Conv4:
    """The field's four convolution blocks (metashot.nets.conv4)."""

    filters: int = 64
    """of each block"""
    blocks: int = 4
    """each halves the picture"""
    eps: float = 1e-3
    """of the batch norm"""
    bn_scale_init: Literal["ones", "uniform"] = "ones"
    """start of the batch norm's scale"""

    def build(self) -> base.Network:
        from .nets import conv4

        return conv4(**vars(self))


@dataclass(frozen=True)
class MetaLSTM:
    """The Meta-Learner LSTM (metashot.meta_lstm)."""

    network: Conv4 = field(default=Conv4(32))
    """the pupil's features"""
    steps: int = 12
    """updates of the pupil"""
    support_batch: int | None = None
    """support examples of an update; all by default"""
    gate_inputs: Literal["hidden", "raw"] = "hidden"
    """what the gates see: a first LSTM layer, or its inputs"""
    gate_feedback: Literal["preact", "value"] = "preact"
    """what the gates see of themselves"""
    grad_scale: Literal["mean", "mean_over_n"] = "mean"
    """the gradient of the mean loss, or that over the number of examples once more"""
    p: float = 10.0
    """of the preprocessing of losses and gradients"""
    w_init: float = 0.01
    """half width of the start of the cell's weights"""
    forget_range: tuple[float, float] = (4.0, 5.0)
    """start of the forget gate's bias"""
    input_range: tuple[float, float] = (-5.0, -4.0)
    """start of the input gate's bias"""
    bn_new_weight: float = 0.9
    """weight of an update's batch statistics in the running ones"""
    bn_unbiased: bool = True
    """run the unbiased variance"""
    transductive: bool = False
    """answer queries by the statistics of the query set"""
    second_order: bool = False
    """differentiate through the support gradients"""

    def build(self, way: int) -> base.Learner:
        from .learners.meta_lstm import meta_lstm

        return meta_lstm(**dict(vars(self), network=self.network.build(), way=way))


@dataclass(frozen=True)
class Prototypical:
    """The prototypical network (metashot.prototypical)."""

    network: Conv4 = field(default=Conv4(64))
    """embeds the pictures"""
    bn_new_weight: float = 0.1
    """weight of an episode's batch statistics in the stored ones"""

    def build(self, way: int) -> base.Learner:
        from .learners.prototypical import prototypical

        return prototypical(**dict(vars(self), network=self.network.build(), way=way))


@dataclass(frozen=True)
class Adam:
    """Adam, with a clip of the meta-gradient before it and a schedule of its rate."""

    rate: float = 1e-3
    """learning rate"""
    clip: float | None = None
    """largest norm of the gradient of all meta-parameters together"""
    warmup: int = 0
    """steps from rate 0 to the full rate"""
    decay: Literal["none", "cosine", "linear"] = "none"
    """how the rate falls to 0 by the last step"""
    hold: float = 0.0
    """share of the run before the fall begins"""

    def build(self, steps: int) -> Any:
        """The optax transformation for a run of that many steps."""
        import optax

        held = max(int(self.hold * steps), self.warmup)
        left = max(steps - held, 1)
        fall = {
            "none": optax.constant_schedule(self.rate),
            "cosine": optax.cosine_decay_schedule(self.rate, left),
            "linear": optax.linear_schedule(self.rate, 0.0, left),
        }[self.decay]
        rise = optax.linear_schedule(0.0, self.rate, self.warmup)
        full = optax.constant_schedule(self.rate)
        rate = optax.join_schedules([rise, full, fall], [self.warmup, held])
        clip = optax.identity() if self.clip is None else optax.clip_by_global_norm(self.clip)
        return optax.chain(clip, optax.adam(rate))


@dataclass(frozen=True)
class Sizes:
    """Of an episode."""

    way: int = 5
    """classes"""
    shot: int = 1
    """support images a class"""
    query: int = 15
    """query images a class"""


@dataclass(frozen=True)
class Experiment:
    """One meta-training run and its evaluation."""

    data: Any
    """where images come from"""
    learner: Any
    """what is trained"""
    steps: int
    """meta-steps"""
    train: Sizes = field(default=Sizes())
    """of training episodes"""
    test: Sizes = field(default=Sizes())
    """of validation and test episodes"""
    meta_batch: int = 1
    """episodes a meta-step"""
    chunk: int | None = None
    """episodes a device holds at once; by default 1 on a CPU, elsewhere its whole share"""
    optimizer: Adam = field(default=Adam())
    """of the meta-parameters"""
    validate_every: int = 1000
    """steps between validations, each of which saves a checkpoint"""
    validation_episodes: int = 100
    """on which checkpoints are compared"""
    test_episodes: int = 600
    """of the final figure"""
    log_every: int = 10
    """steps in one dispatch, between looks at the loss"""
    seed: int = 0
    """of the first variables and of all episodes"""


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
    known = installed()
    if str(name_or_path) in known:
        path = known[str(name_or_path)]
    else:
        path = Path(name_or_path)
        if not path.is_file():
            close = difflib.get_close_matches(str(name_or_path), known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ConfigError(
                f"there is no config {name_or_path}: {hint}installed are {', '.join(known)}; "
                "or give the path of a file"
            )
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


def _explain(error: TypeError) -> str:
    """A constructor's complaint about a field that does not exist, with the fields that do."""
    match = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    kind = match and globals().get(match[1])
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
    least = {"meta_batch": 1, "validation_episodes": 2, "test_episodes": 2, "log_every": 1}
    least |= {"steps": 1, "validate_every": 1, "optimizer.warmup": 0, "seed": 0}
    least |= {f"{part}.{name}": 1 for part in ("train", "test") for name in _names(Sizes)}
    values = {name: value for name, _, value in _leaves(config)}
    for name, bound in least.items():
        if values[name] < bound:
            raise ConfigError(f"{name} is {values[name]}; it is at least {bound}")
    for name in ("optimizer.rate", "optimizer.clip", "chunk"):
        if values[name] is not None and values[name] <= 0:
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
        return (
            isinstance(value, tuple)
            and len(value) == len(arguments)
            and all(map(_fits, value, arguments))
        )
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def as_text(config: Experiment) -> str:
    """A Python file whose get_config() returns this configuration."""
    kinds = sorted({(type(c).__module__, type(c).__name__) for c in _parts(config)})
    for module, name in kinds:
        if module in ("__main__", "<run_path>"):
            raise ConfigError(f"{name} is defined in a config file; put it into a module")
    imports = "\n".join(f"from {module} import {name}" for module, name in kinds)
    return f'"""What ran."""\n\n{imports}\n\n\ndef get_config():\n    return {_source(config)}\n'


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
