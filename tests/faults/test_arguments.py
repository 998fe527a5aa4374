"""Random, wrong and extreme arguments: a clear refusal, or the update that NumPy computes.

Every call draws a public constructor and its arguments: numbers of every kind, ordinary and
extreme, known, traced or scheduled; in half of the calls one or two arguments are wrong. A call
passes if it is refused by a `ValueError` or `TypeError` of one line that begins with the name of an
argument that is wrong, or if one update has the shapes, dtypes and numbers of `argument_twins`.

Measured with the seeds of the slow test: of 20,000 calls 10,334 were refused, 9,438 equal, 228 had
elements beyond the range of float32 (of which only shape and dtype are compared), 0 were anything
else.
"""

import collections
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import argument_twins as twins
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_cases import kinds
from faults.rehearsal import cases, drawn

import entropix
from entropix import replicas
from entropix.transforms.checks import check_flag
from entropix.transforms.keys import canonical_key, step_key
from entropix.transforms.random import noise_like

AXIS = "r"
X = np.asarray([[1.0, -2.0, 0.5, 0.25], [1.5, -1.0, 0.75, 2.0]])  # two replicas
INF, NAN = math.inf, math.nan


def tree(x):
    """A vector of four as a tree of two leaves; further axes in front."""
    return {"w": jnp.asarray(x[..., :3], jnp.float32), "b": jnp.asarray(x[..., 3], jnp.float32)}


def flat(t):
    return np.concatenate([np.asarray(t["w"], float), np.asarray(t["b"], float)[..., None]], -1)


# What arguments are drawn from.


class Kind(NamedTuple):
    """Accepted values, drawn by `valid(rng)`, and values that must be refused."""

    valid: Callable[[np.random.Generator], Any]
    wrong: tuple[Any, ...]


CASTS = (float, np.float64, np.float32, np.asarray, jnp.asarray, jnp.bfloat16, np.float16)
EXTREMES = (1e-30, 1e-12, 1e-6, 1e6, 2**31, 2**40, 10**30, np.int64(2**40), np.uint64(2**63), 1e38)
NO_NUMBERS = (
    "0.5", 0.5j, [], [0.5], (0.5,), {}, np.ones(1), np.asarray([]), jnp.ones((1, 1)), float,
    object(), True, np.bool_(True), NAN, np.float32(NAN), -INF, -(10**400), np.asarray("a"),
    np.asarray(0.5, object), jnp.complex64(1), 1e-50, -1e-50, -1, jax.random.key(0), optax.sgd(0.1),
)  # fmt: skip


def constant(value):
    return lambda count: jnp.asarray(value, jnp.float32)


def number(low, high, *, extremes=(), schedule=False, wrong=(), optional=False):
    """Numbers in [low, high), or extreme ones."""

    def valid(rng):
        if extremes and rng.random() < 0.2:
            return extremes[rng.integers(len(extremes))]
        value = CASTS[rng.integers(len(CASTS))](rng.uniform(low, high))
        return constant(value) if schedule and rng.random() < 0.1 else value

    refused = (*NO_NUMBERS, *wrong, *(() if optional else (None,)))
    return Kind(valid, refused if schedule else (*refused, constant(0.5)))


def choice(*values, wrong=()):
    return Kind(lambda rng: values[rng.integers(len(values))], (*wrong, object(), np.zeros(3)))


