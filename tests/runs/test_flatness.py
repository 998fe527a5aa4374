"""Flatness measured in a run: the same figures as by hand, at x, and nothing else changes."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from runs.survival import arrays, assert_identical, result
from small import ALWAYS, line, one_run, predict

from entropix import landscape
from entropix.experiment import load
from entropix.instruments import landscape as measure_runs
from entropix.rows import FLATNESS, Measurement, read_rows
from entropix.runs import flatness as flatness_module
from entropix.runs.flatness import Flatness, sample
from entropix.runs.loop import Loop
from entropix.runs.preemption import Interrupted
from entropix.runs.train import train_run
from entropix.transforms import checks

pytestmark = pytest.mark.usefixtures("compiled_once")

TWICE = dataclasses.replace(ALWAYS, flatness_at=(0.5, 1.0), flatness_examples=50)
PROBLEM = line()  # one for all, as in a comparison: its instruments are compiled once


def make(name="hj", *, settings=TWICE, **options):
    return one_run(name, PROBLEM, settings=settings, **{"budget": (40, 4)} | options)


def train(run, workdir, **options):
    return train_run(run, workdir, progress=False, **options)


def flatness(row):
    return {n.removeprefix(FLATNESS): m.value for n, m in row.measures.items() if FLATNESS in n}


def quick_measures(loss, params, batches, key, *, figures, num_eigenvalues, announce):
    """Figures that depend on x and on the sample, and compile in a moment."""
    if announce is not None:
        announce("landscape: 2 products")
    batch = jax.tree.map(lambda leaf: leaf[0], batches)
    return {
        "trace": float(loss(params, batch)),
        "trace_se": 0.1 * num_eigenvalues,
        "local_energy_0.1/error": float(figures(params, batch)["error"]),
        "sharpness": float("nan"),
    }


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(flatness_module, "measures", quick_measures)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_once):
    """The folder of an uninterrupted run with quick measures, and its rows."""
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flatness_module, "measures", quick_measures)
        return workdir, train(make(), workdir)


@pytest.fixture(scope="module")
def real(tmp_path_factory, compiled_once):
    """The same with those of `entropix.landscape`."""
    workdir = tmp_path_factory.mktemp("real")
    return workdir, train(make(), workdir)


def by_hand(folder, run, seed):
    """The functions of `entropix.landscape`, at the network that was saved."""
    trained = load(folder, seed=seed, run=run)
    loss, figures = (Partial(f, trained.model_state) for f in run.problem.at_state)
    batches = jax.tree.map(lambda leaf: leaf[None, :50], run.problem.data)
    return landscape.measures(loss, trained.params, batches, 0, figures=figures)


@pytest.mark.slow
def test_figures_are_those_of_the_instruments_at_the_loaded_network(real):
    folder, rows = real
    for row in rows[-2:]:
        assert flatness(row) == by_hand(folder, make(), row.seed)


@pytest.mark.slow
def test_with_replicas_they_are_those_of_the_centre(tmp_path):
    run = make("elastic_sgd", replicas=3, budget=(42, 1))
    (row,) = train(dataclasses.replace(run, seeds=(1,)), tmp_path)
    assert flatness(row) == by_hand(tmp_path, run, 1)


@pytest.mark.slow
def test_the_hessian_of_a_regression_is_known(real):
    """2/n A'A with A = (x, 1), of the first 50 examples, at every x."""
    x = np.asarray(PROBLEM.data["x"])[:50]
    with_bias = np.concatenate([x, np.ones((50, 1))], axis=1)
    hessian = 2 * with_bias.T @ with_bias / 50
    expected = np.linalg.eigvalsh(hessian)[:0:-1]
    for row in real[1][-2:]:
        found = flatness(row)
        np.testing.assert_allclose([found[f"eigenvalue_{k}"] for k in (1, 2, 3)], expected, 1e-4)
        assert abs(found["trace"] - np.trace(hessian)) < 4 * found["trace_se"] + 1e-4
        rise = 0.1**2 / 2 * found["relative_trace"]  # of a quadratic loss, at any sigma
        error = found["local_energy_0.1/loss_se"] + 0.1**2 / 2 * found["relative_trace_se"]
        assert abs(found["local_energy_0.1/loss"] - rise) < 4 * error


def test_measures_have_units_and_local_energies_those_of_their_figures():
    measures = {**PROBLEM.measures, "accuracy": (lambda *_: jnp.zeros(()), "higher", "%")}
    expected = {
        "sharpness": Measurement(1.0, "nats"),
        "trace_se": Measurement(1.0, "nats"),
        "local_energy_0.1/loss": Measurement(1.0, "nats"),
        "local_energy_0.1/error_se": Measurement(1.0, "%"),
        "local_energy_0.1/accuracy": Measurement(1.0, "%", "higher"),
    }
    values = dict.fromkeys(expected, 1.0) | {"trace": float("inf")}
    assert sample(line(measures=measures), 8).named(values) == expected


