"""From a video back to the request that makes another one after it: remix and promote."""

from typing import Any, Final

from api.plumbing.asking import Sent
from shared.jobs.ledger import Values
from shared.jobs.provenance import cache_used
from shared.vocabulary.adapters import distilled_pair
from shared.vocabulary.catalog import MODELS, find_model
from shared.vocabulary.request import Overrides, Quality
from shared.vocabulary.spec import GenerationSpec, ImageRef

_DISTILLED: Final = ("guidance_high", "guidance_low", "shift", "sampler")
# An override on the left decides what a recipe says on the right.
_DECIDES: Final = {
    "seconds": ("frames",),
    "frames": ("seconds",),
    "quality": ("steps", "sigmas", "cache"),
    "steps": ("sigmas",),
    "sigmas": ("steps",),
    "guidance_scale": ("guidance_high", "guidance_low"),
}


def promoted(row: Values, sent: Sent) -> tuple[Overrides, ImageRef | None]:
    """Lay overrides over a draft's recipe without what made it a draft: its steps and its cache."""
    return remixed(row, sent, quality="standard")


def composition_warnings(row: Values, spec: GenerationSpec) -> tuple[Values, ...]:
    """Warn of another picture: the noise that a seed draws depends on size and frames."""
    draft: Values = row["spec"]
    size, frames = f"{draft['width']}x{draft['height']}", draft["frames"]
    changed = [
        (param, before, now)
        for param, before, now in (
            ("size", size, f"{spec.width}x{spec.height}"),
            ("frames", frames, spec.frames),
        )
        if before != now
    ]
    return tuple(
        {
            "code": "composition_changes",
            "param": param,
            "message": f"{param} is {now}, the draft's was {before}. The seed draws other noise "
            "for another shape, so the composition changes. Leave it out to keep the picture.",
        }
        for param, before, now in changed
    )


def remixed(
    row: Values, sent: Sent, quality: Quality | None = None
) -> tuple[Overrides, ImageRef | None]:
    """Lay overrides over a video's own recipe; null goes back to the model's default.

    Args:
        row: the video.
        sent: the overrides.
        quality: if they name none.
    """
    said = sent.fields.model_dump(exclude_unset=True)
    if quality and said.get("quality") is None:
        said["quality"] = quality
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
