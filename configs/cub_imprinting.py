"""Weight imprinting on CUB-200-2011: base training on photographs of 100 species, from ImageNet.

The settings are those of Qi, Brown & Lowe (2018), whose network was another one, InceptionV1: 90
epochs of about 3,000 pictures, which move by an eighth of their side, the rate falling every four.
"""

from metashot.config import CUB, Batch, EfficientNetLite0, Experiment, Imprinting, RMSProp


def get_config() -> Experiment:
    return Experiment(
        data=CUB(official="train"),
        learner=Imprinting(network=EfficientNetLite0(pretrained=True), classes=100),
        steps=4230,
        train=Batch(64, shift=28, flip=True),
        optimizer=RMSProp(decay_every=188),
        validate_every=470,
        test_episodes=200,
    )
