"""The key-value memory: numbers worked out by hand, in double precision, and a plain loop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metashot.memory import Memory, read, write

pytestmark = [pytest.mark.usefixtures("quick_compile"), pytest.mark.usefixtures("float64")]

A, B, C = range(3)
SEQUENCE = [[1, 0], [0, 1], [0.8, 0.6], [0, 2], [0.9, 0.1]]
LABELS = [A, B, A, B, C]


def written(
    z: Any, labels: Any, *, slots: int = 4, mask: Any = None, **options: Any
) -> tuple[np.ndarray, list[int], Memory]:
    """The used keys, their labels, and the memory."""
    z, labels = jnp.asarray(z, float), jnp.asarray(labels, jnp.int32)
    memory = jax.jit(lambda z, labels: write(z, labels, mask, slots=slots, **options))(z, labels)
    used = int(memory.used)
    np.testing.assert_array_equal(memory.keys[used:], 0)
    assert set(memory.values[used:].tolist()) <= {-1}
    return np.asarray(memory.keys)[:used], memory.values[:used].tolist(), memory


def assert_keys(actual: Any, desired: Any) -> None:
    np.testing.assert_allclose(actual, desired, rtol=0, atol=6e-7)


# Writing


@pytest.mark.parametrize(
    ("key_norm", "third"),
    [("paper", (0.9, 0.1)), ("store", (0.993884, 0.110432)), ("unit", (0.993884, 0.110432))],
)
def test_the_same_label_is_merged_another_takes_a_new_slot(key_norm: str, third: Any) -> None:
    keys, values, _ = written(SEQUENCE, LABELS, key_norm=key_norm)
    assert_keys(keys, [(0.948683, 0.316228), (0, 1), third])
    assert values == [A, B, C]


@pytest.mark.parametrize(
    ("key_norm", "first"),
    [
        ("paper", (0.975579, 0.219650)),
        ("store", (0.975579, 0.219650)),
        ("unit", (0.976719, 0.214523)),
    ],
)
def test_a_full_memory_merges_into_the_nearest_slot_which_keeps_its_label(
    key_norm: str, first: Any
) -> None:
    keys, values, _ = written(SEQUENCE, LABELS, slots=2, key_norm=key_norm)
    assert_keys(keys, [first, (0, 1)])
    assert values == [A, B]


def test_a_full_memory_may_leave_out_what_finds_no_slot() -> None:
    keys, values, _ = written(SEQUENCE, LABELS, slots=2, overflow="skip")
    assert_keys(keys, [(0.948683, 0.316228), (0, 1)])
    assert values == [A, B]


def test_padding_is_not_written() -> None:
    mask = jnp.array([True, True, False, True, True])
    keys, values, _ = written(SEQUENCE, LABELS, mask=mask)
    assert_keys(keys, [(1, 0), (0, 1), (0.9, 0.1)])
    assert values == [A, B, C]


@pytest.mark.parametrize(
    ("order", "keys"),
    [
        ("A1 B1 A2", [(1, 0), (0.6, 0.8), (0.5, 0.9)]),
        ("A1 A2 B1", [(0.857493, 0.514496), (0.6, 0.8)]),
        ("B1 A1 A2", [(0.6, 0.8), (1, 0), (0.5, 0.9)]),
    ],
)
def test_the_order_decides_how_many_slots_a_class_has(order: str, keys: Any) -> None:
    """A2's neighbour is B1 by 1.02, and A1 by 0.5."""
    known = {"A1": (A, (1, 0)), "A2": (A, (0.5, 0.9)), "B1": (B, (0.6, 0.8))}
    labels, z = zip(*(known[name] for name in order.split()), strict=True)
    assert_keys(written(z, labels)[0], keys)


@pytest.mark.parametrize(
    ("z", "key_norm", "key"),
    [
        ([(1, 0), (0, 1), (0.6, 0.8)], "unit", (0.655202, 0.755454)),
        ([(0.6, 0.8), (1, 0), (0, 1)], "unit", (0.525731, 0.850651)),
        ([(10, 0), (0, 10), (10, 0)], "paper", (0.997826, 0.065897)),
        ([(10, 0), (0, 10), (10, 0)], "unit", (0.923880, 0.382683)),
    ],
)
def test_the_latest_examples_of_a_class_weigh_most(z: Any, key_norm: str, key: Any) -> None:
    assert_keys(written(z, [A, A, A], key_norm=key_norm)[0], [key])