POSITIVE = number(0.05, 1, extremes=EXTREMES, schedule=True, wrong=(0, 0.0, 1e39, INF, 10**400))
SCOPE = number(0.5, 2, extremes=(*EXTREMES, INF, 1e200), schedule=True, wrong=(0, 0.0))
RATE = number(0.01, 1, extremes=(0, *EXTREMES), schedule=True, wrong=(INF, 1e39))
TEMPERATURE = number(1e-4, 1, extremes=(0, 0, *EXTREMES), schedule=True, wrong=(INF, 1e39))
FRACTION = number(0, 0.95, extremes=(0, 1e-30), wrong=(1, 1.0, 2, 1 - 1e-12, 1e30))
MOMENTUM = number(0, 0.95, extremes=(0, None, None), wrong=(1, 1 - 1e-12, INF), optional=True)
AVERAGING = number(0, 0.95, extremes=(0, "linear", "linear"), wrong=(1, 1 - 1e-12, "mean"))
MOVING_RATE = number(0.05, 1, extremes=(1, 1e-30), wrong=(0, 1.5, INF))
COUNT = choice(1, 2, 3, np.int32(2), np.asarray(2), jnp.asarray(3),
               wrong=(0, -1, 2.0, "2", None, NAN, [2], 2**31, 10**30, True, 2j, int))  # fmt: skip
FLAG = choice(True, False, np.bool_(True), wrong=(0, 1, "yes", None))
KEY = choice(
    0, -1, 2**63 - 1, np.uint32(7), np.asarray(3), jax.random.key(1), jax.random.PRNGKey(2),
    wrong=(
        2**63, 2**70, -(2**63) - 1, 1.5, "0", None, True, [0], np.zeros(2), np.zeros(3, np.uint32),
        jax.random.split(jax.random.key(0), 2), np.zeros((3, 2), np.uint32), int,
        np.random.default_rng(0),
    ),
)  # fmt: skip
OUTPUT = choice("gradient", "displacement", wrong=("grad", None, 1, ["gradient"]))
FORM = choice("proximal", "gradient", wrong=("prox", None, 2))
NOISE = choice("normal", "popcount", wrong=("gauss", None, 1, ["normal"]))
NO_AXES = (0, (), ("r", "r"), ("r", 1), ["r"], b"r", float)
AXIS_NAME = choice(AXIS, (AXIS,), wrong=(*NO_AXES, None))
OPTIONAL_AXIS = choice(None, None, AXIS, wrong=NO_AXES)
NO_PARTS = (5, "sgd", float, optax.sgd, [], np.ones(2), optax.GradientTransformation)
INNERS = {
    None: lambda: lambda g, y: g,
    optax.identity(): lambda: lambda g, y: g,
    optax.trace(0.5): lambda: twins.Trace(0.5),
}
INNER = choice(*INNERS, wrong=(*NO_PARTS, optax.sgd(0.1)))


def heavy_ball():
    trace = twins.Trace(0.5)
    return lambda g, y: 0.2 * trace(g, y)


COMPLETE = {optax.sgd(0.1): lambda: lambda g, y: 0.1 * g, optax.sgd(0.2, 0.5): heavy_ball}
OPTIMIZER = choice(*COMPLETE, wrong=(*NO_PARTS, None, optax.identity()))
BEHIND = choice(*COMPLETE, wrong=NO_PARTS)
RELAXATION = choice(
    entropix.hamilton_jacobi(1.0, num_steps=2),
    wrong=(5, None, "heat", entropix.heat, optax.sgd(0.1), entropix.sam(0.1, 0.1)),
)
OUTER = choice(None, *COMPLETE, wrong=(*NO_PARTS, optax.scale_by_adam()))


# The optimisers: their arguments and twins.


class Value(NamedTuple):
    """A function of the core whose result is numbers, and the numbers that it should be."""

    name: str
    make: Callable[..., Any]
    kinds: dict[str, Kind]
    twin: Callable[[dict[str, Any]], twins.Ball]


class Entry(NamedTuple):
    """A public constructor.

    Attributes:
      make: the constructor.
      kinds: of its arguments.
      twin: `(meant, face, noise) -> update` of flat x, as a ball; `meant` has plain numbers.
      replicated: whether it runs on two replicas on `AXIS`; None where `axis_name` decides.
    """

    make: Callable[..., Any]
    kinds: dict[str, Kind]
    twin: Callable[..., Any]
    replicated: bool | None = False


