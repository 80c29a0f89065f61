"""Weight imprinting on procedural glyphs: a classifier of 1,000 classes, about two minutes.

Training ends with the base classes; `metashot.imprint` adds others.
"""

from metashot.config import Adam, Batch, Conv4, Experiment, Glyphs, Imprinting


def get_config() -> Experiment:
    return Experiment(
        data=Glyphs(),
        learner=Imprinting(network=Conv4(32), classes=1000),
        steps=1000,
        train=Batch(64),
        optimizer=Adam(rate=2e-3, decay="cosine"),
        validate_every=500,
        test_episodes=200,
    )
