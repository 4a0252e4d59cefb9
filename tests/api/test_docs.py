"""The documentation in the app: every page of docs/, every link, and nothing else."""

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask import Flask, Response

from api.app import close, create_app
from api.dashboard.docs import Library
from api.plumbing import auth
from shared.machinery.settings import Settings
from tests.api.callers import Caller

FOLDER = Path(__file__).parents[2] / "docs"
SOURCES = sorted(FOLDER.rglob("*.md"))
NO_PAGES = (
    "/docs/reference/errors.md",
    "/docs/reference",
    "/docs/../README",
    "/docs/../../etc/passwd",
    "/docs/..%2fREADME.md",
    "/docs/%2e%2e/pyproject.toml",
    "/docs//etc/passwd",
    "/docs/pictures/../../README.md",
    "/docs/reference/errors%00",
    "/docs/nothing",
)
UNKNOWN = {"V": "video_nobody", "M": "no-model", "N": "no-name", "K": "no-key", "W": "hook_nobody"}


def address_of(source: Path) -> str:
    name = source.relative_to(FOLDER).with_suffix("").as_posix()
    return "/docs" if name == "README" else f"/docs/{name}"


class Seen(HTMLParser):
    """What a page has: tags, ids, and where it leads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture
def pages(app: Flask) -> dict[str, Seen]:
    """Every page as anybody gets it, by address."""
    client, seen = app.test_client(), {}
    for source in SOURCES:
        answer = client.get(address_of(source))
        assert answer.status_code == 200, source
        assert answer.mimetype == "text/html"
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        seen[address_of(source)] = Seen(answer.text)
    return seen


def test_every_page_stands_alone_and_is_marked_in_the_list(pages):
    for address, page in pages.items():
        assert page.count("h1") == 1, address
        assert page.count("script") == 0, address
        assert "style" not in page.all("style"), address
        here = [a["href"] for _, a in page.tags if a.get("aria-current") == "page"]
        assert here[-1] == address
        assert {one for one in page.all("href") if one in pages} == set(pages), address
        assert len(set(page.all("id"))) == len(page.all("id")), address


def test_every_link_and_picture_of_every_page_is_there(pages, app):
    client = app.test_client()
    for address, page in pages.items():
        for link in {*page.all("href"), *page.all("src")}:
            path, _, anchor = link.partition("#")
            if (
                path.startswith(("https://", "http://127.0.0.1:3000"))
                or path in {"/", "/login"}
                or "/static/" in path
            ):
                continue
            goal = pages.get(path or address)
            assert goal or client.get(path, buffered=True).status_code == 200, f"{address}: {link}"
            assert not anchor or (goal and anchor in goal.all("id")), f"{address}: {link}"


def test_what_is_no_page_is_not_found(app):
    client = app.test_client()

    found = {path: client.get(path) for path in NO_PAGES}

    assert {path for path, answer in found.items() if answer.status_code != 404} == set()
    assert {one.json["error"]["code"] for one in found.values()} == {"not_found"}


def test_a_browser_is_told_of_a_missing_page_in_the_shell(app):
    answer = app.test_client().get("/docs/nothing", headers={"Accept": "text/html"})

    assert answer.status_code == 404
    assert "The documentation begins at /docs." in answer.text


def test_pages_and_pictures_are_sent_once(app):
    client = app.test_client()
    for path in ("/docs/reference/errors", "/docs/pictures/contact-sheet.png"):
        first = client.get(path, buffered=True)
        head = client.head(path, buffered=True)
        seen = {"If-None-Match": first.headers["ETag"]}
        again = client.get(path, headers=seen, buffered=True)

        assert (head.status_code, head.data) == (200, b"")
        assert (again.status_code, again.data) == (304, b"")


def test_a_trailing_slash_is_the_contents_too(app):
    assert app.test_client().get("/docs/").status_code == 200


def test_who_is_logged_in_keeps_the_shell_and_reads_on_while_postgres_is_away(settings: Settings):
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    app = create_app(settings.model_copy(update={"database_url": nowhere}))

    def login() -> Response:
        response = Response()
        auth.open_session(response, auth.LOCAL)
        return response

    app.add_url_rule("/login-for-tests", view_func=login)
    client = app.test_client()
    client.get("/login-for-tests")
    answer = client.get("/docs/how-to/read-a-failure")
    close(app)

    assert answer.status_code == 200


def test_a_caller_sees_the_way_back_to_the_jobs(api: Caller, app: Flask):
    theirs, anybodys = Seen(api.get("/docs").text), Seen(app.test_client().get("/docs").text)

    assert "/jobs" in theirs.all("href")
    assert "/jobs" not in anybodys.all("href")


def test_a_farm_without_the_folder_serves_no_page(tmp_path):
    library = Library(tmp_path / "docs")

    assert (library.pages, library.files) == ({}, {})


def commands() -> list[str]:
    text = (FOLDER / "reference" / "api.md").read_text().replace("\\\n", " ")
    return re.findall(r"^\$ (curl .*)$", text, re.MULTILINE)


def test_every_command_of_the_api_reference_is_understood(admin: Caller):
    assert len(commands()) > 30
    for command in commands():
        words = shlex.split(command)
        (address,) = (word for word in words if word.startswith("$FARM"))
        path = re.sub(r"\$([A-Z])\w*", lambda name: UNKNOWN.get(name[1], "evt_nobody"), address[5:])
        body = words[words.index("-d") + 1] if "-d" in words else None
        method = words[words.index("-X") + 1] if "-X" in words else "POST" if body else "GET"
        sent = {"json": json.loads(body)} if body else {}
        sent |= {"headers": {"Accept": "text/event-stream"}} if "-N" in words else {}
        answer = getattr(admin, method.lower())(path, **sent)
        answer.close()

        if answer.status_code not in {200, 404, 503}:
            pytest.fail(f"{command}: {answer.status_code} {answer.text}")
        if answer.status_code == 404:
            assert answer.json["error"]["code"].endswith("_not_found"), command
