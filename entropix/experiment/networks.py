"""Models of any library as pure functions: NNX, Linen, Equinox, Haiku, or a pair of functions."""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen, nnx

from entropix.experiment.modes import EVALUATING, FLAGS, TRAINING, flags_among, flags_of, mode_of
from entropix.models.streams import rekeyed
from entropix.transforms.checks import refusal

ACCEPTED = (
    "an NNX, Linen or Equinox model; a function of rngs (NNX) or of key (Equinox) that makes one; "
    "what hk.transform or hk.transform_with_state returns; or a pair of functions "
    "init(key) -> params and apply(params, inputs) -> outputs"
)


class NetworkFunctions(NamedTuple):
    """A model, taken apart.

    Attributes:
      init: `init(key) -> (params, model_state)`.
      apply: `apply(params, model_state, inputs, train, key) -> (outputs, model_state)`.
      estimate: `estimate(params, model_state, inputs) -> model_state` of this batch alone, with
        dropout off; None for a model without batch statistics, and for one that is not of NNX,
        which is evaluated with the statistics collected in training.
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    apply: Callable[..., tuple[Any, Any]]
    estimate: Callable[[Any, Any, Any], Any] | None


def network_functions(model: Any, example: Any) -> NetworkFunctions:
    """Takes a model apart.

    Args:
      model: an NNX, Linen or Equinox model, a function that makes one, the functions of
        `hk.transform` or `hk.transform_with_state`, or a pair of functions. A
        finished NNX or Equinox model starts every seed at its parameters; a function of `rngs` or
        of `key` gives every seed parameters of its own. Where the model's call has a flag that
        says whether the model trains (TRAINING, EVALUATING), the flag is passed; so is such a
        field of a Linen model. The `apply` of a pair gets a random key too where it has an
        argument `key` or `rng`; in evaluation that is left out, or None where there is no default.
      example: one batch of inputs, or its shapes; the `init` of Linen and Haiku need them.

    Returns:
      Its `NetworkFunctions`.

    Raises:
      ValueError: for anything else.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> net = network_functions(lambda rngs: nnx.Linear(4, 2, rngs=rngs), jnp.ones((3, 4)))
      >>> params, model_state = net.init(jax.random.key(0))
      >>> net.apply(params, model_state, jnp.ones((3, 4)), False, None)[0].shape
      (3, 2)
    """
    if getattr(model, "_fields", None) == ("init", "apply"):
        return _haiku(model, example)
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        return _pair(*model)
    if isinstance(model, nnx.Module):
        return _nnx(model, lambda key: model)
    if isinstance(model, linen.Module):
        return _linen(model, example)
    if _is_equinox(model):
        return _equinox(model, lambda key: model)
    if callable(model):
        names = _arguments(model)
        if "rngs" in names:
            return _nnx(model(rngs=nnx.Rngs(0)), lambda key: model(rngs=nnx.Rngs(key)))
        if "key" in names:
            return _equinox(model(key=jax.random.key(0)), lambda key: model(key=key))
    raise refusal("model", ACCEPTED, model)


def _arguments(model: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The arguments of a function or of a class that makes a model, or of a partial call of one.

    Those of a class are its `__init__`'s: the calls of NNX's modules take anything.
    """
    partial = model if isinstance(model, functools.partial) else functools.partial(model)
    if not isinstance(partial.func, type):
        return inspect.signature(model).parameters
    made_by = getattr(partial.func, "__init__")  # noqa: B009
    bound = functools.partial(made_by, None, *partial.args, **partial.keywords)
    return inspect.signature(bound).parameters


def _pair(init: Callable[..., Any], apply: Callable[..., Any]) -> NetworkFunctions:
    """A pair of functions; `apply` gets flags and a random key where it has such arguments."""
    parameters = list(inspect.signature(apply).parameters.values())[2:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):  # such as a Linen module's, whose own
        parameters = [p for p in parameters if p.name in FLAGS]  # call has the flags
    keys = {p.name: p.default is p.empty for p in parameters if p.name in ("key", "rng")}
    flags = flags_among(parameters, "apply", others=tuple(keys))

    def applied(params: Any, state: Any, x: Any, train: bool, key: Any) -> tuple[Any, Any]:
        # In evaluation a default stays: what None means is known where there is none.
        given = {name: key for name, needed in keys.items() if needed or key is not None}
        return apply(params, x, **given, **mode_of(flags, train)), state

    return NetworkFunctions(lambda key: (init(key), ()), applied, None)


def _haiku(model: Any, example: Any) -> NetworkFunctions:
    """Haiku's functions: `apply` takes a state and a key where its arguments have these names."""
    parameters = list(inspect.signature(model.apply).parameters.values())
    stateful, keyed = (name in [p.name for p in parameters[1:3]] for name in ("state", "rng"))
    if not keyed and not stateful and len(inspect.signature(model.init).parameters) == 1:
        return _pair(*model)  # somebody's named tuple
    flags = flags_among(parameters[2 + stateful + keyed :], "the model's function")

    def init(key: jax.Array) -> tuple[Any, Any]:
        inputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)
        made = model.init(key, inputs, **mode_of(flags, True))
        return made if stateful else (made, ())

    def apply(params: Any, state: Any, x: Any, train: bool, key: Any) -> tuple[Any, Any]:
        known = (params, *[state] * stateful, *[key] * keyed)
        found = model.apply(*known, x, **mode_of(flags, train))
        outputs, new = found if stateful else (found, state)
        return outputs, new if train else state

    return NetworkFunctions(init, apply, None)


