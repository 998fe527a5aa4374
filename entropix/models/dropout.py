"""Dropout whose mask is drawn inside the loop that uses it."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from entropix.transforms.checks import check_fraction
from entropix.transforms.keys import canonical_key
from entropix.transforms.random import bernoulli

Randomness: TypeAlias = nnx.Rngs | nnx.RngStream | jax.Array | int | None


class Dropout(nnx.Dropout):
    r"""`flax.nnx.Dropout`, equal to the last bit, at a fraction of the cost on CPU.

    .. math:: y = x\, m / (1 - \mathrm{rate}),\qquad m \sim \mathrm{Bernoulli}(1 - \mathrm{rate})

    The mask comes from `entropix.transforms.random.bernoulli`, which fuses into its consumer.
    A rate of 0, or `deterministic=True` (set by `model.eval()`), compiles no random code.

    Args:
      rate: probability of dropping a unit, in [0, 1).
      broadcast_dims: dimensions that share one mask.
      deterministic: whether to pass inputs through unchanged.
      rng_collection: name of the stream to draw a key from when `rngs` is an `nnx.Rngs`.
      rngs: `nnx.Rngs` or `nnx.RngStream`, or None to get a key with every call.

    Raises:
      ValueError: if `rate` is outside [0, 1).

    Example:
      >>> layer = Dropout(0.5)
      >>> layer(jnp.ones(4), rngs=jax.random.key(0)).tolist()
      [0.0, 0.0, 2.0, 2.0]
    """

    def __init__(
        self,
        rate: float,
        *,
        broadcast_dims: Sequence[int] = (),
        deterministic: bool | None = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> None:
        super().__init__(
            check_fraction("rate", rate),
            broadcast_dims=broadcast_dims,
            deterministic=deterministic,
            rng_collection=rng_collection,
            rngs=rngs,
        )

    def __call__(
        self, inputs: jax.Array, *, deterministic: bool | None = None, rngs: Randomness = None
    ) -> jax.Array:
        """Drops units of `inputs`.

        Args:
          inputs: array of any shape.
          deterministic: overrides the attribute of that name.
          rngs: overrides the attribute of that name; raw keys and integer seeds are welcome.

        Returns:
          An array like `inputs`, of the same mean.

        Raises:
          ValueError: if a key is needed and none was given here or at construction.
        """
        deterministic = self.deterministic if deterministic is None else deterministic
        if deterministic or self.rate == 0:
            return inputs
        key = draw_key(self.rngs if rngs is None else rngs, self.rng_collection)
        shape = list(inputs.shape)
        for axis in self.broadcast_dims:
            shape[axis] = 1
        keep = 1.0 - self.rate
        mask = bernoulli(key, keep, tuple(shape))
        return jnp.where(mask, inputs / keep, 0)


def draw_key(rngs: Randomness, collection: str = "dropout") -> jax.Array:
    """Returns a key: the next of a stream, or the given one.

    Args:
      rngs: `nnx.Rngs`, `nnx.RngStream`, typed or legacy key, or integer seed.
      collection: which stream of an `nnx.Rngs` to advance.

    Raises:
      ValueError: for anything else, None included.
    """
    if rngs is None:
        raise ValueError(
            "rngs must be given to draw a dropout mask; got None. Call layer(x, rngs=key), or "
            "switch dropout off with model.eval()."
        )
    if isinstance(rngs, nnx.Rngs):
        rngs = rngs[collection]
    return rngs() if isinstance(rngs, nnx.RngStream) else canonical_key(rngs)