def chain_twin(kind, **fixed):
    """A relaxation on either face, behind it what `outer_of(meant)` does."""

    def twin(meant, noise, x):
        names = twins.Arguments._fields
        known = {n: v for n, v in meant.items() if n in names and v is not None} | fixed
        if kind is twins.Sharpness:
            known["num_steps"] = meant["num_ascents"] + 1
        a = twins.Arguments(**known)
        form = twins.GradientForm if meant.get("form") == "gradient" else kind
        inner = (COMPLETE[meant["optimizer"]] if a.complete else INNERS[meant.get("inner")])()
        if meant.get("inner") is None and "outer_rate" in meant:
            inner = twins.AdamW()
        face = twins.spread if meant.get("stepwise") else twins.relaxed
        return face(form, x, a, inner, noise, outer_twin(meant))

    return twin


def outer_twin(meant):
    """What follows the relaxed gradient: Nesterov's SGD, a pull, a mean over replicas."""
    rate, momentum = meant.get("learning_rate", 0.1), meant.get("momentum")
    if "slow_step_size" in meant:
        rate = meant["slow_step_size"]
    if meant.get("outer_optimizer") is not None:
        step = lambda g, x: -COMPLETE[meant["outer_optimizer"]]()(g, x)  # noqa: E731
    elif "outer_optimizer" in meant:
        step = twins.nesterov(0.7, 0.6)
    else:
        step = twins.nesterov(rate, momentum)

    def outer(g, x):
        if "rho" in meant and "axis_name" in meant:  # Parle
            g = g + (x - twins.mean_of_replicas(x)) / meant["rho"]
        if meant["averaged"] and meant["axis_name"] is not None:
            g = twins.mean_of_replicas(g) + 0.0 * x
        return step(g, x)

    return outer


def elastic_twin(meant, noise, x):
    pull = (x - twins.mean_of_replicas(x)) / meant["gamma"]
    return twins.nesterov(meant["learning_rate"], meant["momentum"])(twins.gradient(x, 0) + pull, x)


def easgd_twin(meant, noise, x):
    step = twins.nesterov(meant["learning_rate"], meant["momentum"])(twins.gradient(x, 0), x)
    return step - twins.ball(meant["moving_rate"]) / 2 * (x - twins.mean_of_replicas(x))


def coupling_twin(meant, noise, x):
    return twins.gradient(x, 0) + (x - twins.mean_of_replicas(x)) / meant["gamma"]


def averaging_twin(meant, noise, x):
    share = twins.ball(meant["moving_rate"]) / 2
    return twins.gradient(x, 0) - share * (x - twins.mean_of_replicas(x))


def mean_twin(meant, noise, x):
    return twins.mean_of_replicas(twins.gradient(x, 0)) + 0.0 * x


def proximal_twin(face, optimizer):
    """`hamilton_jacobi(1.0, num_steps=2)` on one of the faces."""

    def twin(meant, noise, x):
        a = twins.Arguments(num_steps=2, step_size=0.1)
        outer = lambda g, x: -COMPLETE[meant[optimizer]]()(g, x)  # noqa: E731
        return face(twins.Walk, x, a, lambda g, y: g, noise, outer)

    return twin


def sgd_twin(meant, noise, x):
    return twins.nesterov(meant["learning_rate"], meant["momentum"])(twins.gradient(x, 0), x)


SGD = {"learning_rate": RATE, "momentum": MOMENTUM}
CHAIN = {"gamma": SCOPE, "num_steps": COUNT, "step_size": POSITIVE, "inner": INNER}
NOISY = {"temperature": TEMPERATURE, "noise": NOISE, "key": KEY}
LANGEVIN = CHAIN | NOISY | {"averaging": AVERAGING, "output": OUTPUT}
FACE = {"stepwise": FLAG}
WALK = {
    "optimizer": OPTIMIZER, "num_steps": COUNT, "gamma": SCOPE, "step_size": POSITIVE,
    "temperature": TEMPERATURE, "averaging": AVERAGING, "key": KEY, "axis_name": OPTIONAL_AXIS,
    "stepwise": FLAG,
}  # fmt: skip
SHARP = {"rho": RATE, "num_ascents": COUNT, "adaptive": FLAG}


