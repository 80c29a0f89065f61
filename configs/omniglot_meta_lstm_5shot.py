"""Meta-Learner LSTM on Omniglot, 5-way 5-shot: 15 minutes on two cores."""

from metashot.config import Adam, Experiment, MetaLSTM, Omniglot, Sizes


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(),
        learner=MetaLSTM(steps=8, bn_new_weight=0.95),
        steps=2400,
        train=Sizes(shot=5),
        test=Sizes(shot=5),
        optimizer=Adam(rate=2e-3, clip=0.25, decay="linear", hold=0.5),
        validate_every=600,
    )
