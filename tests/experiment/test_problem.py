"""A problem says who it is: everything that decides a result changes its identity."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from small import arrays, line, one_run, squares

from entropix.experiment import Budget, Measure, Problem, load, train
from entropix.experiment.fingerprint import digest_program
from entropix.runs.train import train_run


def scaled(factor, compiled=False):
    """A loss with a constant array in it, inside a compiled function or not."""
    weights = jnp.full(8, factor)

    def loss(params, model_state, batch, key):
        prediction = batch["x"] @ params["w"] + params["b"]
        return jnp.mean(weights * (prediction - batch["y"]) ** 2), model_state

    return jax.jit(loss) if compiled else loss


def doubled(key):
    return {"w": 2 * jax.random.normal(key, (3,)), "b": jnp.zeros(())}, {"mean": jnp.zeros(3)}


def first_ones(key, data):
    return jax.tree.map(lambda leaf: leaf[:8], data)


def frozen(params, model_state, batch, key):
    """The loss of `scaled(1.0)`, whose gradient leaves w alone."""
    resting = {**params, "w": jax.lax.stop_gradient(params["w"])}
    return scaled(1.0)(resting, model_state, batch, key)


CHANGES = {
    "name": {"name": "other"},
    "arguments": {"arguments": {"width": 3}},
    "batch_size": {"batch_size": 4},
    "values": {"data": arrays(2)},
    "number of examples": {"data": arrays(0, 95)},
    "validation": {"validation": arrays(2, 40)},
    "no validation": {"validation": None},
    "loss": {"loss": scaled(1.0)},
    "a gradient": {"loss": frozen},
    "another constant": {"loss": scaled(2.0)},
    "compiled": {"loss": scaled(1.0, compiled=True)},
    "another constant, compiled": {"loss": scaled(2.0, compiled=True)},
    "initial values": {"init": doubled},
    "sample": {"sample": first_ones},
    "measures": {"measures": {"loss": squares}},
    "a measure's function": {
        "measures": line().measures | {"error": lambda p, s, b: 2 * squares(p, s, b)}
    },
    "a unit": {"measures": line().measures | {"loss": (squares, "lower", "bits")}},
    "estimate": {"estimate": lambda p, s, b: {"mean": jnp.mean(b["x"], axis=0)}},
    "digest": {"digest": "mine"},
}


def test_all_that_decides_a_result_is_in_the_identity():
    identities = {name: line(**changes).identity for name, changes in CHANGES.items()}
    identities["none"] = line().identity
    distinct = {repr(identity) for identity in identities.values()}
    assert len(distinct) == len(identities)


@pytest.mark.parametrize("compiled", [False, True])
def test_equal_problems_have_one_identity(compiled):
    first, second = (line(loss=scaled(1.0, compiled)).identity for _ in range(2))
    assert first == second
    assert set(first) == {"name", "arguments", "digest", "batch_size", "measures"}


def test_numpy_and_jax_arrays_are_the_same_data():
    on_device = jax.tree.map(jnp.asarray, arrays(0))
    assert line(data=on_device).identity == line().identity


def test_an_identity_is_the_same_in_another_process():
    program = "from small import line; print(line().identity['digest'])"
    folder = os.path.dirname(os.path.dirname(__file__))
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": f"{folder}:{os.getcwd()}"},
    )  # fmt: skip
    assert found.stdout.strip() == line().identity["digest"]


def test_the_digest_of_a_program_is_of_what_it_computes():
    x = jax.ShapeDtypeStruct((3,), jnp.float32)

    def make(constant):
        values = jnp.full(3, constant)
        inner = jax.jit(lambda v: jax.lax.scan(lambda s, _: (s * values, None), v, length=2)[0])
        return lambda v: jax.grad(lambda u: inner(u).sum())(v)

    assert digest_program(make(2.0), x) == digest_program(make(2.0), x)
    assert digest_program(make(2.0), x) != digest_program(make(3.0), x)


def called_back(call, constant):
    """A measure that Python computes."""

    def measure(params, model_state, batch):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return call(lambda b: np.float32(constant * b), shape, params["b"])

    return measure


@pytest.mark.parametrize("call", [jax.pure_callback, jax.experimental.io_callback])
def test_what_python_computes_has_no_digest(call):
    """Two functions, one text: a folder of one answered for the other."""
    measures = {"loss": squares, "python": called_back(call, 2.0)}
    with pytest.raises(ValueError, match=rf"Python by {call.__name__}, .*Problem\(digest=\.\.\.\)"):
        _ = line(measures=measures).identity
    assert line(measures=measures, digest="twice b").identity["digest"] == "twice b"
    trained = line(loss=lambda p, s, b, key: (called_back(call, 2.0)(p, s, b), s))
    with pytest.raises(ValueError, match=rf"Python by {call.__name__}, .*Problem\(digest=\.\.\.\)"):
        _ = trained.identity


def test_printing_changes_no_result_and_no_digest_is_refused_for_it():
    def shown(params, model_state, batch):
        jax.debug.callback(lambda b: None, params["b"])
        return squares(params, model_state, batch)

    assert len(line(measures={"loss": shown}).identity["digest"]) == 16


class Loader:
    """Batches on the host."""

    def __init__(self, batch_size=8, batches=3):
        self.size, self.batches = batch_size, batches

    def __iter__(self):
        data = arrays(0)
        for k in range(self.batches):
            yield {n: a[k * self.size : (k + 1) * self.size] for n, a in data.items()}


class Always:
    """One batch for ever."""

    def __init__(self, batch):
        self.batch = batch

    def __iter__(self):
        while True:
            yield self.batch


def test_where_the_data_are():
    problem = line()
    assert (problem.on_host, problem.num_examples) == (False, 96)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(problem.data))
    loader = line(data=Loader())
    assert (loader.on_host, loader.num_examples) == (True, None)
    assert isinstance(loader.data, Loader)
    assert loader.first_batch() == problem.first_batch()


# A loss that takes any data.
CONSTANT = {
    "loss": lambda p, s, batch, key: (jnp.zeros(()), s), "measures": {}, "validation": None
}  # fmt: skip


def test_a_list_of_batches_is_a_loader(tmp_path):
    batches = list(Loader())
    problem, loader = line(data=batches), line(data=Loader())
    assert (problem.on_host, problem.num_examples) == (True, None)
    assert problem.first_batch() == loader.first_batch()
    rows = [
        train(p, "sgd", budget=Budget(6, 2), seeds=1, workdir=tmp_path / n, progress=False)
        for n, p in (("list", problem), ("loader", loader))
    ]
    assert [row.measures for row in rows[0]] == [row.measures for row in rows[1]]
    assert line(data=batches[::-1]).identity != problem.identity != loader.identity
    together = line(data=tuple(batches), **CONSTANT)
    assert (together.on_host, together.num_examples) == (False, 8)


def test_a_smaller_batch_in_a_list_is_named():
    batches = [(np.ones((size, 3)), np.ones(size)) for size in (8, 8, 5)]
    with pytest.raises(
        ValueError, match=r"\(5, 3\) in one\. Leave out a last batch that is smaller"
    ):
        line(data=batches)


def test_batches_are_uniform_with_replacement():
    data = {"x": np.arange(50.0), "y": 2 * np.arange(50.0)}
    problem = line(data=data, batch_size=20_000, **CONSTANT)
    batch = problem.draw(jax.random.key(0), problem.data)
    np.testing.assert_array_equal(batch["y"], 2 * batch["x"])
    counts = np.bincount(np.asarray(batch["x"], int), minlength=50)
    assert counts.min() > 300  # 400 expected, standard deviation 20
    assert counts.max() < 500


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name must be the problem's name; got name=''"),
        ({"loss": 3}, "loss must be a function.*got loss=3"),
        ({"init": None}, "init must be a function"),
        ({"batch_size": 0}, "batch_size must be a static integer >= 1"),
        ({"measures": {"loss": 3}}, r"measures\['loss'\] must be \(function"),
        ({"measures": {"loss": (squares, "less")}}, "'lower' or 'higher'; got .*='less'"),
        *(
            (
                {"eval_batch_size": n},
                "eval_batch_size must be an integer >= 1, or 0 for .*; got eval",
            )
            for n in (-1, 2.5, "a", True)
        ),
        *(
            ({"measures": given}, "measures must be a dictionary, name -> Measure; got measures=")
            for given in (["loss"], squares, "loss")
        ),
        *(
            ({"measures": {"loss": given}}, r"measures\['loss'\] must be \(function")
            for given in ((), (squares, "lower", "", 4))
        ),
        *(
            ({part: 5}, f"{part} must be a function or None.*got {part}=5")
            for part in ("sample", "estimate", "apply")
        ),
        ({"data": "digits"}, "data must be a pytree of arrays .* or a loader of batches"),
        ({"data": 3.0}, "data must be a pytree of arrays"),
        ({"data": iter([1])}, "or a loader of batches; got .*which can be read once. Give what"),
        ({"data": (b for b in Loader())}, "which can be read once"),
        ({"data": Loader(), "ordered": True}, "ordered must be False with batches on the host"),
        ({"ordered": 1}, "ordered must be True or False; got ordered=1"),
        ({"data": {"x": np.zeros(3), "y": np.zeros(4)}}, r"number of examples.* got \[3, 4\]"),
        ({"data": {"x": np.zeros((0, 3))}}, r"number of examples, >= 1.* got \[0\]"),
        ({"data": {"x": np.zeros(())}}, "data must be arrays with a leading axis"),
        (
            {"data": {"x": np.full(9, 2**40)}},
            "data must have whole numbers.*got 1099",
        ),
        (
            {"validation": {"x": np.full(9, -(2**31) - 1)}},
            "validation must .*got -2147483649",
        ),
        (
            {"data": {"x": np.full(9, 2**32 - 1, np.uint64), "y": np.full(9, 2**32, np.uint64)}},
            r"in \[0, 4294967295\], which uint32 holds; got 4294967296",
        ),
        ({"data": np.ma.masked_less(np.arange(9.0), 3)}, "no masked values; got 3 of them"),
        ({"data": {"x": np.asarray(["a", "b"])}}, "data must have arrays of numbers; got .*<U1"),
        (
            {"data": np.zeros(9, [("x", "f4")])},
            r"arrays of numbers; got one of dtype \[\('x', '<f4",
        ),
        ({"validation": {"x": np.float32(1)}}, "validation must be arrays with a leading axis"),
        ({"data": pd.DataFrame({"x": [1.0, 2.0]})}, "Make arrays of numbers, with np.asarray"),
    ],
)
def test_what_is_no_problem_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        line(**changes)


def state_of(change):
    """A loss whose model state differs from that of `init`."""
    return lambda p, s, batch, key: (squares(p, s, batch), change(s["mean"]))


WRONG = {
    "init, params alone": ({"init": lambda key: {"w": jnp.zeros(3)}},
                           r"init must return \(params, model_state\); got a dict .*is \(\)"),
    "loss alone": ({"loss": lambda p, s, batch, key: squares(p, s, batch)},
                   r"loss must return \(loss, model_state\); got float32 of shape \(\)"),
    "losses": ({"loss": lambda p, s, batch, key: (batch["y"], s)},
               r"first is one real number.*; got float32 of shape \(8,\)"),
    "state's structure": ({"loss": state_of(lambda mean: (mean,))},
                          "loss must return a model_state like that of init, of structure .*mean"),
    "state's shape": ({"loss": state_of(lambda mean: {"mean": mean[:2]})},
                      r"at \['mean'\], expected float32 of shape \(3,\); got .* \(2,\)"),
    "state's dtype": ({"loss": state_of(lambda mean: {"mean": mean.astype(int)})},
                      r"at \['mean'\], expected float32 .*; got int32"),
    "estimate": ({"estimate": lambda p, s, batch: ()}, "estimate must return a model_state like"),
    "a vector": ({"measures": {"all": lambda p, s, batch: batch["y"]}},
                 r"measures\['all'\] must return one real number.*float32 of shape \(8,\)"),
    "figures": ({"measures": {"all": lambda p, s, batch: {"a": squares(p, s, batch)}}},
                r"measures\['all'\] must return one real number.*; got a dict .*for each figure"),
    "a loss that fails": ({"loss": lambda p, s, batch, key: (batch["z"], s)},
                          r"loss failed on a mini-batch of data, of shapes \(8, 3\), \(8,\) "
                          r"\(KeyError: 'z'\)"),
    "a measure that fails": ({"validation": {"x": np.zeros((40, 2)), "y": np.zeros(40)}},
                             r"measures\[.*\] failed on examples of validation, of shapes "
                             r"\(8, 2\), \(8,\) \(TypeError: "),
    "nothing to move": ({"init": lambda key: (jnp.zeros(3, int), ())},
                        r"parameters of which some are real.*int32 of shape \(3,\)\. Write 0\.0"),
    "no parameters": ({"init": lambda key: ({}, ())}, "parameters of which some are real numbers"),
    "init that fails": ({"init": lambda key: 1 / 0}, r"init failed \(ZeroDivisionError: divi"),
    "estimate that fails": ({"estimate": lambda p, s, batch: s["median"]},
                            r"estimate failed on examples of data.*KeyError: 'median'"),
    "validation, one array": ({"validation": arrays(1, 40)["x"]}, "validation must have the str"),
    "validation": ({"validation": tuple(arrays(1, 40).values())},
                   "validation must have the structure of data, .*x.*; got .*All measures see"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_functions_of_the_wrong_form_are_refused(case):
    changes, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        line(**changes)
    on_host = line(**changes, data=Loader())
    with pytest.raises(ValueError, match=message):
        on_host.first_batch()


def test_lists_are_as_good_as_tuples():
    """Loaders of torch give lists."""
    two = [arrays(0)["x"], arrays(0)["y"]]

    def loss(params, model_state, batch, key):
        x, y = batch
        return squares(params, None, {"x": x, "y": y}), model_state

    assert line(data=tuple(two), validation=two, loss=loss, measures={}).num_examples == 96


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (Loader(batch_size=4), "batch_size must be .*4, 3.*got batch_size=8"),
        (Loader(batches=0), r"data, a loader, must have a batch.*none from iter\(Loader\)"),
        (Always({"id": ["a"] * 8}), r"a loader's batch must .*got 'a' at \['id'\]\[0\]\. Make"),
        (Always(3.0), "got 3.0 at its top"),
        (Always({"id": np.asarray(["a"] * 8)}), "a loader's batch must have arrays of numbers"),
    ],
)
def test_a_loaders_batches_have_the_form_that_the_problem_says(loader, message):
    problem = line(data=loader)
    with pytest.raises(ValueError, match=message):
        problem.first_batch()


def test_measures_are_written_as_tuples_or_functions():
    problem = line(measures={"loss": squares, "accuracy": (squares, "higher", "%")})
    assert problem.measures == {
        "loss": Measure(squares, "lower", ""), "accuracy": Measure(squares, "higher", "%")
    }  # fmt: skip
    assert isinstance(dataclasses.replace(problem, name="other"), Problem)


def test_a_sample_of_another_structure_is_for_the_loss_alone(tmp_path):
    """A batch of tuples from data in a dictionary; measures and estimates see dictionaries."""

    def sample(key, data):
        chosen = jax.random.randint(key, (8,), 0, len(data["x"]))
        return data["x"][chosen], data["y"][chosen]

    def loss(params, state, batch, key):
        x, y = batch
        return squares(params, None, {"x": x, "y": y}), state

    def estimate(params, state, batch):
        return {"mean": jnp.mean(batch["x"], axis=0)}

    problem = line(sample=sample, loss=loss, estimate=estimate)
    run = one_run("sgd", problem, budget=(4, 1), seeds=1)
    (row,) = train_run(run, tmp_path, progress=False)
    trained = load(tmp_path, seed=0, run=run)
    expected = squares(trained.params, None, problem.validation)
    np.testing.assert_allclose(row["val_loss"], expected, rtol=1e-5)
    mean = np.mean(np.reshape(problem.data["x"], (-1, 3)), axis=0)
    np.testing.assert_allclose(trained.model_state["mean"], mean, atol=1e-6)
    with pytest.raises(ValueError, match="estimate failed on examples of data"):
        line(sample=sample, loss=loss, estimate=lambda params, state, batch: {"mean": batch[0]})


def test_without_measures_the_loss_is_measured():
    problem = line(measures={})
    params, state = problem.init(jax.random.key(0))
    batch = jax.tree.map(lambda leaf: leaf[:8], problem.data)
    measured = problem.measures["loss"].function(params, state, batch)
    assert measured == problem.loss(params, state, batch, jax.random.key(0))[0]
    assert problem.measures["loss"].better == "lower"


def test_a_problem_is_shown_without_its_data():
    problem = line()
    assert problem.name in repr(problem)
    assert "Array" not in repr(problem)


def test_a_problem_with_another_loss_measures_that_loss():
    """`dataclasses.replace` hands the measures on, and the loss was the measure by default."""
    first = line(measures={}, loss=scaled(1.0))
    other = dataclasses.replace(first, loss=scaled(3.0))
    params, state = first.init(jax.random.key(0))
    batch = jax.tree.map(lambda leaf: leaf[:8], first.data)
    values = [p.measures["loss"].function(params, state, batch) for p in (first, other)]
    np.testing.assert_allclose(values[1], 3 * values[0], rtol=1e-6)