def on_a_face(make):
    """A relaxation as a user runs it, behind it SGD with a learning rate of 0.1."""

    def made(stepwise, **arguments):
        relaxation, sgd = make(**arguments), optax.sgd(0.1)
        if check_flag("stepwise", stepwise):
            return entropix.stepwise(relaxation, sgd)
        return entropix.relax(relaxation, if_finite=sgd)

    made.__name__ = make.__name__
    return made


WALKING = chain_twin(twins.Walk, complete=True, output="displacement")
ENTRIES = [
    Entry(entropix.sgd, SGD, sgd_twin),
    Entry(entropix.entropy_sgd, SGD | LANGEVIN | FACE, chain_twin(twins.Walk)),
    Entry(entropix.hj_sgd, SGD | CHAIN | {"form": FORM, "output": OUTPUT} | FACE,
          chain_twin(twins.Walk)),
    Entry(entropix.heat_sgd, SGD | {"gamma": POSITIVE, "num_steps": COUNT} | NOISY | FACE,
          chain_twin(twins.Heat)),
    Entry(entropix.sam, SGD | SHARP | FACE, chain_twin(twins.Sharpness)),
    Entry(entropix.elastic_sgd, SGD | {"gamma": SCOPE, "axis_name": AXIS_NAME, "period": COUNT},
          elastic_twin, True),
    Entry(entropix.easgd, SGD | {"axis_name": AXIS_NAME, "period": COUNT,
                                 "moving_rate": MOVING_RATE}, easgd_twin, True),
    Entry(entropix.parle, SGD | LANGEVIN | FACE | {"rho": SCOPE, "axis_name": AXIS_NAME,
                                                   "period": COUNT}, chain_twin(twins.Walk), True),
    Entry(entropix.outer, WALK | {"outer_optimizer": OUTER}, WALKING, None),
    Entry(entropix.snoo, WALK | SGD, WALKING, None),
    Entry(entropix.lookahead, WALK | {"slow_step_size": RATE}, WALKING, None),
    Entry(entropix.diloco, SGD | FACE | {"axis_name": OPTIONAL_AXIS, "num_steps": COUNT,
          "step_size": POSITIVE, "inner": INNER},
          chain_twin(twins.Walk, gamma=INF, output="displacement"), None),
    Entry(entropix.elastic_coupling, {"gamma": SCOPE, "axis_name": AXIS_NAME, "period": COUNT},
          coupling_twin, True),
    Entry(entropix.elastic_averaging, {"moving_rate": MOVING_RATE, "axis_name": AXIS_NAME,
                                       "period": COUNT}, averaging_twin, True),
    Entry(entropix.average_updates, {"axis_name": AXIS_NAME}, mean_twin, True),
    Entry(entropix.relax, {"relaxation": RELAXATION, "if_finite": BEHIND},
          proximal_twin(twins.relaxed, "if_finite")),
    Entry(entropix.stepwise, {"relaxation": RELAXATION, "optimizer": BEHIND},
          proximal_twin(twins.spread, "optimizer")),
    Entry(on_a_face(entropix.local_entropy), LANGEVIN | FACE | {"reset_inner": FLAG},
          chain_twin(twins.Walk)),
    Entry(on_a_face(entropix.hamilton_jacobi), CHAIN | {"form": FORM, "output": OUTPUT} | FACE,
          chain_twin(twins.Walk)),
    Entry(on_a_face(entropix.heat), {"gamma": POSITIVE, "num_steps": COUNT} | NOISY | FACE,
          chain_twin(twins.Heat)),
    Entry(on_a_face(entropix.sharpness), SHARP | FACE, chain_twin(twins.Sharpness)),
]  # fmt: skip


# Functions that are no optimisers: what they return, and their twins.


def proximal_points(**arguments):
    found = entropix.hj_prox(x=tree(X[0]), f=lambda p: 0 * p["b"], **arguments)
    return np.concatenate([flat(found.prox), flat(found.gradient)])


