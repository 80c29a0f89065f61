"""The contract that every system of metashot is written in.

A learner turns a support set into the parameters of a task, and the task turns queries into
answers. Everything here is *one task*: `jax.vmap` adds an axis of episodes, a mesh shards it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypedDict, cast

import jax

Array = jax.Array
PyTree = Any


class Examples(NamedTuple):
    """n labelled things of one task."""

    inputs: Array  # [n, ...] float: images, crops, frames
    targets: Array  # [n] int32 class, or [n, H, W] masks or label maps; -1 does not count
    mask: Array  # [n] bool; False is padding, which changes nothing


class Episode(NamedTuple):
    """A small supervised problem: learn from the support, answer the queries."""

    support: Examples
    query: Examples
    about: PyTree = ()  # what evaluation needs and no learner reads: class ids, drawers


class Variables(TypedDict):
    """What a network or a learner owns."""

    params: PyTree  # what an optimiser trains
    state: PyTree  # what it does not: running statistics, indices


class Aux(NamedTuple):
    """What a loss tells beside its value."""

    metrics: dict[str, Array]  # scalars
    state: PyTree = ()  # the entries of `Variables.state` that this episode changed, all floating


class Predict(Protocol):
    def __call__(self, variables: Variables, task: PyTree, inputs: Array) -> Array: ...


class Adapt(Protocol):
    def __call__(
        self, variables: Variables, support: Examples, key: Array | None = None
    ) -> PyTree: ...


class Apply(Protocol):
    def __call__(
        self,
        variables: Variables,
        x: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        key: Array | None = None,
    ) -> tuple[Array, PyTree]: ...


class Learner(NamedTuple):
    """Four pure functions of one task. Close over a learner; never pass it as a traced argument.

    `loss` is the condition of meta-training, `adapt` followed by `predict` that of meta-testing.
    Logits are [q, way]; a class of which the learner knows nothing has logit -inf.
    """

    init: Callable[[Array, Episode], Variables]  # (key, episode)
    adapt: Adapt  # (variables, support, key=None) -> task
    predict: Predict  # (variables, task, inputs) -> outputs
    loss: Callable[[Variables, Episode, Array], tuple[Array, Aux]]  # (variables, episode, key)


class Network(NamedTuple):
    """Two pure functions over a batch.

    `train=True` normalises by the statistics of this call's unmasked rows and returns them in
    `stats`, a tree of {"mean", "var", "count"} shaped like `state`; `train=False` normalises by
    `state`. Who turns `stats` into a running value is the caller (`metashot.nets.running`).
    Dropout is on where `train` is and a `key` is given; learners without dropout give none.
    """

    init: Callable[[Array, Array], Variables]  # (key, x)
    apply: Apply  # (variables, x, *, train=False, mask=None, key=None) -> (outputs, stats)


def merged(old: PyTree, new: PyTree) -> PyTree:
    """An old `Variables.state` with the entries of an `Aux.state`, in the old dtypes."""
    if not isinstance(old, dict):
        return jax.lax.convert_element_type(new, old.dtype)
    entries = cast("dict[str, PyTree]", old)
    return {k: merged(v, new[k]) if k in new else v for k, v in entries.items()}
