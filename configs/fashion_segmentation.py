"""One-shot segmentation of clothes, on the frozen maps of EfficientNet-Lite0.

Clothing Co-Parsing in the layout of PASCAL VOC. Of the labels with 20 pictures or more, every
fourth is held out; the other folds are `--data.test` of the second, the third and the fourth label
and those after them. Nearly all pictures show several labels, so half of them are for testing.
"""

from metashot.config import (
    Adam,
    EfficientNetLite0,
    Experiment,
    MaskFolder,
    MaskSizes,
    Segmentation,
)

LABELS = (  # by the number of their pictures
    *("skin", "hair", "shoes", "bag", "pants", "dress", "coat", "blouse", "skirt", "jeans"),
    *("purse", "shirt", "sweater", "blazer", "suit", "t-shirt", "stockings", "jacket", "scarf"),
    *("vest", "shorts", "boots", "leggings", "top", "hat", "sandals", "cape", "romper"),
    *("sweatshirt", "jumper", "accessories"),
)


def get_config() -> Experiment:
    return Experiment(
        data=MaskFolder("fashion_ccp", test=LABELS[::4], classes=LABELS, halves=True),
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
