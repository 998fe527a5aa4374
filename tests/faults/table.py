"""Makes docs/reliability.md from a rehearsal of faults.

Run `python tests/faults/table.py`: some hours on one core. `FAULTS_SHARE=0.05 python
tests/faults/table.py` runs a twentieth of the cases, and the page says how many there were. Options
go to pytest: with `-k signals` the other lines of the page stay. It is written whatever became of
the cases; the status is pytest's.
"""

import collections
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from xml.etree import ElementTree

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reliability.md"
ENDS = "well", "refused", "foreign", "wrong"
PROPERTY = "counted"  # of a test's report: the kind of fault, and how many cases ended how

INTRODUCTION = """\
# Faults, rehearsed

What goes wrong on purpose, and how many cases ended how. *Well*: the result is, bit for bit (but
for the clock), that of a run without the fault, after the same command was given again where it had
ended. *In words*: one line of Entropix says what is wrong, with a way out; what was saved stays
and, where the fault can be taken away, the same command then ends as above. *Foreign*: a
traceback, or an error of another package. *Wrong*: another result in silence, or anything else.

`python tests/faults/table.py` runs the cases and writes this page. The variable `FAULTS_SHARE` (1
unless set) is the share of the full count that is run, by the same code: `FAULTS_SHARE=0.02 pytest
-m slow tests/faults` is a quick rehearsal. Each line states how many cases were run.

"""
# Kind -> what is done. The order is that of the page.
KINDS = {
    "arguments": "Random, wrong and extreme arguments of every public constructor. Well: the "
    "update that NumPy computes.",
    "configs": "Random configs with wrong fields.",
    "command lines": "Random command lines with mistakes.",
    "NaN, guarded": "NaN or infinity in a random gradient of random steps: every relaxation, by "
    "`relax` with `if_finite`, and by `stepwise` inside `optax.apply_if_finite`. Well: x and all "
    "states are those of the good steps alone.",
    "NaN, reported": "A loss or a gradient that is NaN at a random gradient of a run, for every "
    "algorithm. In words: the report names seed and outer step, and the other seed ends as if "
    "nothing had happened.",
    "damage, run continued": "One byte flipped, sixteen lost or the rest cut off, at places "
    "spread over all bytes of an interrupted run's folder; every file emptied, and missing. Then "
    "the run is continued.",
    "damage, finished run read": "The same in a finished run's folder, which is then read by "
    "`train`, `report` and `load`. In words: also the warning that an earlier checkpoint is taken.",
    "damage, search continued": "The same in the folder of a search by `tune`.",
    "full disk, from any change on": "From the k-th change of the disk on nothing can be made, "
    "opened for writing or renamed.",
    "full disk, no file beyond any size": "No file can grow beyond n bytes.",
    "death at any change of the disk": "The process dies before the k-th change that saving a "
    "checkpoint makes. Well: the newest checkpoint, or the one before it, is whole.",
    "two runs on one folder": "A second run begins while the first is in any phase. Well: it came "
    "when the first had finished.",
    "signals in every phase": "SIGINT, SIGTERM, SIGHUP or SIGUSR1 a random moment after a phase "
    "(start, load, compile, train, evaluate, save, report, figure, tune) has begun. Well: the "
    "process ended by the signal, or had finished.",
    "Ctrl-C while importing or ending": "SIGINT at random times of `python -m entropix` and of "
    "the installed command.",
    "SIGKILL, one process": "Kills at random moments of one run, which is started again each time.",
    "SIGKILL, one of two processes or both": "The same for a run of two processes. Where one is "
    "killed, the other says so and ends.",
}


def rehearse(options):
    """Runs the tests: pytest's status, and for every kind its counts and seconds."""
    counts = {kind: collections.Counter() for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", f"--junitxml={report}"]
        status = subprocess.run([*command, *options, str(HERE)], cwd=HERE.parents[1]).returncode
        for case in ElementTree.parse(report).iter("testcase"):
            for found in case.iter("property"):
                if found.get("name") == PROPERTY:
                    kind, ends = json.loads(found.get("value"))
                    counts[kind].update(ends)
                    counts[kind]["seconds"] += float(case.get("time"))
    return status, counts


def row(kind, counts):
    """One line of the table."""
    numbers = [sum(counts[end] for end in ENDS), *(counts[end] for end in ENDS)]
    cells = kind, KINDS[kind], *(f"{n:,}" for n in (*numbers, round(counts["seconds"])))
    return f"| {' | '.join(cells)} |\n"


def page(counts, before):
    """The text of docs/reliability.md; kinds that were not run keep their lines."""
    lines = [line for line in before.splitlines(keepends=True) if line.startswith("| ")]
    known = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
    rows = [row(kind, counts[kind]) if counts[kind] else known.get(kind, "") for kind in KINDS]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "orbax-checkpoint"))
    head = (
        f"Measured with Python {platform.python_version()}, {versions}.\n\n"
        "| fault | what is done | cases | well | in words | foreign | wrong | seconds |\n"
        "|---|---|--:|--:|--:|--:|--:|--:|\n"
    )
    missing = [kind for kind, text in zip(KINDS, rows, strict=True) if not text]
    foot = f"\nTests without a recorded count: {'; '.join(missing)}.\n" if missing else ""
    return INTRODUCTION + head + "".join(rows) + foot


if __name__ == "__main__":
    status, found = rehearse(sys.argv[1:])
    PAGE.write_text(page(found, PAGE.read_text() if PAGE.exists() else ""))
    sys.exit(status)
