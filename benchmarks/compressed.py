"""Do the weights of relaxed optimisers lose less when they are quantised or pruned?

    python benchmarks/compressed.py RUN... --measure=loss [--flatness=FOLDER/landscape.jsonl]

RUN... are folders of finished runs of one problem, with their checkpoints. The weights of every
seed are rounded to 8, 6, 4 and 3 bits, and 50, 75, 90 and 95 % of them are set to zero
(`entropix.landscape.quantised`, `pruned`), without retraining. A figure is the rise of a measure on
the first validation examples. The first table has the rises, the second the differences from the
baseline, paired by seed, with Student's 95 % intervals and Holm's p-values for the runs in a row.
Seeds that diverged are left out.
With --flatness, what `entropix landscape` has measured of the same runs, the third table has
Spearman's rank correlation over all networks between a rise and each measure of flatness, with a
95 % interval by bootstrap over networks. Networks of one algorithm resemble each other: as a
statement about algorithms, of which there are few, the interval is too narrow.

The tables of `results/` that are called `compressed.md` were made by this command. Those without a
`compressed.jsonl` beside are from before the rises of single networks were kept.
"""

import argparse
import json
import math
import pathlib

import jax
import pandas as pd
from scipy import stats

from entropix.experiment import load
from entropix.landscape import pruned, quantised
from entropix.report.cells import intervals, markdown, spread
from entropix.report.saved import read_runs, states
from entropix.report.series import baseline_of, distinct
from entropix.training.evaluation import means

CHANGES = {f"{bits} bits": (quantised, bits) for bits in (8, 6, 4, 3)} | {
    f"{share:.0%} zero": (pruned, share) for share in (0.5, 0.75, 0.9, 0.95)
}
FLATNESS = ("eigenvalue_1", "trace", "relative_trace", "local_energy_0.1", "adaptive_sharpness")


