"""Prototypical network on procedural glyphs, trained 20-way 1-shot: one minute on two cores."""

from metashot.config import Adam, Experiment, Glyphs, Prototypical, Sizes


def get_config() -> Experiment:
    return Experiment(
        data=Glyphs(),
        learner=Prototypical(),
        steps=300,
        train=Sizes(way=20, shot=1, query=5),
        optimizer=Adam(rate=2e-3, decay="cosine"),
        validate_every=100,
        test_episodes=200,
    )
