"""The networks as pure functions of their parameters and batch-norm statistics."""

from typing import Any, NamedTuple

import jax
from flax import nnx
from ml_collections import ConfigDict

from entropix import models
from entropix.training.epoch import Apply
from entropix.training.keys import split_seed


class NetworkFunctions(NamedTuple):
    """A network, taken apart.

    Attributes:
      apply: `apply(params, batch_stats, images, *, train, key=None) -> (logits, batch_stats)`.
      estimate: the same with dropout off, returning the statistics of the batch alone instead of
        a running average: for `entropix.training.evaluation`.
      params: initial parameters.
      batch_stats: initial batch-norm statistics.
    """

    apply: Apply
    estimate: Apply
    params: Any
    batch_stats: Any


def build_network(
    config: ConfigDict, image_shape: tuple[int, ...], seed: int, replica: int = 0
) -> NetworkFunctions:
    """Builds the network of a config.

    Args:
      config: `config.model`: a name and that model's arguments.
      image_shape: (height, width, channels) of the data.
      seed: of the run; the initial parameters take its `model` key (`entropix.training.keys`).
      replica: whose initial parameters, where replicas start at different points.

    Returns:
      A `NetworkFunctions`. Those of different seeds share one `apply` in all but identity: use any.
    """
    options = {k: v for k, v in config.items() if k != "name"}
    key = jax.random.fold_in(split_seed(seed).model, replica)
    model = getattr(models, config.name)(
        input_shape=tuple(image_shape), rngs=nnx.Rngs(key), **options
    )
    apply, params, batch_stats = models.functional(model)
    estimate, _, _ = models.functional(_estimator(model))
    return NetworkFunctions(apply, estimate, params, batch_stats)


def _estimator(model: nnx.Module) -> nnx.Module:
    """A copy that forgets older batches' statistics at once, and drops nothing out."""
    model = nnx.clone(model)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            module.momentum = 0.0
        if isinstance(module, nnx.Dropout | models.Dropout):
            module.rate = 0.0
    return model
