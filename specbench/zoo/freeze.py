"""Write the frozen task files again: `python -m specbench.zoo.freeze [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

from specbench.paths import tasks_dir
from specbench.zoo.held_out import write_task_files


def main() -> None:
    """Write every `tiny_*.jsonl` and print its sha256, in the format of `sha256sum`."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else tasks_dir()
    folder.mkdir(parents=True, exist_ok=True)
    for name, digest in write_task_files(folder):
        print(f"{digest}  {name}")


if __name__ == "__main__":
    main()
