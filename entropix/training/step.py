"""Many outer steps as one compiled call, for all seeds at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from entropix.experiment.method import REPLICA_AXIS, Method
from entropix.experiment.problem import Problem
from entropix.replicas import Layout, on_one_device, runner
from entropix.replicas import layout as make_layout
from entropix.training.state import TrainState
from entropix.transforms import relaxed_grad
from entropix.transforms.numerics import factor, filled, inexact_part, is_inexact, is_zero, wide

Step = Callable[[TrainState, Any], tuple[TrainState, Array, Array]]

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


class _Seen(NamedTuple):
    """What the gradients of one outer step have left behind; `gradients` is their number."""

    model_state: Any
    loss_sum: Array
    bad: Array
    gradients: Array


def make_step(problem: Problem, method: Method, layout: Layout | None = None) -> Step:
    """Makes one outer step of one seed: L mini-batch gradients per replica, then one move of x.

    Args:
      problem: its loss and how a batch is drawn.
      method: what to run.
      layout: where the replicas are; by default on one device. `method` was made with its
        `axis_name`.

    Returns:
      `step(state, data) -> (state, loss, bad)`, with the mean mini-batch loss seen along the way,
      and the first inner step at which it was not finite (or `NEVER`). `data` is the training set
      on the device or, of a loader on the host, L batches, stacked.
    """

    def loss_fn(params: Any, model_state: Any, data: Any, key: Array, i: Array) -> Any:
        batch_key, model_key = jax.random.split(key)
        if problem.on_host:
            batch = jax.tree.map(lambda leaf: leaf[i], data)
        else:
            batch = problem.draw(batch_key, data)
        return problem.loss(params, model_state, batch, model_key)

    def step(state: TrainState, data: Any) -> tuple[TrainState, Array, Array]:
        key = jax.random.fold_in(state.key, state.relaxation.outer_count)

        def grad_fn(params: Any, batch: Array, carry: _Seen) -> tuple[Any, _Seen]:
            value_and_grad = jax.value_and_grad(loss_fn, has_aux=True, allow_int=True)
            (loss, model_state), grads = value_and_grad(
                params, carry.model_state, data, jax.random.fold_in(key, batch), batch
            )
            if method.relaxation.one_batch:  # the model has seen it at the first gradient, at x
                is_first = carry.gradients == 0
                model_state = optax.tree.where(is_first, model_state, carry.model_state)
            # Looking at every parameter would cost a step's share of memory bandwidth; bad
            # parameters make the next loss bad, and losses are scalars.
            is_bad = (carry.bad == NEVER) & ~jnp.isfinite(loss)
            return method.on_gradient(_downhill(grads), params), _Seen(
                model_state,
                loss_sum=carry.loss_sum + loss.astype(carry.loss_sum.dtype),
                bad=jnp.where(is_bad, carry.gradients, carry.bad),
                gradients=carry.gradients + 1,
            )

        never, zero = (jnp.asarray(number, jnp.int32) for number in (NEVER, 0))
        nothing_seen = _Seen(state.model_state, jnp.zeros([]), bad=never, gradients=zero)
        relaxed, relaxation, seen = relaxed_grad(method.relaxation, grad_fn, has_carry=True)(
            state.params, state.relaxation, nothing_seen
        )
        mean = seen.loss_sum / method.relaxation.num_steps
        updates, optimizer = method.optimizer.update(
            relaxed, state.optimizer, state.params, value=mean
        )
        # Whole numbers and random keys rest; Optax would add to them.
        moving, moves = (inexact_part(tree, state.params) for tree in (state.params, updates))
        params = filled(optax.apply_updates(moving, moves), state.params)
        average = _averaged(method, state.average, params, optimizer, relaxation.outer_count)
        state = TrainState(params, seen.model_state, relaxation, optimizer, state.key, average)
        return state, mean, seen.bad

    if method.replicas is None:
        return step

    def one(state: TrainState, data: Any) -> tuple[TrainState, tuple[Array, Array]]:
        state, loss, bad = step(state, data)
        return state, (loss, bad)

    layout = layout or make_layout(method.replicas, axis_name=REPLICA_AXIS, devices=1)
    run = runner(one, layout, shared=True)

    def replicated(state: TrainState, data: Any) -> tuple[TrainState, Array, Array]:
        state, (losses, bad) = run(state, data)
        return state, jnp.mean(losses), jnp.max(bad)

    return replicated


def _averaged(method: Method, average: Any, params: Any, optimizer: Any, count: Array) -> Any:
    """The exponential average of x_1 ... x_t with weights that sum to one at every t."""
    if is_zero(method.ema):
        return None
    share = jnp.asarray(1 - method.ema, jnp.float32)  # x_t's weight, to be divided by all
    weight = share / -jnp.expm1(count.astype(jnp.float32) * jnp.log1p(-share))
    x = method.eval_params(optimizer, params)
    return jax.tree.map(
        lambda a, b: a + factor(weight, a) * (wide(b) - a) if is_inexact(a) else b, average, x
    )


def _downhill(grads: Any) -> Any:
    """Gradients of which a step along the negative descends: JAX's are conjugate to these."""
    return jax.tree.map(lambda g: jnp.conj(g) if jnp.iscomplexobj(g) else g, grads)