def make_rises(problem, measure, data):
    """`network -> the rises of the measure`, a row a seed, a column a change; one program."""
    measures = {measure: problem.measures[measure]}
    compiled = {change: jax.jit(change) for change in (quantised, pruned)}

    @jax.jit
    def at(params, state, data):
        batch_size = problem.eval_batch_size or problem.batch_size
        return means(measures, params, state, data, batch_size)[measure]

    def rises(network):
        rows = {}
        for k, seed in enumerate(network.seeds):
            point = network.params, network.model_state
            params, state = jax.tree.map(lambda leaf, k=k: leaf[k], point)
            before = float(at(params, state, data))
            rows[seed] = {
                name: float(at(compiled[f](params, amount), state, data)) - before
                for name, (f, amount) in CHANGES.items()
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    return rises


def tables(found, labels, unit, baseline):
    """Rises, and differences from the baseline; `found` is run -> rises of seeds."""
    changes = list(found[baseline])
    first = [
        {"change": c} | {labels[run]: spread(of[c].to_numpy(), unit) for run, of in found.items()}
        for c in changes
    ]
    yield markdown(first)
    others = {run: of for run, of in found.items() if run != baseline}
    differences = []
    for change in changes:
        base = found[baseline][change]
        pairs = {run: (of[change] - base).dropna().to_numpy() for run, of in others.items()}
        cells = intervals(pairs, unit)
        row = {f"against {labels[baseline]}": change}
        differences.append(row | {labels[run]: cell for run, cell in cells.items()})
    if others and len(found[baseline]) > 1:
        yield markdown(differences)


def flatness(seeds, path):
    """Measures of flatness, a row for each network; `seeds` is run -> seeds."""
    measured = {
        (entry["run"], entry["seed"]): entry["measures"]
        for entry in map(json.loads, path.read_text().splitlines())
    }
    networks = [(run, seed) for run, of_run in seeds.items() for seed in of_run]
    missing = [network for network in networks if network not in measured]
    if missing:
        raise SystemExit(f"{path} lacks {missing}: measure the same runs with entropix landscape.")
    known = measured[networks[0]]
    # A problem that measures an error beside the loss has a local energy of either.
    names = {name: name if name in known else f"{name}/loss" for name in FLATNESS}
    return pd.DataFrame(
        {
            name: [measured[network][key][0] for network in networks]  # value, unit, better
            for name, key in names.items()
        }
    )


def correlations(found, measured):
    """Spearman's correlation of every rise with every measure of flatness."""
    rows = []
    every = pd.concat(list(found.values()))
    for change in every:
        rise, row = every[change].to_numpy(), {"change": change}
        for name, values in measured.items():
            test = stats.bootstrap(
                (rise, values.to_numpy()), lambda a, b: stats.spearmanr(a, b)[0], paired=True,
                vectorized=False, n_resamples=2000, method="percentile", rng=0,
            )  # fmt: skip
            low, high = test.confidence_interval
            middle = stats.spearmanr(rise, values).statistic
            # Where most rises are one number, resampled networks may have no other.
            known = math.isfinite(low) and math.isfinite(high)
            row[name] = f"{middle:+.2f} ({low:+.2f} to {high:+.2f})" if known else "too many ties"
        rows.append(row)
    return markdown(rows)


def as_lines(found):
    """A line for each network: its run, seed and rises."""
    return "".join(
        json.dumps({"run": run, "seed": int(seed), "rises": of_seed.to_dict()}) + "\n"
        for run, of_run in found.items()
        for seed, of_seed in of_run.iterrows()
    )


def sound_seeds(saved):
    """Run -> its seeds that have not diverged, of all parts of the run."""
    found, sorted_seeds = {}, states(saved)
    for name in dict.fromkeys(run.name for run in saved if run.name not in sorted_seeds):
        print(f"{name}: begun, and not measured yet.")
    for name, seeds in sorted_seeds.items():
        if seeds["diverged"]:
            print(f"{name}: seeds {seeds['diverged']} diverged, and are left out.")
        sound = sorted(seeds["finished"] + seeds["unfinished"])
        found |= {name: sound} if sound else {}
    if not found:
        raise SystemExit("no seed was trained to an end: there is no network to compress.")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--measure", default="loss")
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--baseline")
    parser.add_argument("--flatness", type=pathlib.Path)
    parser.add_argument(
        "--out", type=pathlib.Path, help="NAME.md: gets the tables; NAME.jsonl the rises"
    )
    options = parser.parse_args()
    saved = read_runs(options.folders)
    if any(run.identity["problem"] != saved[0].identity["problem"] for run in saved):
        raise SystemExit("the runs have different problems: compare those of one problem.")
    problem = load(saved[0].folder).problem
    if options.measure not in problem.measures:
        known = ", ".join(problem.measures)
        raise SystemExit(f"no measure is called {options.measure!r}; the problem has {known}.")
    unit = problem.measures[options.measure].unit
    data = jax.tree.map(lambda leaf: leaf[: options.examples], problem.validation)
    examples = len(jax.tree.leaves(data)[0])
    seeds = sound_seeds(saved)
    measured = None if options.flatness is None else flatness(seeds, options.flatness)
    rises = make_rises(problem, options.measure, data)
    parts = {run: [rises(load(part.folder)) for part in saved if part.name == run] for run in seeds}
    found = {run: pd.concat(parts[run]).loc[of_run] for run, of_run in seeds.items()}
    labels = distinct({run.name: run.label for run in saved})
    pages = list(tables(found, labels, unit, baseline_of(list(found), options.baseline)))
    if measured is not None:
        pages.append(correlations(found, measured))
    text = "\n\n".join(
        [f"Rise of {options.measure} ({unit}), {examples:,} validation examples.", *pages]
    )
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")
        options.out.with_suffix(".jsonl").write_text(as_lines(found))


if __name__ == "__main__":
    main()
