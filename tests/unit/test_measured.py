"""The figures in README are those on record."""

from pathlib import Path

from bench.report import tables

README = Path(__file__).parents[2] / "README.md"


def test_the_tables_in_readme_are_made_from_the_records():
    assert tables() in README.read_text()