def test_flatness_is_measured_at_the_fractions(whole):
    assert [row.gradients for row in whole[1] if flatness(row)] == [20, 20, 40, 40]
    assert len({flatness(row)["trace"] for row in whole[1] if flatness(row)}) == 4
    error = PROBLEM.measures["error"].function  # of the first 50 examples, at x
    for row in whole[1][-2:]:
        trained = load(whole[0], seed=row.seed, run=make())
        batch = jax.tree.map(lambda leaf: leaf[:50], PROBLEM.data)
        assert flatness(row)["local_energy_0.1/error"] == error(trained.params, (), batch)


@pytest.mark.parametrize(
    ("fractions", "due"),
    [((), []), (1.0, [100]), ((1e-9,), [10]), ((0.1, 0.7), [10, 70]), ((0.11, 0.15), [20])],
)
def test_a_fraction_is_the_first_evaluation_that_reaches_it(fractions, due):
    settings = dataclasses.replace(ALWAYS, flatness_at=fractions)
    run = make(settings=settings, budget=(100, 10))
    assert run.budget.due_at(run.settings.flatness_at) == due


def test_training_is_the_same_bit_for_bit(whole, tmp_path):
    plain = train(make(settings=ALWAYS), tmp_path)
    assert not any(flatness(row) for row in plain)
    kept = [
        dataclasses.replace(
            row,
            measures={n: m for n, m in row.measures.items() if FLATNESS not in n},
            seconds_per_gradient=other.seconds_per_gradient,
        )
        for row, other in zip(whole[1], plain, strict=True)
    ]
    assert kept == plain
    before, after = arrays(whole[0]), arrays(tmp_path)
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name], err_msg=name)


def test_a_run_that_was_stopped_ends_like_one_without_a_break(whole, tmp_path, monkeypatch, quick):
    go = Loop.run

    def stop(self, _, progress):
        return go(self, lambda: 15 if len(self.record.rows) >= 4 else None, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "run", stop)
        with pytest.raises(Interrupted, match="after 20 of 40 gradients"):
            train(make(), tmp_path)
    train(make(), tmp_path)
    assert_identical(result(tmp_path), result(whole[0]))


def test_a_run_that_was_killed_while_it_measured_has_lost_nothing(
    whole, tmp_path, monkeypatch, quick
):
    """A checkpoint lies before every measurement, which may take longer than training."""

    def killed(*_):
        raise KeyboardInterrupt

    seldom = dataclasses.replace(TWICE, checkpoint_seconds=1e9)
    with monkeypatch.context() as patch:
        patch.setattr(Flatness, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            train(make(settings=seldom), tmp_path)
    assert int(max((tmp_path / "checkpoints").glob("[0-9]*")).name) == 4  # outer steps of 5
    train(make(settings=seldom), tmp_path)
    assert_identical(result(tmp_path), result(whole[0]))


@pytest.mark.slow
def test_seeds_that_are_added_are_measured_too_in_the_run_and_after_it(tmp_path):
    first = train(make(seeds=1, budget=(20, 1)), tmp_path / "hj")
    rows = train(make(seeds=2, budget=(20, 1)), tmp_path / "hj")
    assert rows[:1] == first
    run = make(seeds=2, budget=(20, 1))
    found = measure_runs(
        [tmp_path], tmp_path / "out", runs=[run], examples=50, report=lambda text: None
    )
    assert [(entry.run, entry.seed) for entry in found] == [("hj", 0), ("hj", 1)]
    assert [entry.measures for entry in found] == [flatness(row) for row in rows]


def test_a_folder_does_not_answer_for_other_flatness(whole, tmp_path):
    folder, _ = whole
    with pytest.raises(ValueError, match=r"another run: it differs in evaluation\.flatness\.at,"):
        train(make(settings=ALWAYS), folder)
    other = dataclasses.replace(TWICE, flatness_examples=20)
    with pytest.raises(ValueError, match=r"it differs in evaluation\.flatness\.examples\."):
        train(make(settings=other), folder)
    assert make(settings=ALWAYS).identity["evaluation"] == {"train_examples": 10_000}


@pytest.mark.slow
def test_instruments_are_traced_once_and_training_not_again(tmp_path, compilations):
    traced = {"loss": 0, "measure": 0}
    plain = line()

    def counted(name, function):
        def call(*arguments):
            traced[name] += 1
            return function(*arguments)

        return call

    measure = counted("measure", plain.measures["loss"].function)
    problem = line(loss=counted("loss", plain.loss), measures={"loss": (measure, "lower", "nats")})
    settings = dataclasses.replace(TWICE, flatness_at=(0.25, 0.5, 1.0))
    seen = []  # traces and compilations after every evaluation
    run = one_run("hj", problem, budget=(40, 4), settings=settings)
    train(
        run,
        tmp_path / "first",
        callbacks=[lambda row: seen.append((*traced.values(), len(compilations)))],
    )
    assert seen[0][0] > 0
    assert len(set(seen)) == 1  # all was traced and compiled before the first row was written
    before = dict(traced)
    other = one_run("sgd", problem, budget=(40, 4), settings=settings)
    (first, *_) = train(other, tmp_path / "second")
    assert flatness(first)
    again = {name: traced[name] - before[name] for name in traced}
    before = dict(traced)
    train(one_run("sgd", problem, budget=(40, 4), settings=ALWAYS), tmp_path / "third")
    without = {name: traced[name] - before[name] for name in traced}
    assert again["loss"] == without["loss"]
    # The check of second derivatives alone: the programs of the first run serve the second.
    assert again["measure"] - without["measure"] <= 2


def test_the_cost_is_said_and_what_is_not_finite(tmp_path, caplog, quick):
    caplog.set_level(logging.INFO)
    rows = train(make(), tmp_path)
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "landscape:" in text] == [
        "hj: landscape: 2 products, for each seed"
    ]
    took = [text for text in said if "flatness of 2 seeds took" in text]
    assert ["had to be compiled" in text for text in took] == [True, False]
    assert all(text.endswith("gradients of each") for text in took)
    assert "hj: seed 1: not finite, and left out: sharpness" in said
    assert flatness(rows[-1]).keys() == {"trace", "trace_se", "local_energy_0.1/error"}


