"""Prototypical network on Tiny-ImageNet at 32 pixels, trained 20-way 5-shot."""

from metashot.config import Adam, Experiment, Prototypical, Sizes, TinyImageNet


def get_config() -> Experiment:
    return Experiment(
        data=TinyImageNet(size=32),
        learner=Prototypical(),
        steps=1500,
        train=Sizes(way=20, shot=5, query=5),
        optimizer=Adam(rate=1e-3, decay="cosine"),
        validate_every=500,
    )
