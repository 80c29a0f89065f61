"""Memory matching network on procedural glyphs, mixed 2..10-way 1..5-shot."""

from metashot.config import Adam, Experiment, Glyphs, MemoryMatching, MixedSizes


def get_config() -> Experiment:
    return Experiment(
        data=Glyphs(),
        learner=MemoryMatching(filters=32, key_size=64, hidden=64),
        steps=600,
        train=MixedSizes(way=(2, 10), shot=(1, 5), query=5),
        optimizer=Adam(rate=2e-3, decay="cosine"),
        validate_every=200,
        test_episodes=200,
    )