def test_a_seed_that_diverged_is_not_measured(whole, tmp_path, monkeypatch, quick):
    advance = Loop._advance

    def poisoned(self):
        params = jax.tree.map(lambda x: x.at[0].set(jnp.nan), self._arrays.state.params)
        self._arrays = self._arrays._replace(state=self._arrays.state._replace(params=params))
        advance(self)

    monkeypatch.setattr(Loop, "_advance", poisoned)
    with pytest.raises(FloatingPointError, match="seed 0 stopped"):
        train(make(), tmp_path)
    found = {(row.seed, row.gradients): flatness(row) for row in read_rows(tmp_path)}
    expected = {(row.seed, row.gradients): flatness(row) for row in whole[1] if row.seed == 1}
    assert found == expected | {(0, 10): {}}


@pytest.mark.parametrize(
    "wrong", [0, 1.5, -0.1, True, "1", None, (0.5, 0.5), (1.0, 0.5), (0.5, float("nan")), {"a": 1}]
)
def test_fractions_outside_the_run_are_refused(wrong):
    with pytest.raises(ValueError, match=r"flatness_at must be fractions of the run in \(0, 1\]"):
        dataclasses.replace(ALWAYS, flatness_at=wrong)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, None])
def test_numbers_of_examples_are_checked(wrong):
    with pytest.raises(ValueError, match="flatness_examples must be a static integer >= 1"):
        dataclasses.replace(ALWAYS, flatness_examples=wrong)


def test_a_loader_on_the_host_is_refused_before_training():
    data = PROBLEM.data

    class Loader:
        def __iter__(self):
            yield jax.tree.map(lambda leaf: leaf[:8], data)

    loader = Loader()
    with pytest.raises(ValueError, match="flatness is measured on arrays.* flatness_at empty"):
        one_run(optax.sgd(0.1), line(data=loader), settings=TWICE)
    one_run(optax.sgd(0.1), line(data=loader))


def test_a_loss_without_second_derivatives_is_refused_before_training():
    @jax.custom_vjp
    def square(x):
        return x**2

    def backward(x, g):
        return (jax.pure_callback(lambda x: 2 * x, jax.ShapeDtypeStruct(x.shape, x.dtype), x) * g,)

    square.defvjp(lambda x: (x**2, x), backward)

    def squares(params, model_state, batch):
        return jnp.mean(square(predict(params, batch["x"]) - batch["y"]))

    with pytest.raises(ValueError, match="sgd: flatness_at needs a Hessian-vector product"):
        Flatness(one_run("sgd", line(measures={"loss": squares}), settings=TWICE))


def test_a_problem_without_a_measured_loss_has_the_flatness_of_its_training_loss():
    """The Hessian of an error rate is zero, and says nothing."""
    error = PROBLEM.measures["error"]
    measured = sample(line(measures={"error": error}), 8)
    params, state = measured.problem.init(jax.random.key(0))
    batch = jax.tree.map(lambda leaf: leaf[0], measured.batches)
    value = measured.loss(state)(params, batch)
    assert value == measured.problem.loss(params, state, batch, jax.random.key(0))[0]
    assert measured.named({"trace": 1.0}) == {"trace": Measurement(1.0)}


def test_the_sample_is_whole_batches_of_the_first_examples():
    kept = [sample(PROBLEM, n, b).batches["y"].shape for n, b in ((50, 512), (50, 20), (4096, 40))]
    assert kept == [(1, 50), (2, 20), (2, 40)]
    np.testing.assert_array_equal(
        np.ravel(sample(PROBLEM, 50, 20).batches["y"]), PROBLEM.data["y"][:40]
    )
    with pytest.raises(ValueError, match=r"examples must be .*>= 1"):
        sample(PROBLEM, checks.MAX_COUNT)
