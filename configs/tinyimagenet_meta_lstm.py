"""Meta-Learner LSTM on Tiny-ImageNet at 32 pixels, 5-way 1-shot."""

from metashot.config import Adam, Experiment, MetaLSTM, TinyImageNet


def get_config() -> Experiment:
    return Experiment(
        data=TinyImageNet(size=32),
        learner=MetaLSTM(steps=12),
        steps=3000,
        optimizer=Adam(rate=2e-3, clip=0.25, decay="linear", hold=0.5),
        validate_every=600,
    )
