"""Makes docs/statements.md from what the tests of the theory measured.

Run `python tests/theory/table.py`: some minutes; any options go to pytest.
"""

import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
from xml.etree import ElementTree

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "statements.md"
INTRODUCTION = """\
# The paper's statements, checked

Every numbered statement of sections 2-6 of [Deep Relaxation](https://arxiv.org/abs/1704.04932), and
those without a number that can be tested: the test that checks the statement, what that test
measured, and the bound that it must keep (s.e.: standard errors, which stand in brackets after a
figure). `python tests/theory/table.py` runs the tests in `tests/theory` and writes this page from
what they saw. Keys of random numbers are fixed: another machine changes figures by rounding only
(errors of 1e-12 and less consist of rounding). Statements are in our words, none is a quotation, in
the paper's order.

| number | what it says | test | measured | bound |
|---|---|---|---|---|
"""

STATEMENTS = {
    "§1.1": "(No number.) Scoping in continuous time: x' = -grad u(x, S - s), u the local entropy, "
    "is the optimal control of section 5 for the drift 0 and the terminal cost f. It ends lower "
    "than gradient flow, and with noise lower than SGD, on a rugged loss.",
    "(8)": "The generator of SGD's diffusion, -grad f . grad + Laplacian/(2 beta), is the rate of "
    "change of an expectation.",
    "(9)": "The expected V(x(S)) of paths from x at s solves the backward Kolmogorov equation.",
    "(10)": "The density tends to Gibbs', exp(-2 beta f) for the noise beta^-1/2 dW.",
    "§2.3": "(No number.) Jordan, Kinderlehrer and Otto: the density's free energy never grows; "
    "and for a lambda-convex f the Wasserstein-2 distance of two densities shrinks at least as "
    "fast as exp(-lambda s).",
    "§2.4": "(No number.) Escape from a well takes Kramers' time as T falls; annealing finds the "
    "lowest minimum if it cools exponentially slowly, T = c/log s with c large enough; Langevin "
    "dynamics with inertia tend to those without as friction grows.",
    "Lemma 1": "The gradient of local entropy is the mean of (x - y)/t under rho_1, and the mean "
    "of grad f(x - y) under rho_2.",
    "Lemma 2": "Hopf-Lax: u(x, t) is the minimum of f(y) + abs(x - y)^2/(2t); at its minimiser p, "
    "grad u = (x - p)/t = grad f(p). Where the minimiser is unique.",
    "Lemma 3": "If f + abs(x - .)^2/(2 gamma) is lambda-convex, its gradient flow reaches p at "
    "least as fast as exp(-lambda s).",
    "Lemma 4": "For quadratic f, rho_1 is Gaussian with known mean and covariance; its mean is "
    "x - t grad f(x) + O(t^2). A chain of finite steps keeps the mean, not the covariance.",
    "Theorem 5": "As epsilon tends to 0 the fast-slow system follows gradient descent on local "
    "entropy; HEAT's follows the heat solution.",
    "§4": "(No number, the sentence after Theorem 5.) Both fast-slow systems, Entropy-SGD and "
    "Entropy-SGD-2, have one limit.",
    "Remark 6": "Below gamma = -1/min f'' the inner problem has one minimiser. The threshold is "
    "sufficient; it is sharp for the x that makes the point of least f'' stationary, as here.",
    "(19)": "<y> is the linear average over the inner time. (The algorithms of section 7.1 average "
    "with more weight on what comes last.)",
    "Remark 7": "The distributed algorithm may be seen as the Wasserstein gradient flow of a "
    "non-local functional: Fokker-Planck's free energy, and the interaction through the mean. For "
    "many replicas around their own mean the functional never grows.",
    "(22)": "Ergodicity: given their centre, replicas' average (and time's) is the time average "
    "of the inner loop. **Not so if the centre is their own mean at every step**: many replicas "
    "then descend phi, of which local entropy is the Moreau envelope (same critical points).",
    "(23)": "HEAT's gradient is the Gaussian average of grad f, y being N(0, gamma T).",
    "Remark 8": "At a critical point of f the gradients of local entropy and of heat coincide. "
    "Exactly so only for f symmetric about it; otherwise up to order gamma^2, against gamma "
    "elsewhere.",
    "(24)": "The cost of a control a: E[V(x(S)) + 1/2 int abs(a)^2 ds]. Its least value is u, the "
    "solution of the Hamilton-Jacobi-Bellman equation (which has no number).",
    "(25)": "The optimal control is a = grad u.",
    "Remark 9": "The Hamilton-Jacobi-Bellman equation is a terminal-value problem, well posed "
    "backwards in time; with the density of the controlled paths it forms the pair (26).",
    "(26)": "The pair: the Hamilton-Jacobi-Bellman equation backwards from V, and forwards from "
    "rho_0 the density of optimally controlled paths, with the drift -(grad f + grad u).",
    "Remark 10": "Without grad f, u is viscous Hamilton-Jacobi backwards in time.",
    "Remark 11": "If control and cost depend on the density of the other players, or its moments, "
    "(26) is a mean-field game, natural for replicas. An analogue of Theorem 12 is conjectured: "
    "its improvement is measured in this row, not claimed.",
    "(27)": "Comparison: u(x, s) is at most v(x, s) everywhere, v the expected cost (9) of "
    "uncontrolled paths.",
    "Theorem 12": "E V(x_csgd) is at most E V(x_sgd) less half the expected effort.",
    "§5": "(No number.) Without noise the control becomes deterministic; for f = 0, Hopf-Lax.",
    "Example 13": "For f = c x^2/2 the curvature becomes c/(1 + ct), whatever beta.",
    "Example 14": "Heat shrinks an eigenfunction's curvature c to c exp(-lambda t): slower than "
    "c/(1 + ct) for short times if c is above lambda.",
    "Example 15": "In 1-D, p = u_x solves Burgers' equation.",
    "(28)": "Before the shock p(x, t) = p0(x - t p(x, t)).",
    "(29)": "The shock comes at t* = -1/min f''.",
    "Example 16": "Until t* the convex interval of a minimum widens: its ends move by t f'.",
    "Remark 17": "Convex f stays convex, with the same minimisers; other minima persist for short "
    "times, then may vanish. **The same minimisers: true of HJ, false of viscous HJ** if f is not "
    "symmetric: noise moves them to the flatter side.",
    "Lemma 18": "sup u_kk is at most 1/(1/C_k + t), sup of the Laplacian 1/(1/C + t/N), any beta.",
    "Lemma 19": "The harmonic mean of a positive definite matrix's eigenvalues is at most that of "
    "its diagonal.",
    "Lemma 20": "At a minimum of u, the harmonic mean of its curvatures is at most "
    "1/(t + 1/HM(C)).",
    "(32)": "The noise of mini-batches and extrinsic noise add in variance: the size of "
    "mini-batches modulates the temperature (section 2.5).",
    "§7.5": "(No number, and no claim of the paper.) How often annealing and scoping leave the "
    "worse of two wells, for equal gradients.",
}


