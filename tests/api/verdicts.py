"""What every answer to a request gone wrong must be."""

import json
import re
from typing import Any
from urllib.parse import unquote_plus

from shared.vocabulary.errors import CODES
from tests.api.mutations import Request

# named without having been sent: what a request lacks, or what a rule between fields is about
UNSENT = {
    "prompt", "input_reference", "file", "file_high", "file_low", "name", "url", "request",
    "size", "frames", "model", "guidance_low", "Idempotency-Key", "cache", "seeds", "grid",
    "Accept",
}  # fmt: skip
# ours: where the farm is, and how it is built, is nobody's business
INSIDE = re.compile(r"Traceback|site-packages|\.py\b|psycopg|sqlalchemy|/tmp/|/home/|/root/")


MEMBERS = {"message", "type", "code", "param", "request_id", "errors"}


def faults(request: Request, status: int, body: bytes) -> list[str]:
    """List what is wrong with an answer; nothing of one that is as it should be."""
    if status >= 500:
        return [f"status {status}"]
    if status < 400:
        return []
    try:
        error: dict[str, Any] = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return [f"{status} without an envelope: {body[:200]!r}"]
    params = [one["param"] for one in (error, *error["errors"])]
    wrong = {
        "code": error["code"] not in CODES,
        "members": set(error) != MEMBERS,
        "message": not 0 < len(error["message"]) <= 600 or bool(INSIDE.search(error["message"])),
        "param": not all(_is_true(param, request) for param in params),
    }
    return [name for name, is_wrong in wrong.items() if is_wrong]


def _is_true(param: str | None, request: Request) -> bool:
    """Tell whether a param names something that was sent, or that is missing."""
    words = re.findall(r"[^.\[\]]+", param or "")
    if not words or words[0] in UNSENT or not words[0].isascii() or not words[0].isprintable():
        return True
    sent = f"{request.path} {request.headers} {request.body.decode('utf-8', 'replace')}"
    name = words[0].rstrip("…")[:40]  # a long one is cut
    plain = name.encode().decode("unicode_escape", "replace")  # it is escaped if it is no text
    forms = (name, plain, json.dumps(name)[1:-1], json.dumps(plain)[1:-1])
    return any(form in sent or form in unquote_plus(sent) for form in forms)
