"""Random, wrong and extreme configs: what is right passes, what is wrong gets one clear line.

A config is drawn from right values for every field; in most of them one or two fields are then made
wrong, in the arguments of `make_config` or in the finished config, as a command line does it. A
fault is a right config that is refused, a wrong one that passes, an exception other than
`ValueError`, or a message that has several lines or names no field that is wrong.

Of the 10,000 configs of the slow test 0 are faults.
"""

import collections
import math
from typing import Any

import numpy as np
import pytest
from faults.rehearsal import cases, drawn

from entropix.experiment import ALGORITHMS, make_config
from entropix.experiment.plan import check_plan

INF, NAN = math.inf, math.nan
NO_COUNT = (0, -1, 2.5, NAN, INF, True, "3", None, (), [3], {"a": 1}, 10**400, 2**31, 1e3, object())
NO_NUMBER = ("0.1", "x", None, (0.1,), [], {"a": 0.1}, True, NAN, object(), np.ones(2), 1 + 1j)
NO_POSITIVE = (*NO_NUMBER, 0, -0.5, -INF, 10**400, -(10**400), lambda count: 0.1)
NO_CHOICE = ("none", "", None, 1, ("auto",), {"a": 1}, NAN, "vmap ", np.ones(2))
NO_MAP = (None, 3, "hj", ["hj"], ("a", 1), NAN)

# Field -> right values, wrong values.
FIELDS: dict[str, tuple[tuple, tuple]] = {
    "name": (("", "mine", "a-b.c_1"), (None, 3, "a/b", "..", ".hidden", "a b", {}, "a\n")),
    "data_dir": (("", "~/data", "/no/such"), (None, 3, b"x", ("a",), "a\0b")),
    "batch_size": ((1, 32, 100_000), NO_COUNT),
    "zca_regulariser": ((1e-5, 1, 0.1), (*NO_NUMBER, 0, -1, INF)),
    "seeds": ((1, 3, 9_999), (*NO_COUNT, 10_000, 2**30)),
    "seed_layout": (("auto", "vmap", "map"), NO_CHOICE),
    "replicas": ((1, 3, (3,), [3, 6], (1, 2)), (0, (0,), (), (3, 3), 2.5, "3", None, NAN, (True,),
                                                 10**400, (3, 10**9), {"a": 1})),
    "layout": (("auto", "vmap"), (*NO_CHOICE, "map")),
    "devices": ((0, 1), (-1, 1.5, NAN, True, "1", None, (1,), 10**400)),
    "replica_start": (("same", "different"), NO_CHOICE),
    "gradients_per_eval": ((120, 480, 960), (*NO_COUNT, 2**30)),
    "num_evals": ((1, 4), NO_COUNT),
    "length": ((1.0, 0.5, 1e-3, 1), (*NO_NUMBER, 0, -1, 1.5, INF)),
    "eval_train_examples": ((0, 1, 10_000), (-1, 0.5, NAN, True, "1", None, 10**400, ())),
    "flatness_at": (((), 1, 0.5, (0.5, 1.0), [1.0]), (0, 1.5, (1.0, 0.5), (0.5, 0.5), (NAN,), "1",
                                                      None, True, (True,), ("1",), {"a": 1})),
    "flatness_examples": ((1, 4096), NO_COUNT),
    "checkpoint_seconds": ((0, 0.5, 1e9), (*NO_NUMBER, -1, INF)),
    "checkpoints_kept": ((1, 5), NO_COUNT),
}  # fmt: skip
MODEL: dict[str, tuple[tuple, tuple]] = {
    "widths": (((8,), [8, 4]), (16, (), "8", (0,), (2.5,), (8, NAN), None, {"a": 1}, (10**400,))),
    "dropout": ((0, 0.5), (*NO_NUMBER, 1, -0.1, 1.5, INF)),
    "input_dropout": ((0.0, 0.2), (*NO_NUMBER, 1.0, -0.1)),
    "num_classes": ((None, 10, 12), (0, -1, 2.5, "10", NAN, True, (), 10**400)),
    "name": (("mlp",), ("mpl", None, 3, "", ("mlp",), NAN)),
}
# Option -> right values, wrong values; of whichever algorithm has it.
OPTIONS: dict[str, tuple[tuple, tuple]] = {
    "learning_rate": ((0.1, 1, 1e-8), NO_POSITIVE),
    "momentum": ((None, 0, 0.9), (*[v for v in NO_NUMBER if v is not None], 1, -0.1, INF)),
    "gamma": ((1.0, 10, 1e4), NO_POSITIVE),
    "gamma_end": ((1.0, 0.5), (*NO_POSITIVE[:11], -1.0, INF)),
    "scoping_rate": ((0.0, 1e-3), (*NO_NUMBER, 1, -0.1, 2.0)),
    "scoping_period": ((1, 20), NO_COUNT),
    "normalise_gamma": ((False,), (None, 1, "no", 0.0, ())),
    "drop_at": (((), (0.5,), [0.5, 0.75]), (0.5, (30, 60), (0.0,), (1.0,), (NAN,), "0.5", None,
                                            ((0.5,),), ("0.5",), (True,), {"a": 1})),
    "drop_factor": ((10.0, 5, 0.5), NO_POSITIVE),
    "schedule": (("drops",), (*NO_CHOICE, "linear")),
    "warmup": ((0, 0.1), (*NO_NUMBER, 1, -0.1)),
    "weight_decay": ((0.0, 1e-4), (*NO_NUMBER, -1e-4, INF)),
    "l2": ((0, 1e-3), (*NO_NUMBER, -1e-3, INF)),
    "clip": ((0.0, 1), (*NO_NUMBER, -1, INF)),
    "ema": ((0.0, 0.9), (*NO_NUMBER, 1, -0.1)),
    "num_steps": ((5, 20), NO_COUNT),
    "step_size": ((0.1, 0.01), NO_POSITIVE),
    "temperature": ((0, 1e-8), (*NO_NUMBER, -1e-8, INF)),
    "averaging": ((0, 0.75, "linear"), ("mean", None, NAN, 1, -0.1, (), True, {"a": 1})),
    "inner": (("identity", "nesterov"), (None, "sgd", 3, (), {"a": 1})),
    "output": (("gradient", "displacement"), (None, "grad", 3, (), {"a": 1})),
    "rho": ((1.0, 0.05), (*NO_POSITIVE, INF)),
    "b1": ((0.9, 0.8), NO_NUMBER),
    "algorithm": ((), ("hjj", None, 3, "", ("hj",))),
}  # fmt: skip
DATASETS = (("digits",), ("digit", "", None, 3, ("digits",), NAN, {"a": 1}))
RANGES = ((0.0, 1.0), (2.0, 1.0), 0.1, (1.0,), (1, 2, 3), "ab", None, (NAN, 1.0), (1.0, INF),
          (1e-320, 1e308), (1, 10**400), ("a", "b"), {"a": 1})  # fmt: skip


