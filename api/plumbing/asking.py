"""From a request's bytes to an order: read, translate, clean the image, resolve, submit."""

from dataclasses import dataclass
from typing import Any, Final

from flask import request

from api.plumbing.dialects import translate
from api.plumbing.form import Body, read_body
from api.plumbing.images import read_image, store
from api.plumbing.registry import idempotency_key
from shared.jobs import intake
from shared.jobs.keys import Caller
from shared.jobs.ledger import Values
from shared.jobs.provenance import cache_used
from shared.machinery.farm import Farm
from shared.machinery.images import CleanImage
from shared.vocabulary.adapters import distilled_pair
from shared.vocabulary.catalog import MODELS, find_model
from shared.vocabulary.errors import Fault, RequestRejected, WanfarmError
from shared.vocabulary.request import ALIASES, Overrides, VideoRequest
from shared.vocabulary.resolve import Resolved, resolve
from shared.vocabulary.spec import ImageRef
from shared.vocabulary.validation import unknown_field, validate

_IMAGE: Final = "input_reference"
_DISTILLED: Final = ("guidance_high", "guidance_low", "shift", "sampler")
_FILE_NAMES: Final = frozenset({_IMAGE, *(a for a, name in ALIASES.items() if name == _IMAGE)})
# An override on the left decides what a recipe says on the right.
_DECIDES: Final = {
    "seconds": ("frames",),
    "frames": ("seconds",),
    "quality": ("steps", "sigmas", "cache"),
    "steps": ("sigmas",),
    "sigmas": ("steps",),
    "guidance_scale": ("guidance_high", "guidance_low"),
}


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
    return Sent(valid, image_of(farm, got), got.names_image)


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


def image_of(farm: Farm, got: Unpacked) -> CleanImage | None:
    """Decode the image of a request, if there is one.

    Raises:
        WanfarmError: when it cannot be used.
    """
    limit = farm.settings.max_image_bytes
    return read_image(got.picture, limit=limit) if got.picture else None


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
    farm: Farm, caller: Caller, sent: Sent, resolved: Resolved, *, remixed_from: str | None = None
) -> intake.Accepted:
    """Store the image and the video; the same Idempotency-Key gives the same video."""
    if sent.image is not None:
        store(farm, sent.image)
    key, said = idempotency_key(), sent.printable()
    return intake.submit(farm, order(caller, resolved, remixed_from, key, said))


def order(
    caller: Caller, resolved: Resolved, remixed_from: str | None, key: str | None, said: Values
) -> intake.Order:
    """Put a checked request into its sender's name.

    Args:
        caller: who sends it.
        resolved: what to render.
        remixed_from: the id of the video that it is made after.
        key: the Idempotency-Key; the same one gives the same video.
        said: what was sent, before defaults: the key stands for this and nothing else.
    """
    return intake.Order(
        tenant=caller.tenant,
        key_id=caller.key_id,
        key_name=caller.key_name,
        spec=resolved.spec,
        delivery=resolved.delivery,
        asked=resolved.asked,
        warnings=resolved.warnings,
        remixed_from=remixed_from,
        idempotency_key=key,
        fingerprint=intake.fingerprint(request.path, said),
    )


def remixed(row: Values, sent: Sent) -> tuple[Overrides, ImageRef | None]:
    """Lay overrides over a video's own recipe; null goes back to the model's default."""
    said = sent.fields.model_dump(exclude_unset=True)
    asked = said.get("model")
    same_model = asked is None or _id_of(asked) == row["model"]
    base = _recipe(row) if same_model else _as_asked(row)
    for name in _overruled(said):
        base.pop(name, None)
    _leave_distillation(base, said, row)
    merged = {n: value for n, value in (base | said).items() if value is not None}
    if "model" not in said:
        merged["model"] = row["model"]
    fields = Overrides.model_validate(merged)
    if sent.names_image:
        return fields, sent.image.ref if sent.image else None
    own = row["spec"]["image"]
    return fields, ImageRef.model_validate(own) if own else None


def _recipe(row: Values) -> dict[str, Any]:
    """Write a video as the request that gives it again, whatever its group's cache is set to."""
    spec = row["spec"]
    fields = {n: v for n, v in spec.items() if n in Overrides.model_fields and v is not None}
    size = f"{spec['width']}x{spec['height']}"
    return fields | {"size": size, "cache": cache_used(row) or spec["cache"]}


def _as_asked(row: Values) -> dict[str, Any]:
    """Keep only what the sender had named, for another model."""
    spec = row["spec"]
    fields = _recipe(row) | {"cache": spec["cache"]}
    fields["seconds"] = (spec["frames"] - 1) / spec["fps"] or None
    return {name: fields[name] for name in row["asked"] if name in fields and name != "model"}


def _overruled(said: dict[str, Any]) -> set[str]:
    """Name the fields of a recipe that an override decides in their place."""
    gone = {name for cause in said.keys() & _DECIDES.keys() for name in _DECIDES[cause]}
    high = said.get("guidance_high")
    return gone | ({"guidance_low"} if high is not None and high <= 1 else set())


def _leave_distillation(base: dict[str, Any], said: dict[str, Any], row: Values) -> None:
    """Drop what `distill4` had filled in, or will, when a remix turns to it or from it."""
    pair = distilled_pair(MODELS[row["model"]])
    loras: list[Values] = base.get("loras", [])
    quality = said.get("quality")
    if quality and (quality == "distill4") != any(lora["name"] == pair for lora in loras):
        base["loras"] = [lora for lora in loras if lora["name"] != pair]
        for name in _DISTILLED:
            base.pop(name, None)


def _id_of(name: str) -> str:
    model = find_model(name)
    return model.id if model else name


def check_rights(fields: Overrides, caller: Caller) -> None:
    """Refuse what only administrators may ask for."""
    if caller.may("admin"):
        return
    if (fields.priority or 0) > 0:
        raise WanfarmError(
            "priority_not_allowed",
            f"priority is {fields.priority}. Key '{caller.key_name}' may ask for 0 at most. "
            "Lower it, or use an admin key.",
            param="priority",
        )
    if fields.group is not None:
        raise WanfarmError(
            "scope_missing",
            f"group is '{fields.group}'. Only the scope 'admin' picks a group. Leave it out.",
            param="group",
        )


def _two_images() -> Fault:
    return Fault(
        _IMAGE,
        "conflicting_fields",
        "input_reference was sent more than once. Only one image can count. Send one.",
    )
