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
    if scope == "alphabet" and not dataset.groups:
        raise ValueError(
            "scope is 'alphabet', but the data name no groups of classes; scope='all' takes all "
            "classes for one"
        )
    groups = dataset.groups if scope == "alphabet" else ("",) * dataset.classes
    kept, first, size = list[int](), list[int](), list[int]()
    for group in dict.fromkeys(groups):
        classes = [c for c, name in enumerate(groups) if name == group]
        if len(classes) >= least:
            first += [len(kept)] * len(classes)
            size += [len(classes)] * len(classes)
            kept += classes
    if not kept:
        raise ValueError(
            f"{least} classes are needed of one alphabet, but the largest of the data has only "
            f"{max(groups.count(group) for group in set(groups))}"
        )
    return Families(*(np.array(part, np.int32) for part in (kept, first, size)))


def drawn_place(uniform: Array, among: Families) -> Array:
    """A place of `Families.order` by numbers in [0, 1): all classes alike."""
    return jnp.floor(uniform * len(among.order)).astype(jnp.int32)
