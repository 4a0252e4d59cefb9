"""From what a spec or a row names to files on this host, and what the parent reads of them."""

import json
from pathlib import Path

from shared.jobs.removal import image_key
from shared.machinery.headers import header_of
from shared.machinery.loras import Loras
from shared.machinery.storage import Storage
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import FailureKind, GenerationSpec
from worker.engine.result import Pattern
from worker.ranks.faults import RankFault
from worker.ranks.messages import Lora


def adapters_of(spec: GenerationSpec, loras: Loras) -> tuple[Lora, ...]:
    """Find the files of a job's adapters.

    Raises:
        RankFault: of kind `bad_lora`, when one is no longer here.
    """
    found: list[Lora] = []
    for ref in spec.loras:
        try:
            lora = loras.find(ref.name)
        except KeyError as err:
            message = f"LoRA '{ref.name}' is not on the worker's host. Install it there as well."
            raise RankFault(JobFailure(FailureKind.BAD_LORA, message)) from err
        paths = {expert: lora.file(expert) for expert in ("high", "low")}
        texts = {expert: str(path.resolve()) for expert, path in paths.items() if path}
        found.append(Lora(ref=ref, **texts))
    return tuple(found)


def pattern_of(latents: Path | None) -> Pattern:
    """Read which steps led to saved latents; none of a file that is missing or damaged."""
    if latents is None:
        return {}
    try:
        return json.loads(header_of(latents)["__metadata__"]["pattern"])
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def image_of(spec: GenerationSpec, storage: Storage, scratch: Path) -> str | None:
    """Find the input image of a request; one from afar is copied into scratch.

    Raises:
        RankFault: of kind `bad_input`, when it is no longer stored.
    """
    if spec.image is None:
        return None
    path = storage.at_hand(image_key(spec.image.sha256), scratch)
    if path is None:
        message = "The input image is no longer stored. Submit it again."
        raise RankFault(JobFailure(FailureKind.BAD_INPUT, message))
    return str(path)
