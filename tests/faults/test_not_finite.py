"""NaN and infinity at random inner steps: guarded, they leave no trace; else they are reported.

With a guard (`if_finite` of `relax`, `optax.apply_if_finite` around `stepwise`) x and all states
stay as they are at a bad step, so that after k steps, m of them bad, they are bit for bit those of
k - m good ones. Without a guard the seed stops, the report says at which outer step, and the other
seed ends bit for bit as if nothing had happened.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from faults.rehearsal import FOREIGN, REFUSED, WELL, WRONG, Case, cases
from jax import lax
from runs.survival import arrays, leaves_coroutines, rows
from small import ALWAYS, line, one_run, squares
from transforms.test_guard import PARAMS, RELAXATIONS

import entropix
from entropix.experiment import ALGORITHMS
from entropix.runs import train as train_module
from entropix.runs.train import train_run

pytestmark = [
    pytest.mark.slow,
    leaves_coroutines,  # of the full disks before, in the same process
]

STEPS = 12  # updates of a guarded run
VALUES = np.asarray([np.nan, np.inf, -np.inf], np.float32)
W = {"w": PARAMS["w"]}


def quadratic(p, poisoned, value, element):
    """The gradient of |w|²/2, with one bad element where it is poisoned."""
    return {"w": p["w"].at[element].set(jnp.where(poisoned, value, p["w"][element]))}


def whole_step(relaxation):
    """One outer step by `relax`; the bad gradient is that of inner step `bad`."""
    tx = entropix.relax(relaxation, if_finite=optax.adam(0.1))

    def step(params, state, bad, value, element):
        grad_fn = lambda p, i: quadratic(p, i == bad, value, element)  # noqa: E731
        updates, state = tx.update(grad_fn(params, 0), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    return tx, step


def one_gradient(relaxation):
    """One gradient by `stepwise`; it is bad if `bad` is not negative."""
    tx = optax.apply_if_finite(entropix.stepwise(relaxation, optax.adam(0.1)), STEPS + 1)

    def step(params, state, bad, value, element):
        grads = quadratic(params, bad >= 0, value, element)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return tx, step


def numbers(run):
    """What must be equal: parameters and states, without the guard's own counters."""
    params, state = run
    state = getattr(state, "inner_state", state)
    state = state._replace(num_skipped=0) if hasattr(state, "num_skipped") else state
    return jax.tree.leaves(optax.tree.unwrap_random_key_data((params, state)))


def asked(relaxation):
    """The numbers of the inner steps that ask for a gradient."""
    seen = set()
    tx = entropix.relax(relaxation)
    with jax.disable_jit():
        tx.update(W, tx.init(W), W, grad_fn=lambda p, i: seen.add(int(i)) or p)
    return sorted(seen | {0} if relaxation.point_is_y else seen)


@pytest.mark.parametrize("face", [whole_step, one_gradient])
@pytest.mark.parametrize("name", RELAXATIONS)
def test_a_guard_leaves_no_trace(name, face, counted):
    relaxation = RELAXATIONS[name]
    tx, step = face(relaxation)

    def walk(bad, value, element):
        def body(run, now):
            run = step(*run, *now)
            return run, numbers(run)

        return lax.scan(body, (W, tx.init(W)), (bad, value, element))[1]

    rng, count = np.random.default_rng(0), cases(500, 20)
    inner = rng.choice(asked(relaxation), (count, STEPS))
    bad = np.where(rng.random((count, STEPS)) < 0.3, inner, -1).astype(np.int32)
    bad[0] = -1  # the undisturbed run
    given = bad, rng.choice(VALUES, bad.shape), rng.integers(0, 3, bad.shape)
    found = jax.device_get(jax.jit(lambda given: lax.map(lambda g: walk(*g), given))(given))
    good = np.cumsum(bad < 0, axis=1)  # steps done so far
    start = jax.device_get(numbers((W, tx.init(W))))
    ends = []
    for case in range(count):
        same = all(
            np.array_equal(leaf[case, k], known[0][good[case, k] - 1] if good[case, k] else before)
            for leaf, known, before in zip(found, found, start, strict=True)
            for k in range(STEPS)
        )
        finite = np.isfinite(found[0][case]).all()
        told = f"{name}, {face.__name__}: bad inner steps {bad[case].tolist()}"
        ends.append(Case(WELL if same and finite else WRONG, told))
    counted("NaN, guarded", ends)


