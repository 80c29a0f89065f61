"""What can be got back from a run's folder, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

import metashot
from metashot import enrolment, loading
from metashot.config import ConfigError, Conv4, Experiment, Glyphs, MetaLSTM, Prototypical, Sizes
from metashot.runs import write_atomically

TINY = Experiment(
    data=Glyphs(train=6, val=4, test=4, drawings=6, size=16),
    learner=Prototypical(network=Conv4(filters=4, blocks=2)),
    steps=10,
    train=Sizes(way=3, shot=1, query=2),
    test=Sizes(way=3, shot=1, query=2),
)


def test_parameters_that_depend_on_the_way_are_not_rebuilt_for_another():
    metric = loading.at_way(TINY, 20, (16, 16, 1), Path("run"))
    assert isinstance(metric, metashot.Learner)
    lstm = dataclasses.replace(TINY, learner=MetaLSTM(network=Conv4(filters=4, blocks=2)))
    assert isinstance(loading.at_way(lstm, 3, (16, 16, 1), Path("run")), metashot.Learner)
    with pytest.raises(ConfigError, match="run was trained for 3-way and its parameters depend"):
        loading.at_way(lstm, 20, (16, 16, 1), Path("run"))


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="holds no run"):
        metashot.load(tmp_path)
    write_atomically(tmp_path / "run.json", '{"input_shape": [16, 16, 1]}')
    with pytest.raises(ConfigError, match="learner="):
        metashot.load(tmp_path)
    learner = metashot.prototypical(way=3)
    with pytest.raises(ConfigError, match="no checkpoint yet"):
        metashot.load(tmp_path, learner=learner)
    with pytest.raises(ConfigError, match="checkpoint is 'worst'"):
        metashot.load(tmp_path, learner=learner, checkpoint="worst")


def test_damaged_files_of_a_run_are_named(tmp_path: Path):
    shutil.copytree(enrolment.SHIPPED / "glyphs", tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").rglob("manifest.ocdbt"):
        path.write_bytes(b"torn")
    with pytest.raises(
        ConfigError, match=r"checkpoint \d+ of .*run is damaged, or was not made by"
    ):
        metashot.load(tmp_path / "run")
    (tmp_path / "run" / "classes.json").write_text('{"names": [')
    with pytest.raises(ConfigError, match=r"classes.json is damaged: restore it"):
        metashot.stored(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("")
    with pytest.raises(ConfigError, match=r"run.json is damaged: restore it"):
        metashot.stored(tmp_path / "run")
