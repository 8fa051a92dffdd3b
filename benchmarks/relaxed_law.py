"""Print how far the relaxed rules of the Jacobi family move the output law.

Exact, on a small case: three codes, a picture of COLUMNS codes, windows of WINDOW tokens. Every
run of the real decoder is enumerated in float64; the total variation is that of whole pictures.

    python -m benchmarks.relaxed_law 4 3
"""

from __future__ import annotations

import argparse

from specbench.decoding.jacobi.acceptance import Acceptance, Cool, Grouped, Ratio
from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.law import Law
from tests.unit.decoding.enumeration import true_law
from tests.unit.decoding.jacobi.choices import family_law, variation
from tests.unit.decoding.jacobi.toy import PROMPT, image_pair

RULES: dict[str, Acceptance] = {
    "ratio": Ratio(),
    "grouped, 1 rank": Grouped(1, 1.0, 9.0),
    "grouped, 1 rank, closer than 0.5": Grouped(1, 0.15, 0.5),
    "cool, delta 1.1": Cool(1.1),
    "cool, delta 1.5": Cool(1.5),
    "cool, delta 1.5, nu 0.7": Cool(1.5, 0.7),
    "cool, delta 3": Cool(3.0),
}


def main() -> None:
    """Print a line for every rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("columns", type=int, nargs="?", default=4)
    parser.add_argument("window", type=int, nargs="?", default=3)
    asked = parser.parse_args()
    models = image_pair(codes=3, rows=1, columns=asked.columns, row_end=False, ending=False)
    expected = true_law(models, Law(), PROMPT, asked.columns)
    for name, rule in RULES.items():
        decoder = SpeculativeJacobi(asked.window, acceptance=rule)
        law = family_law(decoder, models, Law(), asked.columns, prompt=PROMPT, initial_law=False)
        print(f"{name:34s} TV {variation(law, expected):.6f}", flush=True)


if __name__ == "__main__":
    main()
