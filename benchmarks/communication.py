"""How many bytes do replicas send, and what do they reach with them?

    JAX_NUM_CPU_DEVICES=4 python benchmarks/communication.py little_communication
    JAX_NUM_CPU_DEVICES=4 python benchmarks/communication.py little_communication:lenet \
        --data_dir=FOLDER --results=results/communication_lenet --measure=val_error

The argument is a config of `configs/`, by name. Each of its replicas gets a device. The bytes are
those that one replica hands to collectives, counted in the compiled program of one outer step; a
collective inside a conditional, such as EASGD's exchange at every `period`-th gradient, counts once
in a period. With --results, a folder with finished runs of the config, the table has what the runs
ended with (mean and standard deviation over seeds) and the difference from the baseline, paired by
seed, with Student's 95 % interval and Holm's p-value; the figure has the measure against the bytes
sent so far. `communication.md` and `communication.png` are written into that folder.
"""

import argparse
import pathlib

import jax
import pandas as pd
from matplotlib.figure import Figure

from entropix.cli.configs import read_config
from entropix.experiment import plan
from entropix.replicas import layout
from entropix.replicas.traffic import traffic
from entropix.report.cells import intervals, markdown, spread
from entropix.report.saved import read_runs, states
from entropix.report.series import curve, distinct, measures_of
from entropix.report.style import save_figure
from entropix.training.keys import split_seed
from entropix.training.state import init_state
from entropix.training.step import make_step

BASELINE = "data_parallel"
MEGABYTE = 1e6


def bytes_per_gradient(run):
    """What one replica sends, a mini-batch gradient of its own."""
    devices = layout(run.replicas, "shard_map", devices=run.replicas)
    method = run.method(axis_name=devices.axis_name)
    point = run.problem.init(split_seed(0).model)
    state = jax.eval_shape(lambda: init_state(method, [point], 0))
    step = jax.jit(make_step(run.problem, method, devices))
    sent = traffic(step.lower(state, run.problem.data).compile().as_text())
    period = run.algorithm.all_options.get("period", 1)
    return (sent.always + sent.sometimes / period) / method.relaxation.num_steps


def refuse_other_replicas(runs, saved):
    """Ends with a message where results are of another number of replicas than is counted."""
    counted = {run.name: run.replicas for run in runs}
    for row in (row for part in saved for row in part.rows):
        if row.replicas != counted.get(row.run, row.replicas):
            raise SystemExit(
                f"{row.run} was run with {row.replicas} replicas, and the config has "
                f"{counted[row.run]}: add --replicas={row.replicas}."
            )


def finished(saved):
    """Run -> the rows of its seeds that came to the end; the others are named, and left out."""
    found, sorted_seeds = {}, states(saved)
    for name in dict.fromkeys(part.name for part in saved if part.name not in sorted_seeds):
        print(f"{name}: begun, and not measured yet.")
    for name, seeds in sorted_seeds.items():
        for state in ("diverged", "unfinished"):
            if seeds[state]:
                print(f"{name}: seeds {seeds[state]}, {state}, are left out.")
        rows = [row for part in saved if part.name == name for row in part.rows]
        kept = [row for row in rows if row.seed in seeds["finished"]]
        found |= {name: kept} if kept else {}
    return found


def at_the_end(rows, measure):
    """What a run reached, by seed."""
    last = max(row.gradients for row in rows)
    return pd.Series({row.seed: row[measure] for row in rows if row.gradients == last})


def table(runs, labels, sent, found, unit):
    """One row a run: how much is sent, and what was reached."""
    others = {n: of for n, of in found.items() if n != BASELINE} if BASELINE in found else {}
    pairs = {n: (of - found[BASELINE]).dropna().to_numpy() for n, of in others.items()}
    cells = intervals(pairs, unit)
    rows = []
    for run in runs:
        one_replica = run.budget.gradients // run.replicas
        row = {
            "run": labels[run.name],
            "bytes a gradient": f"{sent[run.name]:,.0f}",
            "gradients of one replica": f"{one_replica:,}",
            "MB sent by one replica": f"{one_replica * sent[run.name] / MEGABYTE:,.1f}",
        }
        if run.name in found:
            row["at the end"] = spread(found[run.name].to_numpy(), unit)
            row["against data-parallel"] = cells.get(run.name, "")
        rows.append(row)
    return markdown(rows)


def draw(runs, rows, labels, sent, measure, path):
    """The mean over seeds of the measure against the megabytes that one replica has sent."""
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        if run.name in rows:
            gradients, values = curve(rows[run.name], measure.name, "gradients")
            megabytes = gradients / run.replicas * sent[run.name] / MEGABYTE
            axes.plot(megabytes, values.mean(axis=1), marker="o", label=labels[run.name])
    axes.set_xscale("log")
    axes.set_xlabel("megabytes sent by one replica")
    axes.set_ylabel(measure.title)
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")
    save_figure(figure, path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--data_dir")
    parser.add_argument("--replicas", type=int)
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--measure", default="val_loss")
    options = parser.parse_args()
    config = read_config(options.config)
    with config.unlocked():
        config.data_dir = options.data_dir or ""
        config.replicas = options.replicas or config.replicas
    runs = [run for run in plan(config) if run.replicas is not None]
    labels = distinct({run.name: run.label for run in runs})
    saved = read_runs([options.results]) if options.results else []
    refuse_other_replicas(runs, saved)
    rows, found, measure = finished(saved), {}, None
    sent = {run.name: bytes_per_gradient(run) for run in runs}
    if rows:
        (measure,) = measures_of(
            [row for of_run in rows.values() for row in of_run], [options.measure]
        )
        found = {name: at_the_end(of_run, measure.name) for name, of_run in rows.items()}
    text = table(runs, labels, sent, found, measure.unit if measure else "")
    print(text)
    if rows:
        (options.results / "communication.md").write_text(text + "\n")
        draw(runs, rows, labels, sent, measure, options.results / "communication.png")


if __name__ == "__main__":
    main()
