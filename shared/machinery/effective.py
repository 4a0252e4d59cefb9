"""Which settings hold in this process, and where each comes from; without secrets."""

from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from pydantic import SecretStr

from shared.machinery.cache_settings import aliases_in
from shared.machinery.settings import Settings, child_environment, variable_of

Source = Literal["default", "environment", "file", "command line"]
_HIDDEN: Final = "(hidden)"


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting as it holds: the variable that gave it or would, and its value as text."""

    variable: str
    value: str  # empty: not set
    source: Source
    meaning: str


def effective(settings: Settings) -> list[Effective]:
    """Tell every setting, in the order of the reference."""
    environment = child_environment()
    aliases = aliases_in(environment)

    def source(field: str) -> Source:
        variable = variable_of(field)
        if environment.get(f"{variable}_FILE"):
            return "file"
        if environment.get(variable) or field in aliases:
            return "environment"
        return "command line" if field in settings.model_fields_set else "default"

    def variable(field: str) -> str:
        ours = variable_of(field)
        return ours if environment.get(ours) else aliases.get(field, ours)

    return [
        Effective(
            variable(field),
            _without_secrets(getattr(settings, field)),
            source(field),
            about.description or "",
        )
        for field, about in Settings.model_fields.items()
    ]


def text_of(value: object) -> str:
    """Write a setting's value as its variable takes it; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(text_of, cast("tuple[object, ...]", value)))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _without_secrets(value: Any) -> str:  # noqa: ANN401 - any setting's
    if isinstance(value, SecretStr):
        return _HIDDEN if value.get_secret_value() else ""
    text = text_of(value)
    return _public_part(text) if "://" in text else text


def _public_part(url: str) -> str:
    """Leave out of a URL what may hold a password: who logs in, and the query."""
    scheme, _, rest = url.partition("://")
    login, _, place = rest.rpartition("@")
    place, _, query = place.partition("?")
    if "?" in login:  # the @ may be of the query: what is left of it is no place
        return f"{scheme.partition('+')[0]}://***"
    return f"{scheme.partition('+')[0]}://{'***@' if login else ''}{place}{'?***' if query else ''}"
