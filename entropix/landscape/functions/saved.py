"""A user's function examined and the data saved; figures are made from the files alone."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from entropix.landscape.functions.equations import EQUATIONS, widened
from entropix.landscape.functions.estimators import METHODS, sweep
from entropix.landscape.functions.expression import Expression, parse
from entropix.landscape.functions.relaxations import descend_while_scoping, relaxations
from entropix.pde.checks import check_count
from entropix.pde.grid import Grid
from entropix.pde.regularity import shock_time

_NODES = {1: 401, 2: 61}
_MOST_NODES = {1: 4001, 2: 121}
_POINTS = {1: 17, 2: 5}  # a dimension, where estimates are compared with the truth


def save_landscape(
    folder: str | pathlib.Path,
    text: str,
    interval: Sequence[float],
    times: Sequence[float],
    beta: float,
    *,
    start: Sequence[float] | None = None,
    nodes: int | None = None,
    frames: int = 60,
    equations: Sequence[str] = EQUATIONS,
) -> None:
    """Writes `relaxations.npz` and, with frames, `scoping.npz`, in double precision.

    Args:
      folder: where to; it is made when all is computed. Files of these names of an earlier call are
        replaced; without frames, that `scoping.npz` is removed.
      text: the function, see `entropix.landscape.functions.expression`.
      interval: low, high; in 2-D perhaps low, high, low, high of x and y.
      times: of the relaxations, all > 0; the largest is the first gamma of scoping.
      beta: inverse temperature, in (0, 1e12].
      start: of the descents, one number a dimension, within the interval; by default an eighth (in
        y: a quarter) from the upper end.
      nodes: a dimension, 3 to 4001 in 1-D and 3 to 121 in 2-D; by default 401 and 61.
      frames: of scoping; 0 for none.
      equations: the relaxations, see `relaxations`.

    Raises:
      ValueError: for anything that cannot be taken, in one line, before anything is written.

    Example:
      >>> import tempfile
      >>> from entropix import landscape
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     landscape.save_landscape(folder, "x**2 / 2", (-1.0, 1.0), times=[0.5], beta=10.0,
      ...                              nodes=41, frames=0)
      ...     data = landscape.load_landscape(f"{folder}/relaxations.npz")
      >>> [str(name) for name in data["equations"]], data["values"].shape
      (['viscous_hj', 'hj', 'heat'], (3, 1, 41))
    """
    expression = parse(text)
    grid = _grid(expression, interval, nodes)
    ndim = grid.ndim
    if start is None:
        # Off the diagonal, on which a symmetric function could hold the descent at a saddle.
        ends = zip(grid.lower, grid.upper, (1 / 8, 1 / 4), strict=False)
        start = [b - part * (b - a) for a, b, part in ends]
    if frames:
        check_count(frames=frames)
    if not _inside(grid, start):
        raise ValueError(f"start must be {ndim} numbers within the interval; got {start!r:.100}")
    f = expression.function
    common = {"function": np.asarray(text)}
    files = {}
    with jax.enable_x64(True):
        relaxed = relaxations(grid, f, times, beta, equations)
        files["relaxations"] = common | relaxed._asdict()
        if frames:
            descent = descend_while_scoping(grid, f, max(times), beta, start, frames)
            common |= {"points": relaxed.points, "f": relaxed.f}
            files["scoping"] = common | descent._asdict()
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scoping.npz").unlink(missing_ok=True)  # perhaps of another function
    for name, arrays in files.items():
        np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **arrays)


def load_landscape(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a file that `save_landscape` wrote.

    Args:
      path: of `relaxations.npz` or `scoping.npz`.

    Returns:
      The arrays by name: the fields of `Relaxations` or `Scoping`, and `function`, the text of f.
      The file of `Scoping` has `points` and `f` too.

    Raises:
      OSError: if the file cannot be opened.

    Example:
      >>> import tempfile
      >>> from entropix import landscape
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     landscape.save_landscape(folder, "x**2 / 2", (-1.0, 1.0), times=[0.5], beta=10.0,
      ...                              nodes=41, frames=0)
      ...     data = landscape.load_landscape(f"{folder}/relaxations.npz")
      >>> str(data["function"]), data["times"].tolist()
      ('x**2 / 2', [0.5])
    """
    with np.load(path) as data:
        return dict(data)


