"""Learnet on Omniglot, trained on the background alphabets, 20-way within evaluation alphabets.

A step is an exemplar and a query of each of 20 characters of an alphabet, and all 400 pairs of
them; `Pairs()` draws each exemplar queries of its own, which costs several times as much. Drawings
are varied a little, which long trainings need.

Two switches make the 15 cells of table 1 of Bertinetto et al. (2016): `--learner.architecture`
siamese_shared, siamese_unshared, siamese_factorised, siamese_learnet or learnet, and
`--learner.comparison` inner_product, euclidean or weighted_l1. Their training in the paper is that
of omniglot_learnet_paper. A learnet learns faster from a siamese network with one factorised
layer: train `--learner.architecture siamese_shared_factorised` for some thousand steps,
then the learnet with `--learner.start` and the folder of that run.
"""

from metashot.config import Adam, Experiment, Learnet, Omniglot, Redraw, Sizes


def get_config() -> Experiment:
    return Experiment(
        data=Omniglot(split="alphabets", rotations=False),
        learner=Learnet(head_scale=0.1, calibrate=True, episode_loss="logistic"),
        steps=20000,
        train=Sizes(way=20, shot=1, query=1, scope="alphabet"),
        test=Sizes(way=20, shot=1, query=1, scope="alphabet"),
        redraw=Redraw(rotation=7.5, shear=0.1, scale=0.1, shift=0.04, stroke=0.35),
        optimizer=Adam(rate=2e-3, warmup=100, decay="cosine"),
        validate_every=2000,
    )
