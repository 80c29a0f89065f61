"""Meta-Learner LSTM on Omniglot, 5-way 1-shot.

87.9 ± 0.7 % on test characters (one seed), after 34 minutes on two cores with other work beside
it. Again: `python benchmarks/omniglot_meta_lstm.py meta_lstm_5w1s`. The paper has no Omniglot.
"""

from metashot.config import Adam, Experiment, MetaLSTM, Omniglot


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(),
        learner=MetaLSTM(steps=12),
        steps=2400,
        optimizer=Adam(rate=2e-3, clip=0.25, decay="linear", hold=0.5),
        validate_every=600,
    )
