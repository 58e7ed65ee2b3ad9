"""What tests of the embedded engine share: the model's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from mains.engines import model_file


@pytest.fixture(scope="session")
def embedded_model() -> Path:
    """The embedded model, fetched if it is not there (93 MB, once on a machine)."""
    return model_file.fetch(lambda done, total: None)
