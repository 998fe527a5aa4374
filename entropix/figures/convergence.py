"""The earlier place of `convergence`, and the colours of the paper's algorithms by name."""

from entropix.report.curves import convergence
from entropix.report.style import PALETTE

__all__ = ["COLOURS", "convergence"]

COLOURS = {
    "sgd": PALETTE["black"],
    "entropy_sgd": PALETTE["blue"],
    "hj": PALETTE["vermillion"],
    "heat": PALETTE["orange"],
    "elastic_sgd": PALETTE["green"],
    "parle": PALETTE["purple"],
}
