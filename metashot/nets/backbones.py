"""Backbones: flax.linen modules over our layers, and the bridge from any linen module.

A module is called as `module(x, train=..., mask=...)`; its normalising layers keep running
statistics in the collection "batch_stats" and hand out the batch's in "stats".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ..base import Array, Network, PyTree, Variables
from . import convolutions, norms
from .convolutions import conv_general_dilated
from .layers import dense
from .substitution import with_our_pooling


def uniform_fan_in(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """U(-a, a), a = 1 / sqrt(fan_in), for a kernel [..., fan, out] (Torch's default)."""
    bound = 1 / jnp.sqrt(jnp.prod(jnp.array(shape[:-1])))
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def uniform_bias(fan_in: int) -> Callable[..., Array]:
    """U(-a, a), a = 1 / sqrt(fan_in), for the bias beside such a kernel."""
    return lambda key, shape, dtype=jnp.float32: uniform_fan_in(key, (fan_in, *shape), dtype)[0]


class ConvBlock(nn.Module):
    """3x3 convolution, batch norm, ReLU, 2x2 max pooling: [n, H, W, C] to [n, H/2, W/2, filters].

    The batch norm's eps is 1e-3, and its scale starts at one, or at U(0, 1) as in old Torch.
    Pictures are kept in `dtype` (None: that of x); parameters and statistics are float32 at least.
    """

    filters: int
    eps: float = 1e-3
    scale_init: Callable[..., Array] = nn.initializers.ones
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False, mask: Array | None = None) -> Array:
        if min(x.shape[1:3]) < 2:
            size = " x ".join(map(str, x.shape[1:3]))
            raise ValueError(f"a block cannot halve {size} pixels; use fewer blocks")
        c, shape, stored = x.shape[-1], (self.filters,), norms.at_least_float32(x)
        kernel = self.param("kernel", uniform_fan_in, (3, 3, c, self.filters), stored)
        bias = self.param("bias", uniform_bias(9 * c), shape, stored)
        scale = self.param("scale", self.scale_init, shape, stored)
        shift = self.param("shift", nn.initializers.zeros, shape, stored)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, stored)
        var = self.variable("batch_stats", "var", jnp.ones, shape, stored)
        x, kernel = (a.astype(self.dtype or x.dtype) for a in (x, kernel))
        # The bias moves the mean and nothing else: it need not be added to each pixel.
        y, stats = norms.norm_relu_pool(
            convolutions.conv(x, kernel),
            scale,
            shift,
            statistics=None if train else (mean.value - bias, var.value),
            mask=mask,
            eps=self.eps,
        )
        if stats is not None:
            stats = stats._replace(mean=stats.mean + jax.lax.stop_gradient(bias))
            for name, value in stats._asdict().items():
                self.variable("stats", name, lambda v=value: v).value = value
        return y


class Conv4(nn.Module):
    """The field's four convolution blocks, flattened: [n, H, W, C] to [n, d]."""

    filters: int = 64
    blocks: int = 4
    eps: float = 1e-3
    scale_init: Callable[..., Array] = nn.initializers.ones
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False, mask: Array | None = None) -> Array:
        for _ in range(self.blocks):
            x = ConvBlock(self.filters, self.eps, self.scale_init, self.dtype)(x, train, mask)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x.reshape(x.shape[0], -1).astype(norms.at_least_float32(x))


def init_dense(key: Array, features: int, outputs: int) -> PyTree:
    """A linear layer's "kernel" [features, outputs] and "bias" [outputs], U(+-1/sqrt(features))."""
    kernel, bias = jax.random.split(key)
    return {
        "kernel": uniform_fan_in(kernel, (features, outputs)),
        "bias": uniform_bias(features)(bias, (outputs,)),
    }


def init_with_head(
    network: Network, net_key: Array, head_key: Array, x: Array, outputs: int
) -> Variables:
    """A network's variables for inputs x, with a linear layer on top: {"network", "head"}."""
    net = network.init(net_key, x)
    features = jax.eval_shape(lambda: network.apply(net, x)[0]).shape[-1]
    head = init_dense(head_key, features, outputs)
    return {"params": {"network": net["params"], "head": head}, "state": net["state"]}


def with_embedding(network: Network, size: int | None) -> Network:
    """A network with a linear layer on top, to [n, size]; with size None, the network's features.

    Variables are {"network", "embedding"} by params and {"network"} by state; entries beside these
    are passed over, so that a learner's variables which hold them will do.
    """

    def init(key: Array, x: Array) -> Variables:
        net_key, embedding_key = jax.random.split(key)
        net = network.init(net_key, x)
        params = {"network": net["params"]}
        if size is not None:
            features = jax.eval_shape(lambda: network.apply(net, x)[0]).shape[-1]
            params["embedding"] = init_dense(embedding_key, features, size)
        return {"params": params, "state": {"network": net["state"]}}

    def apply(
        variables: Variables,
        x: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        key: Array | None = None,
    ) -> tuple[Array, PyTree]:
        params, state = variables["params"], variables["state"]["network"]
        body: Variables = {"params": params["network"], "state": state}
        z, stats = network.apply(body, x, train=train, mask=mask, key=key)
        return z if size is None else dense(params["embedding"], z), {"network": stats}

    return Network(init, apply)


