"""Learnet on Omniglot by the paper's training: SGD, 60 epochs of 100,000 pairs, a Gaussian start.

The paper found rate, decay, deviation and weight decay by random search, in ranges that it does not
tell: `metashot search omniglot_learnet_paper`. Five background alphabets are held out for that;
`--data.split alphabets` trains on all.
"""

from metashot.config import SGD, Experiment, Learnet, Omniglot, Pairs, Sizes

EPOCH = 780  # steps, of 128 pairs


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(split="alphabets_tuning", rotations=False),
        learner=Learnet(init_std=0.05),
        steps=60 * EPOCH,
        train=Pairs(exemplars=16, queries=8),
        test=Sizes(way=20, shot=1, query=1, scope="alphabet"),
        optimizer=SGD(rate=1e-2, decay=0.925, decay_every=EPOCH, weight_decay=1e-4),
        validate_every=10 * EPOCH,
    )


def get_ranges() -> dict[str, tuple[float, float]]:
    return {
        "optimizer.rate": (1e-4, 1e-1),
        "optimizer.decay": (1e-3 ** (1 / 59), 1.0),  # the last rate over the first: 1e-3 to 1
        "learner.init_std": (3e-3, 3e-1),
        "optimizer.weight_decay": (1e-6, 1e-2),
    }
