"""The optimisers under contract, and the problems they are run on.

Every public optimiser and wrapper stands in `CASES` once for each way to use it. A new one gets the
whole contract by a new line there.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import ScalarOrSchedule

import entropix

AXIS = "replica"
REPLICAS = 2

Objective = Callable[[Any], jax.Array]


def ascent(objective: Objective) -> Callable[[Any], Any]:
    """The direction of steepest ascent: of complex parameters, the conjugate of JAX's gradient."""
    return lambda params: jax.tree.map(jnp.conj, jax.grad(objective)(params))


class Case(NamedTuple):
    """One optimiser with the hyperparameters that solve all four targets.

    Attributes:
      factory: makes the optimiser.
      arguments: the factory's arguments.
      static: names of arguments that `optax.inject_hyperparams` must not trace.
      face: "plain", "scan" (update needs `grad_fn`) or "stepwise".
      replicated: whether it runs under `jax.vmap(axis_name=AXIS)`; then all trees of the case
        have a leading axis of replicas.
      apart: whether replicas may start at different points.
    """

    factory: Callable[..., Any]
    arguments: dict[str, Any]
    static: tuple[str, ...] = ()
    face: str = "plain"
    replicated: bool = False
    apart: bool = True

    def make(self, **changes: Any) -> Any:
        """The optimiser, with some arguments changed."""
        return self.place(self.factory(**(self.arguments | changes)))

    def place(self, tx: Any) -> Any:
        """The optimiser as its users run it: replicas live under a vmap."""
        return over_replicas(tx) if self.replicated else tx

    def spread(self, params: Any) -> Any:
        """Starting points: as given, or a different one for each replica."""
        if not self.replicated:
            return params
        shift = 0.5 * self.apart
        return jax.tree.map(lambda p: jnp.stack([p + shift * n for n in range(REPLICAS)]), params)

    def gradient(self, objective: Objective) -> Callable[[Any], Any]:
        """The gradient of `objective`, for each replica its own."""
        one = ascent(objective)
        return jax.vmap(one, axis_size=REPLICAS) if self.replicated else one

    def extra(self, objective: Objective) -> dict[str, Any]:
        """What `update` needs besides gradients, state and parameters."""
        if self.face != "scan":
            return {}
        return {"grad_fn": lambda params, i: ascent(objective)(params)}

    def solution(self, state: Any, params: Any) -> Any:
        """x, wherever this face keeps it."""
        return params if self.face == "plain" else entropix.eval_params(state, params)

    def step(self, tx: Any, objective: Objective, **extra: Any) -> Callable:
        """One call of `update`, applied: `(params, state) -> (params, state)`."""

        def step(params: Any, state: Any) -> tuple[Any, Any]:
            grads, needed = self.gradient(objective)(params), self.extra(objective)
            updates, state = tx.update(grads, state, params, **needed, **extra)
            return optax.apply_updates(params, updates), state

        return step


def over_replicas(tx: Any) -> optax.GradientTransformationExtraArgs:
    """Runs a transformation on stacked replicas; extra arguments are shared by all of them."""

    def update(updates: Any, state: Any, params: Any, **extra: Any) -> tuple[Any, Any]:
        one = lambda *arguments: tx.update(*arguments, **extra)  # noqa: E731
        return jax.vmap(one, axis_name=AXIS, axis_size=REPLICAS)(updates, state, params)

    init = jax.vmap(tx.init, axis_size=REPLICAS)
    return optax.GradientTransformationExtraArgs(init, update)


# Combinations that a user would write; the annotations let the tests find what can be scheduled.


def relaxed_adam(
    learning_rate: ScalarOrSchedule, gamma: ScalarOrSchedule, step_size: ScalarOrSchedule
) -> Any:
    relaxation = entropix.local_entropy(gamma, num_steps=4, step_size=step_size)
    return optax.chain(entropix.relax(relaxation), optax.adam(learning_rate))


def relaxed_clipped_sgd(learning_rate: ScalarOrSchedule, gamma: ScalarOrSchedule) -> Any:
    relaxation = entropix.hamilton_jacobi(gamma, step_size=1e-3)
    return optax.chain(
        entropix.relax(relaxation), optax.clip_by_global_norm(1.0), optax.sgd(learning_rate)
    )


def stepwise_adamw(learning_rate: ScalarOrSchedule, gamma: ScalarOrSchedule) -> Any:
    relaxation = entropix.hamilton_jacobi(gamma, step_size=1e-3)
    return entropix.stepwise(relaxation, optax.adamw(learning_rate))


