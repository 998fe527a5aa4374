"""What does a gradient cost here, and in PyTorch, with the same networks, batches and updates?

    pip install torch
    python benchmarks/peers_torch.py --report report.md [mlp] [lenet] [all_cnn]
    python benchmarks/peers_torch.py mlp        # one table, on the CPUs that the process may use

Both sides draw a batch of 128 from images on the device, with dropout and batch normalisation, and
make SGD steps with Nesterov's momentum, or Entropy-SGD's: L inner steps with momentum, pull, noise
and average, then x moves by the displacement. PyTorch's Entropy-SGD is written here from the
published algorithm, with in-place operations; its convolutions run with images of channels first
and of channels last (`channels_last`), eager, and compiled with --compile.

Ours draws its noise from "popcount", the package's default, and from "normal". Rounds interleave
all variants in one process, medians and quartiles of ms per gradient are shown, and ratios to
PyTorch's best variant of the same round. --report does this in processes of their own, on one CPU
and on all.

What stands in the way of a better ratio on All-CNN: a gradient of its 128 images is 230 GFLOP. On
two CPUs ours does 215 GFLOP a second and PyTorch's, channels last, 285. XLA's own convolutions of
the layers' three sizes do 231 to 295 forwards, and matrix products of those sizes 270 to 409: the
gradients of convolutions, and the layers between, are slower still.

Compiled, PyTorch's All-CNN was measured later than the other tables, on two CPUs alone, with all
variants of that table in one process: there compiling pays, and ours takes 1.47 times as long. On
one CPU the compiled All-CNN was not measured.
"""

import argparse
import functools
import os
import platform
import subprocess
import sys
import time

import numpy as np

BATCH, EXAMPLES = 128, 1024
SHAPES = {"mlp": (28, 28, 1), "lenet": (28, 28, 1), "all_cnn": (32, 32, 3)}
STEPS = {"mlp": 20, "lenet": 20, "all_cnn": 4}  # L, and gradients of one measurement
ROUNDS = {"mlp": 9, "lenet": 7, "all_cnn": 3}
RATE, MOMENTUM, GAMMA, NOISE, AVERAGING = 0.05, 0.9, 1e4, 1e-4, 0.75


