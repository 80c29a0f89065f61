"""Meta-Learner LSTM on Tiny-ImageNet, 5-way 1-shot, with an input gate that starts open.

As tinyimagenet_meta_lstm, but the pupil's learning rate starts at 0.12 to 0.27, near where training
takes it, and not at the paper's 0.01.
"""

from metashot.config import Adam, Experiment, MetaLSTM, TinyImageNet


def get_config() -> Experiment:
    return Experiment(
        data=TinyImageNet(size=32),
        learner=MetaLSTM(steps=12, input_range=(-2.0, -1.0)),
        steps=3000,
        optimizer=Adam(rate=2e-3, clip=0.25, decay="linear", hold=0.5),
        validate_every=600,
    )
