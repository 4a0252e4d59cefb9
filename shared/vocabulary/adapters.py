"""LoRA adapters as a request meets them: which there are, whom they fit, what they ask for."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from shared.vocabulary.catalog import MODELS, Model
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.lora_keys import Misfit, Unusable, homes_of, layers_of
from shared.vocabulary.request import Overrides
from shared.vocabulary.spec import LoraRef
from shared.vocabulary.transformer import Shape, parameters_of

# The four steps that the published lightx2v pairs were trained for: t = 1000, 937.5, 833.3, 625.
_DISTILLED: Final = {"shift": 5.0, "sampler": "euler", "cache": "off"}
_SIGMAS: Final = [1.0, 0.75, 0.5, 0.25]
# One model of each: those of a family differ in the channels of their latents only.
FAMILIES: Final = {model.family: model for model in MODELS.values()}


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter of the farm, without its weights."""

    name: str
    family: str | None  # the models that it fits; None: nobody said, the engine looks at shapes
    experts: frozenset[str]  # `high` and `low`: those that it has weights for
    distilled: bool  # made for few steps without guidance


class Findings(Protocol):
    """Where faults and warnings go."""

    def fault(self, param: str, code: str, message: str) -> None:
        """Note a reason to refuse."""

    def warn(self, param: str, code: str, message: str) -> None:
        """Note what the sender should know."""


def family_of(files: Mapping[str, Mapping[str, Shape]], wanted: str | None) -> str | None:
    """Find the family of models that an adapter's files fit.

    Args:
        files: the shapes of each file's tensors, by the field that brought it: `file`, or
            `file_high` and `file_low`.
        wanted: the family that the sender names.

    Returns:
        The family; None when nobody named it and the files fit several.

    Raises:
        WanfarmError: `invalid_lora` or `lora_mismatch`.
    """
    asked = [wanted] if wanted else [*FAMILIES]
    faults = {family: _misfit(files, FAMILIES[family]) for family in asked}
    found = [family for family, fault in faults.items() if fault is None]
    if found:
        return found[0] if len(found) == 1 else None
    raise (faults[wanted] if wanted else None) or _fits_nobody(min(files))


def _misfit(files: Mapping[str, Mapping[str, Shape]], model: Model) -> WanfarmError | None:
    """Say why the files do not fit a model, if so."""
    if model.experts == 1 and "file" not in files:
        return WanfarmError(
            "lora_mismatch",
            f"{min(files)} is for one of two experts. Models of the family {model.family} have "
            "one. Send its weights as `file`.",
            param=min(files),
        )
    homes = homes_of(parameters_of(model))
    for field, shapes in files.items():
        try:
            layers_of(shapes, homes)
        except Misfit as err:
            why = f"{field} {str(err)[:150]}. It was held against the family {model.family}. "
            told = why + "Send a LoRA that is made for it."
            return WanfarmError("lora_mismatch", told, param=field)
        except Unusable as err:
            raise unusable(field, str(err)) from err
    return None


def unusable(field: str, why: str) -> WanfarmError:
    """Refuse a file that is no LoRA."""
    return WanfarmError(
        "invalid_lora",
        f"{field} {why[:170]}. Nothing was installed. Send a LoRA in one safetensors file.",
        param=field,
    )


def _fits_nobody(field: str) -> WanfarmError:
    return WanfarmError(
        "lora_mismatch",
        f"{field} fits no family of models. This farm has {', '.join(FAMILIES)}. "
        "Send `family` as well to be told which key does not fit.",
        param=field,
    )


def distilled_pair(model: Model) -> str:
    """Name the adapter that `quality: distill4` takes for a model."""
    return f"{model.id}-distill4"


def with_quality(request: Overrides, model: Model) -> Overrides:
    """Fill in what `quality: distill4` says where the request says nothing."""
    if request.quality != "distill4":
        return request
    fill: dict[str, Any] = dict(_DISTILLED)
    if request.steps is None:
        fill["sigmas"] = _SIGMAS
    if request.guidance_scale is None:
        fill["guidance_high"] = 1.0
        if model.guidance_low is not None:
            fill["guidance_low"] = 1.0
    return request.model_copy(update={n: v for n, v in fill.items() if getattr(request, n) is None})


def loras_of(
    request: Overrides, model: Model, adapters: Mapping[str, Adapter], found: Findings
) -> tuple[LoraRef, ...]:
    """Settle the adapters of a video, each checked against what the farm has."""
    refs = list(request.loras or ())
    pair = distilled_pair(model)
    if request.quality == "distill4" and pair not in {ref.name for ref in refs}:
        if pair not in adapters:
            found.fault("quality", "lora_not_found", _no_pair(pair))
            return tuple(refs)
        refs.insert(0, LoraRef(name=pair))
    _check_twice(refs, found)
    for ref in refs:
        if trouble := _trouble(ref, model, adapters):
            found.fault("loras", *trouble)
    return tuple(refs)


def warn_of_guidance(
    refs: Iterable[LoraRef],
    guidance: float,
    adapters: Mapping[str, Adapter],
    found: Findings,
) -> None:
    """Tell that guidance spoils what a distilled adapter was trained for."""
    distilled = [r.name for r in refs if r.name in adapters and adapters[r.name].distilled]
    if distilled and guidance > 1:
        found.warn(
            "guidance_high",
            "guidance_with_distilled",
            f"guidance_high is {guidance:g}. LoRA '{distilled[0]}' was trained without guidance, "
            "which breaks its pictures and doubles their time. Use 1.",
        )


def _trouble(ref: LoraRef, model: Model, adapters: Mapping[str, Adapter]) -> tuple[str, str] | None:
    """Say why an adapter cannot be worn: a code and a sentence."""
    adapter = adapters.get(ref.name)
    if adapter is None:
        near = difflib.get_close_matches(ref.name, adapters, n=2, cutoff=0.5)
        names = " or ".join(f"'{name}'" for name in near)
        hint = f"Did you mean {names}?" if near else "GET /v1/loras lists them."
        return "lora_not_found", f"loras names '{ref.name}'. This farm has no such LoRA. {hint}"
    if adapter.family not in {None, model.family}:
        return (
            "lora_mismatch",
            f"LoRA '{ref.name}' is made for {adapter.family}. {model.id} is of the family "
            f"{model.family}. Use another LoRA, or another model.",
        )
    if model.experts == 1 and ref.target != "both":
        return (
            "lora_mismatch",
            f"LoRA '{ref.name}' has the target '{ref.target}'. {model.id} has one expert. "
            "Leave target out.",
        )
    missing = sorted(_experts(ref) - adapter.experts) if model.experts == 2 else []
    if missing:
        return (
            "lora_mismatch",
            f"LoRA '{ref.name}' has the target '{ref.target}'. It has no weights for the expert "
            f"'{missing[0]}'. Set target to '{min(adapter.experts)}'.",
        )
    return None


def _check_twice(refs: list[LoraRef], found: Findings) -> None:
    seen: set[tuple[str, str]] = set()
    for ref in refs:
        places = {(ref.name, expert) for expert in _experts(ref)}
        if places & seen:
            found.fault(
                "loras",
                "conflicting_fields",
                f"loras names '{ref.name}' twice for one expert. Its strengths would add up. "
                "Send one entry.",
            )
        seen |= places


def _experts(ref: LoraRef) -> set[str]:
    return {"high", "low"} if ref.target == "both" else {ref.target}


def _no_pair(pair: str) -> str:
    return (
        f"quality is 'distill4'. It needs the LoRA pair '{pair}', which this farm does not have. "
        "Install it, or leave quality out."
    )
