"""Meta-Learner LSTM on miniImageNet, 5-way 5-shot, as the authors' release has it.

The goal: 60.60 ± 0.71 % on test classes (Ravi & Larochelle 2017, Table 1). Not run yet. The release
updates the pupil 8 times and weighs new batch statistics by 0.95; the paper says 5 times.
"""

from metashot.config import Adam, Experiment, MetaLSTM, MiniImageNet, Sizes


def get_config() -> Experiment:
    return Experiment(
        data=MiniImageNet(),
        learner=MetaLSTM(steps=8, bn_new_weight=0.95),
        steps=50_000,
        train=Sizes(shot=5),
        test=Sizes(shot=5),
        optimizer=Adam(rate=1e-3, clip=0.25),
        validate_every=1000,
    )
