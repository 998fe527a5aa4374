"""From problems and configs to runs: names, labels, budgets, identities."""

import logging

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import bowl, line, one_run

import entropix
from entropix.experiment import (
    ALGORITHMS,
    Algorithm,
    Budget,
    Settings,
    algorithm,
    algorithms,
    make_config,
    plan,
)
from entropix.experiment.making import make_runs
from entropix.experiment.plan import check_plan
from entropix.experiment.source import import_function
from entropix.training.programs import make_programs

ALL = {name: {} for name, record in ALGORITHMS.items() if not record.beyond_the_paper}


def make(algorithms="", optimizers=ALL, model=None, **options):
    model = model or {"name": "mlp", "widths": (4,)}
    return make_config(
        dataset="digits", model=model, optimizers=optimizers, algorithms=algorithms, **options
    )


def planned(*arguments, **options):
    return plan(make(*arguments, **options), line())


def test_no_suffix_means_all_algorithms_in_the_papers_order():
    runs = planned()
    assert [run.name for run in runs] == ["sgd", "entropy_sgd", "hj", "heat", "elastic_sgd"]
    cycles = [run.method().cycle for run in runs]
    assert cycles == [1, 20, 5, 20, 3]


def test_a_single_run_is_the_same_from_either_spelling():
    (alone,) = planned("hj")
    (among,) = [run for run in planned() if run.name == "hj"]
    assert alone.identity == among.identity
    assert [run.name for run in planned("hj, sgd")] == ["sgd", "hj"]


def test_numbers_of_numpy_and_jax_are_as_good_as_pythons():
    options = {"gamma": 10.0, "num_steps": 5, "drop_at": (0.5,)}
    arrays = {"gamma": np.float32(10), "num_steps": np.int64(5), "drop_at": (jnp.asarray(0.5),)}
    (python,) = planned("hj", {"hj": options}, {"name": "mlp", "widths": (4,)}, seeds=2)
    model = {"name": "mlp", "widths": (np.int64(4),)}
    (numpy,) = planned("hj", {"hj": arrays}, model, seeds=np.int32(2))
    assert numpy.identity == python.identity
    assert numpy.config == python.config
    config = make("hj", {"hj": options})
    config.optimizer.gamma = np.float64(10)
    assert plan(config, line())[0].identity == python.identity


def test_several_settings_of_one_algorithm_are_labelled_by_what_differs():
    optimizers = {
        "narrow": {"algorithm": "hj", "gamma": 1.0},
        "wide": {"algorithm": "hj", "gamma": 10.0, "learning_rate": 0.2},
        "sgd": {},
    }
    runs = planned("", optimizers)
    assert {run.name: run.label for run in runs} == {
        "sgd": "SGD",
        "narrow": "HJ, learning_rate = 0.1, gamma = 1.0",
        "wide": "HJ, learning_rate = 0.2, gamma = 10.0",
    }
    (alone,) = planned("wide", optimizers)
    assert (alone.name, alone.algorithm.name) == ("wide", "hj")


def test_a_config_may_say_a_label_which_is_no_part_of_the_identity():
    optimizers = {
        "narrow": {"algorithm": "hj", "label": "HJ, near"},
        "wide": {"algorithm": "hj", "gamma": 10.0},
        "parle": {"label": "P"},
    }
    runs = planned("narrow,wide,parle", optimizers, replicas=(3, 6))
    assert {run.name: run.label for run in runs} == {
        "narrow": "HJ, near",
        "wide": "HJ",
        "parle_p3": "P, p = 3",
        "parle_p6": "P, p = 6",
    }
    (alone,) = planned("narrow", optimizers)
    (plain,) = planned("narrow", {"narrow": {"algorithm": "hj"}})
    assert (alone.label, plain.label) == ("HJ, near", "HJ")
    assert alone.identity == plain.identity


@pytest.mark.parametrize("label", ["", " ", "two\nlines", 3])
def test_a_label_is_some_words_in_one_line(label):
    with pytest.raises(ValueError, match="hj.label must be some words in one line; got config"):
        planned("", {"hj": {"label": label}, "sgd": {}})


def test_an_optimizer_without_an_algorithm_is_told_so():
    config = make("hj")
    with config.unlocked():
        del config.optimizer.algorithm
    with pytest.raises(ValueError, match="unknown algorithm of config.optimizer None"):
        check_plan(config)


def test_several_numbers_of_replicas_are_runs_of_their_own():
    runs = planned("elastic_sgd, sgd", replicas=(3, 6), gradients_per_eval=60)
    assert [(run.name, run.label, run.replicas) for run in runs] == [
        ("sgd", "SGD", None),
        ("elastic_sgd_p3", "Elastic-SGD, p = 3", 3),
        ("elastic_sgd_p6", "Elastic-SGD, p = 6", 6),
    ]


