"""What several test files share."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import optax  # noqa: F401  (it jits while it is imported, which `quick_compile` must not change)
import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METASHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def float64() -> Iterator[None]:
    """Double precision, for numbers worked out by hand."""
    with jax.enable_x64(True):
        yield


@functools.cache
def quick_options() -> dict[str, Any]:
    """Options that halve the time XLA takes for our largest programs on a CPU, if it has them."""
    options = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: -x, compiler_options=options)(1.0)
    except jax.errors.JaxRuntimeError:
        return {}
    return options


@pytest.fixture(scope="module")
def quick_compile() -> Iterator[None]:
    """Compile in a quarter of the time: for tests of values, which run each program once or twice.

    Replaces `jax.jit`, so it holds for what is jitted while the module's tests run.
    """
    jit, least = jax.jit, quick_options()

    def quick(*function: Any, **keywords: Any) -> Any:
        options = {**least, **(keywords.pop("compiler_options", None) or {})}
        return jit(*function, **keywords, compiler_options=options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick)
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
