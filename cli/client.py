"""Talks to a farm over HTTP: where it is, with which key, how patiently, what refusals mean."""

import contextlib
import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Self, cast

import click

from cli.streams import OPENED, Event, Lost, Over, parse_events

if TYPE_CHECKING:  # a fifth of a second, which `--help` need not spend
    import httpx

Json = dict[str, Any]

_CONNECT_WAITS_S: Final = (0.5, 1.0, 2.0)
_PATIENCE_S: Final = 60.0  # spent on Retry-After in all, and on a stream that does not come back
_STREAM_SILENCE_S: Final = 45.0  # the server writes a comment every 15 s
_RECONNECT_S: Final = 1.0
_EXPLAINED: Final = "see {url}/docs/reference/errors#{code}"


class Exit(IntEnum):
    """What the exit code of a verb tells a script; of several outcomes the highest counts."""

    OK = 0
    ERROR = 1
    USAGE = 2
    JOB_FAILED = 3
    JOB_CANCELLED = 4
    TIMED_OUT = 5
    UNREACHABLE = 6
    NOT_ALLOWED = 7
    REJECTED = 8
    BLOCKED = 9
    INTERRUPTED = 130


_EXIT_OF_STATUS: Final = {
    **dict.fromkeys((401, 403), Exit.NOT_ALLOWED),
    **dict.fromkeys((400, 413, 415, 422, 429), Exit.REJECTED),
}


class FarmError(click.ClickException):
    """Why a verb stops: a sentence, the farm's code for it if it has one, an exit code."""

    def __init__(self, exit_code: Exit, message: str, *, details: Iterable[str] = ()) -> None:
        """Take the sentence and the lines that go below it."""
        super().__init__(message)
        self.exit_code = exit_code  # pyright: ignore[reportAttributeAccessIssue] - click's way
        self._details = tuple(details)

    def show(self, file: IO[Any] | None = None) -> None:
        """Print to stderr."""
        for line in (f"Error: {self.message}", *(f"  {line}" for line in self._details)):
            click.echo(line, file=file, err=True)


@dataclass(frozen=True, slots=True)
class Target:
    """A farm and the key that it is shown."""

    url: str
    key: str | None = field(repr=False)


def find_target(url: str | None, key: str | None) -> Target:
    """Settle which farm to talk to: options, then the environment, then this folder's farm.

    Raises:
        FarmError: when nothing names a farm.
        ConfigurationError: when a setting is wrong.
    """
    from cli.local import Local
    from shared.machinery.settings import load_settings

    settings = load_settings()
    here = Local(settings.data_dir.absolute()).facts() or {}
    chosen = url or settings.url or here.get("url")
    if chosen is None:
        raise FarmError(
            Exit.UNREACHABLE,
            f"No farm is known here: {settings.data_dir} has none running. "
            "Start one with `wanfarm up`, or name one by --url or WANFARM_URL.",
        )
    if not chosen.startswith(("http://", "https://")):
        raise FarmError(Exit.USAGE, f"The farm's URL is '{chosen}'. It begins with http(s)://.")
    if key is None and settings.api_key is not None:
        key = settings.api_key.get_secret_value()
    if key is None and chosen == here.get("url"):  # this farm's admin key goes to no other
        key = _read_key(Path(here["admin_key_file"]))
    return Target(chosen.rstrip("/"), key)