def make_interval(step: Step, num_steps: int) -> Callable[[TrainState, Any], Any]:
    """Makes a fixed number of outer steps of one seed: `interval(state, data) -> (state, loss)`.

    Nothing stops it, and `loss` is the mean mini-batch loss: what benchmarks time.
    """

    def interval(state: TrainState, data: Any) -> tuple[TrainState, Array]:
        state, losses = lax.scan(lambda s, _: step(s, data)[:2], state, length=num_steps)
        return state, jnp.mean(losses)

    return interval


def make_advance(step: Step, num_inner: int) -> Callable[[Advance, tuple[Array, Any]], Advance]:
    """Makes any number of outer steps of one seed, as one program for every number.

    A seed whose loss is not finite stops at once, at the outer step that showed it; a seed that
    comes in with a `bad` step does nothing.

    Args:
      step: from `make_step`.
      num_inner: L, to tell a bad loss from bad parameters.

    Returns:
      `advance(before, (num_steps, data)) -> after`.
    """

    def advance(before: Advance, shared: tuple[Array, Any]) -> Advance:
        num_steps, data = shared

        def go_on(carry: Advance) -> Array:
            return (carry.done < num_steps) & (carry.bad == NEVER)

        def body(carry: Advance) -> Advance:
            state, loss, bad = step(carry.state, data)
            return Advance(state, carry.loss_sum + loss, bad, carry.done + 1)

        after = lax.while_loop(go_on, body, before._replace(done=jnp.zeros_like(before.done)))
        leaves = jax.tree.leaves(after.state.params)
        sound = [jnp.all(jnp.isfinite(x)) for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
        good = jnp.all(jnp.asarray(sound))
        bad = jnp.where((after.bad == NEVER) & ~good, num_inner, after.bad)
        return after._replace(bad=bad)

    return advance


def over_seeds(fn: Callable[..., Any], layout: str = "auto") -> Callable[..., Any]:
    """Runs `fn(of_seed, shared)` for a leading axis of seeds of `of_seed`, in one program.

    Args:
      fn: for one seed.
      layout: "vmap" runs seeds side by side; "map" one after another inside the same program,
        which on a CPU is faster for convolutions (vmapped ones are grouped, about 1.5 x the time);
        "auto" takes "map" on a CPU and "vmap" elsewhere.

    Returns:
      `fn(of_seed, shared)`.
    """
    if on_one_device(layout) == "vmap":
        return jax.vmap(fn, in_axes=(0, None))
    return lambda seeds, shared: lax.map(lambda seed: fn(seed, shared), seeds)
