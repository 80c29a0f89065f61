"""ANIL on Tiny-ImageNet at 32 pixels, 5-way 1-shot.

5-shot: `--train.shot 5 --test.shot 5`.
"""

from metashot.config import ANIL, Adam, Experiment, TinyImageNet


def get_config() -> Experiment:
    return Experiment(
        data=TinyImageNet(size=32),
        learner=ANIL(lr=0.1),
        steps=3000,
        optimizer=Adam(rate=1e-3, decay="cosine"),
        validate_every=500,
    )
