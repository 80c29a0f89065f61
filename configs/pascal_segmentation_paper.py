"""One-shot segmentation on PASCAL-5i as it was published, at its size: for a large GPU.

`--learner.weights` names VGG-16's weights as Caffe trained them (metashot.pretrained.vgg16); both
networks begin as they are. `--data.fold` 0 to 3 is what is held out.
"""

from metashot.config import OSLSM, Caffe, Experiment, MaskSizes, Pascal5i


def get_config() -> Experiment:
    return Experiment(
        data=Pascal5i(),
        learner=OSLSM(),
        steps=60_000,
        train=MaskSizes(),
        test=MaskSizes(),
        optimizer=Caffe(),
        validate_every=5000,
        test_episodes=1000,
    )
