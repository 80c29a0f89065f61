"""The meta-step: what is compiled. It knows nothing of files, clocks or terminals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from .base import Array, Episode, Learner, PyTree, Variables, merged
from .data.episodes import episode_key
from .devices import compiler_options, divide, over_episodes

TRAINING, INITIAL = 0, 3  # streams of keys: training episodes, first variables


class TrainState(NamedTuple):
    """All that a run needs to go on."""

    variables: Variables
    opt_state: PyTree
    step: Array  # [] int32, meta-steps done


def init_state(
    learner: Learner,
    optimizer: optax.GradientTransformation,
    episode: Episode,
    seed: int | Array,
    variables: Variables | None = None,
) -> TrainState:
    """A fresh optimiser state, and these variables or fresh ones for episodes of this shape."""
    if variables is None:
        variables = learner.init(episode_key(seed, INITIAL, 0), episode)
    return TrainState(variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32))


def make_meta_steps(
    learner: Learner,
    optimizer: optax.GradientTransformation,
    sample: Callable[[Array, Any], Any],
    mesh: Mesh,
    *,
    meta_batch: int,
    chunk: int,
    seed: int,
) -> Any:
    """A jitted (state, arrays, k) -> (state, metrics [k]) that takes k meta-steps.

    Gradients are averaged over the meta-batch here and nowhere else: `vmap` over the `chunk`
    episodes that each device of the mesh holds at once, `scan` over rounds of these with the
    gradient taken inside and added up.
    """
    width = mesh.size * chunk
    rounds = meta_batch // width

    def chunk_loss(
        params: PyTree, state: PyTree, arrays: PyTree, keys: Array
    ) -> tuple[Array, PyTree]:
        def one(key: Array) -> tuple[Array, Any]:
            sample_key, loss_key = jax.random.split(key)
            return learner.loss(
                {"params": params, "state": state}, sample(sample_key, arrays), loss_key
            )

        losses, aux = over_episodes(one, keys)
        told = {"loss": losses, **aux.metrics}
        return losses.mean(), jax.tree.map(lambda x: x.mean(0), (told, aux.state))

    def meta_step(state: TrainState, arrays: PyTree) -> tuple[TrainState, PyTree]:
        variables = state.variables
        params = variables["params"]
        index = state.step * meta_batch + jnp.arange(meta_batch)
        keys = jax.vmap(lambda i: episode_key(seed, TRAINING, i))(index)
        keys = divide(keys.reshape(rounds, width), mesh)

        def one_round(keys: Array) -> PyTree:
            grad = jax.value_and_grad(chunk_loss, has_aux=True)
            (_, told), grads = grad(params, variables["state"], arrays, keys)
            return grads, told

        shapes = jax.eval_shape(one_round, keys[0])
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        add = lambda total, keys: (jax.tree.map(jnp.add, total, one_round(keys)), None)
        total, _ = jax.lax.scan(add, zeros, keys)
        grads, (told, moved) = jax.tree.map(lambda x: x / rounds, total)

        updates, opt_state = optimizer.update(grads, state.opt_state, params)
        new: Variables = {
            "params": optax.apply_updates(params, updates),
            "state": merged(variables["state"], moved),
        }
        told |= {"grad_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(updates)}
        return TrainState(new, opt_state, state.step + 1), told

    def meta_steps(state: TrainState, arrays: PyTree, k: int) -> tuple[TrainState, PyTree]:
        return jax.lax.scan(lambda state, _: meta_step(state, arrays), state, length=k)

    options = compiler_options()
    return jax.jit(meta_steps, static_argnums=2, donate_argnums=0, compiler_options=options)
