"""Reading x, the parameters to evaluate and to keep, out of any optimiser state."""

import sys
from typing import Any

import jax
import jax.numpy as jnp

from entropix.transforms.numerics import changed, dtype_of, is_abstract, is_hole
from entropix.transforms.relaxation import RelaxationState
from entropix.transforms.stepwise import StepwiseState, emitted


def eval_params(state: Any, params: Any) -> Any:
    """Returns x, the parameters to evaluate and to keep, from any optimiser state of this package.

    Args:
      state: the optimiser's state; `stepwise` links are found through any nesting of `chain`,
        `masked`, `partition`, `MultiSteps`, `inject_hyperparams` and the like. That of
        `flax.nnx.Optimizer` (`optimizer.opt_state`) is accepted as it is.
      params: the current parameters: any tree, an `nnx.State`, an Equinox model with all its
        leaves. Leaves that no `stepwise` link owns are returned as they are, and so are elements
        that were changed since the last update, by loading weights for instance. Behind a wrapper
        that hands its inner optimiser another tree (`optax.flatten`,
        `optax.contrib.split_real_and_imaginary`), the parameters in that form.

    Returns:
      A tree like `params`.

    Raises:
      ValueError: if no link of this package is found in `state`, or if `params` are not the tree
        that the link was made for.

    Example:
      >>> import entropix, jax.numpy as jnp, optax
      >>> w = jnp.asarray(1.0)
      >>> tx = optax.chain(optax.clip(1.0), entropix.entropy_sgd(0.1, gamma=1.0, stepwise=True))
      >>> updates, state = tx.update(jnp.asarray(2.0), tx.init(w), w)
      >>> y = optax.apply_updates(w, updates)    # the inner iterate has moved, x has not
      >>> round(float(y), 3), float(entropix.eval_params(state, y))
      (0.9, 1.0)
    """
    if not (links := _links(state)):
        raise ValueError(
            "eval_params found no state of entropix.stepwise or entropix.relax in "
            f"{jax.tree.structure(state)}. Pass the optimiser's state, not the whole training "
            "state's; for an ordinary Optax optimiser, params are what to evaluate."
        )
    arrays = _evaluated(links, _without_variables(params))
    if arrays is params:
        return params
    return jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(arrays))


def _evaluated(links: list[Any], arrays: Any) -> Any:
    """What the links have for x; of an outer optimiser that is spread over updates, its own x."""
    for link in links:
        if isinstance(link, StepwiseState):
            link = _without_variables(link)
            arrays = _evaluated(_links(link.optimizer_state), _overlay(link, arrays))
    return arrays


def _overlay(link: StepwiseState, params: Any) -> Any:
    """Replaces the leaves of `params` that the link owns and the caller has not changed."""

    def choose(x: Any, there: Any, leaf: Any) -> Any:
        if is_hole(x):
            return leaf
        if jnp.shape(leaf) != jnp.shape(x):
            raise ValueError(f"expected an array of shape {jnp.shape(x)}, got {jnp.shape(leaf)}")
        return jnp.where(changed(leaf, there), leaf, x).astype(dtype_of(leaf))

    def overlaid(link: StepwiseState, params: Any) -> Any:
        return jax.tree.map(choose, link.inner.params, emitted(link), params, is_leaf=is_hole)

    try:
        return (
            jax.eval_shape(overlaid, link, params) if is_abstract(link) else overlaid(link, params)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            "eval_params needs the parameters that this state was made for, as tx.init got them: "
            f"{jax.tree.structure(link.inner.params, is_leaf=is_hole)}; got "
            f"{jax.tree.structure(params)}: {error}. States of replicas and their parameters go "
            "through jax.vmap(entropix.eval_params); a wrapper that hands on another tree, such as "
            "optax.flatten, needs the parameters in that form."
        ) from error


def _without_variables(tree: Any) -> Any:
    """The tree with arrays in place of Flax's variables; such a tree only exists beside Flax."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return tree
    if isinstance(tree, nnx.Module):
        raise ValueError(
            "eval_params needs the parameters, not the module: write "
            "eval_params(optimizer.opt_state, nnx.state(model, nnx.Param))."
        )
    is_variable = lambda node: isinstance(node, nnx.Variable)  # noqa: E731
    return (
        nnx.as_pure(tree)
        if any(map(is_variable, jax.tree.leaves(tree, is_leaf=is_variable)))
        else tree
    )


def remembers_parameters(state: Any) -> bool:
    """Whether a state has that of a `stepwise` link in it."""
    return any(isinstance(link, StepwiseState) for link in _links(state))


def _links(state: Any) -> list[Any]:
    """The outermost states of this package's links in any nesting."""
    ours = (StepwiseState, RelaxationState)
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, ours))
    return [leaf for leaf in leaves if isinstance(leaf, ours)]
