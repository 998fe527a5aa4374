"""Cache files are whole and right, or made again."""

import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from entropix.data.cache import cached, user_folder

ARRAYS = {"a": np.arange(1000, dtype=np.uint8).reshape(10, 100), "b": np.array([1.5, np.nan])}


def make():
    return ARRAYS


def fail():
    raise AssertionError("made again")


def same(arrays) -> bool:
    return arrays.keys() == ARRAYS.keys() and all(
        arrays[k].dtype == v.dtype and arrays[k].tobytes() == v.tobytes() for k, v in ARRAYS.items()
    )


def test_made_once(tmp_path):
    assert same(cached([tmp_path / "new"], "x", "key", make))
    assert same(cached([tmp_path / "new"], "x", "key", fail))
    assert os.listdir(tmp_path / "new") == ["x"]  # no temporary file is left


def test_another_key_is_made_again_silently(tmp_path):
    cached([tmp_path], "x", "old", make)
    assert cached([tmp_path], "x", "new", lambda: {"c": np.zeros(2)}).keys() == {"c"}
    assert cached([tmp_path], "x", "new", fail).keys() == {"c"}


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    return content[:-500] + bytes([content[-500] ^ 1]) + content[-499:]


def other_key(content: bytes) -> bytes:
    header, _, payload = content.partition(b"\n")
    return json.dumps(json.loads(header) | {"key": "key2"}).encode() + b"\n" + payload


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        flipped,
        other_key,
        lambda content: b"",
        lambda content: content[:30],
        lambda content: b"[]\n" + content,
        lambda content: b"\xff" * 100,
        lambda content: content + b"x",
    ],
)
def test_any_damage_is_seen_warned_of_and_repaired(tmp_path, damage):
    cached([tmp_path], "x", "key", make)
    path = tmp_path / "x"
    good = path.read_bytes()
    path.write_bytes(damage(good))
    with pytest.warns(UserWarning, match="/x is damaged .*; made again"):
        assert same(cached([tmp_path], "x", "key", make))
    assert path.read_bytes() == good


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    cached([tmp_path], "x", "old", make)

    def crash(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            cached([tmp_path], "x", "new", make)
    assert os.listdir(tmp_path) == ["x"]
    assert same(cached([tmp_path], "x", "old", fail))


def kill_a_writer(folder: pathlib.Path) -> pathlib.Path:
    """Kills a process between its first byte and its renaming; returns what it leaves behind."""
    code = (
        "import os, pathlib, sys, time, numpy; from entropix.data.cache import cached\n"
        "os.fsync = lambda number: (print('writing', flush=True), time.sleep(60))\n"
        "cached([pathlib.Path(sys.argv[1])], 'x', 'new', lambda: {'a': numpy.zeros(10)})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout.readline() == b"writing\n"
        writer.kill()
    (left,) = (path for path in folder.iterdir() if path.name != "x")
    return left


def test_a_killed_writer_leaves_the_old_file_and_no_litter_for_ever(tmp_path):
    cached([tmp_path], "x", "old", make)
    left = kill_a_writer(tmp_path)
    assert same(cached([tmp_path], "x", "old", fail))
    cached([tmp_path], "x", "newer", make)
    assert left.exists()  # so young, it might be another's, at work
    os.utime(left, (0, 0))
    cached([tmp_path], "x", "newest", make)
    assert os.listdir(tmp_path) == ["x"]


def test_neighbours_are_not_taken_for_litter(tmp_path):
    neighbours = ["x.txt", "x-arrays-1", "xarrays", "other"]
    for name in neighbours:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    cached([tmp_path], "x", "key", make)
    assert sorted(os.listdir(tmp_path)) == sorted([*neighbours, "x"])


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="x is not cached .*No space left"):
        assert same(cached([tmp_path], "x", "key", make))
    assert os.listdir(tmp_path) == []


def test_no_writable_folder_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "locked").mkdir(mode=0o555)
    folders = [tmp_path / "locked", tmp_path / "file" / "folder"]
    with pytest.warns(UserWarning, match="locked is read-only; .*Not a directory"):
        assert same(cached(folders, "x", "key", make))


def test_the_users_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert user_folder() == pathlib.Path("/somewhere/entropix")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/me")
    assert user_folder() == pathlib.Path("/home/me/.cache/entropix")


def forged(folder: pathlib.Path, content: bytes) -> None:
    """Puts any content behind a header that is right for it."""
    digest = hashlib.sha256(b"key\n" + content).hexdigest()
    header = json.dumps({"key": "key", "sha256": digest}).encode()
    (folder / "x").write_bytes(header + b"\n" + content)


def archive(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def right(arrays) -> None:
    if not same(arrays):
        raise ValueError("not mine")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        b"PK\x03\x04 nearly one",
        archive(a=np.array([{}], object)),  # it would have to be unpickled
        archive(a=np.zeros(3)),
        archive(a=ARRAYS["a"] + 1, b=ARRAYS["b"]),
        archive()[:-5],
    ],
)
def test_a_forged_file_is_made_again(tmp_path, content):
    forged(tmp_path, archive(**ARRAYS))
    assert same(cached([tmp_path], "x", "key", fail, right))
    forged(tmp_path, content)
    with pytest.warns(UserWarning, match="/x is damaged .it holds something else.*; made again"):
        assert same(cached([tmp_path], "x", "key", make, right))
    assert same(cached([tmp_path], "x", "key", fail, right))


def test_what_is_no_file_is_no_cache(tmp_path):
    os.mkfifo(tmp_path / "x")
    with pytest.warns(UserWarning, match="/x is damaged .it is no file.; made again"):
        assert same(cached([tmp_path], "x", "key", make))
    assert same(cached([tmp_path], "x", "key", fail))


def test_a_folder_in_its_place_is_a_warning(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.warns(UserWarning, match="damaged|not cached") as warned:
        assert same(cached([tmp_path], "x", "key", make))
    assert len(warned) == 2


def test_a_header_of_any_depth_is_none(tmp_path):
    (tmp_path / "x").write_bytes(b"[" * 100_000 + b"\n")
    with pytest.warns(UserWarning, match="first line is no header"):
        assert same(cached([tmp_path], "x", "key", make))
