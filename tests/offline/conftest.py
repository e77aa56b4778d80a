"""What tests of recordings share."""

from __future__ import annotations

import pytest

from rtseg.engine.recipe import Recipe
from tests.shared import random_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """An engine with random weights."""
    return random_recipe(tmp_path_factory.mktemp("weights"))
