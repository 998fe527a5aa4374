"""Steps for one replica, one for each thing a program may contain, and how to compare layouts.

All take the replicas' axis first, which is a name or a pair of names, as the layout says.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import entropix

AXIS = "replica"
REPLICAS = 4


def coupled(make, axis):
    """A step of an optimiser on a least-squares problem, with noise from the replica's own key."""

    def step(state, batch):
        w, opt_state, key = state
        key, draw = jax.random.split(key)
        target = batch + 0.1 * jax.random.normal(draw, batch.shape)

        def grad_fn(w, i):
            return jax.grad(lambda w: jnp.mean(jnp.sin(target @ w + i) ** 2))(w)

        loss, grads = jnp.mean(target), grad_fn(w, 0)
        updates, opt_state = tx.update(grads, opt_state, w, grad_fn=grad_fn)
        return (optax.apply_updates(w, updates), opt_state, key), loss

    tx, w = make(axis), jnp.linspace(-1.0, 1.0, 3)
    return step, (w, tx.init(w), jax.random.key(3))


def relaxed(axis, period):
    relaxation = entropix.local_entropy(1.0, temperature=0.1, num_steps=4, axis_name=axis)
    return optax.chain(
        entropix.relax(relaxation),
        entropix.elastic_coupling(0.5, axis, period=period),
        entropix.sgd(0.1),
    )


def spread_over_updates(axis):
    relaxation = entropix.local_entropy(1.0, temperature=0.1, num_steps=3, axis_name=axis)
    outer = optax.chain(entropix.elastic_coupling(0.5, axis), entropix.sgd(0.1))
    # A collective inside a conditional.
    return entropix.stepwise(relaxation, outer, axis_name=axis)


def diloco(axis, stepwise):
    inner = optax.scale_by_adam(eps=1e-3)
    return entropix.diloco(0.5, axis, num_steps=3, step_size=0.01, inner=inner, stepwise=stepwise)


OPTIMISERS = {
    "elastic": lambda axis: entropix.elastic_sgd(0.1, 0.5, axis),
    "elastic-period_3": lambda axis: entropix.elastic_sgd(0.1, 0.5, axis, period=3),
    "easgd-period_3": lambda axis: entropix.easgd(0.1, axis, period=3),
    "parle": lambda axis: relaxed(axis, 1),
    "parle-period_2": lambda axis: relaxed(axis, 2),
    "parle-stepwise": spread_over_updates,
    "diloco": lambda axis: diloco(axis, False),
    "diloco-stepwise": lambda axis: diloco(axis, True),
}


def in_scan(axis, x, batch):
    def body(carry, b):
        carry = carry + lax.pmean(jnp.sin(carry * b), axis)
        return carry, (carry.sum(), lax.axis_index(axis))

    return lax.scan(body, x, batch, reverse=True)


def in_while(axis, x, batch):
    def go_on(carry):
        i, y = carry
        return (i < 3) & (lax.pmax(jnp.sum(y), axis) < 1e3)

    def body(carry):
        i, y = carry
        return i + 1, y + lax.psum(y * batch[0], axis) / (1 + lax.axis_index(axis))

    return lax.while_loop(go_on, body, (0, x))[1], ()


def in_cond(axis, x, batch):
    count = jnp.sum(jnp.ones_like(x)).astype(int)  # a value of each replica, the same for all
    taken = lax.cond(count == 3, lambda y: lax.pmean(y, axis), lambda y: y, x)
    return x + taken, lax.cond(count == 4, lambda y: lax.pmin(y, axis), lambda y: 2 * y, x)


def in_calls(axis, x, batch):
    @jax.checkpoint
    def mean(y):
        return lax.pmean(jnp.cos(y), axis)

    @jax.custom_jvp
    def double(y):
        return 2 * lax.pmean(y, axis)

    double.defjvp(lambda p, t: (double(*p), 3 * t[0]))

    @jax.custom_vjp
    def triple(y):
        return 3 * lax.pmean(y, axis)

    triple.defvjp(lambda y: (triple(y), None), lambda _, g: (5 * g,))
    grads = jax.grad(lambda y: jnp.sum(mean(y) ** 2 + double(y) * triple(y)))(x)
    return jax.jit(mean)(x) + double(x) + triple(x), grads


def same_for_all(axis, x, batch):
    """Values no replica's state goes into, and collectives of them."""
    table = jnp.arange(3.0)
    size = lax.psum(1, axis) + lax.psum(jnp.sum(table), axis) + lax.axis_size(axis)
    return x + lax.pmax(table, axis), (size, table, lax.pmean(lax.axis_index(axis) * 1.0, axis))


def reduced_within(axis, x, batch):
    """A sum over an axis of the replica's own together with the replicas'."""
    names = ("own", axis) if isinstance(axis, str) else ("own", *axis)
    return x + jax.vmap(lambda b: lax.psum(b, names), axis_name="own")(batch)[0], ()


def other_types(axis, x, batch):
    count = lax.psum(jnp.asarray(2, jnp.int32), axis) + lax.psum(lax.axis_index(axis), axis)
    key = jax.random.fold_in(jax.random.key(0), lax.axis_index(axis))
    low = lax.pmean(x.astype(jnp.bfloat16), axis)
    return x + jax.random.normal(key, x.shape), (count, low, lax.psum(x.astype(complex), axis))


STRUCTURES = [
    in_scan, in_while, in_cond, in_calls, same_for_all, reduced_within, other_types,
]  # fmt: skip


def inputs(state=None):
    """States of all replicas, and their batches."""
    rng = np.random.default_rng(0)
    batches = jnp.asarray(rng.normal(size=(REPLICAS, 5, 3)), jnp.float32)
    if state is None:
        return jnp.asarray(rng.normal(size=(REPLICAS, 3)), jnp.float32), batches
    return entropix.replicas.replicate(state, REPLICAS), batches


def walk(run, steps):
    """Several steps in one program."""

    def body(states, scale, batches):
        return run(states, batches * scale)

    def walked(states, batches):
        scales = 1 + jnp.arange(steps) / steps
        return lax.scan(lambda s, scale: body(s, scale, batches), states, scales)

    return jax.jit(walked)


def difference(tree, other):
    """The largest difference of two trees, relative to the largest number in a leaf."""
    plain = optax.tree.unwrap_random_key_data
    largest = 0.0
    pairs = zip(jax.tree.leaves(plain(tree)), jax.tree.leaves(plain(other)), strict=True)
    for a, b in pairs:
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = (np.asarray(x).astype(complex) for x in (a, b))
        largest = max(largest, np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(b))))
    return largest
