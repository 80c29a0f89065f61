"""Small layers: functions over arrays."""

from __future__ import annotations

from jax import lax

from ..base import Array, PyTree


def dense(params: PyTree, x: Array) -> Array:
    """x [n, d] times "kernel" [d, outputs] plus "bias" [outputs]."""
    return x @ params["kernel"] + params["bias"]


def unit(x: Array, eps: float = 1e-12) -> Array:
    """x [..., d] at length one, x / sqrt(|x|^2 + eps); zero stays zero, with a finite gradient."""
    return x * lax.rsqrt((x * x).sum(-1, keepdims=True) + eps)
