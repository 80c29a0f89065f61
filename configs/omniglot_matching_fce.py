"""Matching network with full-context embeddings on Omniglot, 5-way 1-shot.

5-shot: `--train.shot 5 --test.shot 5`.
"""

from metashot.config import Adam, Experiment, Matching, Omniglot


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(),
        learner=Matching(full_context=True),
        steps=2000,
        optimizer=Adam(rate=1e-3, decay="cosine"),
        validate_every=500,
    )
