"""Many outer steps as one compiled call, for all seeds at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from entropix.data import Dataset, sample_batch
from entropix.training.algorithm import REPLICA_AXIS, Algorithm
from entropix.training.state import TrainState
from entropix.transforms import relaxed_grad

Apply = Callable[..., tuple[Array, Any]]


def make_step(
    apply: Apply, algorithm: Algorithm, batch_size: int
) -> Callable[[TrainState, Dataset], tuple[TrainState, Array]]:
    """Makes one outer step of one seed: L mini-batch gradients per replica, then one move of x.

    Args:
      apply: `apply(params, batch_stats, images, *, train, key) -> (logits, batch_stats)`.
      algorithm: what to run.
      batch_size: examples per gradient.

    Returns:
      `step(state, data) -> (state, loss)`, with the mean mini-batch loss seen along the way.
    """

    def loss_fn(params: Any, stats: Any, data: Dataset, key: Array) -> tuple[Array, Any]:
        batch_key, dropout_key = jax.random.split(key)
        images, labels = sample_batch(batch_key, data, batch_size)
        logits, stats = apply(params, stats, images, train=True, key=dropout_key)
        return cross_entropy(logits, labels), stats

    def step(state: TrainState, data: Dataset) -> tuple[TrainState, Array]:
        key = jax.random.fold_in(state.key, state.relaxation.outer_count)

        def grad_fn(params: Any, i: Array, carry: tuple[Any, Array]) -> tuple[Any, Any]:
            stats, total = carry
            value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
            (loss, stats), grads = value_and_grad(params, stats, data, jax.random.fold_in(key, i))
            return grads, (stats, total + loss)

        relaxed, relaxation, (stats, total) = relaxed_grad(
            algorithm.relaxation, grad_fn, has_carry=True
        )(state.params, state.relaxation, (state.batch_stats, jnp.zeros([])))
        updates, optimizer = algorithm.optimizer.update(relaxed, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        state = TrainState(params, stats, relaxation, optimizer, state.key)
        return state, total / algorithm.relaxation.num_steps

    if algorithm.replicas == 1:
        return step
    mapped = jax.vmap(step, in_axes=(0, None), axis_name=REPLICA_AXIS)

    def replicated(state: TrainState, data: Dataset) -> tuple[TrainState, Array]:
        state, losses = mapped(state, data)
        return state, jnp.mean(losses)

    return replicated


def make_interval(
    step: Callable[[TrainState, Dataset], tuple[TrainState, Array]], num_steps: int
) -> Callable[[TrainState, Dataset], tuple[TrainState, Array]]:
    """Makes `num_steps` outer steps of one seed: `interval(state, data) -> (state, mean loss)`."""

    def interval(state: TrainState, data: Dataset) -> tuple[TrainState, Array]:
        state, losses = lax.scan(lambda s, _: step(s, data), state, length=num_steps)
        return state, jnp.mean(losses)

    return interval


def over_seeds(fn: Callable[..., Any], layout: str = "auto") -> Callable[..., Any]:
    """Runs `fn(state, data)` for a leading axis of seeds, in one program.

    Args:
      fn: for one seed.
      layout: "vmap" runs seeds side by side; "map" one after another inside the same program,
        which on a CPU is faster for convolutions (vmapped ones are grouped, about 1.5 x the time);
        "auto" takes "map" on a CPU and "vmap" elsewhere.

    Returns:
      `fn(states, data)`.
    """
    if layout == "auto":
        layout = "map" if jax.default_backend() == "cpu" else "vmap"
    if layout == "vmap":
        return jax.vmap(fn, in_axes=(0, None))
    return lambda states, data: lax.map(lambda state: fn(state, data), states)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean cross-entropy over a batch, in nats."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
