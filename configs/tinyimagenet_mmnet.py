"""Memory matching network on Tiny-ImageNet at 32 pixels, mixed 2..5-way 1..5-shot.

The paper's schedule, for a GPU: 4 episodes a step, the rate halved every 20,000 steps.
"""

from metashot.config import Adam, Experiment, MemoryMatching, MixedSizes, TinyImageNet


def get_config() -> Experiment:
    return Experiment(
        data=TinyImageNet(size=32),
        learner=MemoryMatching(),
        steps=100_000,
        train=MixedSizes(way=(2, 5), shot=(1, 5), query=15),
        meta_batch=4,
        optimizer=Adam(rate=1e-3, halve_every=20_000),
        validate_every=2000,
    )
