"""Draw what the checks of trainings said, and print what they took.

python -m benchmarks.training_curves FOLDERS... -o docs/images/training.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from specbench.report import plots
from specbench.report.drawing import PAPER, style


def main() -> None:
    """Read `training.json` of each folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--output", "-o", type=Path, required=True)
    given = parser.parse_args()
    found = {}
    for folder in given.folders:
        about = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        checks = about["history"]["checks"]
        found[folder.name] = [(check["step"], check["sampled"][0]) for check in checks]
        held_out = about["held_out"]
        print(
            f"| {folder.name} | {about['steps']} | {about['tokens']:,} | {about['seconds']:.0f} "
            f"| {' '.join(f'{share:.3f}' for share in held_out['sampled'])} "
            f"| {' '.join(f'{share:.3f}' for share in held_out['greedy'])} |"
        )
    with style(PAPER):
        given.output.write_bytes(plots.trainings(found, PAPER).saved("png"))


if __name__ == "__main__":
    main()
