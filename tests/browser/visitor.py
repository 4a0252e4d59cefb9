"""Somebody who looks at pages and notes everything that must never happen."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
PHONE, DESK = (390, 844), (1440, 900)
# Shorter than the fixture's patience, so that a missing element fails with its own words.
_PATIENCE_MS = 15_000


class Visitor:
    """A browser context with one page.

    Args:
        browser: Playwright's browser.
        address: the server's own address; requests to any other are complaints.
        size: the window's inner size.
        script: whether JavaScript runs.
        expected: parts of console errors that the test provokes.
    """

    def __init__(
        self,
        browser: Any,
        address: str,
        *,
        size: tuple[int, int] = DESK,
        script: bool = True,
        expected: tuple[str, ...] = (),
    ) -> None:
        self.address = address
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._expected = expected
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            java_script_enabled=script,
            accept_downloads=True,
        )
        self.context.set_default_timeout(_PATIENCE_MS)
        self.page = self.context.new_page()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda err: self.complaints.append(f"page error: {err}"))
        self.page.on("request", self._asked)

    def _heard(self, message: Any) -> None:
        if message.type not in {"error", "warning"}:
            return
        if not any(part in message.text for part in self._expected):
            self.complaints.append(f"{message.type}: {message.text} at {self.page.url}")

    def _asked(self, request: Any) -> None:
        url = urlsplit(request.url)
        self.requests.append(url.path)
        if url.scheme in {"blob", "data"}:
            return
        if f"{url.scheme}://{url.netloc}" != self.address:
            self.complaints.append(f"request to {request.url}")

    def come_back(self, key: str) -> None:
        """Have the cookie of a session that was opened before."""
        form, bearer = {"key": key}, {"Authorization": f"Bearer {key}"}
        answer = self.context.request.post(
            f"{self.address}/login", form=form, headers=bearer, max_redirects=0
        )
        assert answer.status == 303, answer.text()

    def log_in(self, key: str) -> None:
        """Open a session by the form."""
        self.go("/login")
        self.page.fill("#key", key)
        self.page.click("button.primary")
        self.page.wait_for_url(f"{self.address}/")

    def go(self, path: str) -> "Visitor":
        """Open a page of the farm."""
        self.page.goto(self.address + path)
        self.check_width()
        return self

    def check_width(self) -> None:
        """Note a page that can be scrolled sideways."""
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        if self.page.evaluate(wide) > 0:
            self.complaints.append(f"scrolls sideways: {self.page.url}")

    def axe(self) -> list[str]:
        """What axe-core finds that is serious or critical."""
        self.page.evaluate(AXE.read_text() + "; undefined")  # beside the page's content policy
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']} ({one['impact']}): {node['html'][:160]} | {node['failureSummary'][:300]}"
            for one in found["violations"]
            if one["impact"] in {"serious", "critical"}
            for node in one["nodes"][:3]
        ]

    def text(self, selector: str) -> str:
        """The visible text of the first match."""
        return self.page.inner_text(selector)

    def leave(self) -> list[str]:
        """Close everything; returns the complaints."""
        self.context.close()
        return self.complaints
