"""Tables and figures, made from saved results only."""

from entropix.report.accuracy import accuracy
from entropix.report.curves import convergence
from entropix.report.figure1 import figure1, scoping_animation
from entropix.report.gathering import check_workdir, colours, gather
from entropix.report.series import curve
from entropix.report.table import as_text, make_table

__all__ = [
    "accuracy",
    "as_text",
    "check_workdir",
    "colours",
    "convergence",
    "curve",
    "figure1",
    "gather",
    "make_table",
    "scoping_animation",
]
