"""Fine-tuning on Tiny-ImageNet at 32 pixels, of a classifier of its training classes."""

from metashot.config import Adam, Batch, Experiment, FineTune, TinyImageNet


def get_config() -> Experiment:
    return Experiment(
        data=TinyImageNet(size=32),
        learner=FineTune(classes=128),
        steps=3000,
        train=Batch(64),
        optimizer=Adam(rate=1e-3, decay="cosine"),
        validate_every=3000,
    )
