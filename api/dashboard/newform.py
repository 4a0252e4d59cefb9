"""The form for a new video: its fields with the chosen model's limits, and how it is read back."""

import json
from dataclasses import dataclass, field, replace
from typing import Final

from flask import Request
from werkzeug.datastructures import MultiDict

from api.dashboard import loraform
from api.dashboard.loraform import LoraRow
from api.dashboard.words import number
from api.plumbing import asking
from api.plumbing.batching import drawn_seeds
from api.plumbing.form import read_body
from api.plumbing.images import read_image, store
from shared.jobs import batches, intake, orders
from shared.jobs.batches import BatchOrder, Member
from shared.jobs.keys import Caller
from shared.jobs.ledger import Values
from shared.machinery.farm import Farm
from shared.machinery.images import CleanImage
from shared.vocabulary.catalog import MODELS, Model, find_model
from shared.vocabulary.errors import Fault
from shared.vocabulary.ids import new_id
from shared.vocabulary.request import VideoRequest
from shared.vocabulary.resolve import Resolved
from shared.vocabulary.spec import ImageRef
from shared.vocabulary.validation import validate

IMAGE: Final = "input_reference"
# fields of the page, not of the request
_OURS: Final = frozenset({"form_key", "from", "count", "drafts"})
_WEEK_S: Final = 604_800
_COPIED: Final = ("frames", "fps", "steps", "guidance_high", "guidance_low", "shift", "seed")


@dataclass(frozen=True, slots=True)
class Field:
    """One input: what it is called, what goes into it, what happens when it is left empty."""

    name: str
    label: str
    default: str
    least: float | None = None
    most: float | None = None
    step: str = "1"
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that may be picked, and who serves it now."""

    model: Model
    groups: list[str]


@dataclass(frozen=True, slots=True)
class Form:
    """The page's form as it stands: values as they were typed, faults beside their fields."""

    model: Model
    choices: list[Choice]
    fields: list[Field]
    values: dict[str, str]
    key: str
    loras: list[LoraRow]
    adapters: list[str]  # names to choose from
    source: Values | None = None  # the job that `from` names
    faults: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    @property
    def elsewhere(self) -> list[str]:
        """Faults of fields that the form does not show."""
        shown = {one.name for one in self.fields} | {"prompt", "negative_prompt", "model", "count"}
        shown |= {"size", "quality", "cache", "image_fit", IMAGE}
        return [
            text
            for name, texts in self.faults.items()
            if name not in shown and not _is_of_loras(name)
            for text in texts
        ]

    @property
    def lora_faults(self) -> list[str]:
        """Faults of the adapters."""
        return [text for name in self.faults if _is_of_loras(name) for text in self.faults[name]]

    @property
    def caches(self) -> list[tuple[str, str]]:
        """The policies to choose from; a job's own knobs stand beside the names."""
        names = [("", "default"), ("off", "off"), ("fast", "fast")]
        own = self.values.get("cache", "")
        return [*names, (own, "as in that job")] if own.startswith("{") else names

    @property
    def is_served(self) -> bool:
        """Tell whether a group takes the chosen model now."""
        return any(one.groups for one in self.choices if one.model is self.model)

    @property
    def kept_image(self) -> ImageRef | None:
        """The source's image, used when no other one is chosen."""
        image: Values | None = self.source["spec"]["image"] if self.source else None
        return ImageRef.model_validate(image) if image and self.model.takes_image else None


def make_form(
    farm: Farm,
    served: dict[str, list[str]],
    values: "MultiDict[str, str]",
    source: Values | None,
    faults: tuple[Fault, ...] = (),
) -> Form:
    """Build the form from what was typed, or from the job that it starts from."""
    typed = dict(values.items())
    if source is not None and "prompt" not in typed:
        typed = _values_of(source) | typed
    settings = farm.settings
    model = find_model(typed.get("model", "")) or MODELS[settings.default_text_model]
    offered = {settings.default_text_model, settings.default_image_model, model.id, *served}
    by_param: dict[str, list[str]] = {}
    for fault in faults:
        by_param.setdefault(fault.param, []).append(fault.message)
    chosen = loraform.rows(typed)
    return Form(
        model=model,
        loras=chosen,
        adapters=loraform.names(farm.loras, model, chosen),
        choices=[Choice(m, served.get(m.id, [])) for m in MODELS.values() if m.id in offered],
        fields=_fields(model),
        values=typed | {"negative_prompt": _negative(typed, model)},
        key=typed.get("form_key") or new_id("form"),
        source=source,
        faults=by_param,
    )


def _is_of_loras(param: str) -> bool:
    return param.startswith("loras")


def _negative(typed: dict[str, str], model: Model) -> str:
    """Another model brings its own negative prompt, unless somebody has written one."""
    stock = {one.negative_prompt for one in MODELS.values()}
    given = typed.get("negative_prompt", model.negative_prompt)
    return model.negative_prompt if given in stock else given


def _values_of(row: Values) -> dict[str, str]:
    spec: Values = row["spec"]
    copied = {name: number(spec[name]) for name in _COPIED if spec[name] is not None}
    texts = {"prompt": spec["prompt"], "negative_prompt": spec["negative_prompt"]}
    size = f"{spec['width']}x{spec['height']}"
    texts |= {"model": row["model"], "size": size, "seed": str(spec["seed"])}
    cache = spec["cache"] if isinstance(spec["cache"], str) else json.dumps(spec["cache"])
    texts |= {"cache": cache, "image_fit": spec["image_fit"] if spec["image"] else ""}
    return copied | texts | loraform.typed_of(spec["loras"])


