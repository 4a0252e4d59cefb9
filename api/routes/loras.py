"""The adapters over HTTP: the very directory that the request check reads."""

from typing import Final

from flask import Response

from api.plumbing.registry import Call, NoQuery, Route, endpoint
from api.plumbing.runtime import farm
from api.plumbing.schemas import LoraExpert, LoraList, LoraObject
from api.plumbing.wire import json_response
from shared.machinery.loras import Lora, rank_of
from shared.vocabulary.errors import WanfarmError


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
    loras = farm().loras
    return json_response(LoraList(data=[_show(loras.find(name), hash_now=False) for name in loras]))


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
    name = call.path["name"]
    try:
        lora = farm().loras.find(name)
    except KeyError:
        raise WanfarmError(
            "lora_not_found",
            f"There is no LoRA '{name[:60]}'. GET /v1/loras lists those there are. Check the name.",
        ) from None
    return json_response(_show(lora, hash_now=True))


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


ENDPOINTS: Final = (list_loras, retrieve_lora)
