"""Searches: successive halving on held-out examples, equal effort, nothing of the final runs."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import arrays, line, one_run

import entropix
from entropix.experiment import ALGORITHMS, Algorithm, Budget, algorithm, make_config, tune
from entropix.experiment.hold_out import hold_out
from entropix.experiment.making import make_runs
from entropix.experiment.search import draw, named_ranges, searched
from entropix.runs.loop import Loop
from entropix.runs.train import train_run
from entropix.runs.tune import at_edges, rungs

ALL = {"sgd": "sgd", "hj": "hj"}


def search(workdir, algorithms=ALL, problem=None, **options):
    given = {"budget": Budget(90, 1), "seeds": 2, "trials": 4} | options
    return tune(problem or line(), algorithms, workdir=workdir, progress=False, **given)


def lines(folder, name):
    return [json.loads(line) for line in (folder / f"tune_{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    return folder, search(folder)


def test_rungs_triple_in_length_and_end_with_a_whole_run():
    assert rungs(1) == [(1, 1.0)]
    assert rungs(3) == [(3, 1 / 3), (1, 1.0)]
    assert rungs(8) == [(8, 1 / 3), (2, 1.0)]
    assert rungs(9) == [(9, 1 / 9), (3, 1 / 3), (1, 1.0)]
    assert rungs(30) == [(30, 1 / 9), (10, 1 / 3), (3, 1.0)]


def test_every_algorithm_gets_the_same_effort(done):
    folder, tried = done
    assert list(tried) == ["sgd", "hj"]
    rates = [[row["learning_rate"] for row in lines(folder, name)][:4] for name in tried]
    assert rates[0] == rates[1]
    for trials in tried.values():
        assert [(t["rung"], t["gradients"]) for t in trials] == [(1, 90)] + 4 * [(0, 30)]
        short = trials[1:]
        assert short[0]["val_error"] == min(t["val_error"] for t in short)
        assert trials[0]["learning_rate"] == short[0]["learning_rate"]  # the best goes on
        assert math.isfinite(trials[0]["val_loss"])
    assert {*tried["hj"][0]} == {
        "learning_rate", "gamma", "rung", "gradients",
        "train_loss", "train_error", "val_loss", "val_error",
    }  # fmt: skip


def test_trials_are_judged_by_the_objective(done, tmp_path):
    """A measure that is best where the error is worst chooses the other end of the same trials."""
    problem = line()
    misses = problem.measures["error"]
    missed = misses._replace(better="higher")
    problem = dataclasses.replace(problem, measures={**problem.measures, "missed": missed})
    by_error = search(tmp_path / "error", {"sgd": "sgd"}, problem)["sgd"]
    by_missed = search(tmp_path / "missed", {"sgd": "sgd"}, problem, objective="missed")["sgd"]
    errors = [
        {t["learning_rate"]: t["val_error"] for t in tried[1:]} for tried in (by_error, by_missed)
    ]
    assert errors[0] == errors[1]
    finite = [error for error in errors[0].values() if math.isfinite(error)]
    least, most = min(finite), max(finite)
    assert least < most
    assert errors[0][by_error[0]["learning_rate"]] == least
    assert errors[0][by_missed[0]["learning_rate"]] == most
    assert "judged by their missed" in (tmp_path / "missed" / "tuning.md").read_text()
    with pytest.raises(ValueError, match="another search"):
        search(tmp_path / "missed", {"sgd": "sgd"}, problem)
    with pytest.raises(ValueError, match="objective 'los'.*loss"):
        search(tmp_path / "none", {"sgd": "sgd"}, problem, objective="los")
    assert not (tmp_path / "none" / "tune_sgd.jsonl").exists()


def test_a_trial_is_the_run_with_those_values(done, tmp_path):
    """The longest trial, trained by the loop of final runs on the same examples and seeds."""
    _, tried = done
    best = tried["hj"][0]
    chosen = {name: float(np.float32(best[name])) for name in ("learning_rate", "gamma")}
    run = one_run("hj", hold_out(line()), budget=(90, 1), seeds=[10_000, 10_001], **chosen)
    rows = train_run(run, tmp_path, progress=False)
    for measure in ("val_loss", "train_loss"):
        assert np.mean([row[measure] for row in rows]) == pytest.approx(best[measure], rel=1e-3)


def test_held_out_examples_are_a_fifth_of_the_training_set():
    problem = line()
    held = hold_out(problem)
    kept, out = held.data["y"], held.validation["y"]
    assert (len(kept), len(out)) == (76, 20)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, out])), np.sort(problem.data["y"]))
    assert held.identity["digest"] != problem.identity["digest"]
    first = jax.tree.map(lambda leaf: leaf[:7], problem.data)
    few = hold_out(dataclasses.replace(problem, validation=first))
    assert len(few.validation["y"]) == 7
    assert np.isin(few.validation["y"], out).all()
    ordered = hold_out(line(sample=lambda key, data: jax.tree.map(lambda a: a[:8], data)))
    np.testing.assert_array_equal(ordered.validation["y"], problem.data["y"][76:])


def test_the_validation_set_plays_no_part(done, tmp_path):
    garbage = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), line().validation)
    search(tmp_path, {"sgd": "sgd"}, line(validation=garbage, digest="x"))
    assert lines(tmp_path, "sgd") == lines(done[0], "sgd")


def test_a_search_continues_to_the_digit(done, tmp_path, monkeypatch):
    folder, tried = done
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "tune_hj.jsonl"
    whole = path.read_text()
    path.write_text(whole[: whole.index("\n") + 20])  # one trial, and one half written
    assert search(tmp_path) == tried
    assert path.read_text() == whole
    # The choice may be copied into the options.
    assert search(tmp_path, {"sgd": "sgd", "hj": algorithm("hj", gamma=2.0)}) == tried


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"budget": Budget(180, 1), "seeds": 1}, r"budget.gradients, seeds"),
        ({"algorithms": {"hj": algorithm("hj", step_size=0.2)}}, "algorithm.options.step_size"),
        ({"search": {"hj": {"gamma": (1.0, 2.0)}}}, "search.gamma"),
        ({"seed": 1}, "search_seed"),
        ({"trials": 5}, "trials"),
        ({"problem": line(data=arrays(3))}, r"problem.digest"),
    ],
)
def test_another_search_is_refused(done, options, fields):
    folder, tried = done
    with pytest.raises(ValueError, match=rf"another search \(it differs in .*{fields}"):
        search(folder, **{"algorithms": {"hj": "hj"}} | options)
    assert search(folder) == tried


def test_a_changed_trial_is_refused(done, tmp_path):
    """One wrong digit would choose other values, or show other errors."""
    for path in done[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "tune_sgd.jsonl"
    text = path.read_text()
    path.write_text(text.replace('"gradients": 30.0', '"gradients": 31.0', 1))
    assert path.read_text() != text
    message = r"tune_sgd.jsonl, line 1, is no trial: it was changed after it was written\. Remove"
    with pytest.raises(ValueError, match=message):
        search(tmp_path)


def test_a_diverged_trial_is_infinitely_bad(tmp_path):
    ranges = {"sgd": {"learning_rate": (0.1, 9e5)}}
    trials = search(tmp_path, {"sgd": "sgd"}, search=ranges, trials=3)["sgd"]
    assert trials[-1]["val_error"] == trials[-1]["val_loss"] == math.inf
    assert any(row["val_error"] is None for row in lines(tmp_path, "sgd"))
    assert search(tmp_path, {"sgd": "sgd"}, search=ranges, trials=3)["sgd"] == trials


def test_a_search_without_a_finite_trial_has_no_best_one(tmp_path):
    ranges = {"sgd": {"learning_rate": (1e6, 1e7)}}
    tried = search(tmp_path, search=ranges, trials=3)
    assert math.isinf(tried["sgd"][0]["val_loss"])
    choice = (tmp_path / "tuning.md").read_text().split("## Choice")[1].split("## sgd")[0]
    assert "| sgd" not in choice
    assert "sgd: no trial was finite, so that there is no best one. Search lower" in choice
    assert "sgd: the best" not in choice
    assert "| hj" in choice
    alone = search(tmp_path / "alone", {"sgd": "sgd"}, search=ranges, trials=1)
    assert math.isinf(alone["sgd"][0]["val_loss"])
    assert "no trial was finite" in (tmp_path / "alone" / "tuning.md").read_text()


def test_a_trial_that_diverged_late_stands_behind_shorter_ones(done, tmp_path):
    for path in done[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "tune_sgd.jsonl"
    longest = lines(tmp_path, "sgd")[-1]
    bad = longest | {name: None for name in longest if name.startswith(("val_", "train_"))}
    del bad["digest"]
    written = path.read_text().splitlines()[:-1]
    path.write_text("\n".join([*written, json.dumps(bad)]) + "\n")
    trials = search(tmp_path)["sgd"]
    finite = [trial for trial in trials if math.isfinite(trial["val_error"])]
    assert len(finite) == 3  # one of the short ones diverged too
    assert trials[:3] == sorted(finite, key=lambda trial: trial["val_error"])
    assert trials[3]["rung"] == 1


def test_shared_options_can_be_searched_too(tmp_path):
    """Those whose 0 switches them off are traced numbers in a search."""
    given = {"weight_decay": 0.01, "l2": 0.01, "clip": 1.0, "ema": 0.5, "warmup": 0.1}
    ranges = {
        "sgd": {name: (value, 2 * value if value < 0.5 else value) for name, value in given.items()}
    }
    ranges["sgd"]["ema"] = (0.5, 0.9)
    found = search(
        tmp_path, {"sgd": algorithm("sgd", **given)}, search=ranges, trials=1, budget=Budget(20, 1)
    )
    assert set(given) < set(found["sgd"][0])
    assert math.isfinite(found["sgd"][0]["val_loss"])


def test_an_option_of_zero_is_switched_off_and_not_searched(tmp_path, caplog):
    caplog.set_level("INFO")
    heat = {"heat": algorithm("heat", temperature=0.0, num_steps=2)}
    (trial, *_) = search(tmp_path, heat, trials=1, budget=Budget(4, 1))["heat"]
    assert "temperature" not in trial
    assert "heat: not searched, since 0 switches it off: temperature" in caplog.messages
    assert {"learning_rate", "gamma"} < set(trial)
    config = make_config(dataset="digits", model={"name": "mlp"}, optimizers={"heat": {}})
    record = heat["heat"]
    assert "temperature" in config.search.heat
    assert named_ranges(record, config.search.heat.to_dict()) == {}


def test_a_range_that_is_named_is_searched_whatever_the_value(tmp_path):
    """0 switches these off: a search switches them on."""
    off = {"weight_decay": (1e-5, 1e-2), "l2": (1e-4, 1e-1), "clip": (1.0, 2.0)}
    off |= {"warmup": (0.1, 0.2), "ema": (0.5, 0.9), "gamma_end": (0.1, 0.2)}
    hj = {"hj": algorithm("hj", num_steps=2)}
    (trial,) = search(tmp_path, hj, search={"hj": off}, trials=1, budget=Budget(4, 1))["hj"]
    assert all(low <= trial[name] <= high for name, (low, high) in off.items())
    record, own = algorithm("heat", temperature=0.0), ALGORITHMS["heat"].search["temperature"]
    assert searched("heat", record, {"temperature": own})["temperature"] == own
    config = make_config(
        dataset="digits", model={"name": "mlp"}, optimizers={"sgd": {}},
        search={"sgd": {"l2": (1e-4, 1e-1)}},
    )  # fmt: skip
    assert named_ranges(ALGORITHMS["sgd"], config.search.sgd) == {"l2": (1e-4, 1e-1)}


def test_no_scope_is_searched_below_its_end(tmp_path):
    """Such a scope would be raised to its end, and the search would recommend what never acted."""
    hj = algorithm("hj", num_steps=2, gamma=3.0, gamma_end=2.0)
    assert searched("hj", hj, {})["gamma"] == (2.0, ALGORITHMS["hj"].search["gamma"][1])
    short = {"trials": 1, "budget": Budget(4, 1)}
    with pytest.raises(ValueError, match=r"at gamma=1, .*gamma must be at least gamma_end=2; got"):
        search(tmp_path, {"hj": hj}, search={"hj": {"gamma": (1.0, 9.0)}}, **short)
    both = {"gamma": (8.0, 9.0), "gamma_end": (3.0, 4.0)}  # above the gamma of the algorithm
    (trial,) = search(tmp_path / "a", {"hj": hj}, search={"hj": both}, **short)["hj"]
    assert 3 <= trial["gamma_end"] <= 4 < trial["gamma"]
    both = {"gamma": (1.0, 1.5), "gamma_end": (0.1, 0.5)}  # below the end of the algorithm
    (trial,) = search(tmp_path / "b", {"hj": hj}, search={"hj": both}, **short)["hj"]
    assert trial["gamma_end"] <= 0.5 < 1 <= trial["gamma"]
    assert searched("hj", algorithm("hj", gamma=500.0), {"gamma_end": (50, 400)})["gamma"][0] == 400
    with pytest.raises(ValueError, match=r"a range of gamma too; got .*above gamma_end=2000"):
        searched("hj", algorithm("hj", gamma=3000.0, gamma_end=2000.0), {})


def test_an_option_that_is_called_like_an_end_is_none():
    def make(learning_rate, learning_rate_end=5.0):
        return optax.sgd(learning_rate)

    record = Algorithm("mine", make, search={"learning_rate": (0.1, 1.0)})
    assert searched("mine", record, {}) == {"learning_rate": (0.1, 1.0)}


def test_a_best_value_at_the_end_of_its_range_is_said():
    ranges = {"a": (1.0, 100.0), "b": (1.0, 100.0), "fixed": (2.0, 2.0), "off": (1.0, 2.0)}
    assert at_edges({"a": 1.1, "b": 10.0, "fixed": 2.0}, ranges) == ["a"]
    assert at_edges({"a": 95.0, "b": 99.0, "fixed": 2.0}, ranges) == ["a", "b"]


def test_a_whole_number_is_a_value_of_an_option_of_real_numbers(tmp_path):
    short = {"trials": 1, "budget": Budget(5, 1)}
    (trial,) = search(tmp_path / "a", {"hj": algorithm("hj", gamma=10)}, **short)["hj"]
    assert "gamma" in trial
    record = Algorithm("mine", entropix.hj_sgd, defaults={"gamma": 1, "inner": "identity"})
    ranges = {"mine": {"gamma": (2.0, 3.0)}}
    (trial,) = search(tmp_path / "b", {"mine": record}, search=ranges, **short)["mine"]
    assert 2 <= trial["gamma"] <= 3
    made = make_config(
        dataset="digits", model={"name": "mlp"}, optimizers={"hj": {"gamma": 10}}, search={
            "hj": {"gamma": (2.0, 3.0)}
        },
    )  # fmt: skip
    assert made.search.hj.gamma == (2.0, 3.0)


def test_own_transformations_are_searched(tmp_path):
    def mine(learning_rate, *, speed: float = 1.0):
        return optax.chain(optax.scale(speed), optax.scale_by_learning_rate(learning_rate))

    record = Algorithm("mine", mine, search={"speed": (0.01, 1.0)})
    trials = search(tmp_path, {"mine": record}, trials=3)["mine"]
    assert len({trial["val_loss"] for trial in trials}) == 4
    assert search(tmp_path, {"mine": record}, trials=3)["mine"] == trials


def test_a_config_is_searched_where_it_says(tmp_path, monkeypatch):
    config = make_config(
        dataset="digits", model={"name": "mlp", "widths": (4,)}, optimizers={"hj": {}},
        algorithms="hj", seeds=1, gradients_per_eval=10, num_evals=1,
        search={"hj": {"gamma": (2.0, 2.0)}},
    )  # fmt: skip
    monkeypatch.setattr(Loop, "__init__", None)  # no final run
    (trial,) = tune(config, workdir=tmp_path, trials=1, progress=False)["hj"]
    assert trial["gamma"] == 2.0
    assert (tmp_path / "tuning.md").read_text().count("HJ") >= 1


@pytest.mark.parametrize("trials", [1, 5, 9, 500])
def test_every_part_of_a_range_is_drawn_from_once(trials):
    """Independent draws would leave gaps, and these are shared by all algorithms."""
    ranges = {"learning_rate": (0.1, 10.0), "temperature": (1e-8, 1e-4)}
    drawn = draw(ranges, trials, seed=0)
    places = {
        name: np.log([trial[name] / low for trial in drawn]) / np.log(high / low)
        for name, (low, high) in ranges.items()
    }
    for of_option in places.values():
        assert sorted(np.floor(of_option * trials)) == [*range(trials)]
    if trials == 500:
        correlation = np.corrcoef(*places.values())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(trials)  # independent: four standard errors
    alone = draw({"learning_rate": (0.1, 10.0)}, trials, seed=0)
    assert [t["learning_rate"] for t in alone] == [t["learning_rate"] for t in drawn]
    assert draw(ranges, trials, seed=1) != drawn
    assert draw(ranges, 0, seed=0) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "trials must be a static integer >= 1.*trials=0"),
        ({"seed": -1}, "seed must be an integer >= 0 .*got seed=-1"),
        ({"seed": 1.5}, "seed must be an integer >= 0 .*got seed=1.5"),
        ({"algorithms": {"a": optax.sgd(0.1)}}, "search must be ranges for a too, which has none"),
        ({"search": {"sgdd": {}}}, "unknown run of search 'sgdd'.*Did you mean 'sgd'"),
        ({"search": {"sgd": {"gamma": (1.0, 2.0)}}}, "option of search sgd 'gamma'"),
        ({"search": {"hj": {"num_steps": (1, 9)}}}, "option of search hj 'num_steps'"),
        ({"search": {"sgd": {"schedule": (1, 9)}}}, "'schedule' decides what the program is"),
        ({"search": {"sgd": {"learning_rate": (2, 1)}}}, "0 < low <= high"),
        (
            {"search": {"sgd": {"warmup": (0.5, 3.0)}}},
            r"search sgd: both ends .*got warmup=\(0.5, 3.0\). .*at warmup=3, .*in \[0, 1\)",
        ),
        ({"search": {"sgd": {"momentum": (0.5, 3)}}}, r"at momentum=3, .*a number in \[0, 1\)"),
        ({"search": {"hj": {"step_size": (0.1, 3.8)}}}, "at step_size=3.8, .*step_size/gamma must"),
        ({"search": {"hj": {"gamma": (0.01, 1.0)}}}, "at gamma=0.01, .*step_size/gamma must be"),
    ],
)
def test_what_cannot_be_searched_is_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        search(tmp_path, **options)


def test_a_single_example_is_refused():
    with pytest.raises(ValueError, match="a part of the training set out, .* 2 examples .* got 1"):
        hold_out(dataclasses.replace(line(), data=jax.tree.map(lambda a: a[:1], line().data)))


def test_an_option_that_shapes_the_program_is_refused(tmp_path):
    def mine(learning_rate, *, speed: float = 1.0):
        return optax.scale_by_learning_rate(learning_rate) if speed > 0.5 else optax.identity()

    record = Algorithm("mine", mine, search={"speed": (0.01, 1.0)})
    with pytest.raises(ValueError, match="search mine: no search can vary speed, .*at a time"):
        search(tmp_path, {"mine": record})
    assert not list(tmp_path.iterdir())


def test_values_that_a_run_would_refuse_are_not_chosen(tmp_path):
    """Each end of each range is accepted, and not every pair of values."""
    hj = algorithm("hj", scoping_rate=0.0)  # gamma = 1, step_size = 0.1
    ranges = {"hj": {"gamma": (0.06, 0.5), "step_size": (0.1, 1.5)}}
    trials = search(tmp_path, {"hj": hj}, search=ranges, trials=9, budget=Budget(9, 1))["hj"]
    bad = [trial["step_size"] >= 2 * trial["gamma"] for trial in trials]
    assert any(bad)
    assert [math.isinf(trial["val_loss"]) for trial in trials] == bad
    best = {name: trials[0][name] for name in ranges["hj"]}
    make_runs(line(), {"hj": hj.with_options(**best)}, Budget(9, 1), 1)


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "tune_sgd.jsonl").write_text("{}\nx\n")
    with pytest.raises(ValueError, match="tune_sgd.jsonl, line 2, is no trial"):
        search(tmp_path, {"sgd": "sgd"})
