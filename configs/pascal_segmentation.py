"""One-shot segmentation on PASCAL-5i, on the frozen maps of EfficientNet-Lite0.

Minutes on two cores. `--data.fold` 0 to 3 is what is held out; `metashot evaluate RUN RUN RUN RUN
--shot 1,5` tells all four folds and their mean. VOC2012 with SBD's masks is in
METASHOT_DATA/VOC2012, or `--data.source` names it.
"""

from metashot.config import (
    Adam,
    EfficientNetLite0,
    Experiment,
    MaskSizes,
    Pascal5i,
    Segmentation,
)


def get_config() -> Experiment:
    return Experiment(
        data=Pascal5i(size=288, sampling="classes"),
        learner=Segmentation(
            network=EfficientNetLite0(),
            reduction="mean",
            loss_at="cells",
            foreground_weight=3.0,
        ),
        steps=250,
        train=MaskSizes(),
        test=MaskSizes(),
        meta_batch=16,
        optimizer=Adam(rate=1e-3, decay="cosine"),
        validate_every=250,
        test_episodes=1000,
    )
