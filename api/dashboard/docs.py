"""The documentation: the very files of docs/, found once at start, rendered when first read."""

import posixpath
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, render_template, request, send_file
from sqlalchemy.exc import SQLAlchemyError

from api.dashboard import shell
from api.dashboard.markdown import Prose, render
from api.plumbing.auth import current_caller
from shared.vocabulary.errors import WanfarmError

_FOLDER: Final = Path(__file__).parents[2] / "docs"
_KINDS: Final = ("tutorial", "how-to", "reference", "explanation")
_CONTENTS: Final = "README.md"
_BESIDE: Final = frozenset({".png", ".json"})  # what pages show or link to, served as it is
_TITLE: Final = re.compile(r"^# (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """One Markdown file."""

    source: str  # its path below docs/
    title: str
    text: str

    @property
    def name(self) -> str:
        """Its path in the app, below /docs; the contents have none."""
        return "" if self.source == _CONTENTS else self.source.removesuffix(".md")

    @property
    def kind(self) -> str:
        """Its folder: one of the four kinds, or nothing."""
        return self.source.rpartition("/")[0]


class Library:
    """All pages and the files beside them: nothing that is asked for is ever a path."""

    def __init__(self, folder: Path) -> None:
        """Read what there is; without the folder there is no page."""
        found = {one.relative_to(folder).as_posix(): one for one in sorted(folder.rglob("*"))}
        pages = [_page(name, path) for name, path in found.items() if path.suffix == ".md"]
        contents = next((page.text for page in pages if page.source == _CONTENTS), "")
        pages.sort(key=lambda page: contents.find(f"({page.source}"))  # as the contents list them
        self.pages = {page.name: page for page in pages}
        self.files = {name: path for name, path in found.items() if path.suffix in _BESIDE}
        self._rendered: dict[str, Prose] = {}

    def prose(self, page: Page) -> Prose:
        """Render a page, once."""
        known = self._rendered.get(page.name)
        if known is None:
            known = render(page.text, lambda target: self._lead(page, target))
            self._rendered[page.name] = known
        return known

    def by_kind(self) -> Iterator[tuple[str, list[Page]]]:
        """List the pages, those of no kind first."""
        for kind in ("", *_KINDS):
            yield kind, [page for page in self.pages.values() if page.kind == kind]

    def _lead(self, page: Page, target: str) -> str | None:
        """Find the address of what a page links to; None of what is not here."""
        path, _, anchor = target.partition("#")
        goal = posixpath.normpath(posixpath.join(page.kind, path))
        if goal in self.files:
            return f"/docs/{goal}"
        name = "" if goal == _CONTENTS else goal.removesuffix(".md")
        if name == goal or name not in self.pages:
            return None
        return _address(name) + (f"#{anchor}" if anchor else "")


def register(pages: Blueprint, folder: Path = _FOLDER) -> None:
    """Serve the documentation, to everybody who can reach the farm."""
    library = Library(folder)

    def show(name: str = "") -> Response:
        _recognise()
        if name in library.files:
            return send_file(library.files[name], conditional=True)
        page = library.pages.get(name)
        if page is None:
            raise WanfarmError(
                "not_found",
                f"There is no page 'docs/{name[:80]}'. It may have another name now. "
                "The documentation begins at /docs.",
            )
        prose, kinds = library.prose(page), library.by_kind()
        html = render_template("docs.html", page=page, prose=prose, kinds=kinds, address=_address)
        return shell.cheap(html)

    pages.add_url_rule("/docs", "docs", show, strict_slashes=False)
    pages.add_url_rule("/docs/<path:name>", "docs_page", show)


def _recognise() -> None:
    """Show those who are logged in the whole shell; the docs stay open when Postgres is away."""
    with suppress(WanfarmError, SQLAlchemyError):
        current_caller(request)


def _page(source: str, path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    title = _TITLE.search(text)
    return Page(source, title[1] if title else source, text)


def _address(name: str) -> str:
    return f"/docs/{name}" if name else "/docs"
