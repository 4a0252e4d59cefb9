"""The figures in the docs are those on record."""

import pytest

from bench.report import pages


@pytest.mark.parametrize(
    ("page", "made"), pages().items(), ids=lambda one: getattr(one, "name", "")
)
def test_the_tables_of_a_page_are_made_from_the_records(page, made):
    assert made in page.read_text()
