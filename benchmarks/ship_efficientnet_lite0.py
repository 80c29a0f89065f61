"""Measure what comes with metashot beside the weights of EfficientNet-Lite0: its similarities.

METASHOT_DATA=DIR python benchmarks/ship_efficientnet_lite0.py

They are of the 64 base classes of Caltech-101 in DIR/caltech101.
"""

from __future__ import annotations

import imprinting_pretrained

from metashot import enrolment
from metashot.loading import write_classes
from metashot.similarities import similarities


def main() -> None:
    novel = imprinting_pretrained.SETS["caltech101"]
    pictures = imprinting_pretrained.read(novel.archive, "split_base.txt")
    found = similarities(enrolment.pretrained(), pictures)
    write_classes(enrolment.SHIPPED / "efficientnet_lite0", (), found)


if __name__ == "__main__":
    main()
