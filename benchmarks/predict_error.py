"""How far predictions are from measurements: the tables of docs/predict.md.

    python -m benchmarks.predict_error > errors.md
    python -m benchmarks.predict_error --lengths FOLDER

The first predicts every reference run from its acceptance and the costs of the other runs of its
law. The second reads runs of one method at several draft lengths and predicts the tokens of a
round at each length from the run at every other: shorter lengths by cutting, longer ones by
extrapolating. Such runs are made by

    specbench run -m method=token_sd method.draft_length=1,2,3,4,6,8,12 task=tiny task.limit=24
        sampling.temperature=0 timing.repeats=1 timing.threads=1 results_dir=FOLDER

in one line. Times of that second set are not used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from specbench.predict import check_predictions, profiles_of
from specbench.report.predict import CheckReport, markdown
from specbench.store import read_many

REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference"


def main() -> None:
    """Print the errors as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=Path, help="folder with runs at several draft lengths")
    folder = parser.parse_args().lengths
    if folder is not None:
        print_lengths(folder)
        return
    for law in sorted(path for path in REFERENCE.iterdir() if path.is_dir()):
        found = profiles_of(read_many([law]))
        report = CheckReport(check_predictions(found.profiles, range(1, 17)), found.left_out)
        print(f"## {law.name}\n\n{markdown(report)}")


def print_lengths(folder: Path) -> None:
    """Print tokens of a round: measured at each length, and predicted from every other."""
    profiles = sorted(
        profiles_of(read_many([folder])).profiles,
        key=lambda profile: profile.acceptance.measured_length,
    )
    lengths = [profile.acceptance.measured_length for profile in profiles]
    print("| predicted from length | " + " | ".join(map(str, lengths)) + " |")
    print("|:--" * (len(lengths) + 1) + "|")
    print("| measured | " + " | ".join(f"{p.work.tokens:.2f}" for p in profiles) + " |")
    for profile, own in zip(profiles, lengths, strict=True):
        cells = []
        for length, truth in zip(lengths, profiles, strict=True):
            guess = profile.at(length).tokens
            mark = "~" if profile.extrapolated(length) else ""
            error = guess / truth.work.tokens - 1
            cells.append("" if length == own else f"{guess:.2f}{mark} ({error:+.1%})")
        print(f"| {own} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
