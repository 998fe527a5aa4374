"""The inner loop as one compiled scan: a pure function, and a link for `optax.chain`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from entropix.transforms import checks
from entropix.transforms.axes import AxisName, check_optional_axis_name, vary_like
from entropix.transforms.eager import compiled, is_eager
from entropix.transforms.guard import guarded
from entropix.transforms.numerics import filled, inexact_leaves, inexact_part, wide_like, with_rest
from entropix.transforms.parts import RelaxedOptimizer
from entropix.transforms.relaxation import Relaxation, RelaxationState, check_relaxation

GradFn = Callable[..., Any]

_GRAD_FN = "a function, grad_fn(params, i) -> grads"
_UPDATE_CALL = (
    "updates, state = tx.update(grads, state, params, "
    "grad_fn=lambda params, i: jax.grad(loss)(params, batches[i]))"
)


def relaxed_grad(
    relaxation: Relaxation, grad_fn: GradFn, *, has_carry: bool = False
) -> Callable[..., Any]:
    r"""Makes the gradient of the relaxed loss from the gradient of the loss, as a pure function.

    Args:
      relaxation: from `entropix.local_entropy`, `hamilton_jacobi`, `heat` or `sharpness`.
      grad_fn: `grad_fn(params, i) -> grads`, the (mini-batch) gradient at any parameters; the
        int32 scalar i = 0 ... L-1 picks the inner mini-batch (0 always for `entropix.sharpness`,
        whose gradients are of one mini-batch). Under `jax.jit` it is traced once, whatever L;
        outside, it is called L times, and i is a Python int.
      has_carry: whether `grad_fn(params, i, carry) -> (grads, carry)` threads a pytree through
        the inner loop, such as batch-norm statistics, a random key or running metrics.

    Returns:
      `fn(params, state) -> (relaxed_grads, state)`, or with a carry
      `fn(params, state, carry) -> (relaxed_grads, state, carry)`; start from
      `state = relaxation.init(params)`. It costs L calls of `grad_fn`.

    Raises:
      ValueError: while tracing, if `grad_fn` returns another structure or other shapes than the
        parameters have, or for a carry without `has_carry`.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> relaxation = entropix.hamilton_jacobi(gamma=0.5, num_steps=50)
      >>> slope = entropix.relaxed_grad(relaxation, lambda p, i: jax.grad(jnp.cos)(p))
      >>> x = jnp.asarray(1.0)
      >>> relaxed, state = jax.jit(slope)(x, relaxation.init(x))
      >>> prox = x - 0.5 * relaxed        # Lemma 2: the slope at x is f' at the proximal point
      >>> bool(abs(relaxed + jnp.sin(prox)) < 1e-3)
      True
    """
    check_relaxation(relaxation)
    checks.check_function("grad_fn", grad_fn, _GRAD_FN)
    checks.check_flag("has_carry", has_carry)

    def threaded(params: Any, i: jax.Array, carry: Any) -> tuple[Any, Any]:
        if not has_carry:
            return grad_fn(params, i), carry
        found = grad_fn(params, i, carry)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise ValueError(
                "With has_carry=True grad_fn must return a pair, (grads, carry); got "
                f"{jax.tree.structure(found)}."
            )
        grads, carry = found
        return grads, carry

    outer_step = _outer_step(relaxation)

    def fn(params: Any, state: Any, carry: Any = None) -> Any:
        if carry is not None and not has_carry:
            raise ValueError(
                f"carry must be None without has_carry=True; got carry={checks.shown(carry)}. "
                "Write entropix.relaxed_grad(relaxation, grad_fn, has_carry=True), with "
                "grad_fn(params, i, carry) -> (grads, carry)."
            )
        relaxed, state, carry = outer_step(threaded, params, state, carry)
        return (relaxed, state, carry) if has_carry else (relaxed, state)

    return fn


def relax(
    relaxation: Relaxation,
    *,
    if_finite: optax.GradientTransformation | None = None,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Turns a relaxation into a link of an Optax chain: gradients in, relaxed gradients out.

    The whole inner loop runs inside one `update`, in one `lax.scan`. (Outside of `jax.jit` it is a
    loop of compiled steps, in which i is a Python int and `grad_fn` may read from a loader.) Put it
    first in the chain; what acts on single mini-batch gradients (clipping, Adam's scaling, weight
    decay) belongs into the relaxation's `inner`.

    Args:
      relaxation: from `entropix.local_entropy`, `hamilton_jacobi`, `heat` or `sharpness`.
      if_finite: the optimiser behind, where a NaN must not end the run. If one element of the
        relaxed gradients or of its updates is not finite, the update is zero, and x, the
        optimiser's state and the relaxation's, `reset_inner=False` memory included, stay what they
        were; the state counts such steps in `num_skipped`. None puts no guard, at no cost.
        (`optax.apply_if_finite` around a chain sees the incoming gradient alone, not those that
        `grad_fn` returns; around the optimiser behind this link it protects x and the optimiser,
        not the memory. Around `entropix.stepwise` it sees every gradient.)
      axis_name: with `if_finite`, the named axis (or axes) of replicas that communicate in the
        optimiser behind: where one of them is not finite, all leave the step out, so that they go
        on counting alike. It costs one number to all replicas at every update. Without it replicas
        on devices of their own would wait for each other for ever.

    Returns:
      A transformation whose `update(grads, state, params, *, grad_fn)` expects

      * `grads`: the gradient at `params`, used as the one with i = 0;
      * `grad_fn(params, i) -> grads` for i = 1 ... L-1 (for `sharpness` i = 0), so that one update
        costs exactly L gradients. (For `heat`, whose points never are x, i = 0 ... L-1; `grads` is
        then unused and the compiler removes its computation from a jitted step.)

      `grad_fn` is a Python function: close over it inside the jitted step, or pass it through
      the jit boundary as a `jax.tree_util.Partial`. It is traced once: `next(loader)` inside it
      reads one batch and repeats that L times, and a list or a NumPy array cannot be indexed by a
      traced i. Stack L batches in JAX arrays before the step, and index those. A line search behind
      `relax` wants a `value_fn` that accepts the argument: `lambda w, grad_fn=None: loss(w)`.
      Under `optax.masked` and `optax.partition` `grad_fn` receives the masked tree; there
      `entropix.stepwise` is simpler. `optax.MultiSteps` calls `grad_fn` at every micro-step and
      discards all results but the last: enlarge the batches instead.
      The state is a `RelaxationState`; `params` always hold x. Leaves that are no real or complex
      numbers (integers, booleans) get a zero update; their gradients may be zeros or `float0`.

    Raises:
      ValueError: from `update`, without `params` or `grad_fn`, or if gradients do not look like
        the parameters.

    Example:
      >>> import entropix, jax, jax.numpy as jnp, optax
      >>> batches = jnp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
      >>> loss = lambda w, batch: jnp.mean((w - batch) ** 2)
      >>> tx = optax.chain(
      ...     entropix.relax(entropix.local_entropy(gamma=1.0, num_steps=3)), optax.adam(0.1))
      >>> @jax.jit
      ... def step(w, state):
      ...   grad_fn = lambda w, i: jax.grad(loss)(w, batches[i])
      ...   updates, state = tx.update(grad_fn(w, 0), state, w, grad_fn=grad_fn)
      ...   return optax.apply_updates(w, updates), state
      >>> w = jnp.asarray(0.0)
      >>> state = tx.init(w)
      >>> for _ in range(100):
      ...   w, state = step(w, state)
      >>> bool(1.5 < w < 5.5)             # among the means of the batches
      True
    """
    check_relaxation(relaxation)
    check_optional_axis_name(axis_name)
    outer_step = _outer_step(relaxation)

    def init(params: optax.Params) -> RelaxationState:
        return relaxation.init(inexact_leaves(params))

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        grad_fn: GradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        # Extra arguments such as `value` speak of x; the inner transformation runs at y. One that
        # needs them should fail for want of them rather than be handed the wrong ones.
        del extra_args
        checks.check_params(params, _UPDATE_CALL)
        if grad_fn is None:
            raise ValueError(
                "relax runs the inner loop itself and needs the loss's gradient at other points "
                f"than params. Write: {_UPDATE_CALL}   or use entropix.stepwise, which does not. "
                "(As the optimiser inside another with stepwise=False it is given none: build it "
                "with stepwise=True.)"
            )
        checks.check_function("grad_fn", grad_fn, _GRAD_FN)
        checks.check_like(updates, params, "The gradients passed to update")
        without_carry = lambda point, i, carry: (grad_fn(point, i), carry)  # noqa: E731
        relaxed, state, _ = outer_step(without_carry, params, state, None, updates)
        return relaxed, state

    link = optax.GradientTransformationExtraArgs(init, update)
    if if_finite is not None:
        link = guarded(link, if_finite, axis_name)
    return RelaxedOptimizer.of(link, relaxation)


