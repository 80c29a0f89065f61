"""Configurations: what is refused, in which words, and that what ran can be run again."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import jax
import pytest

import metashot
from metashot import config, loading, nets
from metashot.config import ConfigError, Experiment, Glyphs, MetaLSTM, Prototypical
from metashot.learners.meta_lstm import meta_lstm
from metashot.learners.prototypical import prototypical

TINY = Experiment(data=Glyphs(), learner=MetaLSTM(), steps=10)


def write(folder: Path, body: str) -> Path:
    path = folder / "mine.py"
    path.write_text(f"from metashot.config import *\n\n\ndef get_config():\n    return {body}\n")
    return path


@pytest.mark.parametrize("name", config.installed())
def test_installed_configs_are_valid_and_described(name: str):
    read = config.read(name)
    assert isinstance(read, Experiment)
    assert config.summary(config.installed()[name]).endswith(".")


@pytest.mark.parametrize(
    ("kind", "constructor", "given_elsewhere"),
    [
        (MetaLSTM, meta_lstm, {"network", "way", "trace"}),
        (Prototypical, prototypical, {"network", "way"}),
        (config.Matching, metashot.matching, {"network", "way"}),
        (config.MemoryMatching, metashot.memory_matching, {"way"}),
        (config.Siamese, metashot.siamese, {"network", "way"}),
        (config.Pairs, metashot.pairs, {"dataset"}),
        (config.MAML, metashot.maml, {"network", "way"}),
        (config.ANIL, metashot.anil, {"network", "way"}),
        (config.NearestEmbedding, metashot.nearest_embedding, {"network", "way"}),
        (config.Conv4, nets.conv4, set()),
        (config.Pyramid, nets.pyramid, set()),
        (config.Glyphs, metashot.data.glyphs, set()),
        (config.Omniglot, metashot.data.omniglot, set()),
        (config.ClassFolders, metashot.data.class_folders, {"source"}),
        (config.TinyImageNet, metashot.data.tiny_imagenet, set()),
        (config.Caltech101, metashot.data.caltech101, set()),
        (config.MiniImageNet, metashot.data.mini_imagenet, set()),
        (config.CUB, metashot.data.cub, set()),
        (config.INaturalist, metashot.data.inaturalist, set()),
        (config.Tfds, metashot.data.tfds, {"name"}),
    ],
)
def test_fields_are_the_constructors_keywords(
    kind: Any, constructor: Any, given_elsewhere: set[str]
):
    keywords = inspect.signature(constructor).parameters
    fields = {f.name: f.default for f in dataclasses.fields(kind)}
    assert set(fields) | given_elsewhere == set(keywords)
    for name in set(fields) - given_elsewhere:
        assert fields[name] == keywords[name].default, name


def test_segmentations_fields_are_the_keywords_of_learner_and_branches():
    fields = {f.name: f.default for f in dataclasses.fields(config.Segmentation)}
    tied = inspect.signature(nets.tied_branches).parameters
    own = inspect.signature(metashot.one_shot_segmentation).parameters
    keywords = {**tied, **own}
    left_out = {"branches", "frozen", "scale", "bias", "answers"}
    assert fields.keys() == keywords.keys() - left_out
    for name in fields.keys() - {"network"}:
        assert fields[name] == keywords[name].default


def test_imprintings_fields_are_its_constructors_keywords():
    """But for `classes`: those of the training data are its way, whatever an episode's is."""
    fields = {f.name: f.default for f in dataclasses.fields(config.Imprinting)}
    keywords = inspect.signature(metashot.imprinting).parameters
    fields["way"] = fields.pop("classes")
    assert set(fields) == set(keywords)
    assert all(fields[k] == keywords[k].default for k in set(fields) - {"network"})


def test_learnets_fields_are_its_constructors_keywords():
    """But for the two that choose a learner, the layers, and where a run begins."""
    fields = {f.name: f.default for f in dataclasses.fields(config.Learnet)}
    keywords = inspect.signature(metashot.learnet).parameters
    assert set(fields) - {"architecture", "stream", "start"} == set(keywords) - {
        "layers",
        "way",
        "single_stream",
    }
    assert all(fields[k] == keywords[k].default for k in set(fields) & set(keywords))
    assert config.Stream().layers() == nets.streams.CHARACTERS


