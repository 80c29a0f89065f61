"""Memory matching network on Omniglot, mixed 2..20-way 1..5-shot: one model for all test sizes.

The fixed setting (MM-Net-), here 20-way 1-shot: `--train.way 20 20 --train.shot 1 1`.
"""

from metashot.config import Adam, Experiment, MemoryMatching, MixedSizes, Omniglot


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(),
        learner=MemoryMatching(),
        steps=4000,
        train=MixedSizes(way=(2, 20), shot=(1, 5), query=5),
        optimizer=Adam(rate=1e-3, decay="cosine"),
        validate_every=1000,
    )