def _outer_step(relaxation: Relaxation) -> Callable[..., tuple[Any, Any, Any]]:
    """Makes `(grad_fn, params, state, carry, grads) -> (relaxed, state, carry)`.

    `grad_fn` threads the carry. `grads`, unless None, are those at `params`, and of i = 0.
    """
    step_by_step = compiled(relaxation)

    def outer_step(
        grad_fn: GradFn, params: Any, state: Any, carry: Any = None, grads: Any = None
    ) -> tuple[Any, Any, Any]:
        eager = is_eager(params, state, carry, grads)
        steps = step_by_step if eager else relaxation
        inner = steps.begin(inexact_leaves(params), state)
        first = grads if relaxation.starts_at_params else None
        if eager:
            inner, carry = _eager_loop(steps, grad_fn, inner, carry, params, first)
        elif first is None:
            inner, carry = _inner_loop(steps, grad_fn, inner, carry, params)
        else:
            inner = _inner_loop_from(steps, grad_fn, inner, params, first)
        relaxed, state = steps.finish(inner, state)
        return with_rest(relaxed, params), state, carry

    return outer_step


def _inner_loop(
    relaxation: Relaxation, grad_fn: GradFn, inner: Any, carry: Any, params: Any
) -> tuple[Any, Any]:
    """Runs all L inner steps. One scan: the program does not grow with L.

    Leaves of `params` that gradients cannot move are the same at every point.
    """

    def body(loop: tuple[Any, Any], i: jax.Array) -> tuple[tuple[Any, Any], None]:
        inner, carry = loop
        point = filled(relaxation.point(inner), params)
        grads, carry = grad_fn(point, _batch(relaxation, i), carry)
        checks.check_like(grads, point, "The gradients returned by grad_fn")
        return (relaxation.step(_gradients(grads, params), inner), carry), None

    steps = jnp.arange(relaxation.num_steps, dtype=jnp.int32)
    return lax.scan(body, (inner, carry), steps)[0]