@pytest.mark.parametrize("comparison", ["inner_product", "euclidean", "weighted_l1"])
@pytest.mark.parametrize(
    ("architecture", "count"),
    [
        ("siamese_shared", 550_880),
        ("siamese_shared_factorised", 532_000),
        ("siamese_unshared", 1_101_760),
        ("siamese_factorised", 1_064_000),
        ("siamese_learnet", 2_196_480),
        ("learnet", 2_721_280),
    ],
)
def test_two_switches_make_the_papers_table(architecture: Any, comparison: Any, count: int):
    learner = config.Learnet(architecture, comparison).build(20)
    params = loading.shapes_of(learner, (28, 28, 1))["params"]
    extra = 513 if comparison == "weighted_l1" else 2
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count + extra


def test_as_text_gives_back_the_same_configuration(tmp_path: Path):
    changed = dataclasses.replace(
        TINY, learner=MetaLSTM(steps=3, forget_range=(1.0, 2.0)), chunk=2, meta_batch=4
    )
    path = tmp_path / "config.py"
    path.write_text(config.as_text(changed))
    assert config.read(path) == changed


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("Experiment(data=Glyphs(), learner=MetaLSTM(), stepz=3)", ["stepz", "validate_every"]),
        ("Experiment(data=Glyphs(), learner=MetaLSTM(inner=3), steps=3)", ["inner", "gate_inputs"]),
        ("Experiment(data=Glyphs(), learner=MetaLSTM(), steps='3')", ["steps", "'3'", "int"]),
        ("Experiment(data=Glyphs(), learner=MetaLSTM(), steps=True)", ["steps", "True"]),
        ("Experiment(data=Glyphs(), learner=MetaLSTM(), steps=0)", ["steps", "0"]),
        ("Experiment(data=Glyphs(), learner=3, steps=1)", ["learner", "3"]),
        (
            "Experiment(data=Glyphs(), learner=MetaLSTM(gate_inputs='x'), steps=1)",
            ["learner.gate_inputs", "'hidden'", "'raw'"],
        ),
        (
            "Experiment(data=Glyphs(), learner=MetaLSTM(forget_range=(1.0,)), steps=1)",
            ["learner.forget_range"],
        ),
        (
            "Experiment(data=Glyphs(), learner=MetaLSTM(), steps=1, train=Sizes(way=0))",
            ["train.way", "at least 1"],
        ),
        (
            "Experiment(data=Glyphs(), learner=MetaLSTM(), steps=1, train=MixedSizes(way=(0, 5)))",
            ["train.way is (0, 5)", "at least 1"],
        ),
        (
            "Experiment(data=Glyphs(), learner=MetaLSTM(), steps=1, test=MixedSizes())",
            ["test is MixedSizes", "must be Sizes"],
        ),
        (
            "Experiment(data=Glyphs(), learner=MetaLSTM(), steps=1, optimizer=Adam(rate=-1.0))",
            ["optimizer.rate", "above 0"],
        ),
        (
            "Experiment(data=Glyphs(), learner=MetaLSTM(), steps=1, optimizer=SGD(decay_every=0))",
            ["optimizer.decay_every", "at least 1"],
        ),
        (
            "Experiment(data=Glyphs(), learner=MetaLSTM(), steps=1, validate_every=15)",
            ["validate_every", "log_every"],
        ),
        (
            "Experiment(data=Glyphs(), learner=FineTune(rates=(0.1, 'x')), steps=1, train=Batch())",
            ["learner.rates", "'x'"],
        ),
        (
            "Experiment(data=Glyphs(), learner=FineTune(), steps=1, train=Batch(0))",
            ["train.size", "at least 1"],
        ),
        (
            "Experiment(data=Glyphs(), learner=MetaLSTM(), steps=1, redraw=Redraw(shear=-0.1))",
            ["redraw.shear", "at least 0"],
        ),
        ("7", ["get_config()", "int"]),
        ("1 / 0", ["ZeroDivisionError"]),
    ],
)
def test_a_bad_file_is_refused_by_the_fields_name(tmp_path: Path, body: str, said: list[str]):
    with pytest.raises(ConfigError) as refused:
        config.read(write(tmp_path, body))
    assert all(word in str(refused.value) for word in said), str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_without_get_config_is_refused(tmp_path: Path):
    path = tmp_path / "empty.py"
    path.write_text("x = 1\n")
    with pytest.raises(ConfigError, match="no function get_config"):
        config.read(path)


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match="did you mean glyphs_meta_lstm"):
        config.read("glyph_meta_lstm")


