"""What users rely on, checked on this package's wrappers and on Optax's, as a page.

    python tests/contract_matrix.py > docs/contract.md

Every mark is a check that runs on every column. A cross is a check that fails, or raises.
"""

import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if __name__ == "__main__":  # and not where pytest looks for examples
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")  # the programs run for microseconds

import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from contract_cases import (
    Case,
    ascent,
    assert_close,
    drive,
    equations,
    filled,
    punched,
)
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import entropix

L = 4
RATE, STEP, GAMMA, RHO = 1e-2, 1e-3, 1.0, 1e-2


class PairCase(Case):
    """`optax.lookahead`, whose parameters are pairs: gradients at `fast`, evaluation at `slow`."""

    def spread(self, params: Any) -> Any:
        return optax.LookaheadParams.init_synced(params)

    def gradient(self, objective: Callable) -> Callable:
        one = ascent(objective)
        return lambda pair: one(pair.fast)

    def solution(self, state: Any, params: Any) -> Any:
        return params.slow


def entropy(learning_rate: float, num_steps: int, stepwise: bool) -> Any:
    arguments = {"num_steps": num_steps, "step_size": STEP, "stepwise": stepwise}
    return entropix.entropy_sgd(learning_rate, GAMMA, **arguments)


def hj(learning_rate: float, num_steps: int, stepwise: bool) -> Any:
    arguments = {"num_steps": num_steps, "step_size": STEP, "stepwise": stepwise}
    return entropix.hj_sgd(learning_rate, GAMMA, **arguments)


def heat(learning_rate: float, num_steps: int, stepwise: bool) -> Any:
    return entropix.heat_sgd(learning_rate, 0.01, num_steps=num_steps, stepwise=stepwise)


def sam(learning_rate: float, num_steps: int, stepwise: bool) -> Any:
    return entropix.sam(learning_rate, RHO, num_ascents=num_steps - 1, stepwise=stepwise)


def lookahead(learning_rate: float, num_steps: int, stepwise: bool) -> Any:
    return entropix.lookahead(optax.sgd(learning_rate), num_steps=num_steps, stepwise=stepwise)


def snoo(learning_rate: float, num_steps: int, stepwise: bool) -> Any:
    return entropix.snoo(optax.sgd(learning_rate), num_steps=num_steps, stepwise=stepwise)


def optax_sam(learning_rate: float, num_steps: int, stepwise: bool) -> Any:
    ascend = optax.chain(optax.contrib.normalize(), optax.sgd(RHO))
    sgd = optax.sgd(learning_rate)
    return optax.contrib.sam(sgd, ascend, sync_period=num_steps, opaque_mode=not stepwise)


def optax_lookahead(learning_rate: float, num_steps: int) -> Any:
    return optax.lookahead(optax.sgd(learning_rate), num_steps, 0.5)


def _both(factory: Callable, num_steps: int = L) -> tuple[Case, Case]:
    static = ("num_steps", "stepwise")
    arguments = {"learning_rate": RATE, "num_steps": num_steps}
    return tuple(
        Case(
            factory, arguments | {"stepwise": stepwise}, static, "stepwise" if stepwise else "scan"
        )
        for stepwise in (False, True)
    )


class PeerCase(Case):
    """`optax.contrib.sam`: the parameters are what is evaluated after whole outer steps."""

    def solution(self, state: Any, params: Any) -> Any:
        return params


COLUMNS = {
    "Entropy-SGD": _both(entropy),
    "HJ": _both(hj),
    "HEAT": _both(heat),
    "SAM": _both(sam, 2),
    "Look-ahead": _both(lookahead),
    "SNOO": _both(snoo),
    "Optax's SAM": tuple(PeerCase(*case) for case in _both(optax_sam, 2)),
    "Optax's Look-ahead": (
        PairCase(optax_lookahead, {"learning_rate": RATE, "num_steps": L}, ("num_steps",)),
    ),
}


