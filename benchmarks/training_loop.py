"""What does `entropix train` cost over the bare compiled SGD loop?

    python benchmarks/training_loop.py [mlp] [lenet]

The bare loop is one compiled `lax.scan` of SGD steps, as in `benchmarks/inner_step.py`. The
training loop is that of `entropix train`, with metrics and checkpoints on the disk, but for the
evaluations, which are counted apart. After every one of its calls the bare loop runs for about as
long, in the same process; ratios are taken within such a pair. "Reported" is the time that the run
itself reports, "wall" all that passes between two calls' ends, host work and checkpoints included.

Two cores of an AMD EPYC, jax 0.10.2, batch 128 (mlp on one core, beside other work):

| network | bare, ms per gradient | reported, over bare | wall, over bare |
|---|---|---|---|
| mlp | 15.92 | 0.998 (0.984-1.007) | 1.007 (0.993-1.017) |
| lenet | 15.08 | 0.955 (0.936-0.997) | 0.957 (0.940-1.002) |
"""

import contextlib
import sys
import tempfile
import time

import numpy as np
from inner_step import BATCH, GRADIENTS, MODELS, data, program, timed

from entropix.training import Checkpoints, Interrupted, experiment
from entropix.training.loop import Loop
from entropix.training.programs import make_programs

PAIRS = 12


class Pairs:
    """Measures the bare loop whenever the training loop asks whether it should stop."""

    def __init__(self, bare, dataset):
        self.bare, self.dataset, self.loop = bare, dataset, None
        self.rows, self.steps, self.seconds = [], 0, 0.0
        self.left = time.perf_counter()

    def __call__(self):
        wall = time.perf_counter() - self.left
        record = self.loop.record
        steps, seconds = record["since_eval"] - self.steps, record["seconds"] - self.seconds
        self.steps, self.seconds = record["since_eval"], record["seconds"]
        rounds = max(1, round(steps / GRADIENTS))
        floor = np.mean([timed(self.bare, self.dataset) for _ in range(rounds)])
        if steps > 1:  # the first call, of one step, finds out how long a call should be
            self.rows.append((floor, 1e3 * seconds / steps, 1e3 * wall / steps))
        self.left = time.perf_counter()
        return None if len(self.rows) < PAIRS else 1


def measure(name, dataset):
    bare = program(MODELS[name], "sgd", {}, dataset)
    timed(bare, dataset)
    config = experiment(
        dataset="digits",
        model=MODELS[name],
        optimizers={"sgd": {}},
        algorithms="sgd",
        seeds=1,
        batch_size=BATCH,
        gradients_per_eval=1_000_000,
        num_evals=1,
        checkpoint_seconds=15.0,
    )
    pairs = Pairs(bare, dataset)
    with tempfile.TemporaryDirectory() as workdir, Checkpoints(workdir, keep=2) as checkpoints:
        programs = make_programs(config, dataset)
        pairs.loop = Loop(config, dataset, programs, checkpoints, workdir)
        with contextlib.suppress(Interrupted):
            pairs.loop.run(pairs, progress=False)
    return np.asarray(pairs.rows)


def main(names):
    dataset = data()
    print("| network | bare, ms per gradient | reported, over bare | wall, over bare |")
    print("|---|---|---|---|")
    for name in names:
        floor, reported, wall = measure(name, dataset).T
        cells = []
        for values in (reported / floor, wall / floor):
            low, middle, high = np.percentile(values, [25, 50, 75])
            cells.append(f"{middle:.3f} ({low:.3f}-{high:.3f})")
        print(f"| {name} | {np.median(floor):.2f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(MODELS))
