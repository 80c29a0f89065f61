"""One-shot segmentation of clothes, on the frozen maps of EfficientNet-Lite0.

As pascal_segmentation, with Clothing Co-Parsing in the layout of PASCAL VOC. Of the labels with 20
pictures or more, every fourth is held out; the other folds are `--data.test` of the second, the
third and the fourth label and those after them. Nearly all pictures show several labels, so half of
them are for testing.
"""

import dataclasses

from metashot.config import Experiment, MaskFolder, read

LABELS = (  # by the number of their pictures
    *("skin", "hair", "shoes", "bag", "pants", "dress", "coat", "blouse", "skirt", "jeans"),
    *("purse", "shirt", "sweater", "blazer", "suit", "t-shirt", "stockings", "jacket", "scarf"),
    *("vest", "shorts", "boots", "leggings", "top", "hat", "sandals", "cape", "romper"),
    *("sweatshirt", "jumper", "accessories"),
)


def get_config() -> Experiment:
    data = MaskFolder("fashion_ccp", test=LABELS[::4], classes=LABELS, halves=True)
    return dataclasses.replace(read("pascal_segmentation"), data=data)
