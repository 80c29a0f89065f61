"""Prototypical network on Omniglot, trained 60-way 1-shot: 15 minutes on two cores."""

from metashot.config import Adam, Experiment, Omniglot, Prototypical, Sizes


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(),
        learner=Prototypical(),
        steps=2400,
        train=Sizes(way=60, shot=1, query=3),
        optimizer=Adam(rate=2e-3, warmup=100, decay="cosine"),
        validate_every=600,
    )