def save_accuracy(
    folder: str | pathlib.Path,
    text: str,
    interval: Sequence[float],
    gammas: Sequence[float],
    temperatures: Sequence[float],
    steps: Sequence[int],
    *,
    step_size: float,
    averaging: float,
    num_chains: int,
    methods: Sequence[str] = METHODS,
) -> None:
    """Writes `accuracy.json`: how far each method's estimates are from the relaxed gradients.

    Args:
      folder: where to; it is made when all is computed.
      text: the function, see `entropix.landscape.functions.expression`.
      interval: low, high; in 2-D perhaps low, high, low, high of x and y. Estimates are made at
        17 equidistant points of it, or 5 x 5.
      gammas: scopes, all > 0.
      temperatures: T, all > 0.
      steps: L, gradients for one estimate, all >= 2.
      step_size: eta_y, > 0; eta_y (max f'' + 1/gamma) must stay below 2.
      averaging: alpha of "local_entropy", in [0, 1) or "linear".
      num_chains: estimates per point, see `estimates`.
      methods: see `sweep`.

    Raises:
      ValueError: for anything that cannot be taken, in one line, before anything is written.

    Example:
      >>> import tempfile
      >>> from entropix import landscape
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     landscape.save_accuracy(folder, "x**2 / 2", (-1.0, 1.0), gammas=[1.0],
      ...                             temperatures=[0.1], steps=[5], step_size=0.1, averaging=0.75,
      ...                             num_chains=16, methods=["heat"])
      ...     data = landscape.load_accuracy(f"{folder}/accuracy.json")
      >>> [(row["method"], row["steps"]) for row in data["rows"]], data["threshold"]  # f is convex
      ([('heat', 5)], None)
    """
    expression = parse(text)
    grid = _grid(expression, interval, None)
    few = Grid(grid.lower, grid.upper, (_POINTS[grid.ndim],) * grid.ndim)
    with jax.enable_x64(True):
        wide, _ = widened(grid, expression.function)
        threshold = shock_time(grid, expression.function)
        values = np.asarray(grid.sample(expression.function))
        if values.max() == values.min():
            raise ValueError(
                "the function must not be constant: its relaxed gradients are 0, and errors are "
                "given in per cent of them"
            )
        rows = sweep(
            wide, expression.function, few.points.reshape(-1, *grid.point_shape), gammas=gammas,
            temperatures=temperatures, steps=steps, step_size=step_size, averaging=averaging,
            num_chains=num_chains, methods=methods,
        )  # fmt: skip
    data = {
        "function": text,
        "interval": [*interval],
        "threshold": threshold if math.isfinite(threshold) else None,  # of gamma, Remark 6
        "step_size": step_size,
        "averaging": averaging,
        "rows": rows,
    }
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "accuracy.json").write_text(json.dumps(data, indent=1) + "\n")


def load_accuracy(path: str | pathlib.Path) -> dict[str, Any]:
    """Reads what `save_accuracy` saved.

    Args:
      path: of `accuracy.json`.

    Returns:
      A dictionary: `function`, the text of f; `interval`; `threshold`, the gamma above which the
      inner problem may have several minima, None for convex f; `step_size`; `averaging`; `rows`, as
      of `sweep`.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if the file holds no JSON.

    Example:
      >>> import tempfile
      >>> from entropix import landscape
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     landscape.save_accuracy(folder, "x**2 / 2", (-1.0, 1.0), gammas=[1.0],
      ...                             temperatures=[0.1], steps=[5], step_size=0.1, averaging=0.75,
      ...                             num_chains=16, methods=["heat"])
      ...     data = landscape.load_accuracy(f"{folder}/accuracy.json")
      >>> data["function"], data["interval"]
      ('x**2 / 2', [-1.0, 1.0])
    """
    return json.loads(pathlib.Path(path).read_text())


def _inside(grid: Grid, start: Sequence[float]) -> bool:
    try:
        point = np.asarray(start, float)
    except (TypeError, ValueError):
        return False
    return point.shape == (grid.ndim,) and bool(
        np.all((np.asarray(grid.lower) <= point) & (point <= np.asarray(grid.upper)))
    )


def _grid(expression: Expression, interval: Sequence[float], nodes: int | None) -> Grid:
    ndim = expression.ndim
    if len(interval) not in (2, 2 * ndim):
        more = " or low,high,low,high for x and y" if ndim == 2 else ""
        raise ValueError(f"interval must be low,high{more}; got {list(interval)}")
    try:
        ends = np.asarray(interval if len(interval) == 2 * ndim else [*interval] * ndim, float)
    except (TypeError, ValueError):
        raise ValueError(f"interval must be numbers; got {list(interval)}") from None
    nodes = _NODES[ndim] if nodes is None else nodes
    check_count(nodes=nodes)
    if nodes > _MOST_NODES[ndim]:
        raise ValueError(f"nodes must be at most {_MOST_NODES[ndim]} in {ndim}-D; got {nodes}")
    low, high = ends[0::2], ends[1::2]
    if not (np.isfinite(ends).all() and (low < high).all()):
        raise ValueError(f"interval must have finite ends, low < high; got {list(interval)}")
    return Grid(tuple(low), tuple(high), (nodes,) * ndim)