def proximal_points_twin(meant):
    x, n, key = twins.Ball(X[0]), int(meant["num_samples"]), canonical_key(meant["key"])
    width = twins.ball(meant["t"]).sqrt() * twins.ball(meant["temperature"]).sqrt()
    noise = [flat(noise_like(step_key(key, i), tree(X[0]))) for i in range(n)]
    shift = twins.Ball(np.mean(noise, 0), 1e-6 * np.mean(np.abs(noise), 0)) * width
    prox, slope = x + shift, -shift / meant["t"]
    return twins.joined(prox, slope)


def scoping_twin(meant):
    value = twins.ball(meant["init_value"])
    for _ in range(3):
        value = value * (1 - twins.ball(meant["rate"]))
    return twins.Ball(np.maximum(value.value, meant["end_value"]), value.error)


def divisor_twin(meant):
    p, most = int(meant["replicas"]), 4 * int(meant["cores"])
    return twins.ball(max(n for n in range(1, p + 1) if p % n == 0 and n <= most))


def exactly(*values):
    return twins.Ball(np.asarray(values, float))


FIXED = number(0.05, 1, extremes=EXTREMES, wrong=(0, INF, 1e39))
FUNCTION = choice(lambda n: 0.5 * n, wrong=(5, 0.5, None, "linear", float))
CHECKED = choice(entropix.entropy_sgd(0.1, 1.0), entropix.hamilton_jacobi(1.0), wrong=())
LAYOUT_KIND = choice("auto", "vmap", wrong=("map", "threads", None, 1))
AXIS_OF_LAYOUT = choice("r", wrong=([], None, 5, ("r", "s")))
DEVICES = choice(None, 1, wrong=("1", 0, -1, 2.0, [], [1], True, {}))
ONE_OF = choice("vmap", "map", wrong=("auto1", None, 5))
VALUES = [
    Value("scoping", lambda **a: entropix.scoping(**a)(3),
          {"init_value": FIXED, "rate": FRACTION,
           "end_value": number(0.01, 1, extremes=(0, 1e-30), wrong=(-1, INF))}, scoping_twin),
    Value("per_outer_step", lambda **a: entropix.per_outer_step(**a)(3),
          {"schedule": FUNCTION, "num_steps": COUNT}, lambda a: exactly(1.5 * a["num_steps"])),
    Value("hj_prox", proximal_points,
          {"t": FIXED, "temperature": FIXED, "key": KEY,
           "num_samples": choice(2, 3, np.int64(2), wrong=(0, 1, -1, 2.0, "2", None, True)),
           "batch_size": choice(None, 1, 2, wrong=(0, 2.0, "1", True))}, proximal_points_twin),
    Value("relaxed_grad",
          lambda **a: flat(entropix.relaxed_grad(**a)(
              tree(X[0]), entropix.hamilton_jacobi(1.0, num_steps=2).init(tree(X[0])))[0]),
          {"relaxation": RELAXATION,
           "grad_fn": choice(lambda p, i: p, wrong=(5, None, "f", float)),
           "has_carry": choice(False, wrong=(0, None, "no"))},
          lambda a: twins.Ball(0.18 * X[0], 1e-6)),
    Value("check", entropix.check, {"num_outer_steps": COUNT, "tx": CHECKED},
          lambda a: exactly(0.1)),
    Value("reseed", lambda **a: jax.random.key_data(entropix.reseed(jax.random.key(9), **a)),
          {"key": Kind(KEY.valid, KEY.wrong[:-4])},
          lambda a: twins.Ball(np.asarray(jax.random.key_data(canonical_key(a["key"])), float))),
    Value("layout", lambda **a: replicas.layout(**a)[0],
          {"replicas": COUNT, "kind": LAYOUT_KIND, "axis_name": AXIS_OF_LAYOUT,
           "devices": DEVICES, "mesh": choice(None, wrong=(5, "r", jax.devices()))},
          lambda a: exactly(a["replicas"])),
    Value("replicate", lambda **a: replicas.replicate(jnp.ones(2), **a).shape,
          {"replicas": COUNT}, lambda a: exactly(a["replicas"], 2)),
    Value("resize", lambda **a: replicas.resize(jnp.ones(2), **a).shape,
          {"replicas": COUNT}, lambda a: exactly(a["replicas"])),
    Value("host_devices", replicas.host_devices, {"replicas": COUNT, "cores": COUNT},
          divisor_twin),
    Value("on_one_device", lambda **a: a["kind"] == replicas.on_one_device(**a),
          {"kind": ONE_OF}, lambda a: exactly(1)),
]  # fmt: skip


