"""Result sets to a Comparison: which method is faster, by how much, and how sure that is.

Pure functions of result files. The room knows which files may stand side by side, pairs every
measurement with its baseline, derives each published quantity from the ledger by one named
function, and gives a verdict only where interval, noise floor and number of comparisons allow.
"""

from specbench.compare.build import GROUPINGS, compare
from specbench.compare.comparability import ALLOWABLE
from specbench.compare.comparison import (
    BETTER,
    INCONCLUSIVE,
    OVERALL,
    SAME,
    WORSE,
    Comparison,
    ComparisonRow,
    Setting,
    Speedup,
)

__all__ = [
    "ALLOWABLE",
    "BETTER",
    "GROUPINGS",
    "INCONCLUSIVE",
    "OVERALL",
    "SAME",
    "WORSE",
    "Comparison",
    "ComparisonRow",
    "Setting",
    "Speedup",
    "compare",
]