def test_length_shrinks_the_number_of_evaluations():
    (run,) = planned("hj", gradients_per_eval=100, num_evals=10, length=0.25)
    assert run.budget == Budget(300, 3)


def test_a_length_that_is_rounded_is_said(caplog):
    with caplog.at_level(logging.INFO, logger="entropix"):
        planned("hj", gradients_per_eval=100, num_evals=10, length=0.3)
        assert not caplog.messages
        planned("hj", gradients_per_eval=100, num_evals=10, length=0.25)
    assert caplog.messages == ["length=0.25 of 10 evaluations is 3 of them, 0.3 of the run"]


def dropping(learning_rate, scoping_period=3, drop_factor=2.0):
    return optax.chain(optax.scale(1 / drop_factor / scoping_period), optax.sgd(learning_rate))


def test_settings_without_effect_are_said(caplog, monkeypatch):
    read = {
        "hj": {"drop_at": (0.5,), "drop_factor": 5.0, "scoping_period": 2},
        "elastic_sgd": {"scoping_rate": 0.0},  # whose usual period is 20
    }
    unread = {"hj": {"drop_factor": 5.0, "scoping_rate": 0.0, "scoping_period": 2}}
    monkeypatch.setitem(algorithms._registry, "dropping", Algorithm("dropping", dropping))
    read["dropping"] = {"drop_factor": 5.0, "scoping_period": 4}  # the factory reads both
    with caplog.at_level(logging.INFO, logger="entropix"):
        planned(optimizers=read, replicas=(1,))
        assert not caplog.messages
        planned(optimizers=unread, replicas=(6,))
    assert caplog.messages == [
        "drop_factor=5.0 of hj has no effect: drop_at=()",
        "scoping_period=2 of hj has no effect: scoping_rate=0.0",
        "replicas=(6,) has no effect: no algorithm has replicas",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradients_per_eval": 50}, "multiple of the 20 gradients of one outer step of entropy"),
        ({"replicas": (7,)}, "multiple of the 7 gradients .* elastic_sgd"),
        (
            {"optimizers": {"hj": {"scoping_rate": 0.1}}, "num_evals": 1000},
            "hj: step_size/gamma reaches",
        ),
        ({"optimizers": {"hj": {"learning_rate": 0.0}}}, "learning_rate must be a number > 0"),
    ],
)
def test_what_would_be_unfair_or_diverge_is_refused_before_work(options, message):
    with pytest.raises(ValueError, match=message):
        check_plan(make(**options))


def test_evaluations_are_equally_spaced_and_end_at_the_end():
    assert Budget(100, 4).due() == [25, 50, 75, 100]
    assert Budget(10, 3).due() == [3, 7, 10]
    assert Budget(7, 7).due() == list(range(1, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "gradients must be a static integer >= 1"),
        ((2.5, 1), "gradients must be a static integer >= 1"),
        ((10, 0), "evaluations must be a static integer >= 1"),
        ((10, 11), "evaluations must be at most gradients=10; got evaluations=11"),
    ],
)
def test_bad_budgets(arguments, message):
    with pytest.raises(ValueError, match=message):
        Budget(*arguments)


TWENTY = Budget(20, 1)


def runs_of(algorithms, budget=TWENTY, seeds=2, **options):
    return make_runs(bowl(), algorithms, budget, seeds, **options)


def test_a_comparison_takes_transformations_algorithms_and_names():
    runs = runs_of(
        {
            "AdamW": optax.adamw(1e-3),
            "SNOO, 5": entropix.snoo(optax.adamw(1e-3), num_steps=5),
            "HJ": algorithm("hj", gamma=10.0),
            "elastic_sgd": "elastic_sgd",
        },
        replicas=(2, 4),
    )
    assert [(run.name, run.label) for run in runs] == [
        ("AdamW", "AdamW"),
        ("SNOO__5", "SNOO, 5"),
        ("HJ", "HJ"),
        ("elastic_sgd__p___2", "elastic_sgd, p = 2"),
        ("elastic_sgd__p___4", "elastic_sgd, p = 4"),
    ]
    assert [run.method().cycle for run in runs] == [1, 5, 5, 2, 4]
    assert [run.algorithm.name for run in runs[:3]] == ["AdamW", "SNOO__5", "hj"]


def hidden(learning_rate=0.1):
    """A stepwise optimiser that the experiment cannot see."""
    return optax.chain(optax.clip(1.0), entropix.hj_sgd(learning_rate, gamma=1.0, stepwise=True))


