"""What the contract names and this version does not have: refused by name, never a bare 404."""

from typing import Final, NoReturn

from flask import Flask

from shared.vocabulary.errors import WanfarmError

PATHS: Final = (
    "POST /v1/videos/edits",
    "POST /v1/videos/extensions",
    "POST /v1/videos/characters",
)


def register(app: Flask) -> None:
    """Hang the refusals into the app; they ask for no key, as they tell nothing."""
    for line in PATHS:
        method, _, path = line.partition(" ")
        _refuse(app, path, method)


def _refuse(app: Flask, path: str, *methods: str) -> None:
    app.add_url_rule(
        path,
        endpoint=f"unbuilt {'+'.join(methods)} {path}",
        view_func=_unsupported,
        methods=methods,
        defaults={"what": path},
        provide_automatic_options=False,
    )


def _unsupported(what: str, **_path: str) -> NoReturn:
    raise WanfarmError(
        "unsupported_feature",
        f"{what.replace('<', '{').replace('>', '}')} is not part of this version. It is named in "
        "the contract and may come. See /openapi.json for what there is.",
    )
