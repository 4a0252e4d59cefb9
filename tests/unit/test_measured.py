"""The figures in README are those on record."""

from pathlib import Path

from bench.report import table

README = Path(__file__).parents[2] / "README.md"


def test_the_table_in_readme_is_made_from_the_records():
    assert table() in README.read_text()