def measure(options):
    """Runs the tests; all that they measured, as [statement, test, figure, bound]."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", str(HERE), f"--junitxml={report}"]
        command += [f"--ignore={HERE / 'test_statements.py'}", *options]  # which tests the page
        done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        properties = ElementTree.parse(report).iter("property")
        return [json.loads(p.get("value")) for p in properties if p.get("name") == "measured"]


def row(statement, records):
    """One line of the table: a test's cases are merged, and tests stand below each other."""
    tests, figures, bounds = [], [], []
    for test, cases in itertools.groupby(records, key=lambda record: record[1].split("[")[0]):
        _, _, figure, bound = zip(*cases, strict=True)
        tests.append(f"`{test.removeprefix('tests/theory/')}`")
        figures.append("; ".join(figure))
        bounds.append("; ".join(dict.fromkeys(map(str, bound))))
    cells = statement, STATEMENTS[statement], *map("<br>".join, (tests, figures, bounds))
    return f"| {' | '.join(cells)} |\n"


def page(records):
    by_statement = {s: [r for r in records if r[0] == s] for s in STATEMENTS}
    unknown = {r[0] for r in records} - set(STATEMENTS)
    missing = [s for s, found in by_statement.items() if not found]
    if unknown or missing:
        sys.exit(f"unknown statements: {sorted(unknown)}; statements without a test: {missing}")
    return INTRODUCTION + "".join(itertools.starmap(row, by_statement.items()))


if __name__ == "__main__":
    PAGE.write_text(page(measure(sys.argv[1:])))
