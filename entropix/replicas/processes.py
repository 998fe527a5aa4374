"""Several processes as one: agreeing, parting, and ending together when one of them dies."""

import contextlib
import json
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from entropix.replicas import meeting
from entropix.replicas.company import LOST as LOST
from entropix.replicas.company import Company
from entropix.transforms.checks import check_count, check_index, check_positive, refusal

_company: Company | None = None  # inside `connected`


@contextlib.contextmanager
def connected(
    coordinator: str, processes: int, process: int, *, timeout: int = 60
) -> Iterator[None]:
    """Joins the processes of one run: inside, `jax.devices()` are the devices of all of them.

    A collective would wait for a dead process for ever. So every process holds a connection to
    process 0, and when one ends without a `farewell`, the others say so on stderr and end at once,
    with status 76. (A machine that vanishes without closing its connections is noticed by JAX's
    heartbeats, within `timeout`.) Leaving the context without an exception is a farewell. SIGTERM
    does inside what it did before, though JAX would note and ignore it.

    Args:
      coordinator: "HOST:PORT" of process 0, the same for all. Process 0 listens at the address of
        HOST alone. PORT must be free there; JAX's own service takes another one that is.
      processes: how many there are, >= 1.
      process: which one this is, 0 <= process < processes.
      timeout: seconds, >= 1, to wait for the others to come, and for a silent one before it is
        given up.

    Returns:
      A context manager, whose value is None.

    Raises:
      ValueError: for arguments outside their range.
      ConnectionError: if not all come in time, process 0's address cannot be used, or process 0
        turns this process away, because another has its number.

    Example:
      >>> from entropix import replicas
      >>> with replicas.connected("127.0.0.1:0", 1, 0):    # one process needs no other
      ...   replicas.agree([2.0]).tolist()
      [2.0]
    """
    processes, timeout = check_count("processes", processes), check_count("timeout", timeout)
    process = check_index("process", process)
    if process >= processes:
        raise refusal("process", "one of 0 ... processes - 1", process, f" of {processes}.")
    if processes == 1:
        yield
        return
    name, port = _parse(coordinator)
    if process == 0:
        lines, listen = meeting.host(name, port, processes, timeout)
        service = int(listen.rpartition(":")[2])
    else:
        line, service = meeting.join(name, port, processes, process, timeout)
        lines, listen = {0: line}, None
    terminate = signal.getsignal(signal.SIGTERM)
    jax.distributed.initialize(
        f"{coordinator.rpartition(':')[0]}:{service}", processes, process,
        coordinator_bind_address=listen, initialization_timeout=timeout,
        heartbeat_timeout_seconds=timeout, shutdown_timeout_seconds=timeout,
    )  # fmt: skip
    if threading.current_thread() is threading.main_thread() and terminate is not None:
        signal.signal(signal.SIGTERM, terminate)
    global _company
    _company = company = Company(process, lines, timeout)
    try:
        yield
        farewell()
    except Exception:
        company.settle()  # a collective may fail, by any exception, before it is known who died
        raise
    finally:
        _company = None
        if company.parted:
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # all work is done
                jax.distributed.shutdown()
        company.close()


def _parse(coordinator: str) -> tuple[str, int]:
    name, _, port = coordinator.rpartition(":") if isinstance(coordinator, str) else ("", "", "")
    if not name or not port.isdecimal() or not 0 < int(port[:6]) < 2**16:
        raise refusal("coordinator", "HOST:PORT, as in 10.0.0.1:1234", coordinator)
    return name.strip("[]"), int(port)  # [...] of an IPv6 address


def agree(values: list[float]) -> np.ndarray:
    """Returns the largest of all processes' values, in single precision: the same for all of them.

    What processes decide by a clock or a signal of their own, they have to decide alike. All
    processes have to call this at the same point.

    Args:
      values: numbers, equally many in every process.

    Returns:
      The largest value at every place of the list. float32, shape=(len(values),).

    Example:
      >>> from entropix import replicas
      >>> replicas.agree([0.5, 2.0]).tolist()    # of one process: its values
      [0.5, 2.0]
    """
    mine = np.asarray(values, np.float32)
    if jax.process_count() == 1:
        return mine
    return np.max(multihost_utils.process_allgather(mine), axis=0)


def agree_on(identity: Mapping[str, Any], timeout: float | None = None) -> None:
    """Checks that all processes were started with equal values, before they compute together.

    Programs that differ end in an abort or wait for each other for ever. All processes have to
    call this at the same point. With one process nothing happens.

    Args:
      identity: names and values of what must be equal, nested dictionaries and lists of JSON.
      timeout: seconds to wait for the slowest process to come; None is the `timeout` of
        `connected`.

    Raises:
      ValueError: in all processes, with one and the same sentence that names the fields that
        differ. It is a farewell: processes that end with it are not taken for dead.
      ConnectionError: if a process does not come to this point in time.

    Example:
      >>> from entropix import replicas
      >>> replicas.agree_on({"seed": 1, "model": {"widths": [16]}})
    """
    text = json.dumps(identity, sort_keys=True)  # the same text wherever it was made
    if _company is not None:
        everyone = _company.exchange("identity", text, timeout or _company.timeout)
    elif jax.process_count() > 1:  # the caller has called `jax.distributed.initialize`
        everyone = _gather(text)
    else:
        return
    for process, other in enumerate(everyone):
        if other != everyone[0]:
            farewell()
            raise ValueError(_difference(process, everyone[0], other))


def farewell(timeout: float = 600.0) -> None:
    """Waits until all processes have come to this point; afterwards leaving is not dying.

    Call this last, in all processes, before an exception that all of them raise alike (a request
    to stop, a run that diverged) leaves `connected`: a process that has nothing to save then
    waits for the one that is saving. Afterwards nobody watches the others. With one process, or
    when it was called before, nothing happens.

    Args:
      timeout: seconds > 0 to wait for a process that is alive and does not come, before a warning
        says so and this one goes.

    Raises:
      ValueError: for a timeout that is not a finite number > 0.

    Example:
      >>> from entropix import replicas
      >>> replicas.farewell()
    """
    timeout = check_positive("timeout", timeout, schedule=False)
    if _company is not None and not _company.parted:
        _company.part(timeout)


def _gather(text: str) -> list[str]:
    """Every process's text, by JAX's own means."""
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray([data.size])).ravel()
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: data.size] = data
    everyone = multihost_utils.process_allgather(padded)
    return [row[:size].tobytes().decode() for row, size in zip(everyone, sizes, strict=True)]


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Values, as text, by their dotted names."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        inside = isinstance(value, dict) and value
        flat |= _flat(value, f"{before}{name}.") if inside else {before + name: json.dumps(value)}
    return flat


def _difference(process: int, first: str, other: str) -> str:
    """One sentence about two identities that differ, the same in every process."""
    a, b = _flat(json.loads(first)), _flat(json.loads(other))
    fields = sorted(name for name in a | b if a.get(name) != b.get(name))
    named = [f"{k} ({_short(a.get(k))} and {_short(b.get(k))})" for k in fields[:5]]
    more = f" and {len(fields) - 5} more" if len(fields) > 5 else ""
    return (
        f"process 0 and process {process} were not started alike: they differ in "
        f"{', '.join(named)}{more}; start all with the same command, but for the process's number."
    )


def _short(text: str | None) -> str:
    text = "nothing" if text is None else text
    return text if len(text) <= 60 else f"{text[:57]}..."
