"""Makes docs/statements.md from what the tests of the theory measured.

Run `python tests/theory/table.py`: about five minutes; any options go to pytest.
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
GUESS = "*Text not at hand; taken to say:* "

INTRODUCTION = """\
# The paper's statements, checked

Every numbered statement of sections 2-6 of [Deep Relaxation](https://arxiv.org/abs/1704.04932),
the test that checks it, what that test measured, and the bound that it must keep (s.e.: standard
errors, which stand in brackets after a figure). `python tests/theory/table.py` runs the tests in
`tests/theory` and writes this page from what they saw. Keys of random numbers are fixed: another
machine changes figures by rounding only (which errors of 1e-12 and less consist of). Statements
are in our words, none is a quotation; equations stand with the section that they belong to, in an
order that is ours. Where the paper's text was not at hand, the row says what the statement was
taken to be: such a row checks that guess.

| number | what it says | test | measured | bound |
|---|---|---|---|---|
"""

STATEMENTS = {
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
    "Remark 6": "Below gamma = -1/min f'' the inner problem has one minimiser. The threshold is "
    "sufficient; it is sharp for the x that makes the point of least f'' stationary, as here.",
    "Remark 7": GUESS + "both fast-slow systems, Entropy-SGD and Entropy-SGD-2, have one limit.",
    "(22)": "Ergodicity: given their centre, replicas' average (and time's) is the time average "
    "of the inner loop. **Not so if the centre is their own mean at every step**: many replicas "
    "then descend phi, of which local entropy is the Moreau envelope (same critical points).",
    "(23)": "HEAT's gradient is the Gaussian average of grad f, y being N(0, gamma T).",
    "Remark 8": "At a critical point of f the gradients of local entropy and of heat coincide. "
    "Exactly so only for f symmetric about it; otherwise up to order gamma^2, against gamma "
    "elsewhere.",
    "(24)": GUESS + "the controlled dynamics (CSGD), whose least expected cost is the value u.",
    "(25)": "The optimal control is grad u.",
    "(26)": "The density of controlled paths solves a forward Fokker-Planck equation.",
    "(27)": GUESS + "the terminal-value problem for u with the drift -grad f; here against "
    "u = -(1/beta) log E exp(-beta V(x_sgd(T))).",
    "Remark 9": GUESS + "(25) and (26) are one adjoint pair, backwards and forwards in time.",
    "Remark 10": "Without grad f, u is viscous Hamilton-Jacobi backwards in time.",
    "Remark 11": GUESS + "without noise the control becomes deterministic; for f = 0, Hopf-Lax.",
    "Theorem 12": "E V(x_csgd) is at most E V(x_sgd) less half the expected effort.",
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
    "§2.4": "(No number.) Escape from a well takes Kramers' time as T falls; Langevin dynamics "
    "with inertia tend to those without as friction grows.",
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
