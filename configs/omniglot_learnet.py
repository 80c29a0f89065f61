"""Learnet on Omniglot, trained on the background alphabets, 20-way within evaluation alphabets.

Two switches make the 15 cells of table 1 of Bertinetto et al. (2016): `--learner.architecture`
siamese_shared, siamese_unshared, siamese_factorised, siamese_learnet or learnet, and
`--learner.comparison` inner_product, euclidean or weighted_l1. The paper's optimiser is
SGD(rate=1e-2, momentum=0.9, decay=0.92, decay_every=EPOCH, weight_decay=1e-4) in place of Adam.
"""

from metashot.config import Adam, Experiment, Learnet, Omniglot, Pairs, Sizes


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(split="alphabets", rotations=False),
        learner=Learnet(head_scale=0.02, calibrate=True),
        steps=20000,
        train=Pairs(exemplars=20, queries=20),
        test=Sizes(way=20, shot=1, query=1, scope="alphabet"),
        optimizer=Adam(rate=1e-3, warmup=100, decay="cosine"),
        validate_every=2000,
    )