def _nnx(model: nnx.Module, make: Callable[[jax.Array], nnx.Module]) -> NetworkFunctions:
    """The trees hold arrays, not variables: merging those inside `jax.grad` is an error."""
    flags = flags_of(model)

    def take_apart(model: nnx.Module) -> tuple[Any, Any, Any, Any]:
        model = nnx.clone(model)
        nnx.pop(model, nnx.Intermediate)  # what a model sows is no state of its training
        graphdef, *parts = nnx.split(model, nnx.Param, nnx.RngState, ...)
        return graphdef, *(jax.tree.map(jnp.copy, nnx.as_pure(part)) for part in parts)

    def functions_of(model: nnx.Module) -> Callable[..., tuple[Any, Any]]:
        graphdef, _, streams, _ = take_apart(model)

        def apply(params: Any, state: Any, x: Any, train: bool, key: Any) -> tuple[Any, Any]:
            keys = streams if key is None else rekeyed(streams, key)
            network = nnx.merge(graphdef, params, keys, state)
            network.train() if train else network.eval()
            outputs = network(x, **mode_of(flags, train))
            new = nnx.state(network, nnx.Not(nnx.Any(nnx.Param, nnx.RngState, nnx.Intermediate)))
            return outputs, nnx.as_pure(new)

        return apply

    def init(key: jax.Array) -> tuple[Any, Any]:
        _, params, _, state = take_apart(make(key))
        return params, state

    apply, estimate = functions_of(model), None
    if any(isinstance(module, nnx.BatchNorm) for _, module in nnx.iter_modules(model)):
        of_one_batch = functions_of(_forgetting(model))
        estimate = lambda params, state, x: of_one_batch(params, state, x, True, None)[1]  # noqa: E731
    return NetworkFunctions(init, apply, estimate)


def _forgetting(model: nnx.Module) -> nnx.Module:
    """A copy that forgets older batches' statistics at once, and drops nothing out."""
    model = nnx.clone(model)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            module.momentum = 0.0
        if isinstance(module, nnx.Dropout):
            module.rate = 0.0
    return model


def _linen(model: linen.Module, example: Any) -> NetworkFunctions:
    """Linen's models say by an argument, or by a field, whether they train."""
    flags = flags_of(model)
    fields = [] if flags else _fields(model)

    def in_mode(train: bool) -> linen.Module:
        return model.clone(**mode_of(fields, train)) if fields else model

    def init(key: jax.Array) -> tuple[Any, Any]:
        inputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)
        first, second = jax.random.split(key)
        keys = {"params": first, "dropout": second}
        variables = dict(in_mode(False).init(keys, inputs, **mode_of(flags, False)))
        return variables.pop("params", {}), variables

    def apply(params: Any, state: Any, x: Any, train: bool, key: Any) -> tuple[Any, Any]:
        rngs = None if key is None else {"dropout": key}
        network, mode = in_mode(train), mode_of(flags, train)
        variables = {"params": params, **state}
        if not train or not state:
            return network.apply(variables, x, rngs=rngs, **mode), state
        outputs, new = network.apply(variables, x, rngs=rngs, mutable=list(state), **mode)
        return outputs, dict(new)

    return NetworkFunctions(init, apply, None)


def _fields(model: linen.Module) -> list[str]:
    """The fields of a Linen model that say whether it trains."""
    names = [field.name for field in dataclasses.fields(model)]
    known = [name for name in names if name in (*TRAINING, *EVALUATING)]
    return [name for name in known if isinstance(getattr(model, name), bool | None)]


def _is_equinox(model: Any) -> bool:
    equinox = sys.modules.get("equinox")  # a model of Equinox only exists beside Equinox
    return equinox is not None and isinstance(model, equinox.Module)


def _equinox(model: Any, make: Callable[[jax.Array], Any]) -> NetworkFunctions:
    """Equinox's models take one example; those with a state of their own are refused.

    Arrays of whole numbers and of truth values have no gradient: they are the model state.
    """
    import equinox as eqx

    if not _is_equinox(model):
        raise refusal("model", ACCEPTED, model)
    if any(isinstance(leaf, eqx.nn.StateIndex) for leaf in _leaves(model, eqx.nn.StateIndex)):
        raise ValueError(
            "Equinox models with a state (eqx.nn.BatchNorm) are not taken apart. Use "
            "eqx.nn.GroupNorm or LayerNorm, or write an entropix.experiment.Problem with a "
            "model_state."
        )
    _, others = eqx.partition(model, eqx.is_inexact_array)
    resting, static = eqx.partition(others, eqx.is_array)
    structure = jax.tree.structure(resting)
    flags = flags_of(model, others=("key",))
    takes_key = "key" in inspect.signature(model.__call__).parameters

    def init(key: jax.Array) -> tuple[Any, Any]:
        params, others = eqx.partition(make(key), eqx.is_inexact_array)
        return params, tuple(jax.tree.leaves(eqx.filter(others, eqx.is_array)))

    def apply(params: Any, state: Any, x: Any, train: bool, key: Any) -> tuple[Any, Any]:
        network = eqx.combine(params, jax.tree.unflatten(structure, state), static)
        network = eqx.nn.inference_mode(network, value=not train)
        mode = mode_of(flags, train)
        if not takes_key:
            return jax.vmap(lambda one: network(one, **mode))(x), state
        if key is None:
            return jax.vmap(lambda one: network(one, key=None, **mode))(x), state
        keys = jax.random.split(key, len(jax.tree.leaves(x)[0]))
        return jax.vmap(lambda one, key: network(one, key=key, **mode))(x, keys), state

    return NetworkFunctions(init, apply, None)


def _leaves(tree: Any, kind: type) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
