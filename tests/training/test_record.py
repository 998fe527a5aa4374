import math

import pytest
from entropix.training.record import make_record, read_choice, write_record

TRIED = {
    "sgd": [{"learning_rate": 0.1, "val_error": 2.5, "val_loss": 0.1}] * 30,
    "heat": [
        {"learning_rate": 0.2, "gamma": 1.5, "temperature": 1e-5, "val_error": 3, "val_loss": 0.2},
        dict.fromkeys(("learning_rate", "gamma", "temperature"), 1.0)
        | dict.fromkeys(("val_error", "val_loss"), math.inf),
    ],
}
EFFORT = "30 trials per algorithm, each with 60 gradient evaluations and 1 seed, " * 2
RECORD = make_record(TRIED, EFFORT, "entropix tune --config=mine.py " + "--config.seeds=1 " * 9)
CODE = b"\n\nimport x\n\nNAMES = '''\xc3\xa9 \"quoted\"'''  \n# \t no newline at the end"


def write(path, header=b'"""Mine."""', newline=b"\n"):
    path.write_bytes(
        (b'# a comment with three """ quotes\n' + header + CODE).replace(b"\n", newline)
    )
    path.chmod(0o640)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("header", [b'"""Mine."""', b'r"""Mine.\n\n    a \\table\n"""'])
def test_the_code_is_kept_and_writing_again_changes_nothing(tmp_path, header, newline):
    path = tmp_path / "mine.py"
    write(path, header, newline)
    write_record(path, RECORD)
    once = path.read_bytes()
    assert once.endswith(CODE.replace(b"\n", newline))
    assert header.rstrip(b'"\n').replace(b"\n", newline) + 2 * newline + b"Tuning record" in once
    assert once.count(newline) == once.count(b"\n")
    assert path.stat().st_mode & 0o777 == 0o640
    write_record(path, RECORD)
    assert path.read_bytes() == once
    assert list(tmp_path.iterdir()) == [path]


def test_a_newer_record_replaces_an_older(tmp_path):
    path = tmp_path / "mine.py"
    write(path)
    write_record(path, RECORD)
    newer = make_record({"hj": TRIED["sgd"]}, EFFORT, "entropix tune")
    write_record(path, newer)
    assert read_choice(path) == {"hj": {"learning_rate": 0.1}}
    assert b"temperature" not in path.read_bytes()


def test_the_choice_is_read_back(tmp_path):
    path = tmp_path / "mine.py"
    write(path)
    assert read_choice(path) == {}
    write_record(path, RECORD)
    heat = {"learning_rate": 0.2, "gamma": 1.5, "temperature": 1e-5}
    assert read_choice(path) == {"sgd": {"learning_rate": 0.1}, "heat": heat}


def test_the_record_holds_all_trials_in_narrow_lines():
    assert RECORD.count("0.1: 2.50") == 30
    assert "1, 1, 1: inf" in RECORD
    assert max(map(len, RECORD.splitlines())) <= 100


@pytest.mark.parametrize("header", [b"", b"'''Mine.'''", b'"Mine."', b"x = 1"])
def test_a_file_without_such_a_docstring_is_refused(tmp_path, header):
    path = tmp_path / "mine.py"
    write(path, header)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="three double quotes"):
        write_record(path, RECORD)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ['"""', "a\\\\b"])
def test_a_record_that_would_break_the_docstring_is_refused(tmp_path, name):
    path = tmp_path / "mine.py"
    write(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="quotes or backslashes"):
        write_record(path, make_record(TRIED, EFFORT, f"entropix tune --config={name}.py"))
    assert path.read_bytes() == before
