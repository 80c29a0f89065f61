"""`metashot segment`: masks at the pictures' own sizes, and what is refused before work starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from metashot import config, segmenting
from metashot.base import Learner
from metashot.cli.main import main
from metashot.loading import Loaded

pytestmark = pytest.mark.usefixtures("quick_compile")

RUN = config.Experiment(
    data=config.GlyphScenes(),
    learner=config.Segmentation(),
    steps=1,
    train=config.MaskSizes(),
    test=config.MaskSizes(),
)


def save(name: str, pixels: Any, mode: str = "L") -> None:
    Image.fromarray(np.asarray(pixels, np.uint8)).convert(mode).save(name)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A call whose learner marks what is as dark as the middle of what the mask shows."""

    def adapt(variables: Any, support: Any, key: Any = None) -> Any:
        own = (support.targets > 0).astype(support.inputs.dtype)
        return (support.inputs[..., 0] * own).sum() / own.sum()

    learner = Learner(
        init=lambda key, episode: {"params": {}, "state": {}},
        adapt=adapt,
        predict=lambda variables, task, x: jnp.sign(0.1 - jnp.abs(x[..., 0] - task)),
        loss=lambda variables, episode, key: (jnp.zeros(()), ()),  # type: ignore[arg-type]
    )
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/config.py").write_text(config.as_text(RUN))
    facts = {"input_shape": [4, 4, 1], "prepare": [-1 / 255, 1.0]}
    Path("run/run.json").write_text(json.dumps(facts))
    variables: Any = {"params": {}, "state": {}}
    loaded = Loaded(learner, variables, 1, RUN)
    monkeypatch.setattr(segmenting, "load", lambda run, checkpoint: loaded)
    save("one.png", [[255, 100, 0, 0]] * 4)
    save("mask.png", [[0, 1, 0, 0]] * 4)
    save("two.png", np.repeat([[100, 255]], 6, 0).repeat(4, 1))  # 6 rows of 8
    return ["segment", "run", "--support", "one.png"]


def test_a_mask_and_an_overlay_of_the_pictures_own_size(call: list[str]) -> None:
    assert main([*call, "mask.png", "two.png"]) == 0
    mask = np.asarray(Image.open("masks/two_mask.png"))
    assert mask.tolist() == [[255] * 4 + [0] * 4] * 6
    overlay = np.asarray(Image.open("masks/two_overlay.png"))
    assert overlay[0, 0].tolist() == [193, 76, 40]
    assert overlay[0, 7].tolist() == [255] * 3
    assert main([*call, "mask.png", "two.png"]) == 2  # nothing that is there is written over


def test_several_supports_and_void(call: list[str]) -> None:
    save("void.png", [[0, 255, 1, 0]] * 4)
    pairs = [("one.png", "mask.png"), ("one.png", "void.png")]
    made = segmenting.segmenter("run", pairs)
    # The mean of what both show, ink of 155 and 255 of 255.
    assert float(made.task) == pytest.approx((155 + 255) / 2 / 255, abs=1e-5)


@pytest.mark.parametrize(
    ("pixels", "mode", "said"),
    [
        ([[0, 1, 0]] * 4, "L", "mask.png has 3 x 4 pixels, but its picture has 4 x 4"),
        ([[0] * 4] * 4, "L", "mask.png marks nothing"),
        ([[0, 1, 2, 3]] * 4, "L", "mask.png has pixels of 1, 2, 3, and a mask shows one class"),
        ([[0, 1, 0, 0]] * 4, "RGB", "mask.png is a colour mask (RGB)"),
    ],
)
def test_masks_that_say_nothing_are_refused(
    call: list[str], capsys: pytest.CaptureFixture[str], pixels: Any, mode: str, said: str
) -> None:
    save("mask.png", pixels, mode)
    assert main([*call, "mask.png", "two.png"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("masks").exists()


def test_mistakes_in_the_call(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, said in (
        (["segment", "run", "two.png"], "what to mark? --support IMAGE MASK shows it"),
        (["segment", "run", "--support", "one.png", "mask.png"], "which pictures?"),
        ([*call, "lost.png", "two.png"], "lost.png is no file"),
        ([*call, "mask.png", "run/two.png"], "run/two.png is no file"),
    ):
        assert main(wrong) == 2
        assert said in capsys.readouterr().err
    Path("torn.png").write_bytes(b"torn")
    assert main(["segment", "run", "torn.png", "--support", "one.png", "mask.png"]) == 2
    assert "torn.png is not a picture that can be decoded" in capsys.readouterr().err


def test_a_run_of_classes_is_refused(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    other = config.Experiment(data=config.Glyphs(), learner=config.Prototypical(), steps=1)
    Path("run/config.py").write_text(config.as_text(other))
    assert main([*call, "mask.png", "two.png"]) == 2
    assert "run is a Prototypical, which answers with classes" in capsys.readouterr().err
