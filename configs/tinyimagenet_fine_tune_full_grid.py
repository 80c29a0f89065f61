"""Fine-tuning on Tiny-ImageNet, its rate and decay from the paper's whole grid: 42 settings."""

from metashot.config import Adam, Batch, Experiment, FineTune, TinyImageNet


def get_config() -> Experiment:
    return Experiment(
        data=TinyImageNet(size=32),
        learner=FineTune(
            classes=128,
            decays=(1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 0.0),
            looks=((100, 1),),
        ),
        steps=3000,
        train=Batch(64),
        optimizer=Adam(rate=1e-3, decay="cosine"),
        validate_every=3000,
    )
