"""Families of classes: the characters of an alphabet, which are told apart from one another."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..base import Array
from .dataset import Dataset

Scope = Literal["all", "alphabet"]


class Families(NamedTuple):
    """Classes in the order of their families: an argument of the compiled step.

    Family mates of the class at place i are those at places first[i] : first[i] + size[i].
    """

    order: Any  # [m] int32, classes
    first: Any  # [m] int32, a place
    size: Any  # [m] int32


def families(dataset: Dataset, scope: Scope, least: int) -> Families:
    """The families of a data set: its groups, or all classes as one.

    Args:
        dataset: with groups, where the scope is "alphabet".
        scope: "alphabet" or "all".
        least: classes; smaller families are left out.

    Raises:
        ValueError: no groups, or no family that is large enough.
    """
    problem = impossible_families(dataset, scope, least)
    if problem:
        raise ValueError(problem)
    groups = _groups(dataset, scope)
    kept, first, size = list[int](), list[int](), list[int]()
    for group in dict.fromkeys(groups):
        classes = [c for c, name in enumerate(groups) if name == group]
        if len(classes) >= least:
            first += [len(kept)] * len(classes)
            size += [len(classes)] * len(classes)
            kept += classes
    return Families(*(np.array(part, np.int32) for part in (kept, first, size)))


def impossible_families(dataset: Dataset, scope: Scope, least: int) -> str | None:
    """Why there are none, in a sentence; None if there are."""
    groups = _groups(dataset, scope)
    if not groups:
        return (
            "scope is 'alphabet', but the data name no groups of classes; scope 'all' takes all "
            "classes for one"
        )
    most = max(groups.count(group) for group in set(groups))
    if most < least:
        return f"scope is {scope!r}, which gives at most {most} classes where {least} are needed"
    return None


def _groups(dataset: Dataset, scope: Scope) -> tuple[str, ...]:
    """The family of each class."""
    return dataset.groups if scope == "alphabet" else ("",) * dataset.classes


def drawn_place(uniform: Array, among: Families) -> Array:
    """A place of `Families.order` by numbers in [0, 1): all classes alike."""
    return jnp.floor(uniform * len(among.order)).astype(jnp.int32)
