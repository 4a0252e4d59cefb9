"""File parts of a form: small ones in memory, those that are too large for it on the disk."""

import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated, Final

from flask import Request
from pydantic import InstanceOf, WithJsonSchema
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import parse_form_data

from api.plumbing.form import check_tree, refuse_nameless, refuse_twice
from shared.vocabulary.errors import WanfarmError

_SCHEMA: Final = WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"})
InMemory = Annotated[InstanceOf[bytes], _SCHEMA]
OnDisk = Annotated[InstanceOf[Path], _SCHEMA]  # never a text: nobody names a path of ours
MULTIPART: Final = ("multipart/form-data",)
_TEXT_BYTES: Final = 64 * 2**10  # of one field
_PARTS: Final = 16
_FRAMING: Final = 2**20  # fields and boundaries, beside the files


def receive(request: Request, folder: Path, *, limit: int) -> dict[str, str | Path]:
    """Read a form, and write its files into a folder as they come: no more than a chunk is held.

    Args:
        request: of which nothing was read yet. The limits of other bodies do not bind it.
        folder: empty, and ours alone.
        limit: the most bytes of all files together.

    Returns:
        Each field by its name: a text that is not empty, or where the file is.

    Raises:
        WanfarmError: `unsupported_media_type`, `invalid_form`, `duplicate_field`,
            `lora_too_large`, or `invalid_value` for text that cannot be stored.
        OSError: when the disk refuses.
    """
    if request.mimetype not in MULTIPART:
        raise WanfarmError(
            "unsupported_media_type",
            f"Content-Type is '{request.mimetype[:60]}'. A LoRA comes as a file part. "
            "Send multipart/form-data.",
        )
    with ExitStack() as opened:
        names = (folder / str(number) for number in itertools.count())

        def open_next(
            total_content_length: int | None,
            content_type: str | None,
            filename: str | None,
            content_length: int | None = None,
        ) -> IO[bytes]:
            return opened.enter_context(next(names).open("xb+"))

        try:
            _, form, parts = parse_form_data(
                request.environ,
                open_next,
                max_form_memory_size=_TEXT_BYTES,
                max_content_length=limit + _FRAMING,
                max_form_parts=_PARTS,
                silent=False,
            )
        except RequestEntityTooLarge as err:
            raise _too_large(limit) from err
        except ValueError as err:
            raise WanfarmError(
                "invalid_form",
                "The form cannot be read. It breaks off, or its boundary is missing or wrong. "
                "Let your client write the Content-Type.",
            ) from err
        files = [(name, Path(part.stream.name)) for name, part in parts.items(multi=True)]
    refuse_nameless((*form.items(multi=True), *files))
    found: dict[str, str | Path] = {}
    for name, value in (*form.items(multi=True), *files):
        if name in found:
            refuse_twice(name)
        found[name] = value
    check_tree(found)
    return {name: value for name, value in found.items() if value != ""}


def _too_large(limit: int) -> WanfarmError:
    return WanfarmError(
        "lora_too_large",
        f"The upload is too large. This farm takes LoRAs of {limit / 2**20:g} MiB, both files "
        "together, and short texts beside them. Send a smaller one, or raise "
        "WANFARM_MAX_LORA_BYTES.",
    )
