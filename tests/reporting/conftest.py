"""Reports of tests draw fewer panels than those of users."""

import pytest


@pytest.fixture(autouse=True)
def short_reports(few_panels):
    """Let no report of this room draw many."""
