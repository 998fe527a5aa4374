"""Trees of p replicas: every array has a leading axis p."""

from typing import Any

import jax
import jax.numpy as jnp

from entropix.transforms.checks import check_count
from entropix.transforms.keys import fold_in
from entropix.transforms.numerics import dtype_of, is_key, wide


def replicate(state: Any, replicas: int) -> Any:
    """Makes p replicas of one state: equal arrays, a random key of its own for each.

    Args:
      state: any pytree. Typed keys in it are folded with the replica's index, so that no two
        replicas draw the same numbers; a key that is an old-style `uint32` array cannot be told
        from other arrays and is copied.
      replicas: p >= 1.

    Returns:
      The tree with a leading axis p. (For p different starting points stack p states:
      `jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)`.)

    Raises:
      ValueError: for a p that is not an integer >= 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from entropix import replicas
      >>> states = replicas.replicate({"w": jnp.ones(2), "key": jax.random.key(0)}, 3)
      >>> states["w"].shape, len(set(map(str, states["key"])))
      ((3, 2), 3)
    """
    replicas = check_count("replicas", replicas)
    return jax.tree.map(lambda leaf: _copies(leaf, 0, replicas), state)


def unreplicate(states: Any) -> Any:
    """Returns the first replica's state: what all have in common, such as counters.

    Args:
      states: any pytree of arrays with a leading axis p.

    Returns:
      The tree without the leading axis.

    Raises:
      ValueError: for arrays without one leading axis, the same in all.

    Example:
      >>> import jax.numpy as jnp
      >>> from entropix import replicas
      >>> replicas.unreplicate({"count": jnp.asarray([7, 7])})["count"].tolist()
      7
    """
    check_leading("states", states)
    return jax.tree.map(lambda leaf: leaf[0], states)


def centre(states: Any) -> Any:
    r"""Returns the replicas' mean, the point to evaluate.

    .. math:: \bar x = \frac1p \sum_a x^a

    Args:
      states: parameters, or whole states, with a leading axis p. Counters and keys, which have no
        mean, are the first replica's.

    Returns:
      A tree without the leading axis, with the dtypes of `states`.

    Raises:
      ValueError: for arrays without one leading axis, the same in all.

    Example:
      >>> import jax.numpy as jnp
      >>> from entropix import replicas
      >>> replicas.centre({"w": jnp.asarray([[1.0, 2.0], [3.0, 4.0]])})["w"].tolist()
      [2.0, 3.0]
    """
    check_leading("states", states)
    return jax.tree.map(_mean, states)


def resize(states: Any, replicas: int) -> Any:
    """Lets replicas join or leave: p states become p' of them.

    The first min(p, p') stay as they are. New ones start at the centre of the p, momentum and
    batch-norm statistics included, with counters like the others' and keys of their own (but for
    old-style `uint32` keys, which are copied: see `replicate`).

    Args:
      states: with a leading axis p.
      replicas: p' >= 1.

    Returns:
      The tree with a leading axis p'.

    Raises:
      ValueError: for a p' that is not an integer >= 1, or arrays without one leading axis, the same
        in all.

    Example:
      >>> import jax.numpy as jnp
      >>> from entropix import replicas
      >>> replicas.resize({"w": jnp.asarray([1.0, 3.0])}, 3)["w"].tolist()
      [1.0, 3.0, 2.0]
    """
    replicas = check_count("replicas", replicas)
    check_leading("states", states)

    def join(leaf: jax.Array) -> jax.Array:
        present = len(leaf)
        if replicas <= present:
            return leaf[:replicas]
        return jnp.concatenate([leaf, _copies(_mean(leaf), present, replicas)])

    return jax.tree.map(join, states)


def check_leading(name: str, tree: Any, replicas: int | None = None) -> None:
    """Raises `ValueError` unless all arrays have a leading axis of the replicas.

    Args:
      name: of the tree.
      tree: of arrays.
      replicas: p; None for the same number in all arrays.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    for shape in shapes:
        if shape == () or shape[0] != (shapes[0][0] if replicas is None else replicas):
            p, beside = (f"{replicas}", "") if replicas else ("p", f" beside one of {shapes[0]}")
            raise ValueError(
                f"{name} must have a leading axis of {p} replicas in every array; got an array of "
                f"shape {shape}{beside}. Make it with entropix.replicas.replicate, or "
                "jax.tree.map(lambda *xs: jnp.stack(xs), *trees)."
            )


def _copies(leaf: jax.Array, first: int, end: int) -> jax.Array:
    """Copies for the replicas `first` ... `end - 1`; of a key, one folded with each index."""
    leaf = jnp.asarray(leaf)
    copies = jnp.broadcast_to(leaf, (end - first, *leaf.shape))
    if not is_key(leaf):
        return jnp.copy(copies)  # not views of one buffer, which could not be donated
    return jax.vmap(fold_in)(copies, jnp.arange(first, end))


def _mean(leaf: jax.Array) -> jax.Array:
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf[0]
    leaf, dtype = wide(leaf), dtype_of(leaf)
    # The mean of equal replicas is each of them, to the bit.
    equal = jnp.all(leaf == leaf[:1], axis=0)
    return jnp.where(equal, leaf[0], jnp.mean(leaf, axis=0)).astype(dtype)
