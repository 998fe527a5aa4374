"""Random keys in optimiser states: accepted spellings, one stream per replica, reseeding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from entropix.transforms.axes import AxisName, mapped
from entropix.transforms.checks import refusal
from entropix.transforms.numerics import is_key


def generator_of(key: Any) -> Any:
    """The random number generator of a typed key, which may be abstract."""
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), key)
    return found[0]


def check_key(key: Any, name: str = "key", *, several: bool = False) -> Any:
    """Returns a typed key, a legacy key or an integer seed; with `several`, arrays of keys too."""
    typed, legacy = is_key(key), _is_legacy(key)
    if not (typed or legacy or _is_seed(key)):
        accepted = "an integer seed, jax.random.key(seed) or a legacy jax.random.PRNGKey(seed)"
        too_large = isinstance(key, int) and not isinstance(key, bool)
        raise refusal(name, accepted, key, ". A seed has 64 bits at most." * too_large)
    if (typed or legacy) and not several and key.ndim > legacy:
        way_out = f", an array of keys. Build with {name}[0]; entropix.reseed takes the array."
        raise refusal(name, "one key or an integer seed", key, way_out)
    return key


def canonical_key(key: Any) -> jax.Array:
    """Returns a typed key from a typed key, a legacy `PRNGKey` array or an integer seed.

    Args:
      key: typed key, uint32 array `(..., 2)` as made by `jax.random.PRNGKey`, or integer seed
        (possibly traced, as under `optax.inject_hyperparams`).

    Raises:
      ValueError: for anything else.
    """
    check_key(key, several=True)
    if _is_legacy(key):
        return jax.random.wrap_key_data(jnp.asarray(key))
    return jax.random.key(key) if _is_seed(key) else key


def one_key(key: Any) -> jax.Array:
    """Returns a typed key, as `canonical_key` does, and refuses arrays of keys."""
    return canonical_key(check_key(key))


def _is_seed(key: Any) -> bool:
    if isinstance(key, jax.Array | np.ndarray | np.integer):
        return key.ndim == 0 and jnp.issubdtype(key.dtype, jnp.integer)
    return isinstance(key, int) and not isinstance(key, bool) and -(2**63) <= key < 2**63


def _is_legacy(key: Any) -> bool:
    if not isinstance(key, jax.Array | np.ndarray) or key.ndim < 1 or key.dtype != jnp.uint32:
        return False
    data = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    return key.shape[-1:] == data.shape


def step_key(key: jax.Array, *indices: Any, axis_name: AxisName | None = None) -> jax.Array:
    """Derives the key of one draw from (outer step, inner step, replica).

    Folding counters into a constant key, rather than splitting and storing a new one, makes the
    noise a function of (seed, step): a resumed run draws what the uninterrupted one would have.
    """
    if key is None:
        raise ValueError(
            "update adds noise, and the state that was passed has no random key: an optimiser "
            "without noise (temperature 0) made that state. Start from tx.init(params), or put a "
            "key into its RelaxationState: state._replace(key=jax.random.key(0))."
        )
    for index in indices:
        key = jax.random.fold_in(key, index)
    if axis_name is not None:
        # Replicas made by vmap(tx.init) hold one and the same key; their index tells them apart.
        with mapped(axis_name):
            key = jax.random.fold_in(key, lax.axis_index(axis_name))
    return key


def reseed(state: Any, key: jax.Array | int) -> Any:
    r"""Sets the random key wherever it sits in an optimiser state.

    `jax.vmap(tx.init)` copies one key to every seed or replica, so that all of them would draw
    the same noise. After `reseed` each has its own. So have two relaxations of one
    `optax.partition` that were built with one key, such as the default.

    Args:
      state: any pytree, typically the state of an Optax chain; vmapped states are welcome.
      key: typed key, legacy key or integer seed. A state whose keys have shape `(p,)` (made by
        `vmap(tx.init)`) gets `p` different keys split from a scalar `key`, or `key` itself when
        it has that shape. With several keys in a state, the n-th (n >= 1) gets `fold_in(key, n)`.

    Returns:
      The state with new keys and all else unchanged. A state without keys comes back as it was,
      so generic code may call this for deterministic optimisers too.

    Raises:
      ValueError: if `key` is no key, or has a shape that does not fit the state's keys.

    Example:
      >>> import jax, jax.numpy as jnp, entropix
      >>> tx = entropix.entropy_sgd(0.1, gamma=1.0)
      >>> states = jax.vmap(tx.init)({"w": jnp.zeros((3, 2))})  # three replicas, one key
      >>> states = entropix.reseed(states, 7)                   # three replicas, three keys
    """
    key = canonical_key(key)
    leaves, structure = jax.tree.flatten(state)
    keys = [n for n, leaf in enumerate(leaves) if is_key(leaf)]
    for order, n in enumerate(keys):
        leaves[n] = _spread(fold_in(key, order) if order else key, leaves[n].shape)
    return jax.tree.unflatten(structure, leaves)


def fold_in(key: jax.Array, data: Any) -> jax.Array:
    """`jax.random.fold_in` of one number into a key, or into every key of an array."""
    fold = jax.random.fold_in
    for _ in range(key.ndim):
        fold = jax.vmap(fold, in_axes=(0, None))
    return fold(key, data)


def folded(state: Any, data: Any) -> Any:
    """A state with a number folded into every random key in it: made anew, it draws other noise."""
    return jax.tree.map(lambda leaf: fold_in(leaf, data) if is_key(leaf) else leaf, state)


def _spread(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if key.shape == shape:
        return jnp.copy(key)  # which a donated state may destroy
    if key.shape == ():
        return jax.random.split(key, shape)
    raise ValueError(
        f"key must be one key or an array of keys of shape {shape}, the shape of the keys in the "
        f"state; got shape {key.shape}."
    )