def torch_network(name):
    from torch import nn

    def convolution(features, outputs, window=3, stride=1):
        convolve = nn.Conv2d(features, outputs, window, stride, padding=window // 2)
        return [convolve, nn.BatchNorm2d(outputs), nn.ReLU()]

    if name == "mlp":
        layers = [nn.Flatten(), nn.Dropout(0.2)]
        for features in (784, 1024):
            layers += [nn.Linear(features, 1024), nn.ReLU(), nn.BatchNorm1d(1024), nn.Dropout(0.5)]
        return nn.Sequential(*layers, nn.Linear(1024, 10))
    if name == "lenet":
        layers = []
        for features, outputs, window in ((1, 20, 3), (20, 50, 2)):
            layers += [nn.Conv2d(features, outputs, 5), nn.MaxPool2d(window), nn.ReLU()]
            layers += [nn.BatchNorm2d(outputs), nn.Dropout(0.5)]
        layers += [nn.Flatten(), nn.Linear(200, 500), nn.ReLU(), nn.Dropout(0.5)]
        return nn.Sequential(*layers, nn.Linear(500, 10))
    layers = [nn.Dropout(0.2)]
    for features, outputs in ((3, 96), (96, 192)):
        layers += convolution(features, outputs) + convolution(outputs, outputs)
        layers += [*convolution(outputs, outputs, stride=2), nn.Dropout(0.5)]
    layers += convolution(192, 192) + convolution(192, 192) + convolution(192, 10, window=1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class TorchWork:
    """One network in PyTorch with its data."""

    def __init__(self, name, images, labels, last, compiled):
        import torch

        self.torch, form = torch, torch.channels_last if last else torch.contiguous_format
        torch.manual_seed(0)
        self.model = torch_network(name).to(memory_format=form).train()
        self.loss_of = torch.nn.functional.cross_entropy
        self.forward = torch.compile(self.model) if compiled else self.model
        self.images = torch.tensor(np.moveaxis(images, -1, 1)).contiguous(memory_format=form)
        self.labels = torch.tensor(labels)
        self.params = list(self.model.parameters())
        self.velocity = [torch.zeros_like(p) for p in self.params]
        self.optimizer = torch.optim.SGD(self.params, RATE, MOMENTUM, nesterov=True)

    def backward(self):
        chosen = self.torch.randint(EXAMPLES, (BATCH,))
        for p in self.params:
            p.grad = None
        self.loss_of(self.forward(self.images[chosen]), self.labels[chosen]).backward()

    def sgd(self, steps):
        for _ in range(steps):
            self.backward()
            self.optimizer.step()

    def entropy_sgd(self, steps):
        torch = self.torch
        x = [p.detach().clone() for p in self.params]
        mean = [p.detach().clone() for p in self.params]
        for v in self.velocity:
            v.zero_()
        for _ in range(steps):
            self.backward()
            with torch.no_grad():
                for p, x0, v, m in zip(self.params, x, self.velocity, mean, strict=True):
                    v.mul_(MOMENTUM).add_(p.grad)
                    step = p.grad.add_(v, alpha=MOMENTUM).add_(p - x0, alpha=1 / GAMMA)
                    p.add_(step, alpha=-RATE).add_(torch.randn_like(p), alpha=NOISE)
                    m.mul_(AVERAGING).add_(p, alpha=1 - AVERAGING)
        with torch.no_grad():
            for p, m in zip(self.params, mean, strict=True):
                p.copy_(m)  # x - 1 (x - <y>)


def our_work(name, images, labels, algorithm, learning_rate=RATE, **options):
    """A function that makes so many gradients, compiled once."""
    import jax

    from entropix import experiment
    from entropix.experiment.making import make_runs
    from entropix.training.programs import make_starter
    from entropix.training.step import make_interval, make_step

    problem = experiment.classification(
        (images, labels, images[:BATCH], labels[:BATCH]), {"name": name}, batch_size=BATCH
    )
    chosen = experiment.algorithm(algorithm, learning_rate=learning_rate, **options)
    (run,) = make_runs(problem, {algorithm: chosen}, experiment.Budget(10**6, 1), 1)
    starter = make_starter(run)
    cycles = max(1, STEPS[name] // starter.method.relaxation.num_steps)
    interval = make_interval(make_step(run.problem, starter.method), cycles)
    state = [jax.tree.map(lambda leaf: leaf[0], starter.init().state)]
    advance = jax.jit(interval, donate_argnums=0)

    def work(steps):
        state[0], loss = advance(state[0], run.problem.data)
        jax.block_until_ready(loss)

    return work


def variants(name, compiled):
    """Label -> function of a number of gradients. Those of PyTorch begin with "torch"."""
    rng = np.random.default_rng(0)
    images = rng.random((EXAMPLES, *SHAPES[name]), np.float32)
    labels = rng.integers(0, 10, EXAMPLES)
    relaxed = {
        "learning_rate": 1.0,
        "num_steps": STEPS[name], "inner": "nesterov", "output": "displacement", "momentum": None,
        "gamma": GAMMA, "scoping_rate": 0.0, "temperature": NOISE**2 / (2 * RATE),
        "step_size": RATE, "averaging": AVERAGING,
    }  # fmt: skip
    ours = functools.partial(our_work, name, images, labels)
    made = {
        "SGD": ours("sgd"),
        "Entropy-SGD, popcount": ours("entropy_sgd", noise="popcount", **relaxed),
        "Entropy-SGD, normal": ours("entropy_sgd", noise="normal", **relaxed),
    }
    for last in (False, True) if name != "mlp" else (False,):
        for how in ("eager", "compiled") if compiled else ("eager",):
            work = TorchWork(name, images, labels, last, how == "compiled")
            layout = "" if name == "mlp" else ", channels last" if last else ", channels first"
            made[f"torch SGD{layout}, {how}"] = work.sgd
            made[f"torch Entropy-SGD{layout}, {how}"] = work.entropy_sgd
    return made


def table(name, compiled):
    """Measures all variants of one network, as Markdown."""
    made, steps = variants(name, compiled), STEPS[name]
    times = {label: [] for label in made}
    for round_ in range(ROUNDS[name] + 1):  # the first compiles and warms up
        for label, work in made.items():
            start = time.perf_counter()
            work(steps)
            if round_:
                times[label].append(1e3 * (time.perf_counter() - start) / steps)
    best = {}  # the fastest of PyTorch for SGD and for Entropy-SGD, by its median
    for kind in ("SGD", "Entropy-SGD"):
        peers = [label for label in times if label.startswith(f"torch {kind}")]
        best[kind] = min(peers, key=lambda label: np.median(times[label]))
    lines = [f"| {name} | ms per gradient | ÷ PyTorch's best |", "|---|---|---|"]
    for label, values in times.items():
        peer = times[best["Entropy-SGD" if "Entropy-SGD" in label else "SGD"]]
        lines.append(f"| {label} | {quartiles(values)} | {quartiles(np.divide(values, peer))} |")
    return "\n".join(lines)


def quartiles(values):
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.3g} ({low:.3g}-{high:.3g})"


def machine():
    """What was measured on: processor and versions."""
    import jax
    import torch

    with open("/proc/cpuinfo") as file:
        model = next((line for line in file if line.startswith("model name")), ": unknown")
    versions = f"jax {jax.__version__}, torch {torch.__version__}, Python "
    return f"{model.split(':')[1].strip()}; {versions}{platform.python_version()}"


def report(path, names, compiled):
    """Runs the tables on one CPU and on all, in processes of their own, and writes a page."""
    cpus = sorted(os.sched_getaffinity(0))
    parts = ["# Against PyTorch", machine(), __doc__.partition("\n\n")[2].partition("\n\n")[2]]
    for some in [cpus[:1], cpus] if len(cpus) > 1 else [cpus]:
        argv = [sys.executable, __file__, *names, *(["--compile"] if compiled else [])]
        found = subprocess.run(
            argv, check=True, stdout=subprocess.PIPE, text=True,
            preexec_fn=functools.partial(os.sched_setaffinity, 0, some),
        )  # fmt: skip
        parts += [f"## {len(some)} CPU{'s' * (len(some) > 1)}", found.stdout]
        with open(path, "w") as file:
            file.write("\n\n".join(part.strip() for part in parts) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=list(SHAPES))
    parser.add_argument("--report", metavar="FILE")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if options.report:
        report(options.report, options.networks, options.compile)
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads leave the CPU to the others
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for name in options.networks:
        print(table(name, options.compile), flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
