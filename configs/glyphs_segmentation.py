"""One-shot segmentation of sheets with procedural glyphs: mark the character that a mask shows."""

from metashot.config import Adam, Experiment, GlyphScenes, MaskSizes, Pyramid, Segmentation


def get_config() -> Experiment:
    return Experiment(
        data=GlyphScenes(train=300, val=50, test=100, objects=4),
        learner=Segmentation(
            network=Pyramid(16, (32, 64, 96)),
            size=128,
            reduction="mean",
            loss_at="cells",
            foreground_weight=3.0,
        ),
        steps=1600,
        train=MaskSizes(query=4),
        test=MaskSizes(),
        meta_batch=4,
        optimizer=Adam(rate=1e-3, decay="cosine"),
        validate_every=400,
        validation_episodes=40,
        test_episodes=200,
    )
