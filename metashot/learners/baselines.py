"""What every learner should beat (Ravi & Larochelle 2017, section 5.1)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ..base import Array, Aux, Episode, Examples, Learner, Network, PyTree, Variables, merged
from ..losses import classification_loss, known_classes, members
from ..nets import conv4, dense, init_dense, init_with_head, running, unit


def classifier(
    *, network: Network | None = None, way: int = 64, bn_new_weight: float = 0.1
) -> Learner:
    """Ordinary classification of `way` classes by a linear head, on plain batches.

    A plain batch (`metashot.data.batches`) is an episode whose support has no rows. Where there is
    a support it teaches nothing, but says which classes take part; the others have logit -inf.

    Args:
        network: the features, [n, ...] -> [n, d]; the default is `conv4(64)`.
        way: classes of all the data together.
        bn_new_weight: weight of a batch's statistics in the stored ones.
    """
    features = conv4(64) if network is None else network

    def taking_part(head: PyTree, support: Examples) -> Array:
        classes = len(head["bias"])  # fewer than `way` once `fine_tune` has drawn another head
        return known_classes(support, classes) if len(support.mask) else jnp.ones(classes, bool)

    def init(key: Array, episode: Episode) -> Variables:
        net_key, head_key = jax.random.split(key)
        return init_with_head(features, net_key, head_key, episode.query.inputs, way)

    def logits(
        variables: Variables, known: Array, x: Array, **settings: Any
    ) -> tuple[Array, PyTree]:
        z, stats = features.apply(_body(variables), x, **settings)
        return jnp.where(known, dense(variables["params"]["head"], z), -jnp.inf), stats

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        return {"known": taking_part(variables["params"]["head"], support)}

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        return logits(variables, task["known"], inputs)[0]

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        known = taking_part(variables["params"]["head"], episode.support)
        query = episode.query
        settings = {"train": True, "mask": query.mask, "key": key}
        scores, stats = logits(variables, known, query.inputs, **settings)
        state = running(variables["state"], stats, bn_new_weight)
        return classification_loss(scores, query, state)

    return Learner(init, adapt, predict, loss)


def _body(variables: Variables) -> Variables:
    """A classifier's network, without its head."""
    return {"params": variables["params"]["network"], "state": variables["state"]}


def nearest_neighbor(*, network: Network | None = None, way: int = 5) -> Learner:
    """The class of the most similar support example, by the cosine of their embeddings.

    logits_c(x) = max over support j of class c of cos(f(x), f(x_j)): one neighbour at any shot,
    as in Ravi & Larochelle (2017), section 5.1. It needs no training of its own.

    Args:
        network: embeds [n, ...] -> [n, d]; None compares the pixels themselves.
        way: length of the class axis; a class without support has logit -inf.
    """

    def embed(variables: Variables, x: Array, mask: Array | None = None) -> Array:
        if network is None:
            return unit(x.reshape(x.shape[0], -1))
        return unit(network.apply(variables, x, mask=mask)[0])

    def init(key: Array, episode: Episode) -> Variables:
        if network is None:
            return {"params": {}, "state": {}}
        return network.init(key, episode.support.inputs)

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        z = embed(variables, support.inputs, support.mask)
        return {"embeddings": z, "member": members(support, way)}

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        similar = embed(variables, inputs) @ task["embeddings"].T  # [q, n]
        return jnp.where(task["member"], similar[:, :, None], -jnp.inf).max(1)

    def loss(variables: Variables, episode: Episode, key: Array) -> tuple[Array, Aux]:
        scores = predict(variables, adapt(variables, episode.support), episode.query.inputs)
        return classification_loss(scores, episode.query)

    return Learner(init, adapt, predict, loss)


def nearest_embedding(
    *,
    network: Network | None = None,
    way: int = 5,
    classes: int = 64,
    bn_new_weight: float = 0.1,
) -> Learner:
    """Nearest neighbour on an embedding that learns to classify all training classes.

    Trained on plain batches as `classifier` is, it answers episodes as `nearest_neighbor` does.

    Args:
        network: the embedding; the default is `conv4(64)`.
        way: of an episode; a class without support has logit -inf.
        classes: of the training data.
        bn_new_weight: weight of a batch's statistics in the stored ones.
    """
    embedding = conv4(64) if network is None else network
    trained = classifier(network=embedding, way=classes, bn_new_weight=bn_new_weight)
    compared = nearest_neighbor(network=embedding, way=way)

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        return compared.adapt(_body(variables), support, key)

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        return compared.predict(_body(variables), task, inputs)

    return Learner(trained.init, adapt, predict, trained.loss)


def fine_tune(
    learner: Learner,
    optimizer: optax.GradientTransformation,
    steps: int,
    *,
    way: int | None = None,
) -> Learner:
    """A learner made of a learner: its own training goes on, for some steps, on the support set.

    `adapt` minimises `learner.loss` on the support (as support and as queries) from the trained
    variables, running statistics included; its Task is (variables, task of the learner). `init`
    and `loss` are the learner's.

    Args:
        learner: what is fine-tuned; with `way`, one that keeps a linear head in params["head"].
        optimizer: any optax transformation; a rate may fall with the step.
        steps: full-batch updates.
        way: first draw a fresh head of this many classes from `adapt`'s key; Ravi & Larochelle's
            release draws one for a whole evaluation. Without a fresh head the key may be left out:
            a loss that draws then draws alike in every episode.

    Raises:
        ValueError: no steps; from `adapt`, a fresh head without a key.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; fine-tuning needs at least one update")

    def with_fresh_head(variables: Variables, classes: int, key: Array) -> Variables:
        params = variables["params"]
        head = init_dense(key, params["head"]["kernel"].shape[0], classes)
        return {"params": {**params, "head": head}, "state": variables["state"]}

    def adapt(variables: Variables, support: Examples, key: Array | None = None) -> PyTree:
        if way is not None and key is None:
            raise ValueError("a fresh head is drawn at random: give adapt a key")
        drawn = jax.random.key(0) if key is None else key
        head_key, task_key, steps_key = jax.random.split(drawn, 3)
        if way is not None:
            variables = with_fresh_head(variables, way, head_key)
        episode = Episode(support, support)

        def loss_of(params: PyTree, state: PyTree, key: Array) -> tuple[Array, PyTree]:
            loss, aux = learner.loss({"params": params, "state": state}, episode, key)
            return loss, aux.state

        def step(carry: Any, key: Array) -> tuple[Any, None]:
            tuned, opt_state = carry
            params, state = tuned["params"], tuned["state"]
            grads, moved = jax.grad(loss_of, has_aux=True)(params, state, key)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            params, state = optax.apply_updates(params, updates), merged(state, moved)
            return ({"params": params, "state": state}, opt_state), None

        start = variables, optimizer.init(variables["params"])
        (tuned, _), _ = lax.scan(step, start, jax.random.split(steps_key, steps))
        return tuned, learner.adapt(tuned, support, task_key)

    def predict(variables: Variables, task: PyTree, inputs: Array) -> Array:
        tuned, inner = task
        return learner.predict(tuned, inner, inputs)

    return Learner(learner.init, adapt, predict, learner.loss)
