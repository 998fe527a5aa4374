"""Several processes as one: meeting, agreeing, and ending together when one of them dies."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from entropix.transforms.checks import check_count, refusal

LOST = 76  # exit status of a process that has lost another
_MOMENT = 1.0  # seconds
_BYE = b"."  # what a process says whose work is done


@contextlib.contextmanager
def connected(
    coordinator: str, processes: int, process: int, *, timeout: int = 60
) -> Iterator[None]:
    """Joins the processes of one run: inside, `jax.devices()` are the devices of all of them.

    A collective would wait for a dead process for ever. So every process holds a connection to the
    first one, and when one ends before its work is done, the others say so on stderr and end at
    once, with status 76. (A machine that vanishes without closing its connections is noticed by
    JAX's heartbeats, within `timeout`.)

    Args:
      coordinator: "HOST:PORT" of process 0, the same for all. PORT must be free there; JAX's own
        service takes another one that is.
      processes: how many there are, >= 1.
      process: which one this is, 0 <= process < processes.
      timeout: seconds to wait for the others to come, and for a silent one before it is given up.

    Raises:
      ValueError: for arguments outside their range.
      ConnectionError: if not all come in time, or process 0's address cannot be used.

    Example:
      >>> from entropix import replicas
      >>> with replicas.connected("127.0.0.1:0", 1, 0):    # one is company enough
      ...   replicas.agree([2.0]).tolist()
      [2.0]
    """
    processes, timeout = check_count("processes", processes), check_count("timeout", timeout)
    if not isinstance(process, int) or not 0 <= process < processes:
        raise refusal("process", "one of 0 ... processes - 1", process, f" of {processes}.")
    if processes == 1:
        yield
        return
    host, _, port = coordinator.rpartition(":") if isinstance(coordinator, str) else ("", "", "")
    if not host or not port.isdigit() or int(port) >= 2**16:
        raise refusal("coordinator", "HOST:PORT, as in 10.0.0.1:1234", coordinator)
    meet = _host if process == 0 else _guest
    peers, service = meet(host, int(port), processes, process, timeout)
    jax.distributed.initialize(
        f"{host}:{service}", processes, process, initialization_timeout=timeout,
        heartbeat_timeout_seconds=timeout, shutdown_timeout_seconds=timeout,
    )  # fmt: skip
    ending = threading.Event()
    watches = [
        threading.Thread(target=_watch, args=(peer, name, ending), daemon=True)
        for name, peer in peers.items()
    ]
    for watch in watches:
        watch.start()
    try:
        yield
        for peer in peers.values():
            peer.sendall(_BYE)
        for watch in watches:
            watch.join(timeout)
        jax.distributed.shutdown()
    except jax.errors.JaxRuntimeError:
        for watch in watches:  # a collective may fail before the watch has seen who died
            watch.join(_MOMENT)
        raise
    finally:
        ending.set()
        for peer in peers.values():
            with contextlib.suppress(OSError):  # the other end may be gone
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()


def agree(values: list[float]) -> np.ndarray:
    """Returns the largest of all processes' values, one by one: the same for all of them.

    What processes decide by a clock or a signal of their own, they have to decide alike.
    """
    own = np.asarray(values, np.float32)
    if jax.process_count() == 1:
        return own
    return np.max(multihost_utils.process_allgather(own), axis=0)


def leave(status: int) -> None:
    """Ends a process whose work failed: JAX's own farewell would wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


Peers = dict[int, socket.socket]


def _host(host: str, port: int, processes: int, process: int, timeout: float) -> tuple[Peers, int]:
    """Process 0 waits for the others, and tells them where JAX's service will be."""
    deadline = time.monotonic() + timeout
    try:
        server = socket.create_server(("", port), backlog=processes)
    except OSError as error:
        raise ConnectionError(
            f"process 0 cannot listen at {host}:{port} ({error.strerror}). Choose a free port, the "
            "same for all processes."
        ) from error
    peers: Peers = {}
    with server:
        while len(peers) < processes - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                peer, _ = server.accept()
                peer.settimeout(timeout)
                peers[int(peer.recv(16))] = peer
            except (OSError, ValueError):
                if time.monotonic() < deadline:
                    continue  # somebody else called
                missing = sorted(set(range(1, processes)) - set(peers))
                raise ConnectionError(
                    f"of {processes} processes, {', '.join(map(str, missing))} did not come to "
                    f"{host}:{port} within {timeout} s. Start all of them within that time."
                ) from None
    with socket.create_server(("", 0)) as free:
        service = free.getsockname()[1]
    for peer in peers.values():
        peer.sendall(b"%05d" % service)
        peer.settimeout(None)
    return peers, service


def _guest(host: str, port: int, processes: int, process: int, timeout: float) -> tuple[Peers, int]:
    """Every other process goes to process 0, which may come later, and waits there."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            peer = socket.create_connection((host, port), timeout=timeout)
            peer.sendall(b"%d" % process)
            # A second more than process 0 waits for the others: let it speak first.
            peer.settimeout(max(0.01, deadline - time.monotonic()) + 1.0)
            service = int(peer.recv(5, socket.MSG_WAITALL))
            peer.settimeout(None)
            return {0: peer}, service
        except (OSError, ValueError) as error:
            if time.monotonic() < deadline and not isinstance(error, ValueError):
                time.sleep(0.1)
                continue
            raise ConnectionError(
                f"process {process} of {processes} did not find all the others at {host}:{port} "
                f"within {timeout} s ({error}). Start all of them, with the same coordinator."
            ) from error


def _watch(peer: socket.socket, name: int, ending: threading.Event) -> None:
    """Waits for another process's last word; ends this one if there is none."""
    try:
        word = peer.recv(1)
    except OSError:
        word = b""
    if word == _BYE or ending.is_set():
        return
    print(
        f"entropix: process {name} has ended before its work was done, so process "
        f"{jax.process_index()} ends too. Start all of them again with the same commands: a run "
        "continues from its last checkpoint.",
        file=sys.stderr,
    )
    leave(LOST)
