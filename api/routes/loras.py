"""The adapters over HTTP: the very directory that the request check reads."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

from flask import Response, request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.plumbing.registry import Call, NoQuery, Route, endpoint
from api.plumbing.runtime import farm
from api.plumbing.schemas import LoraDeleted, LoraExpert, LoraList, LoraObject
from api.plumbing.uploads import MULTIPART, OnDisk, receive
from api.plumbing.wire import json_response
from shared.jobs import queries
from shared.machinery.headers import shapes_of
from shared.machinery.logs import logger
from shared.machinery.loras import Card, Lora, Part, rank_of
from shared.vocabulary.adapters import FAMILIES, family_of, unusable
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.transformer import Shape
from shared.vocabulary.validation import validate

_PARTS: Final[dict[str, Part]] = {"file": "single", "file_high": "high", "file_low": "low"}
_HEADER_BYTES: Final = 8 * 2**20  # of a file: some 50,000 keys, where A14B has 1,095 parameters


def _known_family(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(f"It must be one of {', '.join(FAMILIES)}")
    return name


Words = Annotated[str, Field(max_length=300)]


class LoraUpload(BaseModel):
    """An adapter: one file for every expert, or one for each of two."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9](\.?[a-z0-9_-])*\.?$", max_length=64)] = Field(
        description="What requests will call it; it stays so."
    )
    file: OnDisk | None = Field(default=None, description="Safetensors for every expert.")
    file_high: OnDisk | None = Field(default=None, description="For the high-noise expert.")
    file_low: OnDisk | None = Field(default=None, description="For the low-noise expert.")
    family: Annotated[str, AfterValidator(_known_family)] | None = Field(
        default=None, description="The models that it fits; else read off the shapes."
    )
    title: Words | None = Field(default=None, description="A name for people.")
    trigger: Words | None = Field(default=None, description="Words that a prompt needs.")
    source: Words | None = Field(default=None, description="Where it came from.")
    distilled: bool = Field(default=False, description="Made for few steps without guidance.")


@endpoint(
    Route(
        method="GET",
        path="/v1/loras",
        scope="read",
        summary="List the LoRA adapters.",
        query=NoQuery,
        returns=LoraList,
    )
)
def list_loras(_call: Call[NoQuery]) -> Response:
    """Show every adapter; a file's hash is null until somebody has looked at that adapter."""
    loras, data = farm().loras, list[LoraObject]()
    for name in loras:
        with suppress(KeyError, FileNotFoundError):  # of one that is removed meanwhile
            data.append(_show(loras.find(name), hash_now=False))
    return json_response(LoraList(data=data))


@endpoint(
    Route(
        method="GET",
        path="/v1/loras/{name}",
        scope="read",
        summary="Look at a LoRA adapter.",
        query=NoQuery,
        returns=LoraObject,
        errors=("lora_not_found",),
    )
)
def retrieve_lora(call: Call[NoQuery]) -> Response:
    """Show one adapter with the hashes of its files."""
    return json_response(_show(_find(call.path["name"]), hash_now=True))


@endpoint(
    Route(
        method="POST",
        path="/v1/loras",
        scope="admin",
        rate="uploads",
        summary="Upload a LoRA adapter.",
        query=NoQuery,
        body=LoraUpload,
        forms=MULTIPART,
        returns=LoraObject,
        errors=(
            "missing_field", "invalid_value", "conflicting_fields", "duplicate_field",
            "invalid_lora", "lora_mismatch", "lora_exists", "lora_too_large", "storage_full",
            "not_ready",
        ),
    )
)  # fmt: skip
def upload(call: Call[NoQuery]) -> Response:
    """Write an adapter to the disk as it comes, and install it once it is known to be one."""
    limit = farm().settings.max_lora_bytes
    with farm().loras.staged() as folder:
        sent = validate(LoraUpload, receive(request, folder, limit=limit), lax=True)
        came = _files(sent)
        shapes = {field: _shapes(field, path) for field, path in came.items()}
        card = Card(
            family=family_of(shapes, sent.family),
            title=sent.title,
            trigger=sent.trigger,
            source=sent.source or "upload",
            distilled=sent.distilled,
        )
        files: dict[Part, Path] = {_PARTS[field]: path for field, path in came.items()}
        farm().loras.install(sent.name, folder, files, card)
    made = _show(farm().loras.find(sent.name), hash_now=True)
    logger().info("lora.added", name=made.name, bytes=made.bytes, by=call.caller.key_id)
    return json_response(made)


def _files(sent: LoraUpload) -> dict[str, Path]:
    """Give the files of an upload by their fields: one, or those of two experts."""
    named = {"file": sent.file, "file_high": sent.file_high, "file_low": sent.file_low}
    files = {field: path for field, path in named.items() if path is not None}
    if not files:
        raise WanfarmError(
            "missing_field",
            "file is missing. A LoRA is one file, or one for each of two experts. Send `file`, or "
            "`file_high` and `file_low`.",
            param="file",
        )
    if "file" in files and len(files) > 1:
        raise WanfarmError(
            "conflicting_fields",
            "file was sent beside a file for one expert. `file` serves every expert. "
            "Send it alone, or `file_high` and `file_low`.",
            param="file",
        )
    return files


def _shapes(field: str, path: Path) -> dict[str, Shape]:
    try:
        return shapes_of(path, most=_HEADER_BYTES)
    except ValueError as err:
        raise unusable(field, str(err)) from err


@endpoint(
    Route(
        method="DELETE",
        path="/v1/loras/{name}",
        scope="admin",
        summary="Remove a LoRA adapter.",
        query=NoQuery,
        returns=LoraDeleted,
        errors=("lora_not_found", "lora_in_use", "not_ready"),
    )
)
def delete(call: Call[NoQuery]) -> Response:
    """Remove an adapter that no video waits for or is made with."""
    name = _find(call.path["name"]).facts.name
    if video_id := queries.user_of_lora(farm(), name):
        raise WanfarmError(
            "lora_in_use",
            f"LoRA '{name}' is named by {video_id}, which has not ended. It could not be rendered "
            "without. Wait for its end, or cancel it.",
        )
    farm().loras.remove(name)
    logger().info("lora.removed", name=name, by=call.caller.key_id)
    return json_response(LoraDeleted(name=name))


def _find(name: str) -> Lora:
    try:
        return farm().loras.find(name)
    except KeyError:
        raise WanfarmError(
            "lora_not_found",
            f"There is no LoRA '{name[:60]}'. GET /v1/loras lists those there are. Check the name.",
        ) from None


def _show(lora: Lora, *, hash_now: bool) -> LoraObject:
    sizes = {part: path.stat() for part, path in lora.files.items()}
    return LoraObject(
        name=lora.facts.name,
        family=lora.card.family,
        title=lora.card.title,
        trigger=lora.card.trigger,
        distilled=lora.card.distilled,
        source=lora.card.source,
        experts={
            part: LoraExpert(
                sha256=farm().loras.sha256(path, known_only=not hash_now), rank=rank_of(path)
            )
            for part, path in lora.files.items()
        },
        bytes=sum(facts.st_size for facts in sizes.values()),
        created_at=int(max(facts.st_mtime for facts in sizes.values())),
    )


ENDPOINTS: Final = (list_loras, retrieve_lora, upload, delete)
