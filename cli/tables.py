"""Tables of Markdown, with the columns that say something."""

from collections.abc import Iterator, Sequence


def table(head: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Write a table below an empty line, or nothing for no rows.

    Args:
        head: names of the columns, comma-separated; one that is empty in every row is left out.
        rows: the cells.
    """
    if not rows:
        return
    columns = zip(head.split(", "), *rows, strict=True)
    kept = [column for column in columns if any(column[1:])]
    lines = [
        " | ".join(cell.replace("|", "\\|") for cell in row) for row in zip(*kept, strict=True)
    ]
    yield ""
    yield f"| {lines[0]} |"
    yield "|" + "---|" * len(kept)
    yield from (f"| {line} |" for line in lines[1:])
