"""Meta-Learner LSTM on Omniglot, 5-way 1-shot: 15 minutes on two cores."""

from metashot.config import Adam, Experiment, MetaLSTM, Omniglot


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(),
        learner=MetaLSTM(steps=12),
        steps=2400,
        optimizer=Adam(rate=2e-3, clip=0.25, decay="linear", hold=0.5),
        validate_every=600,
    )
