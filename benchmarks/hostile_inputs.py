"""Print how many hostile inputs were tried and how many gave way.

Secrets are planted in every place where a run meets text and looked for in everything that it
leaves behind; the readers of files are given generated damage. `--fuzz` also runs the fuzz suite,
with `--examples` inputs for each of its tests.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.secret_shapes import SHAPES
from tests.unit.test_secret_shapes import PLACES, found_in, left_behind

READERS = ("imports", "journals", "predict", "results", "tasks")


def main() -> None:
    """Print the figures as a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fuzz", action="store_true", help="run the fuzz suite too")
    parser.add_argument("--examples", type=int, default=150, help="inputs for each of its tests")
    options = parser.parse_args()
    print("| secrets planted in | shapes | found |\n| :-- | --: | --: |")
    for place in PLACES:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            found = found_in(left_behind(Path(folder), SHAPES, place, patch), SHAPES)
        print(f"| {place.__name__.replace('_', ' ')} | {len(SHAPES)} | {len(found)} |", flush=True)
    if options.fuzz:
        print("\n| reader of | inputs | crashes |\n| :-- | --: | --: |")
        for reader in READERS:
            inputs, crashes = fuzzed(reader, options.examples)
            print(f"| {reader} | {inputs} | {crashes} |", flush=True)


def fuzzed(reader: str, examples: int) -> tuple[int, int]:
    """Run the fuzz tests of one reader; return how many inputs it was given, and the crashes."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    words += ["--hypothesis-show-statistics", f"tests/fuzz/test_{reader}.py"]
    environment = {**os.environ, "SPECBENCH_FUZZ_EXAMPLES": str(examples)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    drawn = re.findall(r"(\d+) passing(?: examples)?, (\d+) failing", done.stdout)
    failed = re.search(r"(\d+) failed", done.stdout)
    return sum(int(a) + int(b) for a, b in drawn), int(failed[1]) if failed else 0


if __name__ == "__main__":
    main()