def _inner_loop_from(
    relaxation: Relaxation, grad_fn: GradFn, inner: Any, params: Any, grads: Any
) -> Any:
    """Runs all L inner steps, the first with `grads`, and asks for L - 1 further gradients.

    There is no carry: a loop that is handed the first gradients has none.

    The gradient of the next step is taken at the end of each, but for the last: the relaxation's
    step, the larger part of the program where there are many leaves, is then traced only once.
    """
    num_steps = relaxation.num_steps

    def body(loop: tuple[Any, Any], i: jax.Array) -> tuple[tuple[Any, Any], None]:
        inner, grads = loop
        inner = relaxation.step(grads, inner)

        def following(point: Any) -> Any:
            there = filled(point, params)
            found, _ = grad_fn(there, _batch(relaxation, i + 1), None)
            checks.check_like(found, there, "The gradients returned by grad_fn")
            return jax.tree.map(vary_like, _gradients(found, params), grads)

        point = relaxation.point(inner)
        none = lambda point: jax.tree.map(jnp.zeros_like, grads)  # noqa: E731
        return (inner, lax.cond(i + 1 < num_steps, following, none, point)), None

    first = _gradients(grads, params)
    if num_steps == 1:
        return relaxation.step(first, inner)
    return lax.scan(body, (inner, first), jnp.arange(num_steps, dtype=jnp.int32))[0][0]


def _eager_loop(
    relaxation: Relaxation, grad_fn: GradFn, inner: Any, carry: Any, params: Any, grads: Any
) -> tuple[Any, Any]:
    """Runs all L inner steps outside of `jit`: a loop in Python, in which i is a Python int."""
    for i in range(relaxation.num_steps):
        if i > 0 or grads is None:
            point = filled(relaxation.point(inner), params)
            grads, carry = grad_fn(point, 0 if relaxation.one_batch else i, carry)
            checks.check_like(grads, point, "The gradients returned by grad_fn")
        inner = relaxation.step(_gradients(grads, params), inner)
    return inner, carry


def _gradients(grads: Any, params: Any) -> Any:
    """The gradients of leaves that can move, in the precision of the inner loop."""
    return wide_like(inexact_part(grads, params), inexact_leaves(params))


def _batch(relaxation: Relaxation, i: jax.Array) -> jax.Array:
    """Which mini-batch the i-th gradient is of."""
    return jnp.zeros_like(i) if relaxation.one_batch else i