def test_the_first_of_equal_slots_is_looked_at() -> None:
    keys, values, _ = written([(1, 0)] * 3, [A, B, A])
    assert_keys(keys, [(1, 0), (1, 0)])
    assert values == [A, B]


def test_other_names_of_the_classes_give_the_same_keys() -> None:
    keys, values, _ = written(SEQUENCE, [[7, 3, 1][c] for c in LABELS])
    np.testing.assert_array_equal(keys, written(SEQUENCE, LABELS)[0])
    assert values == [7, 3, 1]


@pytest.mark.parametrize(
    ("key_norm", "labels", "keys", "values"),
    [
        ("paper", "ABAA", [(0.8, 0.6), (6, 8), (8, 6)], [A, B, A]),
        ("store", "ABAA", [(0.8, 0.6), (0.6, 0.8)], [A, B]),
        ("paper", "AAABBB", [(0.8, 0.6), (0.6, 0.8)], [A, B]),
        ("store", "AAABBB", [(0.8, 0.6), (0.6, 0.8)], [A, B]),
    ],
)
def test_a_long_key_of_another_class_beats_the_merged_one_of_the_own(
    key_norm: str, labels: str, keys: Any, values: list[int]
) -> None:
    """96 against 10: the example opens a slot, though its class has one."""
    z = [{"A": (8, 6), "B": (6, 8)}[c] for c in labels]
    told = written(z, ["AB".index(c) for c in labels], key_norm=key_norm)
    assert_keys(told[0], keys)
    assert told[1] == values


def test_negative_similarities_are_not_beaten_by_empty_slots() -> None:
    assert written([(1, 0), (-1, 0.1)], [A, A])[1] == [A]


def test_one_shot_memory_is_the_examples() -> None:
    z = np.random.default_rng(0).normal(size=(4, 3))
    keys, values, memory = written(z, range(4))
    np.testing.assert_array_equal(keys, z)
    assert (values, int(memory.used)) == ([0, 1, 2, 3], 4)


def by_a_loop(z: np.ndarray, labels: Any, mask: Any, slots: int, key_norm: str, skip: bool) -> Any:
    """The paper's text, line by line."""
    unit = lambda v: v / np.linalg.norm(v)
    keys: list[np.ndarray] = []
    values: list[int] = []
    for v, label, counts in zip(z, labels, mask, strict=True):
        if not counts:
            continue
        v = unit(v) if key_norm == "unit" else v
        nearest = int(np.argmax([m @ v for m in keys])) if keys else None
        if nearest is not None and values[nearest] == label:
            keys[nearest] = unit(keys[nearest] + v)
        elif len(keys) < slots:
            keys.append(unit(v) if key_norm == "store" else v)
            values.append(int(label))
        elif not skip:
            keys[nearest] = unit(keys[nearest] + v)
    return keys, values


@pytest.mark.parametrize("key_norm", ["paper", "store", "unit"])
@pytest.mark.parametrize("overflow", ["merge_keep_value", "skip"])
def test_many_memories_at_once_equal_a_loop_each(key_norm: str, overflow: str) -> None:
    rng = np.random.default_rng(0)
    episodes, n, slots = 5, 12, 4
    z = rng.normal(size=(episodes, n, 3)) + 1
    labels, mask = rng.integers(0, 4, (episodes, n)), rng.random((episodes, n)) < 0.8
    one = lambda *rows: write(*rows, slots=slots, key_norm=key_norm, overflow=overflow)
    told = jax.jit(jax.vmap(one))(z, jnp.asarray(labels, jnp.int32), mask)
    for e in range(episodes):
        keys, values = by_a_loop(z[e], labels[e], mask[e], slots, key_norm, overflow == "skip")
        np.testing.assert_allclose(told.keys[e, : len(keys)], keys, atol=1e-9)
        assert told.values[e].tolist() == values + [-1] * (slots - len(values))
        assert told.used[e] == len(values)


# Reading


@pytest.mark.parametrize(
    ("query", "c"), [((1, 0), (0.771848, 0.341375)), ((0, 2), (0.274944, 0.772577))]
)
def test_reading_mixes_the_used_slots(query: Any, c: Any) -> None:
    _, _, memory = written(SEQUENCE, LABELS)
    assert_keys(read(memory, jnp.array([query], float)), [c])