@pytest.mark.parametrize(
    ("algorithms", "options", "message"),
    [
        ({}, {}, "algorithms must be run -> .*; got algorithms={}"),
        ([optax.sgd(0.1)], {}, "algorithms must be run ->"),
        ({"a": 3}, {}, r"algorithms\['a'\] must be an Optax transformation, .*; got .*=3"),
        ({"a": optax.sgd}, {}, r"algorithms\['a'\] must be an Optax transformation"),
        ({"a": "hjj"}, {}, "unknown algorithm 'hjj'.*Did you mean 'hj'"),
        ({1: optax.sgd(0.1)}, {}, "a run must be called by a string"),
        ({"..": optax.sgd(0.1)}, {}, "a run must be called by a name with letters or digits"),
        ({"a b": "sgd", "a_b": "hj"}, {}, "called by names that differ as folders"),
        ({"a": "sgd"}, {"seeds": 0}, "seeds must be a static integer >= 1"),
        ({"a": "sgd"}, {"seeds": (1, 1)}, "seeds must be a number >= 1, or different whole"),
        ({"a": "sgd"}, {"seeds": (-1,)}, "seeds must be a number >= 1, or different"),
        ({"a": "sgd"}, {"seeds": (True,)}, "seeds must be a number >= 1, or different"),
        ({"a": "sgd"}, {"budget": 20}, "budget must be an entropix.experiment.Budget"),
        ({"a": "parle"}, {"replicas": 0}, "replicas must be numbers >= 1 .*; got replicas=0. Wri"),
        ({"table.md": "sgd"}, {}, r"called unlike the files .*, table\.md, .*a run='table\.md'"),
        ({"seeds_a": "sgd"}, {}, r"a run must be called by a name unlike 'seeds_\*'"),
        (
            {"a": entropix.elastic_sgd(0.1, 1.0, "replica")},
            {},
            r"a: its update communicates between replicas.*replicated=True\)\.$",
        ),
        ({"a": entropix.relax(entropix.heat(1.0))}, {}, "relax is a link without an optimiser"),
        ({"a": "sgd"}, {"seeds": (0, 2**32)}, r"and < 2\*\*32; got seeds="),
        ({"a" * 201: "sgd"}, {}, "letters or digits, of 200 bytes at most"),
        ({"数" * 100: "sgd"}, {}, "letters or digits, of 200 bytes at most"),
        ({"a\nb": "sgd"}, {}, "a run must be called by a string of one line"),
        ({"a": optax.scale_by_adam()}, {}, "a: the algorithm must be complete"),
        ({"a": optax.lbfgs()}, {}, "a: its update failed .*value_fn.*calls update"),
        (
            {"a": Algorithm("a", lambda: optax.MultiSteps(optax.sgd(1.0), 2))},
            {},
            r"Write .gradient_transformation\(\)",
        ),
        (
            {"a": Algorithm("a", hidden, options={"schedule": "cosine"})},
            {},
            "a: schedule='cosine' acts at outer steps, .* hidden in a chain",
        ),
        ({"a": Algorithm("a", hidden, options={"weight_decay": 0.1})}, {}, "weight_decay=0.1 acts"),
        ({"a": Algorithm("a", lambda: 3)}, {}, "must be an Optax transformation.*; got 3"),
    ],
)
def test_what_is_no_comparison_is_refused(algorithms, options, message):
    with pytest.raises(ValueError, match=message):
        runs_of(algorithms, **options)


def test_names_stay_inside_the_comparisons_folder():
    for name in ("../../x", "/etc/x", "a/b", ".hidden"):
        (run,) = runs_of({name: optax.sgd(0.1)})
        assert "/" not in run.name
        assert not run.name.startswith(".")


@pytest.mark.parametrize("name", ["my/algorithm", "", ".x", "x" * 201, 3])
def test_an_algorithms_name_may_be_that_of_a_file(name):
    """Rows carry the name, and a checkpoint whose rows have another is taken for damaged."""
    with pytest.raises(ValueError, match="an algorithm's name must have 1 to 200 bytes"):
        Algorithm(name, optax.sgd)


def test_numbers_of_numpy_and_jax_are_those_of_python():
    """Results are stored with them, in JSON."""
    plain = runs_of({"a": algorithm("hj", gamma=0.5, num_steps=4)}, budget=Budget(20, 2))[0]
    given = algorithm("hj", gamma=np.float32(0.5), num_steps=np.int64(4))
    other = runs_of({"a": given}, budget=Budget(np.int64(20), np.int32(2)))[0]
    assert other.identity == plain.identity
    assert algorithm("hj", gamma=jnp.asarray(0.5)).all_options["gamma"] == 0.5
    settings = Settings(eval_train_examples=np.int64(32), flatness_at=np.float32(1))
    assert settings == Settings(eval_train_examples=32, flatness_at=(1.0,))


@pytest.mark.parametrize(
    ("field", "value"),
    [("layout", "vmpa"), ("devices", -1), ("checkpoint_seconds", -1), ("checkpoint_seconds", "x")],
)
def test_settings_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        Settings(**{field: value})


