"""What ran."""

from metashot.config import Adam
from metashot.config import Batch
from metashot.config import Conv4
from metashot.config import Experiment
from metashot.config import Glyphs
from metashot.config import Imprinting
from metashot.config import Sizes


def get_config():
    return Experiment(
        data=Glyphs(
            train=1000,
            val=100,
            test=200,
            drawings=20,
            size=28,
            seed=0,
        ),
        learner=Imprinting(
            network=Conv4(
                filters=32,
                blocks=4,
                eps=0.001,
                bn_scale_init='ones',
                dropout=0.0,
                dtype=None,
            ),
            classes=64,
            size=64,
            scale=10.0,
            scale_param='raw',
            bn_new_weight=0.1,
        ),
        steps=1000,
        train=Batch(
            size=64,
        ),
        test=Sizes(
            way=5,
            shot=1,
            query=15,
        ),
        meta_batch=1,
        chunk=None,
        optimizer=Adam(
            rate=0.002,
            clip=None,
            warmup=0,
            decay='cosine',
            hold=0.0,
        ),
        validate_every=500,
        validation_episodes=100,
        test_episodes=200,
        log_every=10,
        seed=0,
    )