def elastic_adam(learning_rate: ScalarOrSchedule, gamma: ScalarOrSchedule) -> Any:
    return optax.chain(entropix.elastic_coupling(gamma, AXIS), optax.adam(learning_rate))


def data_parallel_adam(learning_rate: ScalarOrSchedule) -> Any:
    return optax.chain(entropix.average_updates(AXIS), optax.adam(learning_rate))


def snoo_adam(
    learning_rate: ScalarOrSchedule, stepwise: bool = True, axis_name: str | None = None
) -> Any:
    return entropix.snoo(
        optax.adam(learning_rate), num_steps=4, stepwise=stepwise, axis_name=axis_name
    )


def lookahead_sgd(learning_rate: ScalarOrSchedule) -> Any:
    return entropix.lookahead(optax.sgd(learning_rate, 0.9), num_steps=4)


def pulled_adam(
    learning_rate: ScalarOrSchedule, gamma: ScalarOrSchedule, step_size: ScalarOrSchedule
) -> Any:
    adam = optax.adam(learning_rate)
    return entropix.outer(adam, num_steps=4, gamma=gamma, step_size=step_size)


def noisy_adam(
    learning_rate: ScalarOrSchedule,
    gamma: ScalarOrSchedule,
    step_size: ScalarOrSchedule,
    temperature: ScalarOrSchedule,
    averaging: float | str,
) -> Any:
    return entropix.outer(
        optax.adam(learning_rate),
        num_steps=4,
        gamma=gamma,
        step_size=step_size,
        temperature=temperature,
        averaging=averaging,
        stepwise=False,
    )


def _family(factory: Callable[..., Any], face: str, **arguments: Any) -> Case:
    """A case of one of the aliases with a `stepwise` argument."""
    arguments |= {"stepwise": face == "stepwise"}
    # The number 0 leaves code out and so must not be traced.
    lengths = [
        n
        for n in ("num_steps", "num_ascents", "period")
        if n in inspect.signature(factory).parameters
    ]
    static = (*lengths, *(n for n in ("temperature",) if arguments.get(n) == 0))
    replicated, apart = "axis_name" in arguments, factory is not entropix.diloco
    return Case(factory, arguments, static, face, replicated, apart)


_ENTROPY = {"learning_rate": 0.5, "gamma": 1.0, "step_size": 1e-3, "num_steps": 4}
_AUTHORS = {
    "learning_rate": 0.5,
    "gamma": 10.0,
    "step_size": 5e-4,
    "num_steps": 4,
    "inner": optax.trace(0.9, nesterov=True),
    "output": "displacement",
}
# Adam's first steps have the length of step_size whatever the gradient: let it shrink.
_ADAM = _ENTROPY | {
    "inner": optax.scale_by_adam(),
    "step_size": optax.exponential_decay(1e-2, 1000, 0.8, end_value=1e-5),
}
_SCOPED = _ENTROPY | {"gamma": entropix.scoping(10.0, 1e-2, end_value=0.5)}
_HJ = {"learning_rate": 0.5, "gamma": 1.0, "step_size": 1e-3}
_HJ_2 = {"learning_rate": 5e-4, "gamma": 0.1, "step_size": 1e-3, "form": "gradient"}
_HEAT = {"learning_rate": 2e-4, "gamma": 0.01, "num_steps": 4}
_ELASTIC = {"learning_rate": 1e-4, "gamma": 1.0, "axis_name": AXIS}

_EASGD = {"learning_rate": 1e-4, "axis_name": AXIS}
_PARLE = _ENTROPY | {"rho": 1.0, "axis_name": AXIS}
_PARLE_AUTHORS = _AUTHORS | {"rho": 10.0, "axis_name": AXIS, "period": 2}
# Without the paper's weight decay, which moves the minimiser.
_DILOCO = {
    "learning_rate": 0.5,
    "axis_name": AXIS,
    "num_steps": 4,
    "inner": optax.scale_by_adam(),
    "step_size": optax.exponential_decay(1e-2, 1000, 0.8, end_value=1e-5),
}

_SNOO = {"learning_rate": 1e-3}
_PULLED = {"learning_rate": 1e-3, "gamma": 10.0, "step_size": 1e-3}
_SAM = {"learning_rate": 2e-4, "rho": 1e-3}

_STATIC_PERIOD = ("period",)

