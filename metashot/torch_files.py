"""Torch's files of weights from before its version 1.6, read without Torch.

Such a file is a row of pickles (a magic number, a version, facts of the machine, the state dict,
the names of its storages), then each storage: how many numbers it holds, and the numbers. A pickle
can run any code; here it can name four things, none of which does more than hold its arguments.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

# What Torch writes. Others may ask for more memory than there is.
_OPCODES = {
    *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
}


class _Unpickler(pickle.Unpickler):
    """Tensors come out as the tuples of what would make them, storages by their dtype."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": collections.OrderedDict,
            "torch._utils._rebuild_tensor_v2": lambda *view: view,  # anew: a pickle can mark it
            "torch.FloatStorage": "<f4",
            "torch.LongStorage": "<i8",
        }
        if f"{module}.{name}" not in known:
            raise ValueError(f"it asks for {module}.{name}, which tensors do not need")
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Any:
        _, dtype, key, _, count, part_of = pid
        if part_of is not None:
            raise ValueError("a storage is part of another")
        return dtype, key, count


def read_state_dict(data: bytes, name: str) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict in the bytes of a file; float32 and int64 are known.

    Args:
        name: of the file, for messages.

    Raises:
        ValueError: the bytes are cut short, are of another format, or hold anything but tensors.
    """
    if data.startswith(b"PK"):
        raise ValueError(f"{name} is in Torch's newer format: store its tensors as safetensors")
    try:
        return _read(io.BytesIO(data))
    except Exception as error:  # a pickle of damaged bytes may raise anything
        raise ValueError(
            f"{name} is not a whole state dict in Torch's format before 1.6 ({error})"
        ) from error


def _read(stream: io.BytesIO) -> dict[str, NDArray[Any]]:
    if (_unpickled(stream), _unpickled(stream)) != (MAGIC, PROTOCOL):
        raise ValueError("it starts otherwise")
    if _unpickled(stream)["little_endian"] is not True:
        raise ValueError("its numbers are big-endian")
    views = dict(_unpickled(stream))
    if not all(isinstance(name, str) for name in views):
        raise ValueError("its names are no text")
    needed = {key: (dtype, count) for ((dtype, key, count), *_) in views.values()}
    keys = _unpickled(stream)
    if sorted(keys) != sorted(needed):
        raise ValueError("it lists other storages than its tensors use")
    storages = {key: _storage(stream, *needed[key]) for key in keys}
    if stream.read(1):
        raise ValueError("it goes on after its last number")
    return {name: _tensor(storages, name, *view) for name, view in views.items()}


def _unpickled(stream: io.BytesIO) -> Any:
    """The next pickle of the stream, run once its opcodes have been looked at."""
    start, most = stream.tell(), len(stream.getbuffer())
    for opcode, argument, _ in pickletools.genops(stream):
        too_far = opcode.name == "LONG_BINPUT" and int(argument or 0) > most
        if opcode.name not in _OPCODES or too_far:
            raise ValueError(f"it has {opcode.name} {argument}, which Torch does not write")
    stream.seek(start)
    return _Unpickler(stream).load()


def _storage(stream: io.BytesIO, dtype: str, count: int) -> NDArray[Any]:
    if int.from_bytes(stream.read(8), "little") != count:
        raise ValueError("a storage has another length than its tensors say")
    return np.frombuffer(stream.read(count * np.dtype(dtype).itemsize), dtype, count)


def _tensor(
    storages: dict[str, NDArray[Any]],
    name: str,
    storage: tuple[Any, ...],
    offset: int,
    size: tuple[int, ...],
    strides: tuple[int, ...],
    *_: Any,  # whether it takes a gradient, hooks
) -> NDArray[Any]:
    """A copy of the part of its storage that a tensor looks at."""
    numbers = storages[storage[1]]
    last = offset + sum((n - 1) * step for n, step in zip(size, strides, strict=True))
    within = min(0, offset, *size, *strides) == 0 and last < len(numbers)
    if not within or math.prod(size) > len(numbers):
        raise ValueError(f"{name} looks beyond its storage")
    steps = [step * numbers.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(numbers[offset:], size, steps).copy()
