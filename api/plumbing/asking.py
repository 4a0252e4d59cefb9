"""From a request's bytes to an order: read, translate, clean the image, resolve, submit."""

from dataclasses import dataclass
from typing import Any, Final

from flask import request

from api.plumbing.dialects import translate
from api.plumbing.form import Body, read_body
from api.plumbing.images import read_image, store, uploaded
from api.plumbing.registry import idempotency_key, retry_count
from shared.jobs import intake, orders, retries
from shared.jobs.keys import Caller
from shared.jobs.ledger import Values
from shared.machinery.farm import Farm
from shared.machinery.images import CleanImage
from shared.machinery.logs import logger, prompt
from shared.vocabulary.errors import Fault, RequestRejected, WanfarmError
from shared.vocabulary.request import ALIASES, Overrides, VideoRequest
from shared.vocabulary.resolve import Resolved, resolve
from shared.vocabulary.spec import ImageRef
from shared.vocabulary.validation import unknown_field, validate

_IMAGE: Final = "input_reference"
_FILE_NAMES: Final = frozenset({_IMAGE, *(a for a, name in ALIASES.items() if name == _IMAGE)})


@dataclass(frozen=True, slots=True)
class Sent:
    """A generation request as it came: each field within its range, the image decoded."""

    fields: Overrides
    image: CleanImage | None
    names_image: bool  # also when it was sent as null

    def printable(self) -> Values:
        """Say what was sent, before defaults, for the fingerprint."""
        said = self.fields.model_dump(mode="json", exclude_unset=True)
        return said | ({_IMAGE: self.image.ref.sha256} if self.image else {})


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A generation request in our own names, its fields not yet checked."""

    fields: dict[str, Any]  # without the image
    picture: object  # its bytes, or what stands for them
    names_image: bool
    faults: list[Fault]  # found on the way here


def read_sent(farm: Farm, model: type[Overrides], caller: Caller) -> Sent:
    """Read the body of a generation request.

    Raises:
        WanfarmError: for every fault of its form, its fields, its image, or the caller's rights.
    """
    body = read_body(request)
    got = unpack(body, nulls=model is not VideoRequest)
    valid = validate(model, got.fields, lax=body.is_form, before=got.faults)
    check_rights(valid, caller)
    return Sent(valid, image_of(farm, got, caller), got.names_image)


def unpack(body: Body, *, nulls: bool) -> Unpacked:
    """Translate a body and take its image out.

    Args:
        body: as it was read.
        nulls: a field that is null says something; else it is left out.
    """
    fields, faults = translate(body.fields)
    faults += [unknown_field(n, [_IMAGE]) for n in body.files if n not in _FILE_NAMES]
    if not nulls:
        fields = {name: value for name, value in fields.items() if value is not None}
    named = _IMAGE in fields
    picture: object = fields.pop(_IMAGE, None)
    for name in _FILE_NAMES & set(body.files):
        if named:
            faults.append(_two_images())
        picture, named = body.files[name], True
    return Unpacked(fields, picture, named, faults)


def image_of(farm: Farm, got: Unpacked, caller: Caller) -> CleanImage | None:
    """Decode the image of a request, or find the uploaded one, if there is any.

    Raises:
        WanfarmError: when it cannot be used.
    """
    if not got.picture:
        return None
    limit = farm.settings.max_image_bytes
    return uploaded(farm, got.picture, caller.tenant) or read_image(got.picture, limit=limit)


def faults_of(err: WanfarmError) -> tuple[Fault, ...]:
    """List what an error says, field by field."""
    if isinstance(err, RequestRejected):
        return tuple(err.faults)
    return (Fault(err.param or "", err.code, err.message),)


def settle(farm: Farm, fields: Overrides, image: ImageRef | None) -> Resolved:
    """Apply every rule with this farm's default models."""
    settings = farm.settings
    return resolve(
        fields,
        default_text_model=settings.default_text_model,
        default_image_model=settings.default_image_model,
        image=image,
        adapters=farm.loras,
        private_webhooks=settings.webhook_allow_private,
    )


def submit(
    farm: Farm,
    caller: Caller,
    sent: Sent,
    resolved: Resolved,
    source: orders.Source | None = None,
) -> intake.Accepted:
    """Store the image and the video; the same Idempotency-Key gives the same video."""
    if sent.image is not None:
        store(farm, sent.image)
    asked = order(caller, resolved, source, idempotency_key(), sent.printable())
    accepted = _submit(farm, asked)
    spec, whole = resolved.spec, farm.settings.log_prompts
    logger(job_id=accepted.video_id).info(
        "video.submitted",
        model=spec.model,
        prompt=prompt(spec.prompt, whole=whole),
        replayed=accepted.replayed,
    )
    return accepted


def _submit(farm: Farm, asked: orders.Order) -> intake.Accepted:
    count = retry_count() if asked.idempotency_key is None else None
    if count and (video_id := retries.made_before(farm, asked, count)):
        return intake.Accepted(video_id, replayed=True)
    accepted = intake.submit(farm, asked)
    if count is not None:
        retries.remember(farm, asked, accepted.video_id)
    return accepted


def order(
    caller: Caller, resolved: Resolved, source: orders.Source | None, key: str | None, said: Values
) -> orders.Order:
    """Put a checked request into its sender's name.

    Args:
        caller: who sends it.
        resolved: what to render.
        source: the video that it is made after.
        key: the Idempotency-Key; the same one gives the same video.
        said: what was sent, before defaults: the key stands for this and nothing else.
    """
    return orders.Order(
        tenant=caller.tenant,
        key_id=caller.key_id,
        key_name=caller.key_name,
        limits=caller.limits,
        spec=resolved.spec,
        delivery=resolved.delivery,
        asked=resolved.asked,
        warnings=resolved.warnings,
        source=source,
        idempotency_key=key,
        fingerprint=orders.fingerprint(request.path, said),
    )


def check_rights(fields: Overrides, caller: Caller) -> None:
    """Refuse what only administrators may ask for."""
    check_priority(fields.priority, caller)
    if fields.group is not None and not caller.may("admin"):
        raise WanfarmError(
            "scope_missing",
            f"group is '{fields.group}'. Only the scope 'admin' picks a group. Leave it out.",
            param="group",
        )


def check_priority(priority: int | None, caller: Caller) -> None:
    """Refuse a priority above what the caller may ask for."""
    if (priority or 0) > caller.max_priority:
        raise WanfarmError(
            "priority_not_allowed",
            f"priority is {priority or 0}. "
            f"Key '{caller.key_name}' may ask for {caller.max_priority} at most. "
            "Lower it, or use an admin key.",
            param="priority",
        )


def _two_images() -> Fault:
    return Fault(
        _IMAGE,
        "conflicting_fields",
        "input_reference was sent more than once. Only one image can count. Send one.",
    )
