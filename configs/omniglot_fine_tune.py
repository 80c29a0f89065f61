"""Fine-tuning on Omniglot, of a classifier of its training classes."""

from metashot.config import Adam, Batch, Experiment, FineTune, Omniglot


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(),
        learner=FineTune(classes=4112),
        steps=3000,
        train=Batch(64),
        optimizer=Adam(rate=1e-3, decay="cosine"),
        validate_every=3000,
    )
