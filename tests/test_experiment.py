"""A configuration, run: what is refused before anything starts, and what can be got back."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import metashot
from metashot import config, experiment, loading
from metashot.base import Examples
from metashot.config import (
    Batch,
    ConfigError,
    Conv4,
    Experiment,
    FineTune,
    Glyphs,
    Learnet,
    NearestEmbedding,
    Pairs,
    Prototypical,
    Sizes,
    Stream,
)
from metashot.runs import write_atomically

pytestmark = pytest.mark.usefixtures("quick_compile")

TINY = Experiment(
    data=Glyphs(train=6, val=4, test=4, drawings=6, size=16),
    learner=Prototypical(network=Conv4(filters=4, blocks=2)),
    steps=10,
    train=Sizes(way=3, shot=1, query=2),
    test=Sizes(way=3, shot=1, query=2),
)


def test_a_learner_that_cannot_see_the_pictures_is_refused():
    deep = dataclasses.replace(TINY, learner=Prototypical(network=Conv4(blocks=5)))
    with pytest.raises(ConfigError, match=r"learner cannot be built.*use fewer blocks"):
        experiment.build(deep)


def test_missing_data_are_a_mistake_in_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path))
    lost = dataclasses.replace(TINY, data=config.Omniglot(source=str(tmp_path)))
    with pytest.raises(ConfigError, match="--download"):
        experiment.build(lost)


def test_a_resumed_run_is_the_same_run(tmp_path: Path):
    write_atomically(tmp_path / "config.py", config.as_text(TINY))
    other = dataclasses.replace(TINY, seed=1, steps=20)
    with pytest.raises(ConfigError, match="seed is 1, but the run to resume has 0"):
        experiment.run(other, tmp_path, resume=True)


class Started(Conv4):
    pretrained = True


def test_training_starts_from_pretrained_variables(monkeypatch: pytest.MonkeyPatch):
    network = Started(filters=4, blocks=2)
    source = experiment.build(TINY).train
    batch = source.sample(jax.random.key(0), source.arrays).query
    body = network.build().init(jax.random.key(7), batch.inputs)
    monkeypatch.setattr(metashot.pretrained, "efficientnet_lite0", lambda: body)
    learner = config.Imprinting(network=network, size=4, classes=6)
    made = experiment.build(dataclasses.replace(TINY, learner=learner, train=Batch(8))).learner
    variables = made.init(jax.random.key(0), metashot.Episode(batch, batch))
    drawn = learner.build(6).init(jax.random.key(0), metashot.Episode(batch, batch))
    for part in ("params", "state"):
        jax.tree.map(np.testing.assert_array_equal, variables[part].pop("network"), body[part])
        drawn[part].pop("network")
    jax.tree.map(np.testing.assert_array_equal, variables, drawn)


def test_only_training_pictures_are_redrawn():
    plain = experiment.build(TINY)
    varied = experiment.build(dataclasses.replace(TINY, redraw=config.Redraw(shift=0.2)))
    draws = lambda source: source.sample(jax.random.key(0), source.arrays).query.inputs
    assert not np.allclose(draws(plain.train), draws(varied.train))
    np.testing.assert_array_equal(draws(plain.validation), draws(varied.validation))


EMBEDDING = NearestEmbedding(network=Conv4(filters=4, blocks=2), classes=6)


def test_classifiers_are_trained_on_plain_batches_of_all_classes():
    with pytest.raises(ConfigError, match=r"NearestEmbedding needs plain batches, train=Batch\(\)"):
        experiment.build(dataclasses.replace(TINY, learner=EMBEDDING))
    with pytest.raises(ConfigError, match=r"Prototypical needs episodes, train=Sizes\(\)"):
        experiment.build(dataclasses.replace(TINY, train=Batch(8)))
    few = dataclasses.replace(EMBEDDING, classes=5)
    with pytest.raises(ConfigError, match=r"learner\.classes is 5, but the training data have 6"):
        experiment.build(dataclasses.replace(TINY, learner=few, train=Batch(8)))


def test_fine_tuning_is_loaded_as_validation_chose_it(tmp_path: Path):
    learner = FineTune(
        network=Conv4(filters=4, blocks=2),
        classes=6,
        steps=2,
        rates=(1e-6, 0.3),
        decays=(0.0, 1.0),
        looks=((3, 2), (6, 1)),
    )
    tiny = dataclasses.replace(
        TINY, learner=learner, train=Batch(8), validation_episodes=2, validate_every=10
    )
    trained, parts = experiment.run(tiny, tmp_path, progress=False)
    choice = json.loads((tmp_path / "choice.json").read_text())
    assert [row["episodes"] for row in choice["tried"]] == [3] * 4 + [6] * 2
    last = max(choice["tried"][4:], key=lambda row: row["accuracy"])
    assert choice["setting"] == {name: last[name] for name in ("rate", "decay")}
    loaded = metashot.load(tmp_path)
    assert loaded.config is not None
    assert loaded.config.learner == dataclasses.replace(learner, **choice["setting"])
    source = metashot.episodes(parts.splits.test, way=3, shot=1, query=2)
    both = [
        metashot.evaluate(learner, trained.variables, source, count=4).score
        for learner in (parts.learner, loaded.learner)
    ]
    assert both[0] == both[1]
    assert loading.read_config(tmp_path) == tiny  # so that it can be resumed
    with pytest.raises(ConfigError, match="stores no classes"):  # its head is drawn anew
        metashot.stored(tmp_path)


def test_a_learnet_begins_as_a_siamese_network_that_was_trained(tmp_path: Path):
    siamese = Learnet("siamese_factorised", stream=Stream((2, 3, 4)))
    pairs = dataclasses.replace(
        TINY, learner=siamese, train=Pairs(4, 2), validation_episodes=2, validate_every=10
    )
    trained, _ = experiment.run(pairs, tmp_path / "siamese", progress=False)
    assert np.isfinite(trained.history[-1]["val_accuracy"])
    start = str(tmp_path / "siamese")
    begun = dataclasses.replace(siamese, architecture="learnet", start=start, head_scale=0.0)
    still = dataclasses.replace(  # of which a step of size 0 leaves the start
        pairs, learner=begun, optimizer=config.SGD(rate=1e-30), test=Sizes(3, 1, 2, "alphabet")
    )
    same, parts = experiment.run(still, tmp_path / "learnet", progress=False)
    source = metashot.pairs(parts.splits.test, exemplars=4, queries=4)
    episode = source.sample(jax.random.key(0), source.arrays)
    scores = [
        jax.jit(lambda v, e, made=made: made.predict(v, made.adapt(v, e.support), e.query.inputs))(
            v, episode
        )
        for made, v in (
            (siamese.build(3), trained.variables),
            (metashot.load(tmp_path / "learnet").learner, same.variables),
        )
    ]
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-4)
    other = dataclasses.replace(begun, stream=Stream((2, 3, 5)))
    with pytest.raises(
        ConfigError, match=r"learner\.start is .*: the siamese network's layers are"
    ):
        experiment.run(dataclasses.replace(still, learner=other), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    _refuses_empty_exemplars(tmp_path / "learnet", tmp_path / "support")


def _refuses_empty_exemplars(run: Path, support: Path):
    for name, pixels in {"a": np.eye(16), "b": np.ones((16, 16))}.items():
        (support / name).mkdir(parents=True)
        Image.fromarray(np.uint8(255 * pixels)).save(support / name / "one.png")
    with pytest.raises(ConfigError, match=r"b/one\.png is empty or of a single colour"):
        metashot.few_shot(run, support)
    Image.fromarray(np.uint8(255 * np.eye(16)[::-1])).save(support / "b" / "one.png")
    classifier = metashot.few_shot(run, support)
    (answer,) = metashot.classify(classifier, [support / "b" / "one.png"])
    assert {name for name, _ in answer.ranked} == {"a", "b"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": Pairs()}, r"train is Pairs.*; Prototypical needs episodes"),
        ({"learner": Learnet(stream=Stream((2, 3, 4)), predicts=("conv9",))}, "conv1, conv2"),
        ({"learner": Learnet()}, "pixels are left for layer"),
        (
            {"learner": Learnet(stream=Stream((2, 3, 4))), "train": Pairs(exemplars=0)},
            r"train\.exemplars is 0",
        ),
    ],
)
def test_pairs_and_layers_that_do_not_fit_are_refused(changes: dict[str, object], said: str):
    small = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, size=12), **changes)
    if "pixels" not in said:
        small = dataclasses.replace(small, data=TINY.data)
    with pytest.raises(ConfigError, match=said):
        experiment.build(small)


SCENES = Experiment(
    data=config.GlyphScenes(train=6, val=4, test=4, drawings=8, size=8, canvas=24, objects=3),
    learner=config.Segmentation(network=config.Pyramid(8, (8,)), size=4, reduction="mean"),
    steps=2,
    train=config.MaskSizes(),
    test=config.MaskSizes(),
    meta_batch=2,
    validate_every=2,
    validation_episodes=2,
    test_episodes=2,
    log_every=1,
)


def test_masks_are_learned_and_compared_by_their_overlap(tmp_path: Path):
    trained, parts = experiment.run(SCENES, tmp_path / "run", progress=False)
    assert "val_mean_iou" in trained.history[-1]
    reached, everything = experiment.compare(SCENES, parts, trained.variables)
    assert [*reached.summary] == ["mean_iou"]
    assert 0 < everything.score < 0.5
    loaded = loading.load(tmp_path / "run")
    assert loaded.config == SCENES
    support = np.zeros((1, 24, 24, 1), np.float32)
    masks = np.ones((1, 24, 24), np.int32)
    task = loaded.learner.adapt(loaded.variables, Examples(support, masks, np.ones(1, bool)))
    assert loaded.learner.predict(loaded.variables, task, support).shape == (1, 24, 24)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"data": Glyphs()}, "data is Glyphs, which has no masks: take GlyphScenes, or Sizes()"),
        ({"learner": Prototypical()}, "Prototypical needs episodes, train=Sizes()"),
        ({"train": Sizes()}, "with masks, both are MaskSizes"),
        ({"test": config.MaskSizes(shot=9)}, "test.10 sheets with 2 of a class need 20 drawings"),
        (
            {"train": Sizes(way=3, query=2), "test": Sizes(way=3, query=2), "data": TINY.data},
            "Segmentation needs masks, train=MaskSizes()",
        ),
    ],
)
def test_masks_where_they_do_not_belong_are_refused(wrong: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=re.escape(said)):
        experiment.build(dataclasses.replace(SCENES, **wrong))