def test_a_whole_number_passes_for_a_float():
    config.check(dataclasses.replace(TINY, optimizer=config.Adam(rate=1)))


@pytest.mark.parametrize("decay", ["none", "cosine", "linear"])
def test_rate_rises_holds_and_falls(decay: Any):
    import jax.numpy as jnp

    adam = config.Adam(rate=0.1, warmup=10, decay=decay, hold=0.5)
    optimizer = adam.build(100)
    state = optimizer.init(jnp.zeros(()))
    sizes = []
    for _ in range(101):
        update, state = optimizer.update(jnp.ones(()), state)  # Adam of a constant: -rate
        sizes.append(-float(update))
    assert sizes[0] == 0
    assert sizes[5] == pytest.approx(0.05, rel=1e-4)
    assert [sizes[10], sizes[50]] == pytest.approx([0.1, 0.1], rel=1e-4)
    assert sizes[75] == pytest.approx(0.1 if decay == "none" else 0.05, rel=1e-3)
    assert sizes[100] == pytest.approx(0.1 if decay == "none" else 0.0, abs=1e-6)


def test_the_rate_is_halved_in_stairs():
    import jax.numpy as jnp

    optimizer = config.Adam(rate=1e-3, halve_every=2).build(100)
    state, sizes = optimizer.init(jnp.zeros(())), []
    for _ in range(7):
        update, state = optimizer.update(jnp.ones(()), state)
        sizes.append(-float(update))
    desired = [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4]
    assert sizes == pytest.approx(desired, rel=1e-4)


@pytest.mark.parametrize(
    ("gradients", "updates"),
    [
        ([1.0, 1.0, 1.0], [-0.0707107, -0.1343503, -0.1916259]),
        ([2.0, 2.0], [-0.1318761, -0.2434451]),
    ],
)
def test_rmsprop_is_tensorflows(gradients: list[float], updates: list[float]):
    """The mean square starts at 1, epsilon 1 is under the root, the momentum is 0.9."""
    import jax.numpy as jnp

    optimizer = config.RMSProp(rate=0.1, new=1.0).build(3)
    params = {"network": jnp.zeros(()), "head": jnp.zeros(())}
    state = optimizer.init(params)
    for gradient, desired in zip(gradients, updates, strict=True):
        update, state = optimizer.update({k: jnp.asarray(gradient) for k in params}, state)
        assert {k: float(v) for k, v in update.items()} == pytest.approx(
            {k: desired for k in params}, abs=1e-6
        )


def test_new_layers_have_a_multiple_of_the_rate_and_it_falls_in_stairs():
    """By 0.94 every four epochs, here of one step each; the first step is -rate / sqrt(2)."""
    import jax.numpy as jnp

    for optimizer, first in ((config.RMSProp(), 1e-4 / 2**0.5), (config.SGD(new=10.0), 1e-3)):
        params = {"network": jnp.zeros(()), "columns": jnp.zeros(()), "scale": jnp.zeros(())}
        made = optimizer.build(1)
        update, _ = made.update({k: jnp.ones(()) for k in params}, made.init(params))
        assert float(update["network"]) == pytest.approx(-first, rel=1e-5)
        assert [float(update[k]) for k in ("columns", "scale")] == pytest.approx([-10 * first] * 2)
    made = config.SGD(rate=1e-4, momentum=0.0, decay=0.94, decay_every=4).build(113)
    state, rates = made.init({"network": jnp.zeros(())}), []
    for _ in range(113):
        update, state = made.update({"network": jnp.ones(())}, state)
        rates.append(-float(update["network"]))
    desired = {0: 1e-4, 3: 1e-4, 4: 9.4e-5, 8: 8.836e-5, 40: 5.386151e-5, 111: 1.881274e-5}
    desired |= {112: 1.768398e-5}
    assert {i: rates[i] for i in desired} == pytest.approx(desired, rel=1e-5)