CASES = {
    "sgd": Case(entropix.sgd, {"learning_rate": 1e-4}),
    "sgd-no_momentum": Case(entropix.sgd, {"learning_rate": 1e-3, "momentum": None}),
    "entropy_sgd": _family(entropix.entropy_sgd, "scan", **_ENTROPY),
    "entropy_sgd-stepwise": _family(entropix.entropy_sgd, "stepwise", **_ENTROPY),
    "entropy_sgd-authors": _family(entropix.entropy_sgd, "scan", **_AUTHORS),
    "entropy_sgd-authors-stepwise": _family(entropix.entropy_sgd, "stepwise", **_AUTHORS),
    "entropy_sgd-adam": _family(entropix.entropy_sgd, "scan", **_ADAM),
    "entropy_sgd-cold": _family(entropix.entropy_sgd, "scan", **_ENTROPY, temperature=0),
    "entropy_sgd-scoped": _family(entropix.entropy_sgd, "scan", **_SCOPED),
    "hj_sgd": _family(entropix.hj_sgd, "scan", **_HJ),
    "hj_sgd-stepwise": _family(entropix.hj_sgd, "stepwise", **_HJ),
    "hj_sgd-gradient": _family(entropix.hj_sgd, "scan", **_HJ_2),
    "hj_sgd-gradient-stepwise": _family(entropix.hj_sgd, "stepwise", **_HJ_2),
    "heat_sgd": _family(entropix.heat_sgd, "scan", **_HEAT),
    "heat_sgd-stepwise": _family(entropix.heat_sgd, "stepwise", **_HEAT),
    "heat_sgd-cold": _family(entropix.heat_sgd, "scan", **_HEAT, temperature=0),
    "elastic_sgd": Case(
        entropix.elastic_sgd, _ELASTIC | {"period": 1}, _STATIC_PERIOD, replicated=True
    ),
    "elastic_sgd-period_4": Case(
        entropix.elastic_sgd, _ELASTIC | {"period": 4}, _STATIC_PERIOD, replicated=True
    ),
    "elastic_coupling-adam": Case(
        elastic_adam, {"learning_rate": 1e-2, "gamma": 1.0}, replicated=True
    ),
    "relax-adam": Case(
        relaxed_adam, {"learning_rate": 1e-2, "gamma": 1.0, "step_size": 1e-3}, face="scan"
    ),
    "relax-clip-sgd": Case(relaxed_clipped_sgd, {"learning_rate": 1.0, "gamma": 1.0}, face="scan"),
    "stepwise-adamw": Case(stepwise_adamw, {"learning_rate": 1e-2, "gamma": 1.0}, face="stepwise"),
    "average_updates-adam": Case(
        data_parallel_adam, {"learning_rate": 1e-2}, replicated=True, apart=False
    ),
    "easgd": Case(entropix.easgd, _EASGD | {"period": 4}, _STATIC_PERIOD, replicated=True),
    "easgd-period_1": Case(
        entropix.easgd,
        _EASGD | {"period": 1, "momentum": None, "learning_rate": 1e-3},
        _STATIC_PERIOD,
        replicated=True,
    ),
    "parle": _family(entropix.parle, "scan", **_PARLE),
    "parle-stepwise": _family(entropix.parle, "stepwise", **_PARLE),
    "parle-authors": _family(entropix.parle, "scan", **_PARLE_AUTHORS),
    "diloco": _family(entropix.diloco, "scan", **_DILOCO),
    # `inject_hyperparams` reads schedules at every update, here every gradient: a number then.
    "diloco-stepwise": _family(entropix.diloco, "stepwise", **_DILOCO | {"step_size": 1e-3}),
    "entropy_sgd-linear": _family(entropix.entropy_sgd, "scan", **_ENTROPY, averaging="linear"),
    "snoo-adam": Case(snoo_adam, _SNOO | {"stepwise": False}, face="scan"),
    "snoo-adam-stepwise": Case(snoo_adam, _SNOO, face="stepwise"),
    "snoo-adam-replicas": Case(
        snoo_adam, _SNOO | {"axis_name": AXIS}, face="stepwise", replicated=True, apart=False
    ),
    "lookahead-sgd-stepwise": Case(lookahead_sgd, {"learning_rate": 1e-4}, face="stepwise"),
    "outer-pulled-stepwise": Case(pulled_adam, _PULLED, face="stepwise"),
    "outer-noisy": Case(
        noisy_adam, _PULLED | {"temperature": 1e-8, "averaging": "linear"}, face="scan"
    ),
    "sam": _family(entropix.sam, "scan", **_SAM),
    "sam-stepwise": _family(entropix.sam, "stepwise", **_SAM),
    "sam-adaptive": _family(entropix.sam, "scan", **_SAM, adaptive=True),
    "sam-two_ascents": _family(entropix.sam, "scan", **_SAM, num_ascents=2),
}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def some_cases(*names: str) -> pytest.MarkDecorator:
    """A representative few, for what is slow or concerns only some."""
    return pytest.mark.parametrize("case", [CASES[name] for name in names], ids=names)


