"""A part of the campaign with bad commands and damaged files."""

import pytest

from tests.campaigns.bad_commands import cases, run_cases

STRIDE = 12  # `python -m tests.campaigns.bad_commands` runs all cases


@pytest.mark.filterwarnings("ignore:Glyph")
def test_bad_commands_and_damaged_files_are_one_line_errors() -> None:
    table = cases()
    assert len(table) > 700
    assert run_cases(table[::STRIDE]) == []