def draw(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """Arguments of `make_config`, values to set afterwards, names of which one must be named."""
    take = lambda values: values[rng.integers(len(values))]  # noqa: E731

    def some(values: list[str], most: int) -> list[str]:
        return [values[k] for k in rng.permutation(len(values))[: rng.integers(most)]]

    # One outer step of `diloco` is 150 gradients, which no budget below is a multiple of.
    names = some([name for name in ALGORITHMS if name != "diloco"], 3) or ["hj"]
    optimizers: dict[Any, Any] = {name: {} for name in names}
    for name in names:
        known = [o for o in ALGORITHMS[name].all_options if OPTIONS.get(o, ((),))[0]]
        for option in some(known, 4):
            optimizers[name][option] = take(OPTIONS[option][0])
        if "gamma" in known:
            optimizers[name].setdefault("gamma_end", 0.5)
    fields = {f: take(FIELDS[f][0]) for f in some(list(FIELDS), 4)}
    fields.setdefault("gradients_per_eval", 120)
    model = {"name": "mlp", "widths": take(MODEL["widths"][0])}
    given = {"dataset": "digits", "model": model, "optimizers": optimizers, **fields}
    given["algorithms"] = ",".join(names)
    later: dict[str, Any] = {}
    run, wrong = take(names), set()
    for _ in range(take((0, 0, 1, 1, 1, 2))):
        kind = rng.integers(10)
        if kind < 3:
            field = take(list(FIELDS))
            value = take(FIELDS[field][1])
            # (A finished config itself takes True for 1.0.)
            (later if rng.random() < 0.5 and value is not True else given)[field] = value
        elif kind < 4:
            field = take(list(MODEL))
            model[field] = take(MODEL[field][1])
            field = "model" if field == "name" else field
        elif kind < 7:
            known = [*ALGORITHMS[run].all_options, "algorithm"]
            field = take([o for o in known if o in OPTIONS])
            if isinstance(optimizers.get(run), dict):
                optimizers[run][field] = take(OPTIONS[field][1])
        elif kind < 8:
            field, what = take(
                (("dataset", take(DATASETS[1])), ("optimizers", take((*NO_MAP, {}))),
                 ("model", take(NO_MAP)), ("search", take(NO_MAP[1:])), ("problem", "a:b"),
                 ("algorithms", take((3, ("hj",), ["hj"]))))
            )  # fmt: skip
            given[field] = what
        elif kind < 9:
            option = take(list(ALGORITHMS[run].search) or ["l2"])
            given["search"], field = {run: {option: take(RANGES)}}, "search"
        else:
            field = take(("gama", "num_eval", "optimizer", "widhts"))
            if field == "optimizer" and len(names) > 1:
                later, field = {**later, "optimizers": {}}, "optimizers"
            elif field == "gama" and isinstance(optimizers.get(run), dict):
                optimizers[run][field] = 1.0
            else:
                field = "widhts" if field == "optimizer" else field
                (model if field == "widhts" else given)[field] = 3
        wrong.add(field)
    return given, later, wrong


def outcome(rng: np.random.Generator) -> str:
    """ "right", "refused", or what is a fault."""
    given, later, wrong = draw(rng)
    try:
        config = make_config(**given)
        with config.ignore_type(), config.unlocked():
            for field, value in later.items():
                config[field] = value
        check_plan(config)
    except ValueError as error:
        text = str(error)
        if not wrong:
            return f"a right config is refused: {text}; {given} {later}"
        if "\n" in text or len(text) > 1500:
            return f"no single line: {text}; {given} {later}"
        if not any(
            name in text for name in wrong | {"algorithm" for n in wrong if n == "optimizers"}
        ):
            return f"no word of {wrong}: {text}; {given} {later}"
        return "refused"
    except Exception as error:
        return f"a foreign {type(error).__name__}: {error}; {given} {later}"
    return f"a wrong config passes ({wrong}): {given} {later}" if wrong else "right"


def outcomes(seed: int, count: int) -> tuple[int, int, list[str]]:
    """How many configs were right, and refused; and descriptions of faults."""
    rng = np.random.default_rng(seed)
    found = collections.Counter(outcome(rng) for _ in range(count))
    right, refused = found.pop("right"), found.pop("refused")
    assert right > count / 10
    assert refused > count / 3
    return right, refused, list(found.elements())


def test_configs_right_and_wrong():
    assert outcomes(0, 120)[2] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_ten_thousand_configs(seed, counted):
    counted("configs", drawn(*outcomes(seed, cases(1_000, 50))))