# One call.


TRACEABLE = {
    "learning_rate", "momentum", "gamma", "rho", "step_size", "temperature", "averaging",
    "moving_rate", "slow_step_size",
}  # fmt: skip
COUNTED = {"num_steps", "num_ascents", "period"}
NUMERIC = TRACEABLE | COUNTED | {"init_value", "rate", "end_value", "t", "replicas", "cores"}
NUMERIC |= {"num_samples", "batch_size", "num_outer_steps"}


def meaning(value):
    """The plain number behind a number or a schedule; anything else as it is."""
    if callable(value) and not isinstance(value, tuple):
        value = value(0)
    real = isinstance(value, int | float | np.generic | np.ndarray | jax.Array)
    if not real or isinstance(value, bool | np.bool_) or getattr(value, "ndim", 0):
        return value
    return float(value)


def meanings(arguments):
    plain = {}
    for name, value in arguments.items():
        keep = name not in NUMERIC
        plain[name] = value if keep else meaning(value)
    return plain | {name: int(plain[name]) for name in COUNTED & plain.keys()}


def is_refused_together(meant):
    """Whether arguments that are accepted one by one do not go together."""
    gamma, step = meant.get("gamma", 1.0), meant.get("step_size", 0.0)
    infinite = gamma > float(np.finfo(np.float32).max)
    wanted = "gradient" if meant.get("form") == "gradient" else "displacement"
    if "output" in meant and infinite and meant["output"] != wanted:
        return True
    return meant.get("num_steps", 1) > 1 and step >= 2 * gamma


def draw(rng, entry):
    """Arguments, and the names of those that are wrong."""
    arguments = {name: kind.valid(rng) for name, kind in entry.kinds.items()}
    wrong = set()
    if rng.random() < 0.5:
        for name in rng.choice(list(entry.kinds), size=min(len(arguments), rng.integers(1, 3))):
            values = entry.kinds[name].wrong
            arguments[str(name)] = values[rng.integers(len(values))]
            wrong.add(str(name))
    return arguments, wrong


def update(tx, x, axis):
    """One update of `tx`, as a tree."""

    def one(x):
        grad_fn = lambda p, i: jax.tree.map(lambda y: y * (1 + i / 8), p)  # noqa: E731
        return tx.update(x, tx.init(x), x, grad_fn=grad_fn)[0]

    return (jax.vmap(one, axis_name=AXIS) if axis else one)(tree(x))


def traced_update(make, arguments, x, axis):
    """One update of an optimiser whose numbers are traced when it is built."""
    meant = {n: meaning(v) for n, v in arguments.items() if n in TRACEABLE and not callable(v)}
    # The numbers 0 and infinity leave out code, and may be needed for that at build.
    numbers = {n: v for n, v in meant.items() if isinstance(v, float) and 0 < v < 1e38}

    def one(numbers):
        return update(make(**(arguments | numbers)), x, axis)

    found = jax.vmap(one, axis_size=1)({n: jnp.asarray([v]) for n, v in numbers.items()})
    return jax.tree.map(lambda leaf: leaf[0], found)


DRAWN: dict[Any, np.ndarray] = {}  # few keys, hence few draws


