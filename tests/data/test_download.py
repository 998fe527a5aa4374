"""Data sets that are not there: what is searched, asked and said, and how soon."""

import importlib.util
import json
import re
import time

import pytest
import requests

from entropix.cli import main
from entropix.data import DataNotFoundError, UnreadableDataError, download, load
from entropix.data.download import locate, probe
from entropix.data.prepared import find_prepared, search_folders


def test_no_network_and_no_copy_is_one_sentence_at_once(tmp_path):
    start = time.perf_counter()
    with pytest.raises(DataNotFoundError) as caught:
        load("mnist", tmp_path)
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert str(tmp_path / "mnist") in message
    assert "no network" in message
    for way_out in ("--data_dir or TFDS_DATA_DIR", "connect to the network", "'digits'"):
        assert way_out in message
    assert message.count(". ") == 0
    assert list(tmp_path.iterdir()) == []


def test_all_searched_folders_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = f"{tmp_path}/mine/cifar10, {tmp_path}/home/tensorflow_datasets/cifar10"
    with pytest.raises(DataNotFoundError, match=re.escape(expected)):
        load("cifar10")
    assert search_folders(tmp_path) == [tmp_path]


@pytest.mark.parametrize("command", ["train", "compare", "tune"])
def test_the_command_line_says_it_in_one_line_before_any_training(command, tmp_path, capsys):
    config = f"{__file__.rsplit('/tests/', 1)[0]}/configs/digits.py:hj"
    argv = [command, f"--config={config}", "--config.dataset=mnist", f"--data_dir={tmp_path}"]
    assert main([*argv, f"--workdir={tmp_path}/work", "--noprogress"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"entropix: no copy of mnist in {tmp_path}/mnist")
    assert error.count("\n") == 1
    assert not (tmp_path / "work").exists()


def test_a_silent_server_is_given_up_on(monkeypatch):
    monkeypatch.setattr(requests, "head", lambda *args, **options: time.sleep(5))
    start = time.perf_counter()
    assert probe("http://example.invalid/x", seconds=0.2) == (
        "no network: example.invalid did not answer within 0.2 s"
    )
    assert time.perf_counter() - start < 2


def test_any_answer_is_a_network(monkeypatch):
    monkeypatch.setattr(requests, "head", lambda *args, **options: requests.Response())
    assert probe("http://example.invalid/x") == ""


@pytest.fixture
def _equipped(monkeypatch):
    """As on a machine with a network and TensorFlow."""
    found = importlib.util.find_spec("json")
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(download, "probe", lambda url: "")


@pytest.mark.usefixtures("_equipped")
def test_what_the_download_fails_with_is_said(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(*args, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(tfds, "builder", fail)
    with pytest.raises(DataNotFoundError, match="downloaded .OSError: No space left on device"):
        locate("mnist", tmp_path)


@pytest.mark.usefixtures("_equipped", "small")
def test_a_download_is_found_afterwards_in_the_format_we_read(write_copy, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    class Builder:
        def __init__(self, name, *, data_dir, file_format):
            assert (name, data_dir) == ("mnist", tmp_path / "tfds")
            assert file_format == "array_record"

        def download_and_prepare(self):
            write_copy("mnist")

    monkeypatch.setattr(tfds, "builder", Builder)
    assert locate("mnist", tmp_path / "tfds").version == "3.0.1"


def test_the_newest_version_of_the_first_folder_that_has_one(tmp_path):
    for version in ("3.0.1", "3.0.10", "4.0.0.incomplete12AB", "1.0.0"):
        folder = tmp_path / "b" / "mnist" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text('{"fileFormat": "array_record"}')
    (tmp_path / "a" / "mnist" / "3.0.1").mkdir(parents=True)  # left by an interrupted download
    found = find_prepared("mnist", [tmp_path / "a", tmp_path / "b"])
    assert (found.version, found.root) == ("3.0.10", tmp_path / "b")
    assert find_prepared("cifar10", [tmp_path / "a", tmp_path / "b"]) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"fileFormat": "tfrecord"}', "format 'array_record', .* it is in 'tfrecord'"),
        ("{}", "it is in 'tfrecord'"),
        ('{"fileForm', "is damaged"),
        ("[]", "is damaged"),
    ],
)
def test_copies_that_cannot_be_read_are_refused(content, message, tmp_path):
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(content)
    with pytest.raises(UnreadableDataError, match=message):
        locate("mnist", tmp_path)


def test_an_unreadable_copy_does_not_hide_a_readable_one(tmp_path):
    for name, written in (("a", "tfrecord"), ("b", "array_record")):
        folder = tmp_path / name / "mnist" / "3.0.1"
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text(json.dumps({"fileFormat": written}))
    assert find_prepared("mnist", [tmp_path / "a", tmp_path / "b"]).root == tmp_path / "b"
    with pytest.raises(UnreadableDataError, match="/a/mnist/3.0.1 must be in the format"):
        find_prepared("mnist", [tmp_path / "a", tmp_path / "empty"])


def test_a_home_of_nobody_is_a_folder_like_others():
    with pytest.raises(DataNotFoundError, match="no copy of mnist in ~nobody-here/x/mnist"):
        load("mnist", "~nobody-here/x")