def separable(tree: Any) -> jax.Array:
    """A loss whose gradient on one leaf does not depend on the others."""
    return sum(jnp.sum(leaf**2) + jnp.sum(jnp.cos(leaf)) for leaf in jax.tree.leaves(tree))


START = jnp.asarray([1.0, -2.0])


class Loop(NamedTuple):
    """An optimiser of a case in a training loop, compiled once for all checks that need no other.

    Attributes:
      case: the column.
      step: `(params, state, scale) -> (params, state)`, with the loss multiplied by `scale`.
      start: parameters and state.
    """

    case: Case
    step: Callable
    start: tuple[Any, Any]

    def run(self, carry: Any, updates: int, scale: float = 1.0) -> Any:
        """The parameters and the state after some updates."""
        for _ in range(updates):
            carry = self.step(*carry, scale)
        return carry

    def solution(self, carry: Any) -> Any:
        """The weights to evaluate."""
        params, state = carry
        return self.case.solution(state, params)

    def walk(self) -> Any:
        """The weights to evaluate after two outer steps."""
        return self.solution(self.run(self.start, 2 * L))


def loop(case: Case, tx: Any = None) -> Loop:
    """The loop around the optimiser of a case, or around `tx`."""
    tx = case.make() if tx is None else tx

    def step(params: Any, state: Any, scale: float) -> tuple[Any, Any]:
        return case.step(tx, lambda tree: scale * separable(tree))(params, state)

    params = case.spread(START)
    return Loop(case, jax.jit(step), (params, jax.jit(tx.init)(params)))


_loops: dict[int, Loop] = {}


def plain(case: Case) -> Loop:
    """The loop of a case without a wrapper, kept from check to check."""
    if id(case) not in _loops:
        _loops[id(case)] = loop(case)
    return _loops[id(case)]


def accumulates(case: Case) -> None:
    # Two halves of a batch, whose mean gradient is the whole one's.
    tx = optax.MultiSteps(case.make(), 2).gradient_transformation()

    @jax.jit
    def step(params: Any, state: Any, half: float) -> tuple[Any, Any]:
        grads = jax.tree.map(lambda g: half * g, case.gradient(separable)(params))
        updates, state = tx.update(grads, state, params, **case.extra(separable))
        return optax.apply_updates(params, updates), state

    params = case.spread(START)
    state = tx.init(params)
    for n in range(4 * L):
        params, state = step(params, state, 0.5 if n % 2 else 1.5)
    assert_close(case.solution(state, params), plain(case).walk(), rtol=1e-5)


def accumulates_without_waste(case: Case) -> None:
    calls = []

    def counted(params: Any, i: Any) -> Any:
        jax.debug.callback(lambda: calls.append(1))
        return jax.grad(separable)(params)

    tx = optax.MultiSteps(case.make(), 2).gradient_transformation()
    params = case.spread(START)
    extra = {"grad_fn": counted} if case.face == "scan" else {}
    grads = case.gradient(separable)(params)
    after = jax.jit(lambda state: tx.update(grads, state, params, **extra))(tx.init(params))
    jax.block_until_ready(after)
    jax.effects_barrier()
    assert not calls  # half of a batch moves nothing, and needs no further gradient


def injects(case: Case) -> None:
    injected = optax.inject_hyperparams(case.factory, static_args=case.static)(**case.arguments)
    around = loop(case, injected)
    assert "learning_rate" in around.start[1].hyperparams
    assert_close(around.walk(), plain(case).walk(), rtol=1e-5)


def _relaxed_half(case: Case, wrapped: Any) -> Any:
    """The relaxed half of a tree, whose other half another optimiser, or none, moves."""

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        def grad_fn(masked: Any, i: Any) -> Any:
            return punched(jax.grad(separable)(filled(masked, params)), masked)

        extra = {"grad_fn": grad_fn} if case.face == "scan" else {}
        updates, state = wrapped.update(case.gradient(separable)(params), state, params, **extra)
        return optax.apply_updates(params, updates), state

    params = case.spread({"relaxed": START, "plain": jnp.asarray(3.0)})
    params, state = drive(step, params, wrapped.init(params), 2 * L)
    return case.solution(state, params)["relaxed"]


