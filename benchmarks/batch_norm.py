"""Which batch-norm statistics answer the queries of the 5-shot Meta-Learner LSTM.

    METASHOT_DATA=DIR python benchmarks/batch_norm.py

Needs the run of `python benchmarks/tinyimagenet_meta_lstm.py meta_lstm_5w5s`, and tests its learner
on 100 episodes of validation classes: with the running statistics of the T support passes (the
paper's rule), with those of one more pass at the final weights, and with the query set's own.
"""

from __future__ import annotations

from typing import Any

import results
from few_shot import RUNS

import metashot
from metashot import config, nets
from metashot.base import Array, Examples, Learner, PyTree, Variables
from metashot.evaluation import VALIDATION

NAME = "batch_norm"


def one_more_pass(learner: Learner, network: metashot.Network) -> Learner:
    """The learner, with the statistics of the support at the final weights."""

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        task = learner.adapt(variables, support, key)
        pupil: Variables = {"params": task["params"]["network"], "state": task["state"]}
        _, stats = network.apply(pupil, support.inputs, train=True, mask=support.mask)
        return {**task, "state": nets.running(task["state"], stats, new_weight=1.0)}

    return learner._replace(adapt=adapt)


if __name__ == "__main__":
    folder = RUNS / "tinyimagenet_meta_lstm_5shot"
    settings = config.read(folder / "config.py")
    network = settings.learner.network.build()
    fields: dict[str, Any] = dict(vars(settings.learner), network=network, way=5)
    learner, variables, *_ = metashot.load(folder)
    validation = metashot.episodes(settings.data.load().val, **vars(settings.test))
    for name, asked in {
        "running": learner,
        "final_weights": one_more_pass(learner, network),
        "query_set": metashot.meta_lstm(**dict(fields, transductive=True)),
    }.items():
        result = metashot.evaluate(asked, variables, validation, count=100, stream=VALIDATION)
        value, interval = result.summary["accuracy"]
        command = f"python benchmarks/{NAME}.py"
        told = {"name": name, "value": value, "interval": interval, "command": command}
        results.add(NAME, told)
        print(f"{name}: {100 * value:.2f} ± {100 * interval:.2f} %", flush=True)
