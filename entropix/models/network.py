"""A chain of layers, and its functional form for compiled training loops."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import jax
from flax import nnx

from entropix.models.dropout import Dropout, Randomness, draw_key
from entropix.models.streams import rekeyed

# Folded into the key of dropout within layers: beyond the index of every layer.
_WITHIN = 2**31 - 1


class Network(nnx.Module):
    """Layers applied in order, every dropout layer with a key of its own.

    Standard NNX: `model.train()` and `model.eval()` switch dropout and the use of batch
    statistics, `model(x)` returns logits. With `rngs` given, a call changes nothing but the
    running batch statistics; without, it also advances the network's own stream of keys.

    Args:
      layers: functions of one array and modules, in the order of application.
      input_shape: shape of one input, without the batch axis.
      rngs: `nnx.Rngs`; its "dropout" stream (or the default one) is forked for later calls.

    Example:
      >>> import jax.numpy as jnp
      >>> rngs = nnx.Rngs(0)
      >>> model = Network([nnx.Linear(3, 2, rngs=rngs), Dropout(0.5)], input_shape=(3,), rngs=rngs)
      >>> model(jnp.ones((5, 3)), rngs=jax.random.key(1)).shape
      (5, 2)
    """

    def __init__(
        self,
        layers: Iterable[Callable[[jax.Array], jax.Array]],
        *,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs,
    ) -> None:
        self.layers = nnx.List(layers)
        self.input_shape = tuple(input_shape)
        self.rngs = rngs.dropout.fork()

    def __call__(self, x: jax.Array, *, rngs: Randomness = None) -> jax.Array:
        """Returns the logits of a batch.

        Args:
          x: `(batch, *input_shape)`.
          rngs: key, seed, `nnx.Rngs` or `nnx.RngStream` for dropout; by default the network's own.

        Returns:
          Logits, `(batch, num_classes)`.

        Raises:
          ValueError: if `x` has another shape.
        """
        if x.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, ("batch", *self.input_shape)))
            raise ValueError(
                f"x must have shape ({expected}), channels last; got shape {x.shape}. "
                "Reshape the data, or build the network with its input_shape."
            )
        key = None
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, nnx.Dropout):
                x = layer(x)
            elif layer.rate and not layer.deterministic:
                # Drawn on first need: a network without active dropout touches no randomness.
                key = draw_key(self.rngs if rngs is None else rngs) if key is None else key
                drawn = jax.random.fold_in(key, index)
                x = layer(x, rngs=drawn if isinstance(layer, Dropout) else nnx.Rngs(drawn))
        return x


class Apply(Protocol):
    """The function that `functional` returns."""

    def __call__(
        self,
        params: Any,
        batch_stats: Any,
        x: jax.Array,
        *,
        train: bool,
        key: jax.Array | int | None = None,
    ) -> tuple[jax.Array, Any]:
        """Returns the logits and the new batch statistics."""


def functional(model: nnx.Module) -> tuple[Apply, Any, Any]:
    """Splits a network into a pure function and the arrays it needs.

    `apply(params, batch_stats, x, *, train, key=None) -> (logits, new_batch_stats)` may be used
    inside `jit`, `grad`, `scan` and `vmap`. The trees hold arrays, not `nnx.Variable`s: merging
    variables inside `jax.grad` ends in a `TraceContextError` when batch normalisation writes to
    them. With `train=False` the statistics come back unchanged.

    Args:
      model: a network whose call takes `rngs`, as those of `entropix.models` do. It is copied:
        later changes of `model`, and its train/eval mode, have no effect on `apply`.

    Returns:
      `(apply, params, batch_stats)`. `apply` raises `ValueError` when `train=True`, the network
      has dropout and `key` is None: the stored key would give every step the same mask.

    Example:
      >>> import entropix, jax.numpy as jnp
      >>> model = entropix.models.mlp(input_shape=(4,), widths=(8,), rngs=0)
      >>> apply, params, batch_stats = functional(model)
      >>> def loss(params, x, key):
      ...     logits, new_stats = apply(params, batch_stats, x, train=True, key=key)
      ...     return (logits**2).mean(), new_stats
      >>> step = jax.jit(jax.grad(loss, has_aux=True))
      >>> grads, new_stats = step(params, jnp.ones((2, 4)), jax.random.key(0))
    """
    graphdef, *parts = nnx.split(model, nnx.Param, nnx.BatchStat, nnx.RngState, ...)
    params, batch_stats, streams, rest = (
        jax.tree.map(jax.numpy.copy, nnx.as_pure(tree)) for tree in parts
    )
    dropouts = [layer for _, layer in nnx.iter_modules(model) if isinstance(layer, nnx.Dropout)]
    needs_key = any(layer.rate for layer in dropouts)

    def apply(
        params: Any,
        batch_stats: Any,
        x: jax.Array,
        *,
        train: bool,
        key: jax.Array | int | None = None,
    ) -> tuple[jax.Array, Any]:
        if train and needs_key and key is None:
            raise ValueError(
                "key must be given when train=True, because the network has dropout; got None. "
                "Pass a new key with every step, or build the network with dropout rates of 0."
            )
        # Dropout within a layer draws from a stream of the layer's own.
        drawn = streams
        if key is not None:
            key = draw_key(key)
            drawn = rekeyed(streams, jax.random.fold_in(key, _WITHIN))
        network = nnx.merge(graphdef, params, batch_stats, drawn, rest)
        if train:
            network.train()
        else:
            network.eval()
        logits = network(x, rngs=key)
        return logits, nnx.as_pure(nnx.state(network, nnx.BatchStat))

    return apply, params, batch_stats