def masks(case: Case) -> None:
    wrapped = optax.masked(case.make(), {"relaxed": True, "plain": False})
    assert_close(_relaxed_half(case, wrapped), plain(case).walk(), rtol=1e-5)


def partitions(case: Case) -> None:
    labels = {"relaxed": "relaxed", "plain": "plain"}
    wrapped = optax.partition({"relaxed": case.make(), "plain": optax.adam(0.1)}, labels)
    assert_close(_relaxed_half(case, wrapped), plain(case).walk(), rtol=1e-5)


def donates(case: Case) -> None:
    once = plain(case)
    step = jax.jit(once.step.__wrapped__, donate_argnums=(0, 1))
    carry = jax.tree.map(jnp.copy, once.start[0]), jax.tree.map(jnp.copy, once.start[1])
    for _ in range(2 * L):
        carry = step(*carry, 1.0)
    assert_close(once.solution(carry), once.walk(), rtol=1e-5)


def keeps_sharding(case: Case) -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    objective = lambda w: jnp.sum(jnp.cos(w) ** 2)  # noqa: E731
    types = lambda tree: jax.tree.map(jax.typeof, tree)  # noqa: E731
    with jax.set_mesh(mesh):
        tx = case.make()
        params = case.spread(jnp.ones((2, 8), out_sharding=P(None, "x")))
        state = tx.init(params)
        after = jax.jit(case.step(tx, objective))(params, state)
        assert types(after) == types((params, state))


ULP = 2.0**-8  # between neighbouring bfloat16 numbers below 1
# Of a loss with slope 1: inner steps of a third of an ulp, outer steps of several.
RATES = {entropy: 1.0, hj: 1.0, lookahead: ULP / 3, snoo: ULP / 3, optax_lookahead: ULP / 3}


def trains_bfloat16(case: Case) -> None:
    num_steps = 20 if case.arguments["num_steps"] == L else 2
    tx = case.make(learning_rate=RATES.get(case.factory, 4 * ULP), num_steps=num_steps)

    def train(dtype: str) -> Any:
        params = case.spread(jnp.ones(4, dtype))
        step = case.step(tx, lambda w: jnp.sum(w.astype(jnp.float32)))
        updates = 2 if case.face == "scan" else 2 * num_steps  # two outer steps
        params, state = drive(step, params, tx.init(params), updates)
        return case.solution(state, params)

    narrow, wide = train("bfloat16"), train("float32")
    assert narrow.dtype == jnp.bfloat16
    assert jnp.all(wide < 1 - 4 * ULP)
    # Each of two outer steps may lose half an ulp, and carry half a one on as momentum.
    assert jnp.all(jnp.abs(narrow.astype(jnp.float32) - wide) <= 2 * ULP)


def resumes(case: Case) -> None:
    once = plain(case)
    carry = once.run(once.start, L + 1)
    assert_close(once.run(pickle.loads(pickle.dumps(carry)), 2 * L), once.run(carry, 2 * L))


def saves_as_arrays(case: Case) -> None:
    once = plain(case)
    carry = once.run(once.start, L + 1)
    saved = jax.tree.map(np.asarray, carry)
    assert_close(once.run(jax.tree.map(jnp.asarray, saved), 2 * L), once.run(carry, 2 * L))


def counts_changes(case: Case) -> None:
    """Weights that the caller sets between two updates are what is trained and evaluated."""
    once, flat = plain(case), 1e-6  # with next to no slope, what was set must stay
    params, state = once.run(once.start, L + 1, flat)
    changed = jax.tree.map(lambda w: w.at[0].set(0.75), params)
    carry = once.run((changed, state), L - 1, flat)
    assert_close(once.solution(carry)[0], jnp.asarray(0.75), atol=2 * RHO)


