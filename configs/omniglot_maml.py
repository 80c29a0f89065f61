"""MAML on Omniglot, 5-way 1-shot.

5-shot: `--train.shot 5 --test.shot 5`.
"""

from metashot.config import MAML, Adam, Experiment, Omniglot


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(),
        learner=MAML(lr=0.1),
        steps=1500,
        optimizer=Adam(rate=1e-3, decay="cosine"),
        validate_every=500,
    )
