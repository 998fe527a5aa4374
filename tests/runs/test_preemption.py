"""Signals: those that ask to stop are noted, and Ctrl-C anywhere else is one line."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from entropix.runs import preemption
from entropix.runs.preemption import SIGNALS, Interrupted, interruptible, stop_requests

ROOT = pathlib.Path(__file__).parents[2]


def press(signum=signal.SIGINT):
    os.kill(os.getpid(), signum)


@pytest.fixture(autouse=True)
def _handlers_stay():
    before = [signal.getsignal(signum) for signum in SIGNALS]
    yield
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


@pytest.mark.parametrize("signum", SIGNALS)
def test_all_that_precede_a_kill_are_noted(signum):
    before = signal.signal(signum, signal.SIG_DFL)  # under nohup HUP would stay ignored
    try:
        with stop_requests() as requested:
            assert requested() is None
            press(signum)
            assert requested() == signum
    finally:
        signal.signal(signum, before)


def test_the_first_request_is_the_answer_and_a_ctrl_c_after_it_interrupts():
    with stop_requests() as requested:
        press(signal.SIGTERM)
        press(signal.SIGUSR1)
        assert requested() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            press()


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as requested:
            press(signal.SIGHUP)
            assert requested() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_there_are_no_requests():
    answers = []

    def ask():
        with stop_requests() as requested, interruptible("x"):
            answers.append(requested())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert answers == [None]


def test_ctrl_c_is_one_line_and_status_130():
    message = "^tune: stopped by Ctrl-C; what was saved "
    with pytest.raises(Interrupted, match=message) as raised, interruptible("tune"):
        press()
    assert 128 + raised.value.signum == 130
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("error", [ImportError, SystemError, RuntimeError, SystemExit])
def test_what_a_library_makes_of_ctrl_c_is_one_line_too(error):
    def library():
        try:
            press()
        except KeyboardInterrupt as interrupt:
            raise error("cannot import name 'lax' from partially initialised module") from interrupt

    with pytest.raises(Interrupted), interruptible("compare"):
        library()


def test_a_ctrl_c_that_a_library_drops_comes_again(monkeypatch):
    monkeypatch.setattr(preemption, "_AGAIN", 0.05)

    def library():
        with contextlib.suppress(KeyboardInterrupt):
            press()
        threading.Event().wait(60)

    with pytest.raises(Interrupted), interruptible("figure1"):
        library()


def test_a_ctrl_c_in_a_callback_is_not_shown_at_length(monkeypatch, capsys):
    class Dropping:
        def __del__(self):
            press()

    def library():
        Dropping()
        threading.Event().wait(60)

    monkeypatch.setattr(preemption, "_AGAIN", 0.05)
    before = sys.unraisablehook
    with pytest.raises(Interrupted), interruptible("train"):
        library()
    assert capsys.readouterr().err == ""
    assert sys.unraisablehook is before


def test_other_errors_are_what_they_are():
    with pytest.raises(ZeroDivisionError), interruptible("compare"):
        _ = 1 / 0


def test_a_loop_inside_is_asked_first():
    def loop():
        with stop_requests() as requested:
            press()
            raise Interrupted("hj: asked to stop, and did", requested())

    with pytest.raises(Interrupted, match="hj: asked to stop, and did"), interruptible("train"):
        loop()


def test_ctrl_c_while_a_module_is_imported(tmp_path):
    (tmp_path / "slow.py").write_text("print('importing', flush=True)\nimport time; time.sleep(60)")
    code = (
        "from entropix.runs.preemption import Interrupted, interruptible\n"
        "try:\n"
        "  with interruptible('figure1'):\n"
        "    import slow\n"
        "except Interrupted as stop: raise SystemExit(128 + stop.signum)"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