def ignores_foreign_arguments(case: Case) -> None:
    tx, params = case.make(), case.spread(START)
    jax.eval_shape(case.step(tx, separable, value=jnp.zeros(())), params, tx.init(params))


def skips_nan(case: Case) -> None:
    around = loop(case, optax.apply_if_finite(case.make(), 3))
    params, state = around.run(around.start, L + 1)
    after, skipped = around.step(params, state, jnp.nan)
    assert_close(after, params)
    assert_close(skipped.inner_state, state.inner_state)


def stands_zero_gradients(case: Case) -> None:
    once = plain(case)
    walked = once.solution(once.run(once.start, 2 * L, 0.0))
    assert jnp.max(jnp.abs(walked - START)) < 2e-2  # noise is allowed


def compiles_small(case: Case) -> None:
    def size(num_steps: int) -> int:
        tx, params = case.make(num_steps=num_steps), case.spread(START)
        step = jax.jit(case.step(tx, separable))
        return equations(jax.make_jaxpr(step)(params, tx.init(params)).jaxpr)

    assert size(2) == size(20) == size(100)


ROWS = {
    "gradient accumulation: `optax.MultiSteps` around": accumulates,
    "the same, without gradients that are thrown away": accumulates_without_waste,
    "`optax.inject_hyperparams` around its factory": injects,
    "`optax.masked` around": masks,
    "a part of `optax.partition`": partitions,
    "parameters and state donated to the step": donates,
    "explicit sharding over 8 devices is kept": keeps_sharding,
    "bfloat16 weights, steps of a third of their rounding": trains_bfloat16,
    "pickled in the middle of an outer step, resumed to the last bit": resumes,
    "saved as plain NumPy arrays, resumed to the last bit": saves_as_arrays,
    "weights that the caller sets between two updates count": counts_changes,
    "extra arguments meant for other links are let through": ignores_foreign_arguments,
    "a NaN gradient is skipped by `optax.apply_if_finite`": skips_nan,
    "a gradient of zero is harmless": stands_zero_gradients,
    "the program does not grow with the number of inner steps": compiles_small,
}
_INTRODUCTION = """# Contract matrix

What users of an Optax transformation rely on, checked on the wrappers of this package and on their
relatives in Optax. `python tests/contract_matrix.py > docs/contract.md` runs every check on every
column and writes this page; a slow test compares the page with a fresh one.

The columns are `entropy_sgd`, `hj_sgd`, `heat_sgd`, `sam`, `lookahead` and `snoo` of this package,
`optax.contrib.sam` and `optax.lookahead`. Two marks in a cell are the two faces: left the one that
is given `grad_fn` and makes a whole outer step (`relax`; `opaque_mode=True` of Optax's SAM),
right the one that takes one gradient per update (`stepwise`; transparent mode). `optax.lookahead`
has one face, and its parameters are pairs.
✔: the check passes. ✘: the check fails or raises.
"""
_REMARKS = """
* `MultiSteps` around a face with `grad_fn` calls `grad_fn` at every micro-step: accumulate inside
  `grad_fn`, or use `stepwise`.
* `optax.contrib.sam` is built with `optax.contrib.normalize`, as its documentation shows, which
  divides by the norm of the gradient.
* Optimisers with noise hold a typed random key, which is no NumPy array: `entropix.to_arrays` turns
  any state into plain arrays and `entropix.from_arrays` turns it back.
"""


def passes(check: Callable, case: Case) -> bool:
    """Whether a check of this case passes."""
    try:
        check(case)
    except Exception as error:
        if "--why" in sys.argv:
            print(check.__name__, case.factory.__name__, case.face, repr(error)[:300])
        return False
    return True


def page() -> str:
    """The page, from fresh checks."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for label, check in ROWS.items():
        cells = [
            " ".join("✔" if passes(check, case) else "✘" for case in cases)
            for cases in COLUMNS.values()
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join([_INTRODUCTION, *lines, _REMARKS]).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