def test_an_empty_slot_would_change_the_reading() -> None:
    _, _, memory = written(SEQUENCE, LABELS)
    c = read(memory._replace(used=jnp.array(4)), jnp.array([[1.0, 0]]))
    assert_keys(c, [(0.662240, 0.292897)])


def test_the_order_of_the_slots_does_not_change_the_reading() -> None:
    _, _, memory = written(SEQUENCE, LABELS, slots=3)
    turned = memory._replace(keys=memory.keys[::-1])
    query = jnp.array([[1.0, 0], [0, 2]])
    np.testing.assert_allclose(read(turned, query), read(memory, query), atol=1e-12)


def test_queries_of_unit_keys_are_brought_to_length_one() -> None:
    _, _, memory = written(SEQUENCE, LABELS, key_norm="unit")
    near, far = read(memory, jnp.array([[0.6, 0.8], [6.0, 8]]), key_norm="unit")
    np.testing.assert_allclose(near, far, atol=1e-12)


def test_an_empty_memory_reads_as_zeros_with_finite_gradients() -> None:
    def total(z: jax.Array) -> jax.Array:
        memory = write(z, jnp.zeros(2, jnp.int32), jnp.zeros(2, bool), slots=2)
        return read(memory, z).sum()

    value, grad = jax.jit(jax.value_and_grad(total))(jnp.ones((2, 3)))
    assert value == 0
    np.testing.assert_array_equal(grad, 0)


def test_from_writing_to_similarities() -> None:
    """All matrices the identity: g = z + c, and a query meets it as it is."""
    z = jnp.array([[1.0, 0], [0, 1]])
    _, _, memory = written(z, [A, B])
    g = z + read(memory, z)
    assert_keys(g, [(1.731059, 0.268941), (0.268941, 1.731059)])
    similar = jnp.array([[1, 0], [0.2, 0.9]]) @ g.T
    assert_keys(similar, [(1.731059, 0.268941), (0.588259, 1.611741)])


# Gradients


def test_a_merged_key_passes_gradient_to_all_it_was_made_of() -> None:
    key = lambda z: write(z, jnp.array(LABELS), slots=4).keys[0, 1]
    grad = jax.jit(jax.grad(key))(jnp.array(SEQUENCE, float))
    at = (-0.158114, 0.474342)
    assert_keys(grad, [at, (0, 0), at, (0, 0), (0, 0)])


def test_the_gradient_of_the_merging() -> None:
    """By both summands alike, d (v / |v|) / dv at v = (3, 4)."""
    merged = lambda z: write(z, jnp.array([A, A]), slots=1).keys[0]
    jacobian = jax.jit(jax.jacrev(merged))(jnp.array([[1.0, 1], [2, 3]]))
    for summand in (0, 1):
        assert_keys(jacobian[:, summand], [(0.128, -0.096), (-0.096, 0.072)])


def test_the_gradient_of_the_reading() -> None:
    _, _, memory = written(SEQUENCE, LABELS)
    jacobian = jax.jit(jax.jacrev(lambda q: read(memory, q[None])[0]))(jnp.array([1.0, 0]))
    assert_keys(jacobian, [(0.118654, -0.098632), (-0.098632, 0.095784)])


def test_gradients_through_the_keys_may_be_stopped() -> None:
    def total(z: jax.Array, stop: bool) -> jax.Array:
        return write(z, jnp.array(LABELS), slots=4, stop_gradient=stop).keys.sum()

    grad = jax.jit(jax.grad(total), static_argnums=1)
    z = jnp.array(SEQUENCE, float)
    assert np.any(grad(z, False))
    assert not np.any(grad(z, True))


def test_gradients_are_finite_at_zero() -> None:
    def total(z: jax.Array) -> jax.Array:
        memory = write(z, jnp.array([A, A, B]), slots=3, key_norm="store")
        return read(memory, z).sum()

    assert np.isfinite(jax.jit(jax.grad(total))(jnp.zeros((3, 2)))).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"slots": 0}, "slots is 0; it is at least 1"),
        ({"key_norm": "raw"}, "key_norm is 'raw'; it is one of paper, store, unit"),
        ({"overflow": "oldest"}, "overflow is 'oldest'; it is one of merge_keep_value, skip"),
    ],
)
def test_arguments_outside_their_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(jnp.ones((1, 2)), jnp.zeros(1, jnp.int32), **{"slots": 2, **wrong})
