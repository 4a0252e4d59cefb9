"""Requests gone wrong: sound ones of every operation, each with something broken, from one seed."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from tests.api.callers import png

Json = Any
HUGE = "9" * 400
TRICKS = (
    "..", "../../etc/passwd", "..\\..\\x", "/etc/passwd", "%2e%2e%2f", "file:///etc/passwd",
    "a\x00b", "\ud800", "\u202e", "😀" * 40, "' OR 1=1--", "${jndi:ldap://a}", "{{7*7}}",
    "x" * 9000,
    "con", ".", "", " ", "\r\nX-Bad: 1", "<script>", "-1", "null", "1e999", "video_", "-rf",
)  # fmt: skip
JUNK: tuple[Json, ...] = (
    None, True, False, 0, -1, 1.5, 10**30, -(10**30), 1e308, [], {}, [[]], [None], {"": None},
    {"a": {"b": {"c": 1}}}, [1] * 300, ["x"] * 70, {str(n): n for n in range(200)}, *TRICKS,
)  # fmt: skip
# written into the text, as no encoder writes them
RAW = (
    "NaN", "-Infinity", "1e999", HUGE, f"-{HUGE}", "0" * 50, "[" * 60 + "]" * 60, "tru",
    '"\\ud83d"', '"\\u0000"', '{"a":1,"a":2}', '"unended', "'x'", "", "\x00",
)  # fmt: skip
HEADERS = {
    "Idempotency-Key": ("", "x" * 300, "ü", "a b", "\t"),
    "Prefer": ("wait=x", "wait=-1", "wait=99999999999", ";;=", "wait=0"),
    "Range": ("bytes=9-1", "bytes=a-", "lines=1-2", f"bytes={HUGE}-", "bytes=0-0,5-6", "bytes=-0"),
    "If-None-Match": ("*", "x", '"' * 50, "W/"),
    "If-Range": ("x", '"'),
    "Last-Event-ID": ("-1", HUGE, "x", "1.5"),
    "X-Request-ID": ("x" * 500, "a b", "<b>"),
    "X-Stainless-Retry-Count": ("-1", "x", HUGE),
    "Accept": ("text/html", "*/*;q=x", "x" * 500, "application/binary"),
    "Content-Type": ("", "text/plain", "application/json; charset=utf-99", "multipart/form-data",
                     "multipart/form-data; boundary=" + "b" * 300, "x/y;;;="),
    "Content-Encoding": ("gzip", "x"),
}  # fmt: skip
VIDEO: dict[str, Json] = {
    "prompt": "a paper boat", "negative_prompt": "", "model": "wan2.2-t2v-a14b",
    "size": "832x480", "frames": 17, "fps": 16, "steps": 20, "guidance_high": 4, "seed": 7,
    "guidance_low": 3, "shift": 5, "sampler": "euler", "quality": "standard", "priority": 0,
    "cache": {"fn": 1, "bn": 0, "rdt": 0.2, "mc": 3, "secondary": {"mc": 2}},
    "loras": [{"name": "grain", "strength": 0.5, "target": "both"}],
    "metadata": {"shot": "7"}, "user": "ada", "expires_in_s": 3600, "max_attempts": 2,
    "start_within_s": 600, "finish_within_s": 6000, "webhook_url": "https://a.example/hook",
    "input_reference": {"image_url": "data:image/png;base64,AAAA"}, "seconds": "1",
    "sigmas": [1.0, 0.5], "extra_body": {"boundary": 0.9}, "cache_dit_params": {"fn": 2},
}  # fmt: skip
BODIES: dict[str, Json] = {
    "POST /v1/videos": VIDEO,
    "POST /v1/videos/estimate": VIDEO,
    "POST /v1/videos/{video_id}/remix": VIDEO,
    "POST /v1/videos/{video_id}/promote": VIDEO,
    "PATCH /v1/videos/{video_id}": {"priority": 0, "metadata": {"a": "b"}},
    "POST /v1/videos/{video_id}/cancel": {"reason": "not this one"},
    "POST /v1/batches": {"request": VIDEO, "seeds": [1, 2], "grid": {"steps": [4, 8]}, "name": "n"},
    "POST /v1/batches/estimate": {"request": VIDEO, "variations": 2},
    "POST /v1/keys": {"name": "k", "scope": "read", "limits": {"max_queued": 3}},
    "PATCH /v1/keys/{key_id}": {"name": "k", "limits": {"max_priority": 1}, "expires_in_s": 60},
    "POST /v1/webhooks": {"url": "https://a.example/h", "events": ["video.completed"]},
    "PATCH /v1/webhooks/{webhook_id}": {"enabled": False, "description": "d"},
    "POST /v1/groups/{name}/drain": {"mode": "finish", "reason": "r"},
    "POST /v1/files": {"purpose": "vision"},
    "POST /v1/loras": {"name": "grain"},
}


@dataclass
class Request:
    """One request, as it goes over the wire."""

    method: str
    path: str
    operation: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def needs_admin(self) -> bool:
        """Tell whether only an admin gets beyond its scope."""
        return self.operation.partition(" ")[2].startswith(("/v1/keys", "/v1/loras", "/v1/groups"))


class Mutations:
    """Draws requests; the same seed draws the same ones."""

    def __init__(self, document: Json, seed: int, ids: dict[str, list[str]]) -> None:
        """Take the OpenAPI document, and sound ids of one's own and of others by parameter."""
        self.draw = random.Random(seed)
        self.ids = ids
        self.operations = [
            (method.upper(), path, [one["name"] for one in about["parameters"]
                                    if one["in"] == "query"])
            for path, methods in document["paths"].items()
            for method, about in methods.items()
        ]  # fmt: skip

    def take(self, count: int) -> Iterator[Request]:
        """Draw so many."""
        return (self._one() for _ in range(count))

    def _one(self) -> Request:
        method, path, query = self.draw.choice(self.operations)
        operation = f"{method} {path}"
        made = Request(method, self._path(path) + self._query(query), operation)
        if self.draw.random() < 0.3:
            name = self.draw.choice(list(HEADERS))
            made.headers[name] = self.draw.choice(HEADERS[name])
        if operation in BODIES:
            self._fill(made, json.loads(json.dumps(BODIES[operation])))
        elif self.draw.random() < 0.1:  # a body that nobody asked for
            made.body = b"{" * 10
        return made

    def _path(self, path: str) -> str:
        parts = []
        for part in path.split("/"):
            if part.startswith("{"):
                name = part.strip("{}").removesuffix(":path")
                sound = self.ids.get(name, ["g0"])
                chosen = self.draw.choice(sound if self.draw.random() < 0.6 else TRICKS)
                parts.append(quote(chosen.encode("utf-8", "surrogatepass"), safe=""))
            else:
                parts.append(part)
        return "/".join(parts)

    def _query(self, names: list[str]) -> str:
        if self.draw.random() < 0.6:
            return ""
        known = [name for name in names if name != "wait"] or ["limit"]
        pairs = []
        for _ in range(self.draw.randint(1, 3)):
            name = self.draw.choice(
                [*known, "wait", "nonsense", "metadata[k]", "metadata[", "a\x00"]
            )
            value = self.draw.choice([*TRICKS, "1", "3", "desc", HUGE])
            pairs.append((name, "0" if name == "wait" else value.encode("utf-8", "surrogatepass")))
        return "?" + urlencode(pairs)

    def _fill(self, made: Request, body: Json) -> None:
        for _ in range(self.draw.choice([0, 1, 1, 1, 2])):
            body = self._broken(body)
        ways = [self._as_json, self._as_json, self._as_form, self._as_parts]
        way: Callable[[Json], tuple[bytes, str]] = self.draw.choice(ways)
        made.body, kind = way(body)
        made.headers.setdefault("Content-Type", kind)
        if self.draw.random() < 0.15:
            made.body = self._torn(made.body)

    def _broken(self, body: Json) -> Json:
        """Change one node: another type, gone, one too many, or everything below junk."""
        if not isinstance(body, dict) or not body or self.draw.random() < 0.02:
            return self.draw.choice(JUNK)
        name = self.draw.choice(list(body))
        how = self.draw.random()
        if isinstance(body[name], dict) and body[name] and how < 0.5:
            return body | {name: self._broken(body[name])}
        if how < 0.1:
            return {key: value for key, value in body.items() if key != name}
        if how < 0.2:
            return body | {self.draw.choice(["nonsense", *TRICKS]): 1}
        return body | {name: self.draw.choice(JUNK)}

    def _as_json(self, body: Json) -> tuple[bytes, str]:
        text = json.dumps(body)
        if self.draw.random() < 0.2:
            before, _, after = text.partition(
                self.draw.choice(["17", '"euler"', "true", "{}", "7"])
            )
            text = before + self.draw.choice(RAW) + after
        return text.encode("utf-8", "surrogatepass"), "application/json"

    def _pairs(self, body: Json) -> list[tuple[str, str]]:
        pairs: list[tuple[str, str]] = []
        for name, value in (body if isinstance(body, dict) else {"prompt": body}).items():
            if isinstance(value, dict) and self.draw.random() < 0.5:
                pairs += [(f"{name}[{key}]", _text(inner)) for key, inner in value.items()]
            else:
                pairs.append((name, _text(value)))
        if pairs and self.draw.random() < 0.3:
            name, value = self.draw.choice(pairs)
            odd = [name, f"{name}[]", f"{name}[a][b]", f"{name}[", f"[{name}]", f"{name}[0][1][2]"]
            pairs.append((self.draw.choice(odd), value))
        return pairs

    def _as_form(self, body: Json) -> tuple[bytes, str]:
        pairs = [
            (name.encode("utf-8", "surrogatepass"), value.encode("utf-8", "surrogatepass"))
            for name, value in self._pairs(body)
        ]
        return urlencode(pairs).encode(), "application/x-www-form-urlencoded"

    def _as_parts(self, body: Json) -> tuple[bytes, str]:
        parts = []
        for name, value in self._pairs(body):
            named = self.draw.choice([f'; name="{name}"'] * 8 + ["", f"; name={name}", '; name="'])
            content = value.encode("utf-8", "surrogatepass")
            parts.append((named.encode("utf-8", "surrogatepass"), content))
        if self.draw.random() < 0.5:
            name = self.draw.choice(["file", "input_reference", "file_high", "nonsense"])
            file = self.draw.choice([png(), png()[:40], b"", b"\x00" * 2000, b"GIF89a"])
            tricky = self.draw.choice(["a.png", *TRICKS]).encode("utf-8", "surrogatepass")
            parts.append((f'; name="{name}"; filename="'.encode() + tricky + b'"', file))
        lines = [
            b"--b\r\nContent-Disposition: form-data" + named + b"\r\n\r\n" + value + b"\r\n"
            for named, value in parts
        ]
        end = self.draw.choice([b"--b--\r\n"] * 8 + [b"", b"--b", b"--c--\r\n"])
        return b"".join(lines) + end, "multipart/form-data; boundary=b"

    def _torn(self, body: bytes) -> bytes:
        at = self.draw.randrange(len(body) + 1)
        spoiled = [
            body[:at],
            body[:at] + bytes([self.draw.randrange(256)]) + body[at + 1 :],
            b"\xef\xbb\xbf" + body,
            body + b"\xff\xfe",
            body[:at] + b"\x00" + body[at:],
            body + body,
        ]
        return self.draw.choice(spoiled)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)
