"""Meta-Learner LSTM on procedural glyphs, 5-way 1-shot: a few minutes, nothing to download."""

from metashot.config import Adam, Experiment, Glyphs, MetaLSTM


def get_config() -> Experiment:
    return Experiment(
        data=Glyphs(),
        learner=MetaLSTM(steps=5),
        steps=500,
        optimizer=Adam(rate=2e-3, clip=0.25, decay="linear", hold=0.5),
        validate_every=250,
        validation_episodes=50,
        test_episodes=200,
    )
