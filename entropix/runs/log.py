"""Finished pieces of work on disk: what was interrupted goes on where it was."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from entropix.files import write_atomic, writing
from entropix.run_file import differing

Record = TypeVar("Record")
Fields = dict[str, Any]  # of a record, as JSON has them


class Log(Generic[Record]):
    """Records in a file, one JSON object a line, each on disk when it is finished.

    Args:
      path: of the file; its folder is made with the first record.
      identity: all that decides what a record holds, as nested JSON; the records of a file go on
        only with an equal one.
      index: the file beside it that keeps the identities of a folder's logs, and the name there.
      kind: what a record is, and what it is a part of, in words: "trial", "search".
      read: makes a record of fields; raises `ValueError` or `TypeError` for what is none.
      write: makes fields of a record, without numbers that are not finite.

    Attributes:
      records: those in the file, in order.

    Raises:
      ValueError: if the file has records with another identity, or cannot be read.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   path, index = pathlib.Path(folder, "sums.jsonl"), ("index.json", "sums")
      ...   arguments = path, {"seed": 0}, index, ("sum", "list")
      ...   Log(*arguments, read=dict, write=dict).append({"of": 2, "is": 4})
      ...   Log(*arguments, read=dict, write=dict).records
      [{'of': 2, 'is': 4}]
    """

    def __init__(
        self,
        path: pathlib.Path,
        identity: Fields,
        index: tuple[str, str],
        kind: tuple[str, str],
        *,
        read: Callable[[Fields], Record],
        write: Callable[[Record], Fields],
    ):
        beside, name = index
        self._path, self._index, self._write = path, path.with_name(beside), write
        self._identity = {name: json.loads(json.dumps(identity))}
        self.records = _read(path, kind[0], read)
        if self.records:
            known = _read_identities(self._index).get(name, {})
            _check_same(path, kind, known, self._identity[name])

    def append(self, record: Record) -> None:
        """Adds a record; it is on disk when this returns.

        Raises:
          OSError: naming the file, if the disk is full.
        """
        if not self.records:
            self._write_identity()
        fields = self._write(record)
        fields["digest"] = _digest(fields)
        with writing(self._path), self._path.open("a") as file:
            file.write(json.dumps(fields, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records.append(record)

    def _write_identity(self) -> None:
        """Before the first record: one without an identity could belong to anything."""
        with writing(self._index):
            self._index.parent.mkdir(parents=True, exist_ok=True)
        known = _read_identities(self._index) | self._identity
        write_atomic(self._index, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())


def _read(path: pathlib.Path, noun: str, read: Callable[[Fields], Record]) -> list[Record]:
    """The complete lines; a last one that was only half written is cut off the file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if complete != content:
        with writing(path):
            os.truncate(path, len(complete))
    records = []
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            fields = json.loads(line)
            if fields.pop("digest", None) not in (None, _digest(fields)):
                raise ValueError("it was changed after it was written")
            records.append(read(fields))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number}, is no {noun}: {error}. Remove that line and the later "
                f"ones; their {noun}s will be made again."
            ) from error
    return records


def _digest(fields: Fields) -> str:
    """Of a record as it is written."""
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]


def _read_identities(path: pathlib.Path) -> Fields:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}. Choose another workdir, or move that folder away."
        ) from error


def _check_same(path: pathlib.Path, kind: tuple[str, str], old: Fields, new: Fields) -> None:
    noun, whole = kind
    if fields := sorted(differing(old, new)):
        raise ValueError(
            f"{path} holds {noun}s of another {whole} (it differs in {', '.join(fields)}). Choose "
            "another workdir, or move that folder away."
        )
