"""Weight imprinting on Caltech-101 at 32 pixels, from scratch: about five minutes on two cores.

A classifier of the 64 base classes; `metashot enroll` adds others from single pictures.
"""

from metashot.config import Adam, Batch, Caltech101, Experiment, Imprinting


def get_config() -> Experiment:
    return Experiment(
        data=Caltech101(size=32),
        learner=Imprinting(classes=64),
        steps=2000,
        train=Batch(64, shift=4, flip=True),
        optimizer=Adam(rate=2e-3, decay="cosine"),
        validate_every=500,
    )