class MLP(nn.Module):
    """ReLU layers over flattened inputs: [n, ...] to [n, sizes[-1]]."""

    sizes: Sequence[int] = (64, 64)

    @nn.compact
    def __call__(self, x: Array, train: bool = False, mask: Array | None = None) -> Array:
        x = x.reshape(x.shape[0], -1)
        for size in self.sizes:
            x = nn.relu(nn.Dense(size)(x))
        return x


def conv4(
    filters: int = 64,
    *,
    blocks: int = 4,
    eps: float = 1e-3,
    bn_scale_init: str = "ones",
    dropout: float = 0.0,
    dtype: Any = None,
) -> Network:
    """`Conv4` as a `Network`: 64 filters for metric methods, 32 for learners with an inner loop.

    Args:
        blocks: each halves the picture; 4 in the papers.
        eps: of the batch norm (1e-3 in the Meta-Learner LSTM's release, 1e-5 in others).
        bn_scale_init: "ones", or "uniform" for U(0, 1) as in old Torch.
        dropout: share of each block's outputs that training leaves out.
        dtype: of the pictures inside, "bfloat16" for speed on GPUs and TPUs; None is that of the
            inputs. Parameters, statistics and the features that come out are float32 at least.
    """
    inits = {"ones": nn.initializers.ones, "uniform": nn.initializers.uniform(1.0)}
    if bn_scale_init not in inits:
        raise ValueError(f"bn_scale_init is {bn_scale_init!r}; it is one of {', '.join(inits)}")
    dtype = None if dtype is None else jnp.dtype(dtype)
    return from_flax(Conv4(filters, blocks, eps, inits[bn_scale_init], dropout, dtype))


def mlp(*sizes: int) -> Network:
    """`MLP` as a `Network`."""
    return from_flax(MLP(sizes or (64, 64)))


def from_flax(module: nn.Module) -> Network:
    """A `Network` of any linen module that maps [n, ...] to [n, d].

    While they run, `nn.Conv` in other people's modules gets our convolution (unless it was given
    one), 2x2 `nn.max_pool` our pooling, and `nn.BatchNorm` our normalisation, over the rows that
    the mask leaves; `nn.Dropout` is on only where `apply` trains and is given a key. `train` and
    `mask` are passed to modules that take them.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> network = from_flax(nn.Dense(3))
        >>> variables = network.init(jax.random.key(0), jnp.ones((2, 5)))
        >>> network.apply(variables, jnp.ones((2, 5)))[0].shape
        (2, 3)
    """
    takes = inspect.signature(type(module).__call__).parameters

    def call(collections: Any, x: Array, train: bool, mask: Array | None, key: Array | None) -> Any:
        drops = train and key is not None
        settings: Any = {"mutable": ["stats"] if train else False}
        settings["rngs"] = {"dropout": key} if drops else None
        arguments = {k: v for k, v in {"train": train, "mask": mask}.items() if k in takes}

        def run(collections: Any, x: Array) -> Any:
            with nn.intercept_methods(_as_contracted(train, mask, drops)):
                return module.apply(collections, x, **arguments, **settings)

        return with_our_pooling(run, collections, x)

    def init(key: Array, x: Array) -> Variables:
        with nn.intercept_methods(_as_contracted(False, None, False)):
            made = module.init(key, x)
        return {"params": made.get("params", {}), "state": made.get("batch_stats", {})}

    def apply(
        variables: Variables,
        x: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        key: Array | None = None,
    ) -> tuple[Array, PyTree]:
        collections = {"params": variables["params"], "batch_stats": variables["state"]}
        out = call(collections, x, train, mask, key)
        return (out[0], out[1].get("stats", {})) if train else (out, {})

    return Network(init, apply)


def _as_contracted(train: bool, mask: Array | None, drops: bool) -> Callable[..., Any]:
    """Makes linen modules use our layers and follow the contract of `Network.apply`."""

    def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if isinstance(module, nn.Dropout):
            return call(*args, **kwargs) if drops else args[0]
        if context.method_name != "__call__" or not isinstance(module, nn.BatchNorm | nn.Conv):
            return call(*args, **kwargs)
        if isinstance(module, nn.Conv):
            if module.conv_general_dilated is None and module.conv_general_dilated_cls is None:
                # The module is a copy that flax made for this call.
                object.__setattr__(module, "conv_general_dilated", conv_general_dilated)
            return call(*args, **kwargs)
        x = args[0]
        if module.axis not in (-1, x.ndim - 1):
            raise ValueError(f"nn.BatchNorm(axis={module.axis}): channels must be on the last axis")
        if module.is_initializing():  # flax refuses to be told twice
            return call(x) if module.use_running_average is not None else call(x, True)
        mean, var = (module.get_variable("batch_stats", name) for name in ("mean", "var"))
        y, stats = norms.batch_norm(
            x,
            *(module.get_variable("params", name) for name in ("scale", "bias")),
            statistics=None if train else (mean, var),
            mask=mask,
            eps=module.epsilon,
        )
        if stats is not None:
            for name, value in stats._asdict().items():
                module.variable("stats", name, lambda v=value: v).value = value
        return y

    return interceptor
