"""A checkpoint's record comes back as it was, or is refused in a sentence."""

import json

import pytest

from entropix.rows import Measurement, Row
from entropix.runs.record import Failure, Record


def row(**changes):
    fields = {
        "run": "hj", "algorithm": "hj", "label": "HJ", "seed": 0, "replicas": 1, "num_steps": 5,
        "gradients": 60, "gradients_per_replica": 60, "effective_epochs": None, "outer_steps": 12,
        "gamma": None, "seconds_per_gradient": 1e-3, "minibatch_loss": 0.3,
        "measures": {"val_error": Measurement(3.5, "%"), "val_loss": Measurement(None, "nats")},
    }  # fmt: skip
    return Row(**fields | changes)


RECORD = Record(
    replicas=3, gradients=60, since_eval=2, seconds=1.5, seed_steps=4, rows=[row()],
    failures=[Failure("hj", 1, 7, None, 5), Failure("hj", 2, 7, 3, 5)],
)  # fmt: skip


def test_a_record_comes_back():
    saved = json.loads(json.dumps(RECORD.to_dict()))
    assert Record.from_dict(saved) == RECORD
    assert RECORD.failed() == {1, 2}


def changed(**fields):
    return RECORD.to_dict() | fields


def with_row(**fields):
    return changed(rows=[json.loads(row().to_json()) | fields])


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ({}, "rows"),
        ({"step": 3, "rows": [], "failures": []}, "step"),
        (changed(extra=1), "extra"),
        (changed(rows=3), "int"),
        (changed(rows=[{"algorithm": "sgd", "seed": 0}]), "it differs in the fields"),
        (changed(failures=[{}]), "Failure"),
        (changed(failures=[RECORD.failures[0]._asdict() | {"seed": "../x"}]), "failures"),
        (changed(failures=[RECORD.failures[0]._asdict() | {"run": 3}]), "failures"),
        (changed(replicas="3"), "replicas"),
        (changed(replicas=0), "replicas"),
        (changed(replicas=True), "replicas"),
        (changed(gradients=-1), "gradients"),
        (changed(gradients=1.5), "gradients"),
        (changed(gradients=10**30), "gradients"),
        (changed(since_eval=None), "since_eval"),
        (changed(seconds=float("nan")), "seconds"),
        (changed(seconds="1"), "seconds"),
        (changed(seed_steps=[]), "seed_steps"),
        (with_row(seed="../../x"), "seed"),
        (with_row(seed=1.5), "seed"),
        (with_row(seed=True), "seed"),
        (with_row(gradients="1"), "gradients"),
        (with_row(measures={"val_error": [1, 2, 3, 4]}), "triples"),
        (with_row(measures=[]), "measures"),
    ],
)
def test_what_is_no_record_is_refused_in_a_sentence(record, what):
    with pytest.raises(ValueError, match=f"not one of this version of entropix .*{what}"):
        Record.from_dict(record)


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        (3, "its loss is not finite: outer step 7, inner step 3 of 5"),
        (5, "its parameters are not finite: outer step 7, the move of x"),
        (None, "a measure at x is not finite: outer step 7, its evaluation"),
    ],
)
def test_a_failure_says_where(inner, said):
    assert said in str(Failure("hj", 1, 7, inner, 5))


def test_a_failure_of_a_measure_names_the_measure():
    told = str(Failure("hj", 1, 7, None, 5, "val_recall"))
    assert "because val_recall at x is not finite" in told
    assert "may not be defined on every batch (see eval_batch_size)" in told
