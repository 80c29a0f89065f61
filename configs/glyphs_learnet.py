"""Learnet on procedural glyphs, 20-way within an invented alphabet: three minutes, no download.

Glyphs come in alphabets of 26, each with a style and drawers of its own: queries that do not match
are of the exemplar's alphabet.
"""

from metashot.config import Adam, Experiment, Glyphs, Learnet, Pairs, Sizes, Stream


def get_config() -> Experiment:
    return Experiment(
        data=Glyphs(),
        learner=Learnet(stream=Stream((16, 32, 128)), head_scale=0.1, calibrate=True),
        steps=1500,
        train=Pairs(exemplars=16, queries=8),
        test=Sizes(way=20, shot=1, query=1, scope="alphabet"),
        optimizer=Adam(rate=2e-3, decay="cosine"),
        validate_every=500,
        validation_episodes=50,
        test_episodes=100,
    )
