"""Meta-Learner LSTM on Tiny-ImageNet at 32 pixels, 5-way 5-shot."""

from metashot.config import Adam, Experiment, MetaLSTM, Sizes, TinyImageNet


def get_config() -> Experiment:
    return Experiment(
        data=TinyImageNet(size=32),
        learner=MetaLSTM(steps=8, bn_new_weight=0.95),
        steps=3000,
        train=Sizes(shot=5),
        test=Sizes(shot=5),
        optimizer=Adam(rate=2e-3, clip=0.25, decay="linear", hold=0.5),
        validate_every=600,
    )
