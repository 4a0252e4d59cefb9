"""What is asked of intake: a request that has passed every check, and who sent it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from shared.jobs.ledger import Values
from shared.vocabulary.limits import OWN, KeyLimits
from shared.vocabulary.spec import Delivery, GenerationSpec


@dataclass(frozen=True, slots=True)
class Source:
    """An earlier video, and what a new one has to do with it."""

    video_id: str
    made: Literal["remixed", "promoted"]


@dataclass(frozen=True, slots=True)
class Order:
    """A request that has passed every check, and who sent it."""

    tenant: str
    key_id: str
    key_name: str
    spec: GenerationSpec
    delivery: Delivery
    asked: tuple[str, ...]  # the fields that the caller sent
    warnings: tuple[Values, ...] = ()
    limits: KeyLimits = OWN  # of its key
    source: Source | None = None  # the video that it is made after
    batch_id: str | None = None  # its key, if it has one, stands for the batch
    idempotency_key: str | None = None
    fingerprint: str = ""  # of the parsed request before defaults; goes with the key


def fingerprint(route: str, fields: Values) -> str:
    """Hash a parsed request, so that the same key with another request is noticed."""
    said = json.dumps([route, fields], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()
