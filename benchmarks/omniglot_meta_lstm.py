"""Omniglot, 5-way: the Meta-Learner LSTM and what it is compared with.

    METASHOT_DATA=DIR python benchmarks/omniglot_meta_lstm.py [ROW ...]

Each row trains by the installed config (or goes on with a run that was cut short), tests on 600
episodes of test characters, and is written at once. Rows that stand already are left alone unless
they are named. `--repacked` accepts archives other than the official ones.
"""

from __future__ import annotations

import sys

from few_shot import Row, run_table

from metashot import config

ROWS = {
    "meta_lstm_5w1s": Row("omniglot_meta_lstm", 1),
    "meta_lstm_5w5s": Row("omniglot_meta_lstm_5shot", 5),
    "prototypical_5w1s": Row("omniglot_prototypical", 1, 0.988),
    "prototypical_5w5s": Row("omniglot_prototypical", 5, 0.997),
    "maml_5w1s": Row("omniglot_maml", 1, 0.987, train_shot=1),
    "maml_5w5s": Row("omniglot_maml", 5, 0.999, train_shot=5),
    "anil_5w1s": Row("omniglot_anil", 1, train_shot=1),
    "anil_5w5s": Row("omniglot_anil", 5, train_shot=5),
    "matching_5w1s": Row("omniglot_matching", 1, 0.981, train_shot=1),
    "matching_5w5s": Row("omniglot_matching", 5, 0.989, train_shot=5),
    "matching_scale10_5w1s": Row("omniglot_matching", 1, train_shot=1, learner={"scale": 10.0}),
    "matching_scale10_5w5s": Row("omniglot_matching", 5, train_shot=5, learner={"scale": 10.0}),
    "nearest_embedding_5w1s": Row("omniglot_nearest_embedding", 1),
    "nearest_embedding_5w5s": Row("omniglot_nearest_embedding", 5),
    "fine_tune_5w1s": Row("omniglot_fine_tune", 1, run_of="omniglot_nearest_embedding"),
    "fine_tune_5w5s": Row("omniglot_fine_tune", 5, run_of="omniglot_nearest_embedding"),
    "nearest_pixel_5w1s": Row(None, 1),
    "nearest_pixel_5w5s": Row(None, 5),
}

if __name__ == "__main__":
    names = sys.argv[1:]
    repacked = "--repacked" in names
    data = config.Omniglot(repacked=repacked)
    run_table("omniglot_meta_lstm", ROWS, data, [name for name in names if name != "--repacked"])