def test_the_loss_reaches_optimisers_that_ask_for_it():
    """Polyak's step, loss over squared gradient, goes half of the way down a parabola."""
    run = one_run(optax.polyak_sgd(), bowl((1.0,), (2.0,), (0.0,)), budget=(1, 1))
    programs = make_programs(run)
    now = programs.starter.place(programs.starter.init())
    after = programs.advance(now, (jnp.asarray(1, jnp.int32), programs.data))
    np.testing.assert_allclose(programs.starter.points(after.state).params, 1.0, rtol=1e-5)


def test_seeds_are_a_number_or_a_choice():
    assert runs_of({"a": "sgd"}, seeds=3)[0].seeds == (0, 1, 2)
    assert runs_of({"a": "sgd"}, seeds=[7, np.int64(2)])[0].seeds == (7, 2)
    assert runs_of({"a": "sgd"}, seeds=np.arange(2, 4))[0].seeds == (2, 3)
    assert runs_of({"a": "sgd"}, seeds=np.asarray(2))[0].seeds == (0, 1)


def identity(given, name="a", **options):
    (run,) = runs_of({name: given}, **options)
    return run.identity


def test_everything_that_decides_a_result_is_in_a_runs_identity():
    base = identity("hj")
    assert base == identity("hj", seeds=5)  # seeds are checked apart
    others = [
        identity("sgd"),
        identity(algorithm("hj", gamma=2.0)),
        identity("hj", budget=Budget(40, 1)),
        identity("hj", budget=Budget(20, 2)),
        identity("elastic_sgd", replicas=2),
        identity("elastic_sgd", replicas=3),
    ]
    assert len({repr(other) for other in [base, *others]}) == 7


def rate(value):
    return optax.sgd(value)


@pytest.mark.parametrize("name", ["a", "adamw", "sgd"])  # also called like one of the registry
def test_a_transformation_is_identified_by_what_it_computes(name):
    first = identity(optax.sgd(0.1), name)
    assert first == identity(optax.sgd(0.1), name)
    assert first != identity(optax.sgd(0.2), name)
    assert first != identity(optax.sgd(optax.cosine_decay_schedule(0.1, 10)), name)
    assert first != identity("sgd", name)
    assert "digest" in first["algorithm"]
    assert "digest" not in identity("sgd")["algorithm"]


def test_a_users_own_algorithm_with_replicas_is_identified_too():
    def coupled(learning_rate, gamma, axis_name, *, factor=1.0):
        return optax.chain(
            optax.scale(factor), entropix.elastic_sgd(learning_rate, gamma, axis_name)
        )

    def other(learning_rate, gamma, axis_name, *, factor=1.0):
        return optax.chain(optax.scale(-factor), coupled(learning_rate, gamma, axis_name))

    made = [
        identity(Algorithm("mine", make, replicated=True, defaults={"gamma": 1.0}), replicas=2)
        for make in (coupled, coupled, other)
    ]
    assert made[0] == made[1] != made[2]


def test_the_scope_of_a_run_is_a_schedule_of_outer_steps():
    (run,) = runs_of({"a": algorithm("hj", gamma=4.0, scoping_rate=0.5)})
    assert [float(run.method().gamma(jnp.asarray(k))) for k in range(3)] == [4.0, 2.0, 1.0]
    assert runs_of({"a": "sgd"})[0].method().gamma is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (optax.lion(1e-2, b2=0.99), optax.lion(1e-2, b2=0.1)),
        (optax.rprop(1e-2, eta_minus=0.5), optax.rprop(1e-2, eta_minus=0.1)),
        (optax.contrib.adopt(1e-2, b2=0.9), optax.contrib.adopt(1e-2, b2=0.5)),
    ],
    ids=["lion", "rprop", "adopt"],
)
def test_an_identity_has_what_acts_from_the_second_step_on(one, other):
    assert identity(one) == identity(one)
    assert identity(one) != identity(other)


def test_a_runs_name_is_not_that_of_a_folder_of_seeds():
    """Reports would take the run for seeds of another that were added later."""
    with pytest.raises(ValueError, match=r"a run must be called by a name unlike 'seeds_\*'"):
        make_config(
            dataset="digits", model={"name": "mlp"}, optimizers={"seeds_few": {"algorithm": "sgd"}}
        )


def test_a_module_of_pythons_in_the_place_of_ones_own_is_named():
    """A file `code.py` beside a config: Python finds its own `code`, without the function."""
    with pytest.raises(ValueError, match=r"no attribute 'make'\). The module is .*code\.py: where"):
        import_function("code:make")
    with pytest.raises(ValueError, match=r"No module named 'nowhere'.*--register=FILE"):
        import_function("nowhere:make")