def noise_of(meant, x, axis):
    """The noise that the optimiser draws, as flat vectors: (outer step, inner step) -> array."""
    law, name = meant.get("noise", "popcount"), meant.get("axis_name") if axis else None

    def noise(outer, i):
        where = outer, i, axis
        if (law, name, str(meant["key"]), where) not in DRAWN:

            def one(x):
                key = step_key(canonical_key(meant["key"]), outer, i, axis_name=name)
                return noise_like(key, x, law)

            drawn = flat((jax.vmap(one, axis_name=AXIS) if axis else one)(tree(x)))
            DRAWN[law, name, str(meant["key"]), where] = drawn
        return DRAWN[law, name, str(meant["key"]), where]

    return noise


def outcome(rng, entry):
    """What becomes of one call: "refused" or "equal", or else a description of the fault."""
    arguments, wrong = draw(rng, entry)
    told = f"{getattr(entry, 'name', entry.make.__name__)}({arguments})"
    try:
        tx = entry.make(**arguments)
    except (ValueError, TypeError) as error:
        named = re.match(r"(\w+)(/gamma must| must|=| is needed)", str(error))
        if not named or "\n" in str(error):
            return f"foreign: {told}: {error!r}"
        together = named[1] in ("gamma", "step_size") and not wrong & {named[1]}
        if named[1] in wrong:
            return "refused"
        if together and (wrong or is_refused_together(meanings(arguments))):
            return "refused"
        return f"refused without reason: {told}: {error!r}"
    except Exception as error:  # what the test is about
        return f"foreign: {told}: {error!r}"
    if wrong:
        return f"accepted {wrong}: {told}"
    try:
        if isinstance(entry, Value):
            same = close(np.asarray(tx, float), entry.twin(meanings(arguments)))
        else:
            same = compared(entry, arguments, tx, traced=rng.random() < 0.2)
        return same or f"another result: {told}"
    except Exception as error:
        return f"foreign in update: {told}: {error!r}"


def compared(entry, arguments, tx, traced):
    """ "equal" or "overflows"; None where the update is not that of the twin."""
    meant = meanings(arguments)
    axis = meant["axis_name"] is not None if entry.replicated is None else entry.replicated
    meant["averaged"] = entry.replicated is None
    if entry.make is entropix.diloco:
        meant["outer_rate"] = True
    x = X if axis else X[0]
    found = traced_update(entry.make, arguments, x, axis) if traced else update(tx, x, axis)
    if kinds(found) != kinds(tree(x)):
        return None
    return close(flat(found), entry.twin(meant, noise_of(meant, x, axis), twins.Ball(x)))


def close(found, expected):
    """Whether numbers are within eight times the bound on their rounding errors."""
    good = (np.abs(found - expected.value) <= 8 * expected.error) | np.isinf(expected.error)
    if found.shape != expected.value.shape and expected.value.size != found.size:
        return None
    return ("overflows" if np.isinf(expected.error).any() else "equal") if good.all() else None


CALLED = (*ENTRIES, *VALUES)


def run(calls, seed):
    """The outcomes of so many calls, counted, and the faults among them."""
    rng, outcomes, faults = np.random.default_rng(seed), collections.Counter(), []
    # Not compiled: programs of different arguments would have to be compiled one by one.
    with jax.disable_jit(), np.errstate(all="ignore"):
        for n in range(calls):
            found = outcome(rng, CALLED[n % len(CALLED)])
            known = found in ("refused", "equal", "overflows")
            outcomes[found if known else "fault"] += 1
            faults += [] if known else [found]
    return outcomes, faults


def test_a_hundred_calls():
    outcomes, faults = run(100, seed=0)
    assert not faults, "\n".join(faults)
    assert outcomes["refused"] > 30
    assert outcomes["equal"] > 30


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_twenty_thousand_calls(seed, counted):
    calls = cases(2500, 100)
    outcomes, faults = run(calls, seed)
    ends = counted(
        "arguments", drawn(outcomes["equal"] + outcomes["overflows"], outcomes["refused"], faults)
    )
    assert min(ends["well"], ends["refused"]) > 0.3 * calls
