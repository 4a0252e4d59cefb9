"""Markdown to HTML: none in it comes through, headings get anchors, code gets classes."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name  # pyright: ignore[reportUnknownVariableType]
from pygments.util import ClassNotFound

Lead = Callable[[str], str | None]

_COMMENT: Final = re.compile(r"^<!--.*?-->\n?", re.MULTILINE)  # notes to those who edit the file
_ELSEWHERE: Final = ("http://", "https://")
_CODE: Final[HtmlFormatter[str]] = HtmlFormatter(nowrap=True, classprefix="tok-")
_NOT_IN_ANCHORS: Final = re.compile(r"[^\w\- ]")


@dataclass(frozen=True, slots=True)
class Heading:
    """A place on a page that can be linked to."""

    level: int
    anchor: str
    title: str


@dataclass(frozen=True, slots=True)
class Prose:
    """A page as it is shown; its title apart, as something may stand between the two."""

    title: str  # HTML, as is the rest
    rest: str
    headings: list[Heading]


def render(text: str, lead: Lead) -> Prose:
    """Render a page.

    Args:
        text: the Markdown.
        lead: says where a relative link or picture is; None leaves a link's words without a link.
    """
    reader = MarkdownIt("commonmark", {"html": False, "highlight": _highlighted}).enable("table")
    tokens = reader.parse(_COMMENT.sub("", text))
    for token in tokens:
        _follow(token.children or [], lead)
    headings = list(_anchored(tokens))
    shown = [part for token in tokens for part in _strict(token)]
    end = next((at for at, one in enumerate(shown, 1) if one.type == "heading_close"), 0)
    title, rest = (
        reader.renderer.render(part, reader.options, {}) for part in (shown[:end], shown[end:])
    )
    return Prose(title, rest, headings)


def anchor_of(title: str) -> str:
    """Name the anchor of a heading, as code hosts do."""
    return _NOT_IN_ANCHORS.sub("", title).strip().lower().replace(" ", "-")


def _anchored(tokens: list[Token]) -> Iterator[Heading]:
    """Give each heading an id, and a link to itself behind its words."""
    taken: dict[str, int] = {}
    for opening, inline in pairwise(tokens):
        if opening.type != "heading_open":
            continue
        words = inline.children or []
        title = "".join(one.content for one in words if one.type in {"text", "code_inline"})
        anchor = anchor_of(title)
        before = taken.get(anchor, 0)
        taken[anchor] = before + 1
        anchor = f"{anchor}-{before}" if before else anchor
        opening.attrSet("id", anchor)
        level = int(opening.tag[1])
        if level > 1:
            inline.children = [*words, *_link_here(anchor, title)]
        yield Heading(level, anchor, title)


def _link_here(anchor: str, title: str) -> list[Token]:
    link = Token("link_open", "a", 1)
    link.attrs = {"class": "here", "href": f"#{anchor}", "aria-label": f"Link to {title}"}
    return [link, Token("text", "", 0, content="#"), Token("link_close", "a", -1)]


def _follow(words: list[Token], lead: Lead) -> None:
    """Lead links and pictures to where they are here; what is nowhere here keeps its words."""
    lost = False  # inside a link that leads nowhere
    for token in words:
        if token.type == "image":
            token.attrSet("src", lead(str(token.attrs["src"])) or "")
        elif token.type == "link_open":
            href = str(token.attrs["href"])
            goal = href if href.startswith((*_ELSEWHERE, "#")) else lead(href)
            lost = goal is None
            token.attrs = {"href": goal} if goal else {"title": "A file of the source tree"}
        if lost and token.type in {"link_open", "link_close"}:
            token.tag = "span"


def _strict(token: Token) -> list[Token]:
    """Fit a token to the content policy, which has no style attribute, and to narrow windows."""
    if "right" in str(token.attrs.pop("style", "")):  # of a column
        token.attrSet("class", "end")
    if token.type == "table_open":
        return [Token("html_block", "", 0, content='<div class="wide" tabindex="0">'), token]
    if token.type == "table_close":
        return [token, Token("html_block", "", 0, content="</div>\n")]
    return [token]


def _highlighted(code: str, language: str, _attributes: str) -> str:
    """Colour a block of code by classes; it can be scrolled by keys."""
    try:
        lexer = get_lexer_by_name(language or "text", stripnl=False)
    except ClassNotFound:
        lexer = get_lexer_by_name("text", stripnl=False)
    return f'<pre tabindex="0"><code>{highlight(code, lexer, _CODE)}</code></pre>\n'