def _read_key(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Ask:
    """One request; a repeatable one may be sent again when its answer was lost."""

    method: str
    path: str
    body: Json | None = None
    params: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    form: Mapping[str, str] | None = None  # instead of a body, with files
    files: Mapping[str, IO[bytes]] | None = None  # read while they are sent
    repeatable: bool = True


class Client:
    """One farm, over one connection pool."""

    def __init__(
        self, target: Target, note: Callable[[str], None], *, patience_s: float = _PATIENCE_S
    ) -> None:
        """Prepare; connects at the first request.

        Args:
            target: the farm.
            note: told when something is tried again.
            patience_s: seconds spent on a farm that asks to come again later; 0 is one try.

        Raises:
            FarmError: when the URL cannot be one.
        """
        import httpx

        self._url = target.url
        self._note = note
        self._patience_s = patience_s
        headers = {"User-Agent": "wanfarm-cli"}
        if target.key:
            headers["Authorization"] = f"Bearer {target.key}"
        try:
            self._http = httpx.Client(
                base_url=target.url,
                headers=headers,
                timeout=httpx.Timeout(90, connect=5),
                follow_redirects=True,
            )
        except httpx.InvalidURL as err:
            raise FarmError(Exit.USAGE, f"The farm's URL is '{target.url}': {err}.") from err

    def __enter__(self) -> Self:
        """Closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **params: str | int) -> Json:
        """Read a JSON object."""
        return self.ask(Ask("GET", path, params=params))

    def ask(self, ask: Ask) -> Json:
        """Send a request until it is answered; give the JSON object.

        Raises:
            FarmError: when the farm cannot be reached or refuses.
        """
        with self.answer(ask) as response:
            return json.loads(response.read())

    @contextlib.contextmanager
    def answer(self, ask: Ask) -> "Generator[httpx.Response]":
        """Send a request until it succeeds; the body is not read yet.

        Raises:
            FarmError: when the farm cannot be reached or refuses.
        """
        import httpx

        response = self._patiently(ask)
        try:
            yield response
        except httpx.TransportError as err:
            raise self._unreachable(err) from err
        finally:
            response.close()

    def explains(self, code: str) -> str:
        """Say where the farm's own documentation explains an error code."""
        return _EXPLAINED.format(url=self._url, code=code)

    def follow(
        self, video_id: str, *, within_s: float | None = None, after: int | None = None
    ) -> Generator[Event]:
        """Yield a video's events to its end, over as many connections as that takes.

        Args:
            video_id: the video.
            within_s: seconds to follow at most.
            after: only events past this id; else what the video is now comes first.

        Raises:
            FarmError: when the farm refuses, stays away for a minute, or the time is up.
        """
        for event in self._stay(f"/v1/videos/{video_id}/events", within_s, after):
            yield event
            if event.type == "end":
                return

    def feed(self, *, within_s: float | None = None) -> Generator[Event]:
        """Yield the moves of all videos from now on; what is missed between two connections is not.

        Args:
            within_s: seconds to listen at most.

        Raises:
            FarmError: when the farm refuses, stays away for a minute, or the time is up.
        """
        yield from self._stay("/v1/events", within_s)

    def _stay(
        self, path: str, within_s: float | None, last: int | None = None
    ) -> Generator[Event, None, None]:
        """Read a stream until it is over, connecting again where it breaks off."""
        deadline = None if within_s is None else time.monotonic() + within_s
        heard, lost = time.monotonic(), "the stream ended early"
        while True:
            opened = False
            try:
                for event in self._stream(path, last, deadline):
                    opened = True
                    if event is not OPENED:
                        last = event.id or last
                        yield event
            except Over:
                return
            except Lost as err:
                lost = str(err)
            _check(deadline)
            if opened:
                heard = time.monotonic()
                if last is None:  # only a feed has no numbers to go on from
                    self._note(
                        f"The connection broke: {lost}. What moves until it is back is not shown."
                    )
            self._wait_for_it(heard, lost)

    def _wait_for_it(self, heard: float, lost: str) -> None:
        """Let some time pass, or give the farm up."""
        if time.monotonic() - heard > self._patience_s:
            raise FarmError(Exit.UNREACHABLE, f"{self._url} stays away: {lost}.")
        pause(_RECONNECT_S)

    def _patiently(self, ask: Ask) -> "httpx.Response":
        import httpx

        waits = iter(_CONNECT_WAITS_S if self._patience_s else ())
        left = self._patience_s
        while True:
            try:
                response = self._send(ask)
            except httpx.TransportError as err:
                unsent = isinstance(err, httpx.ConnectError | httpx.ConnectTimeout)
                wait = next(waits, None) if unsent or ask.repeatable else None
                if wait is None:
                    raise self._unreachable(err) from err
            else:
                if response.is_success:
                    return response
                wait = retry_after(response)
                if wait is None or wait > left:
                    raise refusal(response)
                left -= wait
                self._note(f"{refusal(response).message} Trying again in {wait:.0f} s.")
            pause(wait)

    def _send(self, ask: Ask) -> "httpx.Response":
        request = self._http.build_request(
            ask.method,
            ask.path,
            json=ask.body,
            data=ask.form,
            files=ask.files,
            params=dict(ask.params),
            headers=dict(ask.headers),
        )
        response = self._http.send(request, stream=True)
        if not response.is_success:
            response.read()
        return response

    def _stream(
        self, path: str, last: int | None, deadline: float | None
    ) -> Generator[Event, None, None]:
        """Read one connection's events, `OPENED` before them.

        Raises:
            Over: when there is nothing more to come.
            Lost: when it makes sense to connect again.
        """
        import httpx

        headers = {"Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        left = _STREAM_SILENCE_S if deadline is None else max(0.1, deadline - time.monotonic())
        timeout = httpx.Timeout(min(left, _STREAM_SILENCE_S), connect=5)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                    _refuse_or_wait(response)
                if response.status_code == 204:
                    raise Over
                yield OPENED
                yield from parse_events(_while_time(response.iter_lines(), deadline))
        except httpx.TransportError as err:
            raise Lost(reason(err)) from err

    def _unreachable(self, err: Exception) -> FarmError:
        return FarmError(
            Exit.UNREACHABLE,
            f"{self._url} does not answer: {reason(err)}. "
            "Is the farm running? `wanfarm status` shows the one of this folder.",
        )


def retry_after(response: "httpx.Response") -> float | None:
    """Tell how long the farm asks to wait before another try; None when it does not."""
    value = response.headers.get("Retry-After", "")
    asked = response.status_code in {429, 503} and value.isdecimal()
    return float(value) if asked else None


def refusal(response: "httpx.Response") -> FarmError:
    """Turn an answer that is no success into an error that names code and request."""
    exit_code = _EXIT_OF_STATUS.get(response.status_code, Exit.ERROR)
    try:
        error = cast("Json", response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return FarmError(exit_code, f"The farm answered HTTP {response.status_code}.")
    others: list[Json] = error.get("errors") or []
    details = [f"{one['param']}: {one['message']}" for one in others[1:]]
    place: str | None = error.get("param")
    if place and place not in error["message"]:  # such as grid.steps[1]
        details = [f"at {place}", *details]
    request_id = error.get("request_id") or response.headers.get("X-Request-ID")
    details += [f"request {request_id}"] if request_id else []
    farm = str(response.request.url.join("/")).rstrip("/")
    details.append(_EXPLAINED.format(url=farm, code=error["code"]))
    return FarmError(exit_code, f"{error['code']}: {error['message']}", details=details)


def reason(err: Exception) -> str:
    """Say in few words why a connection failed."""
    return str(err).rstrip(".") or type(err).__name__


def pause(seconds: float) -> None:
    """Let some time pass between two tries."""
    from cli.local import pause as pass_time

    pass_time(seconds)


def timed_out() -> FarmError:
    """The end of somebody's patience, not of the job."""
    return FarmError(Exit.TIMED_OUT, "The time is up. The video goes on.")


def _refuse_or_wait(response: "httpx.Response") -> None:
    wait = retry_after(response)
    if wait is None:
        raise refusal(response)
    pause(min(wait, _RECONNECT_S * 5))
    raise Lost(refusal(response).message)


def _while_time(lines: Iterable[str], deadline: float | None) -> Iterator[str]:
    for line in lines:
        _check(deadline)
        yield line


def _check(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise timed_out()
