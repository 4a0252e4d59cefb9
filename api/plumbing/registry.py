"""One declaration per endpoint: it checks the caller and the query, and yields the OpenAPI."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from flask import Flask, Response, g, request
from pydantic import BaseModel, ConfigDict

from api.plumbing.auth import acting, require
from api.plumbing.form import check_tree, read_body, refuse_twice
from api.plumbing.rates import Rate, refuse_beyond
from api.plumbing.runtime import farm, runtime
from shared.jobs.audit import Actor
from shared.jobs.keys import Caller, Scope
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.validation import M, validate

_FORMS: Final = ("application/json", "multipart/form-data", "application/x-www-form-urlencoded")


class NoQuery(BaseModel):
    """No query parameter."""

    model_config = ConfigDict(extra="forbid")


Q = TypeVar("Q", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[Q]):
    """What an endpoint takes and gives.

    `path` is written as in OpenAPI; `{name:path}` may hold slashes. `scope` None is open to all.
    `errors` names the codes beyond those that follow from the rest.
    """

    method: str
    path: str
    scope: Scope | None
    summary: str
    query: type[Q]
    body: type[BaseModel] | None = None
    forms: tuple[str, ...] = _FORMS  # in which the body may come
    returns: type[BaseModel] | None = None
    media: tuple[str, ...] = ("application/json",)
    errors: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()  # request headers that it reads
    rate: Rate = "requests"  # what it counts as, where a key is needed
    at_once: Callable[[], None] | None = None  # refuses before anything is read


@dataclass(frozen=True, slots=True)
class Call(Generic[Q]):
    """One request to an endpoint, after its checks."""

    query: Q
    path: dict[str, str]
    known: Caller | None  # None where no key is needed

    @property
    def caller(self) -> Caller:
        """Who calls; only where the route has a scope."""
        assert self.known is not None
        return self.known

    @property
    def tenant(self) -> str | None:
        """Whose objects the caller sees: None means everybody's."""
        return None if self.caller.may("admin") else self.caller.tenant

    @property
    def actor(self) -> Actor:
        """The caller as the audit log names it."""
        return acting(self.caller)


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Q]):
    """A route and the function that answers it."""

    route: Route[Q]
    answer: Callable[[Call[Q]], Response]

    def __call__(self, **path: str) -> Response:
        """Answer the current request."""
        if self.route.at_once:
            self.route.at_once()
        scope = self.route.scope
        caller = require(request, scope) if scope is not None else None
        if caller is not None:
            rate = self.route.rate
            g.allowance = runtime().rates.take(farm().settings, caller, rate)
            refuse_beyond(g.allowance, caller, rate)
        query = _read_query(self.route.query)
        return self.answer(Call(query, path, caller))


def endpoint(route: Route[Q]) -> Callable[[Callable[[Call[Q]], Response]], Endpoint[Q]]:
    """Declare that a function answers a route."""
    return lambda answer: Endpoint(route, answer)


def register(app: Flask, endpoints: Iterable[Endpoint[Any]]) -> None:
    """Hang endpoints into the app."""
    for one in endpoints:
        rule = one.route.path.replace("{", "<").replace("}", ">")
        for name in _names(rule):
            rule = rule.replace(f"<{name}:path>", f"<path:{name}>")
        app.add_url_rule(
            rule,
            endpoint=f"{one.route.method} {one.route.path}".replace(".", "_"),
            view_func=one,
            methods=[one.route.method],
            provide_automatic_options=False,
        )


def small_body(model: type[M]) -> M:
    """Read the body of a request that is not a generation request."""
    body = read_body(request)
    return validate(model, body.fields, lax=body.is_form)


def idempotency_key() -> str | None:
    """Read the Idempotency-Key.

    Raises:
        WanfarmError: `invalid_header`.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not (1 <= len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise WanfarmError(
            "invalid_header",
            f"Idempotency-Key has {len(key)} characters. It must be 1 to {_LONGEST_KEY} printable "
            "ASCII characters. Send a UUID, for example.",
            param="Idempotency-Key",
        )
    return key


def retry_count() -> int | None:
    """Read how often the openai client has asked before; None of other clients."""
    count = request.headers.get("X-Stainless-Retry-Count", "")
    return int(count) if count.isascii() and count.isdecimal() and len(count) == 1 else None


_LONGEST_KEY: Final = 255


def _names(rule: str) -> list[str]:
    return [part.partition(":")[0] for part in rule.replace("<", ">").split(">")[1::2]]


def _read_query(model: type[Q]) -> Q:
    """Validate the query parameters; `metadata[k]=v` becomes one object.

    Raises:
        WanfarmError: `duplicate_field`, or the faults of the model.
    """
    fields: dict[str, Any] = {}
    pairs: dict[str, str] = {}
    for name, value in request.args.items(multi=True):
        in_pairs = name.startswith("metadata[") and name.endswith("]")
        target, key = (pairs, name[9:-1]) if in_pairs else (fields, name)
        if key in target:
            refuse_twice(name)
        target[key] = value
    if pairs:
        fields["metadata"] = pairs
    check_tree(fields)
    return validate(model, fields, lax=True)
