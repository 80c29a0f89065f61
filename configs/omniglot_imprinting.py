"""Weight imprinting on Omniglot: a classifier of all training characters and their turns.

`metashot.imprint` and `metashot enroll` add others from single drawings.
"""

from metashot.config import Adam, Batch, Conv4, Experiment, Imprinting, Omniglot


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(),
        learner=Imprinting(network=Conv4(64), classes=4112, scale=20.0),
        steps=3000,
        train=Batch(64, shift=2),
        optimizer=Adam(rate=2e-3, decay="cosine"),
        validate_every=500,
    )
