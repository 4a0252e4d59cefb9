"""Pictures over HTTP that many videos may start from: upload once, then name the file."""

import re
from typing import Annotated, Any, Final, Literal

from flask import Response, request
from pydantic import BaseModel, ConfigDict, Field

from api.plumbing.files import send_stored
from api.plumbing.form import read_body
from api.plumbing.images import store
from api.plumbing.registry import Call, NoQuery, Route, endpoint
from api.plumbing.runtime import farm
from api.plumbing.schemas import FileDeleted, FileObject, FilePage
from api.plumbing.uploads import MULTIPART, InMemory
from api.plumbing.wire import json_response
from shared.jobs import files, removal
from shared.jobs.ledger import Values
from shared.jobs.presenters import unix
from shared.machinery.images import clean
from shared.machinery.logs import logger
from shared.machinery.storage import Served
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.ids import is_id
from shared.vocabulary.validation import validate

_FIELD: Final = "file"
_NO_NAME: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
Purpose = Literal[
    "assistants", "assistants_output", "batch", "batch_output", "evals", "fine-tune",
    "fine-tune-results", "user_data", "vision",
]  # fmt: skip


class FileUpload(BaseModel):
    """A picture: PNG, JPEG or WebP."""

    model_config = ConfigDict(extra="forbid")

    file: InMemory = Field(description="The picture.")
    purpose: Purpose = Field(default="vision", description="Kept and shown; nothing depends on it.")


class FileQuery(BaseModel):
    """Which page of the files."""

    model_config = ConfigDict(extra="forbid")

    after: str | None = Field(default=None, description="The last id of the page before.")
    limit: Annotated[int, Field(ge=1, le=100)] = Field(default=20, description="At most so many.")
    order: Literal["asc", "desc"] = Field(default="desc", description="By creation.")
    purpose: Purpose | None = Field(default=None, description="Only those.")


@endpoint(
    Route(
        method="POST",
        path="/v1/files",
        scope="submit",
        rate="uploads",
        summary="Upload a picture.",
        query=NoQuery,
        body=FileUpload,
        forms=MULTIPART,
        returns=FileObject,
        errors=(
            "missing_field", "invalid_value", "duplicate_field", "invalid_image",
            "image_too_large", "storage_full",
        ),
    )
)  # fmt: skip
def create(call: Call[NoQuery]) -> Response:
    """Keep a picture; the same one again is the same file."""
    body = read_body(request)
    sent = validate(FileUpload, body.fields | body.files, lax=True)
    image = clean(sent.file, limit=farm().settings.max_image_bytes, param=_FIELD)
    store(farm(), image)
    about = image.ref.model_dump() | {"bytes": len(image.png), "purpose": sent.purpose}
    made = files.add(farm(), call.caller.tenant, about | {"filename": _name_of(_FIELD)})
    logger().info("file.added", file=made["id"], bytes=made["bytes"], by=call.caller.key_id)
    return json_response(_file(made))


@endpoint(
    Route(
        method="GET",
        path="/v1/files",
        scope="read",
        summary="List the files, newest first.",
        query=FileQuery,
        returns=FilePage,
        errors=("invalid_cursor",),
    )
)
def list_files(call: Call[FileQuery]) -> Response:
    """Page through the files by a cursor that survives deletions."""
    query = call.query
    if query.after is not None and not is_id(query.after, "file"):
        raise WanfarmError(
            "invalid_cursor",
            f"after is '{query.after[:40]}'. It must be the last id of a page. Start without it.",
            param="after",
        )
    found = files.page(
        farm(),
        call.tenant,
        purpose=query.purpose,
        after=query.after,
        limit=query.limit,
        ascending=query.order == "asc",
    )
    data = [_file(row) for row in found.rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    page = FilePage(data=data, first_id=first, last_id=last, has_more=found.has_more)
    return json_response(page)


@endpoint(
    Route(
        method="GET",
        path="/v1/files/{file_id}",
        scope="read",
        summary="Look at a file.",
        query=NoQuery,
        returns=FileObject,
        errors=("file_not_found",),
    )
)
def retrieve(call: Call[NoQuery]) -> Response:
    """Show one file."""
    return json_response(_file(_find(call)))


@endpoint(
    Route(
        method="GET",
        path="/v1/files/{file_id}/content",
        scope="read",
        summary="Fetch a file's picture.",
        query=NoQuery,
        media=("image/png",),
        errors=("file_not_found", "range_not_satisfiable"),
        headers=("Range", "If-Range", "If-None-Match"),
    )
)
def content(call: Call[NoQuery]) -> Response:
    """Send the PNG that was made of what came."""
    row = _find(call)
    key = removal.image_key(row["sha256"])
    return send_stored(key, row["sha256"], Served("image/png", f"{row['id']}.png"))


@endpoint(
    Route(
        method="DELETE",
        path="/v1/files/{file_id}",
        scope="submit",
        summary="Delete a file; videos that were made from it keep its picture.",
        query=NoQuery,
        returns=FileDeleted,
        errors=("file_not_found",),
    )
)
def delete(call: Call[NoQuery]) -> Response:
    """Forget a file."""
    row = _find(call)
    removal.delete_file(farm(), row["id"])
    logger().info("file.removed", file=row["id"], by=call.caller.key_id)
    return json_response(FileDeleted(id=row["id"]))


def _find(call: Call[Any]) -> Values:
    """Read the file that the path names, if the caller may see it.

    Raises:
        WanfarmError: `file_not_found`, also for another tenant's or a malformed id.
    """
    file_id = call.path["file_id"]
    row = files.one(farm(), file_id, call.tenant) if is_id(file_id, "file") else None
    if row is None:
        raise WanfarmError(
            "file_not_found",
            f"There is no file '{file_id[:60]}'. It may have been deleted, have expired, or belong "
            "to another tenant. Check the id.",
        )
    return row


def _name_of(field: str) -> str:
    """Say what the sender calls a file part: shown again, and used for nothing else."""
    name = request.files[field].filename or ""
    return _NO_NAME.sub("", name.rpartition("/")[2])[-255:] or "file"


def _file(row: Values) -> FileObject:
    times = {name: unix(row[name]) for name in ("created_at", "expires_at")}
    shown = {name: row[name] for name in FileObject.model_fields.keys() & row.keys()}
    return FileObject.model_validate(shown | times)


ENDPOINTS: Final = (create, list_files, retrieve, content, delete)