def _fields(model: Model) -> list[Field]:
    guidance = [
        Field(
            "guidance_high",
            "guidance high" if model.experts == 2 else "guidance",
            number(model.guidance_high),
            0,
            20,
            "any",
            "1 or less turns it off",
        )
    ]
    if model.guidance_low is not None:
        low = number(model.guidance_low)
        guidance.append(Field("guidance_low", "guidance low", low, 0, 20, "any"))
    return [
        Field("frames", "frames", str(model.frames), 1, model.max_frames, "4", "4k+1"),
        Field("fps", "fps", str(model.fps), 1, 60, hint=f"learned at {model.fps}"),
        Field("steps", "steps", str(model.steps), 1, 100),
        *guidance,
        Field("shift", "shift", number(model.shift), 0.1, 30, "any"),
        Field("seed", "seed", "drawn", 0, None, hint="recorded either way"),
        Field("priority", "priority", "0", -10, 10, hint="above 0 if the key may"),
        Field("start_within_s", "start within", "any time", 1, _WEEK_S, hint="seconds from now"),
        Field("finish_within_s", "finish within", "any time", 1, _WEEK_S, hint="seconds from now"),
    ]


@dataclass(frozen=True, slots=True)
class Read:
    """A form that has passed every check."""

    request: VideoRequest
    resolved: Resolved
    image: CleanImage | None
    count: int  # of videos, each with a seed of its own


def read_form(
    farm: Farm,
    request: Request,
    caller: Caller,
    source: Values | None,
    stand_in: ImageRef | None = None,
) -> Read:
    """Check what was sent by the very rules of the API.

    Args:
        farm: the handles.
        request: with the form.
        caller: who sends it.
        source: the job that it starts from.
        stand_in: for the image of a model that takes one, when none was sent.

    Raises:
        RequestRejected: with everything that is wrong.
    """
    body = read_body(request)
    fields = loraform.without_free_rows(
        {name: value for name, value in body.fields.items() if name not in _OURS}
    )
    model = find_model(str(fields.get("model", "")))
    if model and fields.get("negative_prompt") == model.negative_prompt:
        del fields["negative_prompt"]  # the page had filled it in: nobody asked for it
    if "drafts" in body.fields:
        fields = _without_recipe(fields, source) | {"quality": "draft"}
    count, faults = _count(body.fields)
    wanted = validate(VideoRequest, fields, lax=True, before=faults)
    asking.check_rights(wanted, caller)
    sent = body.files.get(IMAGE)
    limit = farm.settings.max_image_bytes
    image = read_image(sent, limit=limit) if sent else None
    reference = image.ref if image else _kept(source, model)
    if reference is None and model and model.needs_image:
        reference = stand_in
    return Read(wanted, asking.settle(farm, wanted, reference), image, count)


def _without_recipe(fields: Values, source: Values | None) -> Values:
    """Leave out what the page had filled in and a draft decides."""
    copied = _values_of(source) if source else {}
    return {
        name: value
        for name, value in fields.items()
        if name not in {"steps", "cache"} or value != copied.get(name)
    }


def _count(fields: Values) -> tuple[int, list[Fault]]:
    """Read how many videos are wanted, and what speaks against it."""
    text = str(fields.get("count", "1"))
    count = int(text) if text.isdecimal() and len(text) < 4 else 0
    if not 1 <= count <= batches.MOST:
        said = f"how many is '{text[:20]}'. A batch has 1 to {batches.MOST} videos. Correct it."
        return 1, [Fault("count", "invalid_value", said)]
    if count > 1 and fields.get("seed"):
        said = f"seed is given for {count} videos. Each has a seed of its own. Leave it empty."
        return count, [Fault("seed", "conflicting_fields", said)]
    return count, []


def _kept(source: Values | None, model: Model | None) -> ImageRef | None:
    image: Values | None = source["spec"]["image"] if source else None
    return ImageRef.model_validate(image) if image and model and model.takes_image else None


def submit(farm: Farm, caller: Caller, read: Read, source: Values | None, key: str) -> str:
    """Store the image and the video, or a batch of them; gives the page that shows it.

    The page's key makes a double click one job.

    Raises:
        WanfarmError: `queue_full`, or `idempotency_key_reused` for a form sent twice, changed.
    """
    if read.image is not None:
        store(farm, read.image)
    said = read.request.model_dump(mode="json", exclude_unset=True)
    image = read.resolved.spec.image
    said |= {IMAGE: image.sha256} if image else {}
    said |= {"count": read.count} if read.count > 1 else {}
    made_after = orders.Source(source["id"], "remixed") if source else None
    order = asking.order(caller, read.resolved, made_after, key or None, said)
    if read.count == 1:
        return f"/jobs/{intake.submit(farm, order).video_id}"
    return f"/jobs?batch={batches.submit(farm, _batch(order, read.count)).batch_id}"


def _batch(order: orders.Order, count: int) -> BatchOrder:
    """Make many of one, each with a seed of its own."""
    seeds = drawn_seeds(count)
    specs = [order.spec.model_copy(update={"seed": seed}) for seed in seeds]
    members = [
        Member(replace(order, spec=spec, idempotency_key=None), {"seed": spec.seed})
        for spec in specs
    ]
    return BatchOrder(
        members,
        {"seed": seeds},
        idempotency_key=order.idempotency_key,
        fingerprint=order.fingerprint,
    )
