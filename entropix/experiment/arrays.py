"""A problem's arrays, on the way to the device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from entropix.transforms.checks import refusal


def shape_of(array: np.ndarray) -> jax.ShapeDtypeStruct:
    """The shape of an array, and the dtype that the array has on the device."""
    return jax.ShapeDtypeStruct(array.shape, jax.dtypes.canonicalize_dtype(array.dtype))


def evenly_spread(count: int, total: int) -> np.ndarray:
    """The places of `count` of `total` examples, at equal distances from the first to the last."""
    return np.linspace(0, total - 1, count).astype(int)


def on_device(name: str, tree: Any) -> Any:
    """The arrays on the device; all with as many examples."""
    leaves = jax.tree.leaves(tree)
    if not leaves or any(np.ndim(leaf) == 0 for leaf in leaves):
        raise refusal(name, "arrays with a leading axis of examples", tree)
    sizes = sorted({len(leaf) for leaf in leaves})
    if len(sizes) > 1 or sizes[0] == 0:
        raise ValueError(
            f"{name} must have the same number of examples, >= 1, in every array; got {sizes}."
        )
    return jax.tree.map(lambda leaf: jnp.asarray(fitting(name, leaf)), tree)


def refuse_masked(name: str, array: Any) -> None:
    """Raises `ValueError` for an array some of whose values are masked, and would be trained on."""
    if np.ma.is_masked(array):
        raise ValueError(
            f"{name} must have no masked values; got {np.ma.count_masked(array)} of them. Leave "
            "their examples out, or fill them, with array.filled(value)."
        )


def fitting(name: str, array: Any, dtype: Any = None) -> Any:
    """Returns an array whose whole numbers fit the device's, which have 32 bits by default.

    Args:
      name: of the array in messages.
      array: of any library.
      dtype: of the array on the device; by default the one that JAX chooses.

    Raises:
      ValueError: for a whole number that would wrap around, and for what is masked or no number.
    """
    if isinstance(array, jax.Array):
        return array
    refuse_masked(name, array)
    array = np.asarray(array)
    if array.dtype.kind in "OSUMm" or array.dtype.type is np.void:  # of records with fields
        raise ValueError(
            f"{name} must have arrays of numbers; got one of dtype {array.dtype}. Turn what the "
            "array holds into numbers before."
        )
    dtype = np.dtype(dtype or jax.dtypes.canonicalize_dtype(array.dtype))
    if array.dtype.kind in "iu" and dtype.kind in "iu" and dtype != array.dtype and array.size:
        limits = np.iinfo(dtype)
        for value in (int(array.min()), int(array.max())):
            if not limits.min <= value <= limits.max:
                raise ValueError(
                    f"{name} must have whole numbers in [{limits.min}, {limits.max}], which "
                    f"{dtype} holds; got {value} among them. Number the values from 0, or write "
                    "them as floats."
                )
    return array