@jax.custom_vjp
def poisoned(x, shift):
    return x


poisoned.defvjp(lambda x, shift: (x, shift), lambda shift, g: (g + shift, None))


def problem():
    """A regression whose model state counts gradients, and says which of them are bad."""
    usual = line()

    def init(key):
        never = {name: jnp.asarray(-1) for name in ("loss_at", "gradient_at")}
        return usual.init(key)[0], {"count": jnp.asarray(0), **never}

    def loss(params, state, batch, key):
        nan_at = lambda name: jnp.where(state["count"] == state[name], jnp.nan, 0.0)  # noqa: E731
        params = jax.tree.map(lambda x: poisoned(x, nan_at("gradient_at")), params)
        value = squares(params, None, batch) + nan_at("loss_at")
        return value, state | {"count": state["count"] + 1}

    return line(init=init, loss=loss)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.usefixtures("compiled_once")
def test_without_a_guard_it_is_reported_and_other_seeds_go_on(name, tmp_path, monkeypatch, counted):
    options = {"num_steps": 10} if "num_steps" in ALGORITHMS[name].all_options else {}
    run = one_run(name, problem(), budget=(80, 2), settings=ALWAYS, **options)
    train_run(run, tmp_path / "whole", progress=False)
    sound_rows, sound = rows(tmp_path / "whole"), arrays(tmp_path / "whole")
    counts = sound["state/model_state/count"].reshape(2, -1)  # of each seed and replica
    outer_steps, total = sound_rows[-1]["outer_steps"], int(counts[0, 0])
    calls = total // outer_steps
    known, rng, ends = train_module.make_programs, np.random.default_rng(0), []
    for case in range(cases(40, 3)):
        at = {seed: int(rng.integers(total)) for seed in ((0,), (1,), (0, 1))[rng.integers(3)]}
        kind, place = ("loss_at", "gradient_at")[rng.integers(2)], rng.integers(counts.shape[1])

        target = np.full_like(counts, -1)
        for seed, number in at.items():
            target[seed, place] = number
        target = target.reshape(sound["state/model_state/count"].shape)

        def init(programs, kind=kind, target=target):
            start = programs.starter.init()
            changed = start.state.model_state | {kind: jnp.asarray(target)}
            return start._replace(state=start.state._replace(model_state=changed))

        def poisoned_programs(run, init=init):
            programs = known(run)
            starter = programs.starter._replace(init=lambda: init(programs))
            return programs._replace(starter=starter)

        folder = tmp_path / str(case)
        with monkeypatch.context() as patch:
            patch.setattr(train_module, "make_programs", poisoned_programs)
            # SAM's second gradient sees the state that the first one has left.
            first = {s: max(n - (name == "sam"), 0) for s, n in at.items()}
            end, told = reported(run, folder, {s: n // calls for s, n in first.items()})
        for seed in {0, 1} - set(at) if end == REFUSED else ():
            mine = [row for row in rows(folder) if row["seed"] == seed]
            same = mine == [row for row in sound_rows if row["seed"] == seed]
            last = arrays(folder)
            untouched = [n for n in last if n.startswith("state") and not n.endswith("_at")]
            same = same and all(np.array_equal(last[n][seed], sound[n][seed]) for n in untouched)
            end = REFUSED if same else WRONG
        ends.append(Case(end, f"{name}, {kind} {at} of {total}: {told}"))
    counted("NaN, reported", ends)


def reported(run, folder, expected):
    """Trains twice, and compares what is said with the seeds and outer steps that are expected."""
    said = []
    for _ in range(2):  # the second time what the first one left is read
        try:
            train_run(run, folder, progress=False)
            return WRONG, "nothing is said"
        except FloatingPointError as error:
            said.append(str(error))
        except Exception as error:
            return FOREIGN, repr(error)
    lines = said[0].split("\n")
    right = said[0] == said[1] and len(lines) == len(expected)
    for seed, step in expected.items():
        # Bad parameters may show at the next outer step only.
        told = [f"seed {seed} stopped, because", f"outer step {step},", f"outer step {step + 1},"]
        mine = [text for text in lines if told[0] in text]
        right = right and len(mine) == 1 and any(place in mine[0] for place in told[1:])
    return REFUSED if right else WRONG, said[0]
