"""Spectra of Hessians: saved, tabled and drawn."""

import io
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from entropix.files import write_atomic
from entropix.landscape.networks import Estimate, Spectrum, arithmetic_mean, harmonic_mean
from entropix.landscape.networks.estimate import mean_of_samples
from entropix.report.cells import markdown
from entropix.report.style import PALETTE, fixed_style, save_figure

CUTOFFS = (1e-3, 1e-2, 1e-1, 1.0)
"""Above which eigenvalues count in the means of `spectra_table`."""


def spectra_table(densities: Mapping[str, Spectrum]) -> str:
    """Makes a table of the means of spectra, with standard errors in brackets, in Markdown.

    A row is a spectrum and a cut-off c: the share of the eigenvalues within c of zero, and of
    those above c the share, the harmonic and the arithmetic mean (the paper's section 6.3).

    Example:
      >>> import jax.numpy as jnp
      >>> from entropix.landscape import spectrum
      >>> diagonal = jnp.asarray([0.0, 0.0, 0.0, 2.0])
      >>> found = spectrum(lambda v: diagonal * v, jnp.zeros(4), key=0, num_samples=4)
      >>> print(spectra_table({"SGD": found}).splitlines()[-1].split("|")[6].split()[0])
      2
    """
    records = []
    for label, density in densities.items():
        harmonic, arithmetic = (
            mean(density, np.asarray(CUTOFFS)) for mean in (harmonic_mean, arithmetic_mean)
        )
        for k, cutoff in enumerate(CUTOFFS):
            records.append(
                {
                    "spectrum": label,
                    "c": f"{cutoff:g}",
                    "share within c": _shown(_share(density, abs(density.nodes) <= cutoff)),
                    "share above c": _shown(_share(density, density.nodes > cutoff)),
                    "harmonic mean above c": _shown(jax.tree.map(lambda a, k=k: a[k], harmonic)),
                    "arithmetic mean": _shown(jax.tree.map(lambda a, k=k: a[k], arithmetic)),
                }
            )
    return markdown(records) + "\n"


def _share(density: Spectrum, counted: Any) -> Estimate:
    return mean_of_samples(np.sum(np.where(counted, density.weights, 0), axis=-1))


def _shown(estimate: Estimate) -> str:
    value, error = map(float, estimate)
    return f"{value:.3g} ({error:.1g})" if np.isfinite(value) else "none"


@fixed_style
def draw_spectra(densities: Mapping[str, Any], path: str | pathlib.Path | None = None) -> Figure:
    """Draws densities of eigenvalues, on a logarithmic axis, with a band of one standard error.

    Args:
      densities: label -> an object with `grid`, `value` and `standard_error`.
      path: where to save the figure, if given.

    Returns:
      The matplotlib `Figure`.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    panel = figure.subplots()
    for (label, density), colour in zip(densities.items(), _cycle(len(densities)), strict=True):
        floor = max(float(np.max(density.value)) * 1e-7, 1e-300)
        value = np.maximum(density.value, floor)
        panel.plot(density.grid, value, color=colour, label=label, linewidth=1)
        low = np.maximum(density.value - density.standard_error, floor)
        high = np.maximum(density.value + density.standard_error, floor)
        panel.fill_between(density.grid, low, high, color=colour, alpha=0.2, linewidth=0)
    panel.set_yscale("log")
    panel.set_xlabel("eigenvalue of the Hessian")
    panel.set_ylabel("density")
    panel.legend(frameon=False)
    if path is not None:
        save_figure(figure, path, dpi=150)
    return figure


def _cycle(count: int) -> list[str]:
    colours = list(PALETTE.values())
    return [colours[k % len(colours)] for k in range(count)]


def save_spectra(densities: Mapping[str, Spectrum], path: pathlib.Path) -> None:
    """Writes the arrays of every spectrum, under `NAME/FIELD`."""
    buffer = io.BytesIO()
    arrays = {f"{n}/{field}": a for n, d in densities.items() for field, a in d._asdict().items()}
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def read_spectra(path: pathlib.Path) -> dict[str, Spectrum]:
    """Reads what `save_spectra` wrote; nothing where there is no file.

    Raises:
      ValueError: if the file cannot be read.
    """
    if not path.exists():
        return {}
    try:
        with np.load(path) as saved:
            arrays = dict(saved)
        names = dict.fromkeys(key.rpartition("/")[0] for key in arrays)
        fields = Spectrum._fields
        return {name: Spectrum(*(arrays[f"{name}/{f}"] for f in fields)) for name in names}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read: {error}. Remove the file; its spectra will be computed again."
        ) from error
