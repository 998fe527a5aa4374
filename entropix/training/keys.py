"""The random keys of a run: one split of its seed, so that no two uses share one."""

from typing import NamedTuple

import jax

_BEYOND = 2**32 - 1  # what no stream of a network counts up to


class Keys(NamedTuple):
    """The keys of one seed.

    Attributes:
      model: initial parameters; each replica that starts at its own point folds its number in.
      data: mini-batches and dropout.
      noise: Langevin noise.
      optimizer: noise of the optimiser behind the relaxation, or of an algorithm of one's own.
    """

    model: jax.Array
    data: jax.Array
    noise: jax.Array
    optimizer: jax.Array


def split_seed(seed: int) -> Keys:
    """Splits a seed into the keys of a run.

    `nnx.Rngs(seed)` folds 0, 1, 2, ... into the key of the seed, and so hands out the same keys as
    `jax.random.split(jax.random.key(seed), n)`. The split is of another key, for a network that was
    made with `nnx.Rngs(seed)` to share none of them.

    Args:
      seed: an integer.

    Returns:
      Four independent keys.

    Example:
      >>> import entropix
      >>> from flax import nnx
      >>> from entropix.training.keys import split_seed
      >>> keys = split_seed(0)
      >>> network = entropix.models.mlp(input_shape=(8, 8, 1), rngs=nnx.Rngs(keys.model))
    """
    root = jax.random.fold_in(jax.random.key(seed), _BEYOND)
    model, data, noise = jax.random.split(root, 3)
    return Keys(model, data, noise, optimizer=jax.random.fold_in(root, _BEYOND))
