"""Meta-Learner LSTM on miniImageNet, 5-way 1-shot: the published experiment.

The goal: 43.44 ± 0.77 % on test classes (Ravi & Larochelle 2017, Table 1). Not run yet.
"""

from metashot.config import Adam, Experiment, MetaLSTM, MiniImageNet


def get_config() -> Experiment:
    return Experiment(
        data=MiniImageNet(),
        learner=MetaLSTM(steps=12),
        steps=75_000,
        optimizer=Adam(rate=1e-3, clip=0.25),
        validate_every=1000,
    )
