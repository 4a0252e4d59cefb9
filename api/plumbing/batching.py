"""From the body of a batch to its order: every setting with every seed, all faults at once."""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final

from flask import request
from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator

from api.plumbing import asking
from api.plumbing.form import Body, read_body
from api.plumbing.images import store
from api.plumbing.registry import idempotency_key
from api.plumbing.wire import is_object
from shared.jobs import batches, orders
from shared.jobs.batches import MOST, Accepted, BatchOrder, Member, placed
from shared.jobs.keys import Caller
from shared.jobs.ledger import Values
from shared.machinery.farm import Farm
from shared.machinery.images import PARAM as IMAGE
from shared.machinery.images import CleanImage
from shared.vocabulary.errors import Fault, RequestRejected, WanfarmError
from shared.vocabulary.request import ALIASES, Metadata, Overrides, VideoRequest
from shared.vocabulary.resolve import draw_seed
from shared.vocabulary.spec import MAX_SEED, ImageRef
from shared.vocabulary.validation import unknown_field, validate

_INDEX: Final = re.compile(r"\.(\d+)$")
_FIELDS: Final = sorted({*Overrides.model_fields, *ALIASES})


def _unread(sent: Any, _check: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401 - as it came
    """Leave it to each video: it may be in any dialect, and the grid may complete it."""
    return sent


Seed = Annotated[int, Field(ge=-1, le=MAX_SEED)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Choices = Annotated[list[Any], Field(min_length=1, max_length=MOST)]


class BatchRequest(BaseModel):
    """Videos that share a request: one for every seed with every combination of the grid."""

    model_config = ConfigDict(extra="forbid")

    request: Annotated[VideoRequest, WrapValidator(_unread)] = Field(
        description="What they share, as for one video."
    )
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MOST)] | None = Field(
        default=None, description="The seeds; -1 draws one."
    )
    variations: Count | None = Field(default=None, description="How many seeds to draw instead.")
    grid: Annotated[dict[str, Choices], Field(min_length=1)] | None = Field(
        default=None, description="Fields of the request, each with the values that it takes."
    )
    name: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="For people."
    )
    metadata: Metadata | None = Field(default=None, description="Your own pairs, of the batch.")


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the videos of a batch have in common."""

    fields: Values
    image: ImageRef | None
    lax: bool  # read text as numbers, as forms must
    drawn: bool  # the seeds: nobody asked for these


@dataclass(frozen=True, slots=True)
class _Axis:
    """A field in which videos differ, its values, and where the request has each."""

    field: str
    values: Sequence[Any]
    places: Sequence[str]

    @property
    def spots(self) -> list[tuple[str, Any, str]]:
        """Each value with its field and its place."""
        pairs = zip(self.values, self.places, strict=True)
        return [(self.field, value, place) for value, place in pairs]


@dataclass(frozen=True, slots=True)
class _Found:
    """Faults by what they say: what many videos share is told once."""

    faults: dict[tuple[str, str], Fault] = field(default_factory=dict[tuple[str, str], Fault])

    def add(self, param: str, code: str, message: str) -> None:
        """Note a reason to refuse."""
        self.faults.setdefault((param, message), Fault(param, code, message))

    def refuse(self) -> None:
        """Raise what was found, if anything was."""
        if self.faults:
            raise RequestRejected([*self.faults.values()])


def submit(farm: Farm, caller: Caller) -> Accepted:
    """Read the body of a batch and store all its videos, or none.

    Raises:
        WanfarmError: for every fault of the batch or of any of its videos.
    """
    order, image = read(farm, caller)
    if image is not None:
        store(farm, image)
    return batches.submit(farm, order)


def read(farm: Farm, caller: Caller) -> tuple[BatchOrder, CleanImage | None]:
    """Read the body of a batch, and the image that its videos start from.

    Raises:
        WanfarmError: for every fault of the batch or of any of its videos.
    """
    body, found = read_body(request), _Found()
    asked = _frame(body)
    got = _unpacked(asked, body)
    axes = _axes(asked, got.fields, found)
    found.refuse()
    image = _image(farm, got, caller)
    for fault in got.faults:
        found.add(placed(fault.param, {}), fault.code, fault.message)
    drawn = asked.seeds is None and "seed" not in got.fields
    # the same for all, unless they differ in it
    fields = {"seed": draw_seed()} | got.fields if drawn else got.fields
    shared = _Shared(fields, image.ref if image else None, body.is_form, drawn)
    cells = itertools.product(*(axis.spots for axis in axes))
    members = [_member(farm, caller, shared, cell, found) for cell in cells]
    found.refuse()
    order = BatchOrder(
        [member for member in members if member],
        {axis.field: list(axis.values) for axis in axes},
        name=asked.name,
        metadata=asked.metadata or {},
        idempotency_key=idempotency_key(),
        fingerprint=_fingerprint(asked, got.fields, image),
    )
    return order, image


def drawn_seeds(count: int) -> list[int]:
    """Draw different seeds."""
    seeds: set[int] = set()
    while len(seeds) < count:
        seeds.add(draw_seed())
    return [*seeds]


def _frame(body: Body) -> BatchRequest:
    """Check everything around the request that the videos share."""
    try:
        return validate(BatchRequest, body.fields, lax=body.is_form)
    except RequestRejected as err:
        faults = [replace(one, param=_INDEX.sub(r"[\1]", one.param)) for one in err.faults]
        raise RequestRejected(faults) from err


def _unpacked(asked: BatchRequest, body: Body) -> asking.Unpacked:
    """Translate what the videos share."""
    fields: object = asked.request
    if not is_object(fields):
        raise WanfarmError(
            "invalid_value",
            "request is no object. It has the fields that all videos share. "
            "Send there what you would send for one video.",
            param="request",
        )
    got = asking.unpack(Body(fields, body.files, is_form=body.is_form), nulls=False)
    if got.fields.get("seed") in (-1, "-1"):  # it asks for one to be drawn, as its absence does
        del got.fields["seed"]
    return got


def _image(farm: Farm, got: asking.Unpacked, caller: Caller) -> CleanImage | None:
    try:
        return asking.image_of(farm, got, caller)
    except RequestRejected as err:
        raise RequestRejected([Fault(placed(IMAGE, {}), err.code, err.message)]) from err
    except WanfarmError as err:
        raise WanfarmError(err.code, err.message, param=placed(IMAGE, {})) from err


def _fingerprint(asked: BatchRequest, fields: Values, image: CleanImage | None) -> str:
    said = asked.model_dump(mode="json", exclude_unset=True, exclude={"request"})
    said["request"] = fields | ({IMAGE: image.ref.sha256} if image else {})
    return orders.fingerprint(request.path, said)


def _axes(asked: BatchRequest, shared: Values, found: _Found) -> list[_Axis]:
    """Read the fields in which the videos differ; the last one changes fastest."""
    axes: list[_Axis] = []
    for name, values in (asked.grid or {}).items():
        _check_axis(name, shared, found)
        places = [f"grid.{name}[{at}]" for at in range(len(values))]
        axes.append(_Axis(ALIASES.get(name, name), values, places))
    axes += _seeds(asked, shared, found)
    if len({axis.field for axis in axes}) < len(axes):
        found.add(
            "grid",
            "conflicting_fields",
            "grid has one field under two names. Only one can count. Send one of them.",
        )
    total = math.prod(len(axis.values) for axis in axes)
    if total > MOST:
        sizes = " x ".join(f"{len(axis.values)} {axis.field}" for axis in axes)
        found.add(
            "grid",
            "invalid_value",
            f"The batch has {total} videos ({sizes[:150]}). One batch has up to {MOST}. "
            "Send several batches.",
        )
    return axes


def _check_axis(name: str, shared: Values, found: _Found) -> None:
    own, place = ALIASES.get(name, name), f"grid.{name}"[:80]
    if own not in Overrides.model_fields:
        found.add(place, "unknown_field", unknown_field(name, _FIELDS).message)
    elif own in {"seed", IMAGE}:
        found.add(
            place,
            "unsupported_feature",
            f"{place} is no axis. Seeds go into seeds or variations, and a batch has one image. "
            "Leave it out.",
        )
    elif own in shared:
        found.add(
            place,
            "conflicting_fields",
            f"{place} and request.{own} both say what {own} is. Only one can count. "
            "Send one of them.",
        )


def _seeds(asked: BatchRequest, shared: Values, found: _Found) -> list[_Axis]:
    """Settle the seeds in which the videos differ: an axis, or none when all have the same one."""
    if asked.seeds is None and asked.variations is None:
        return []
    if asked.seeds is not None and asked.variations is not None:
        found.add(
            "variations",
            "conflicting_fields",
            "variations draws seeds, and seeds names them. Only one can count. Send one of them.",
        )
    if "seed" in shared:
        found.add(
            "request.seed",
            "conflicting_fields",
            "request.seed is the seed of all videos, and the batch gives each its own. Only one "
            "can count. Leave request.seed out.",
        )
    if asked.seeds is None:
        count = asked.variations or 1
        return [_Axis("seed", drawn_seeds(count), ["variations"] * count)]
    values = [draw_seed() if seed == -1 else seed for seed in asked.seeds]
    return [_Axis("seed", values, [f"seeds[{at}]" for at in range(len(values))])]


def _member(
    farm: Farm,
    caller: Caller,
    shared: _Shared,
    cell: Sequence[tuple[str, Any, str]],
    found: _Found,
) -> Member | None:
    """Complete one video by the very rules of a single one; None when it has a fault."""
    differs = {name: value for name, value, _ in cell}
    places = {name: place for name, _, place in cell}
    fields = {n: value for n, value in (shared.fields | differs).items() if value is not None}
    try:
        wanted = validate(VideoRequest, fields, lax=shared.lax)
        asking.check_rights(wanted, caller)
        resolved = asking.settle(farm, wanted, shared.image)
    except WanfarmError as err:
        for fault in asking.faults_of(err):
            found.add(placed(fault.param, places), fault.code, fault.message)
        return None
    if shared.drawn:
        unasked = tuple(name for name in resolved.asked if name != "seed")
        resolved = replace(resolved, asked=unasked)
    return Member(asking.order(caller, resolved, None, None, {}), differs, places)