class Target(NamedTuple):
    """A smooth function with one minimiser."""

    start: Any
    minimiser: Any
    objective: Objective


def parabola(dtype: Any = jnp.float32) -> Target:
    start = jnp.asarray([-1.0, 10.0, 1.0], dtype)
    return _distance(start, jnp.asarray([1.0, -1.0, 1.0], dtype))


def rosenbrock(dtype: Any = jnp.float32) -> Target:
    # A curved valley: the curvatures at the minimiser are 0.4 and 1002.
    objective = lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2  # noqa: E731
    return Target(jnp.zeros(2, dtype), jnp.ones(2, dtype), objective)


def matrix_parabola(dtype: Any = jnp.float32) -> Target:
    return _distance(jnp.zeros((2, 2), dtype), jnp.asarray([[3.0, -2.0], [1.0, 4.0]], dtype))


def mixed_tensors(dtype: Any = jnp.float32) -> Target:
    vector = jnp.asarray([1.0, -1.0, 2.0], dtype)
    matrix = jnp.asarray([[1.0, 0.0], [-1.0, 1.0]], dtype)
    return _distance(optax.tree.zeros_like((vector, matrix)), (vector, matrix))


def complex_parabola(dtype: Any = jnp.complex64) -> Target:
    return _distance(jnp.zeros(2, dtype), jnp.asarray([1 + 2j, -3j], dtype))


def _distance(start: Any, minimiser: Any) -> Target:
    def objective(x: Any) -> jax.Array:
        difference = optax.tree.sub(x, minimiser)
        return sum(jnp.sum((d * jnp.conj(d)).real) for d in jax.tree.leaves(difference))

    return Target(start, minimiser, objective)


TARGETS = (parabola, rosenbrock, matrix_parabola, mixed_tensors, complex_parabola)


def drive(step: Callable, params: Any, state: Any, length: int) -> tuple[Any, Any]:
    """Calls `step` `length` times, compiled, as a training loop does."""
    step = jax.jit(step)
    for _ in range(length):
        params, state = step(params, state)
    return params, state


def run(step: Callable, params: Any, state: Any, length: int) -> tuple[Any, Any]:
    """Calls `step` `length` times, in one compiled scan."""
    body = lambda carry, _: (step(*carry), None)  # noqa: E731
    return jax.jit(lambda carry: jax.lax.scan(body, carry, length=length)[0])((params, state))


def kinds(tree: Any) -> Any:
    """Structure, shapes and dtypes, of arrays or of their abstract descriptions."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def assert_close(actual: Any, expected: Any, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Compares structure and numbers of two trees, random keys by their data."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    compare = lambda a, e: np.testing.assert_allclose(  # noqa: E731
        np.asarray(a, np.complex128), np.asarray(e, np.complex128), rtol=rtol, atol=atol
    )
    jax.tree.map(compare, *map(_numbers, (actual, expected)))


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.random.key_data(leaf) if is_key(jnp.asarray(leaf)) else leaf, tree
    )


def punched(grads, like):
    """`grads` with the holes of `like`, a tree as `optax.masked` makes it."""
    hole = lambda leaf: isinstance(leaf, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(lambda old, g: old if hole(old) else g, like, grads, is_leaf=hole)


def filled(params, rest):
    """`params` with its holes filled from `rest`."""
    hole = lambda leaf: isinstance(leaf, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(lambda p, r: r if hole(p) else p, params, rest, is_leaf=hole)


def equations(jaxpr):
    """The number of equations, those of loops, branches and calls included."""
    is_program = lambda value: hasattr(value, "eqns")  # noqa: E731
    values = jax.tree.leaves([equation.params for equation in jaxpr.eqns], is_leaf=is_program)
    return len(jaxpr.eqns) + sum(equations(value) for value in values if is_program(value))
