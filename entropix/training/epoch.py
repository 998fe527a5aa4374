"""Many outer steps as one compiled call, for all seeds at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from entropix.data import Dataset, sample_batch
from entropix.replicas import Layout, on_one_device, runner
from entropix.replicas import layout as make_layout
from entropix.training.algorithm import REPLICA_AXIS, Algorithm
from entropix.training.state import TrainState
from entropix.transforms import relaxed_grad

Apply = Callable[..., tuple[Array, Any]]
Step = Callable[[TrainState, Dataset], tuple[TrainState, Array, Array]]

NEVER = -1  # no inner step was bad


class Advance(NamedTuple):
    """Where an interval between two evaluations stands; with several seeds, an entry for each.

    Attributes:
      state: after the last outer step.
      loss_sum: of the outer steps' mean mini-batch losses since the last evaluation.
      bad: `NEVER`, or the inner step whose loss was not finite, at which the seed stopped;
        L if every loss was finite and the parameters are not.
      done: outer steps of the last call.
    """

    state: TrainState
    loss_sum: Array
    bad: Array
    done: Array


def make_step(
    apply: Apply, algorithm: Algorithm, batch_size: int, layout: Layout | None = None
) -> Step:
    """Makes one outer step of one seed: L mini-batch gradients per replica, then one move of x.

    Args:
      apply: `apply(params, batch_stats, images, *, train, key) -> (logits, batch_stats)`.
      algorithm: what to run.
      batch_size: examples per gradient.
      layout: where the replicas are; by default on one device. `algorithm` was made with its
        `axis_name`.

    Returns:
      `step(state, data) -> (state, loss, bad)`, with the mean mini-batch loss seen along the way,
      and the first inner step at which it was not finite (or `NEVER`).
    """

    def loss_fn(params: Any, stats: Any, data: Dataset, key: Array) -> tuple[Array, Any]:
        batch_key, dropout_key = jax.random.split(key)
        images, labels = sample_batch(batch_key, data, batch_size)
        logits, stats = apply(params, stats, images, train=True, key=dropout_key)
        return cross_entropy(logits, labels), stats

    def step(state: TrainState, data: Dataset) -> tuple[TrainState, Array, Array]:
        key = jax.random.fold_in(state.key, state.relaxation.outer_count)

        def grad_fn(params: Any, i: Array, carry: tuple[Any, Array, Array]) -> tuple[Any, Any]:
            stats, total, bad = carry
            value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
            (loss, stats), grads = value_and_grad(params, stats, data, jax.random.fold_in(key, i))
            # Looking at every parameter would cost a step's share of memory bandwidth; bad
            # parameters make the next loss bad, and losses are scalars.
            bad = jnp.where((bad == NEVER) & ~jnp.isfinite(loss), i, bad)
            return grads, (stats, total + loss, bad)

        carry = state.batch_stats, jnp.zeros([]), jnp.asarray(NEVER)
        relaxed, relaxation, (stats, total, bad) = relaxed_grad(
            algorithm.relaxation, grad_fn, has_carry=True
        )(state.params, state.relaxation, carry)
        updates, optimizer = algorithm.optimizer.update(relaxed, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        state = TrainState(params, stats, relaxation, optimizer, state.key)
        return state, total / algorithm.relaxation.num_steps, bad

    if algorithm.replicas is None:
        return step

    def one(state: TrainState, data: Dataset) -> tuple[TrainState, tuple[Array, Array]]:
        state, loss, bad = step(state, data)
        return state, (loss, bad)

    here = layout or make_layout(algorithm.replicas, axis_name=REPLICA_AXIS, devices=1)
    run = runner(one, here, shared=True)

    def replicated(state: TrainState, data: Dataset) -> tuple[TrainState, Array, Array]:
        state, (losses, bad) = run(state, data)
        return state, jnp.mean(losses), jnp.max(bad)

    return replicated


def make_interval(
    step: Step, num_steps: int
) -> Callable[[TrainState, Dataset], tuple[TrainState, Array]]:
    """Makes a fixed number of outer steps of one seed: `interval(state, data) -> (state, loss)`.

    Nothing stops it, and `loss` is the mean mini-batch loss: what tuning needs.
    """

    def interval(state: TrainState, data: Dataset) -> tuple[TrainState, Array]:
        state, losses = lax.scan(lambda s, _: step(s, data)[:2], state, length=num_steps)
        return state, jnp.mean(losses)

    return interval


def make_advance(step: Step, num_inner: int) -> Callable[[Advance, tuple[Array, Dataset]], Advance]:
    """Makes any number of outer steps of one seed, as one program for every number.

    A seed whose loss is not finite stops at once, at the outer step that showed it; a seed that
    comes in with a `bad` step does nothing.

    Args:
      step: from `make_step`.
      num_inner: L, to tell a bad loss from bad parameters.

    Returns:
      `advance(before, (num_steps, data)) -> after`.
    """

    def advance(before: Advance, shared: tuple[Array, Dataset]) -> Advance:
        num_steps, data = shared

        def go_on(now: Advance) -> Array:
            return (now.done < num_steps) & (now.bad == NEVER)

        def body(now: Advance) -> Advance:
            state, loss, bad = step(now.state, data)
            return Advance(state, now.loss_sum + loss, bad, now.done + 1)

        after = lax.while_loop(go_on, body, before._replace(done=jnp.zeros_like(before.done)))
        sound = jnp.asarray([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(after.state.params)])
        bad = jnp.where((after.bad == NEVER) & ~jnp.all(sound), num_inner, after.bad)
        return after._replace(bad=bad)

    return advance


def over_seeds(fn: Callable[..., Any], layout: str = "auto") -> Callable[..., Any]:
    """Runs `fn(own, shared)` for a leading axis of seeds of `own`, in one program.

    Args:
      fn: for one seed.
      layout: "vmap" runs seeds side by side; "map" one after another inside the same program,
        which on a CPU is faster for convolutions (vmapped ones are grouped, about 1.5 x the time);
        "auto" takes "map" on a CPU and "vmap" elsewhere.

    Returns:
      `fn(own, shared)`.
    """
    if on_one_device(layout) == "vmap":
        return jax.vmap(fn, in_axes=(0, None))
    return lambda own, shared: lax.map(lambda one: fn(one, shared), own)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean cross-entropy over a batch, in nats."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
