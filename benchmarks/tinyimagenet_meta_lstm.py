"""Tiny-ImageNet at 32 pixels, 5-way: the Meta-Learner LSTM and what it is compared with.

    METASHOT_DATA=DIR python benchmarks/tinyimagenet_meta_lstm.py [ROW ...]

As omniglot_meta_lstm.py. The published figures beside the rows are those of Ravi & Larochelle
(2017), table 1, on miniImageNet at 84 pixels: other pictures, and far longer training.
"""

from __future__ import annotations

import sys

from few_shot import Row, run_table

from metashot import config

ROWS = {
    "meta_lstm_5w1s": Row("tinyimagenet_meta_lstm", 1, 0.4344),
    "meta_lstm_5w5s": Row("tinyimagenet_meta_lstm_5shot", 5, 0.6060),
    "prototypical_5w1s": Row("tinyimagenet_prototypical", 1),
    "prototypical_5w5s": Row("tinyimagenet_prototypical", 5),
    "maml_5w1s": Row("tinyimagenet_maml", 1, train_shot=1),
    "maml_5w5s": Row("tinyimagenet_maml", 5, train_shot=5),
    "anil_5w1s": Row("tinyimagenet_anil", 1, train_shot=1),
    "anil_5w5s": Row("tinyimagenet_anil", 5, train_shot=5),
    "matching_5w1s": Row("tinyimagenet_matching", 1, 0.4340, train_shot=1),
    "matching_5w5s": Row("tinyimagenet_matching", 5, 0.5109, train_shot=5),
    "nearest_embedding_5w1s": Row("tinyimagenet_nearest_embedding", 1, 0.4108),
    "nearest_embedding_5w5s": Row("tinyimagenet_nearest_embedding", 5, 0.5104),
    "fine_tune_5w1s": Row(
        "tinyimagenet_fine_tune", 1, 0.2886, run_of="tinyimagenet_nearest_embedding"
    ),
    "fine_tune_5w5s": Row(
        "tinyimagenet_fine_tune", 5, 0.4979, run_of="tinyimagenet_nearest_embedding"
    ),
    "nearest_pixel_5w1s": Row(None, 1),
    "nearest_pixel_5w5s": Row(None, 5),
}

if __name__ == "__main__":
    run_table("tinyimagenet_meta_lstm", ROWS, config.TinyImageNet(size=32), sys.argv[1:])
