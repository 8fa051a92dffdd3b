"""What tests of engines share."""

from __future__ import annotations

import pytest

from specbench.models.native import library


@pytest.fixture(scope="session")
def compiled():
    """The native step's library; a test is skipped where there is no compiler."""
    try:
        return library.load()
    except library.Unavailable as obstacle:
        pytest.skip(f"no native step here: {obstacle}")
