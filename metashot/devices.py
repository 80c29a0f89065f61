"""One mesh over all devices; whatever has an axis of episodes is divided along it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from .base import Array, PyTree


def episode_mesh(episodes: int) -> Mesh:
    """A mesh with the axis "episodes" over as many devices as divide that many episodes evenly.

    One device is a mesh of size 1, not another code path. The axis type is Auto: under the default
    the sampler's gather from replicated images by sharded indices is refused.
    """
    devices = jax.devices()
    size = max(d for d in range(1, len(devices) + 1) if episodes % d == 0)
    return Mesh(devices[:size], ("episodes",), axis_types=(AxisType.Auto,))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """The same arrays on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def divide(keys: Array, mesh: Mesh) -> Array:
    """Inside jit: divide [rounds, devices * chunk] over the mesh along its second axis.

    Loops run over the first axis: a scan over a divided axis has every device compute all of it.
    """
    return jax.lax.with_sharding_constraint(
        keys, NamedSharding(mesh, PartitionSpec(None, "episodes"))
    )


def cores() -> int:
    """The CPUs that this process may use, which is how many XLA uses."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


@functools.cache
def compiler_options() -> dict[str, str]:
    """For `jax.jit` of what is all convolutions: XLA then runs one on all cores of a CPU.

    Left alone, jaxlib 0.10 leaves convolutions to a library that uses one core. On two, a training
    step of Conv4-64 at 28x28 took 115 ms and takes 92, 120 test episodes took 2.3 s and take 1.3.
    """
    kinds = ("INDIVIDUAL_DOT", "REDUCE")  # what the library keeps
    names = ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in kinds)
    options = {"xla_cpu_experimental_ynn_fusion_type": names}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: -x, compiler_options=options)(1.0)
    except jax.errors.JaxRuntimeError:  # another jaxlib
        return {}
    return options


def over_episodes(one: Callable[[Array], PyTree], keys: Array) -> PyTree:
    """Inside jit: `one` for each of keys [n], as `vmap` has it; a single one without that axis.

    Around an axis of length one XLA transposes what the Meta-Learner LSTM multiplies.
    """
    if len(keys) == 1:
        return jax.tree.map(lambda x: x[None], one(keys[0]))
    return jax.vmap(one)(keys)
