"""Structured logs: JSON lines on standard error, pretty on a terminal, secrets never.

A line has `ts`, `level`, `event` and `service`; and, where they are known, `request_id`, `job_id`,
`attempt`, `group` and `rank`.
"""

import hashlib
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

_FIRST: Final = (
    "ts", "level", "event", "service", "request_id", "job_id", "attempt", "group", "rank",
)  # fmt: skip
# What no line shows, wherever in it, and in whatever text: the last thing done to each.
_SECRET: Final = re.compile(
    r"wf_[a-z0-9]{8}_[\w-]+"  # API keys
    r"|whsec_[\w+/=-]+|v1,[A-Za-z0-9+/=]{20,}"  # of webhooks: secrets and signatures
    r"|(?<=://)[^/@\s\"]*:[^@\s\"]+(?=@)"  # in the URL of a service
    r"|(?<=wanfarm_session=)[^;\s\"]+|\.?eyJ[\w-]+\.[\w-]+\.[\w-]+"  # cookies
    r"|(?<=[?&]t=)[\w-]+"  # one-time logins
    r"|\bsig=\w+|(?<=X-Amz-Signature=)\w+"  # signed links
    r"|(?i:(?<=bearer )[^\s\"]+)"
    r"|(?<=input_value=).*?(?=, input_type=)"  # prompts, in pydantic's errors
)
Line = MutableMapping[str, Any]


def configure(level: str, *, service: str) -> None:
    """Set up logging for this process; called once, by its entry point."""
    pretty = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()

    def of_service(_logger: object, _method: str, line: Line) -> Line:
        line["service"] = service  # in every thread, where context variables of this one are not
        return line

    def written(log: object, method: str, line: Line) -> str:
        return redacted(str(renderer(log, method, line)))

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        of_service,
    ]
    structlog.configure(
        processors=[*shared, _in_order, written],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[remove, _in_order, written]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)


def logger(**context: Any) -> structlog.typing.FilteringBoundLogger:  # noqa: ANN401 - any context
    """Give a logger whose lines carry this context."""
    return structlog.get_logger(**context)


def begin(**context: str) -> None:
    """Have every line of this thread carry this context, in place of what it carried."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**context)


def prompt(text: str, *, whole: bool) -> str | dict[str, Any]:
    """Write a prompt for a line: its length and hash, unless people want to read it."""
    if whole:
        return text
    return {"chars": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()[:16]}


def _in_order(_logger: object, _method: str, line: Line) -> Line:
    return {name: line[name] for name in _FIRST if name in line} | dict(line)


def redacted(text: str) -> str:
    """Cut secrets out of a text."""
    return _SECRET.sub("[secret]", text)
