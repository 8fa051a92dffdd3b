"""What every test shares: an offline, single-threaded, colourless environment.

The variables are set when this file is imported, before any test module imports torch or
transformers, since both read them at import.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TERM": "dumb",
}
os.environ.update(_ENVIRONMENT)
for _name in ("FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS"):
    os.environ.pop(_name, None)

REPO_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The top of the repository."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the official benchmark files; the test is skipped where there is none.

    `SPECBENCH_SHARED_DATA` names the folder; its default is `shared/data` beside the checkout.
    """
    configured = os.environ.get("SPECBENCH_SHARED_DATA")
    folder = Path(configured) if configured else REPO_ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no official benchmark files at {folder}")
    return folder
