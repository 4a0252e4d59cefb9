"""From what a client asked to what is rendered: every rule of a request, all faults at once."""

import itertools
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from shared.vocabulary.adapters import Adapter, loras_of, warn_of_guidance, with_quality
from shared.vocabulary.addresses import url_fault
from shared.vocabulary.cache_levels import CacheEnvironment, says_anything, settle
from shared.vocabulary.catalog import MODELS, Model, find_model
from shared.vocabulary.errors import Fault, RequestRejected
from shared.vocabulary.geometry import frames_of, size_of
from shared.vocabulary.request import Overrides, Quality
from shared.vocabulary.spec import (
    CachePolicyName,
    CacheWish,
    Delivery,
    GenerationSpec,
    ImageRef,
)

_NONE: Final[Mapping[str, Adapter]] = MappingProxyType({})
_DRAWN_SEEDS: Final = 2**32
_CACHE_OF: Final[dict[Quality, CachePolicyName]] = {"draft": "fast", "high": "off"}
_DELIVERY: Final = (
    "priority", "max_attempts", "start_within_s", "finish_within_s", "expires_in_s",
    "metadata", "user", "group", "webhook_url",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Resolved:
    """A request after every rule: complete, with what its sender should know."""

    spec: GenerationSpec
    delivery: Delivery
    warnings: tuple[dict[str, Any], ...]
    asked: tuple[str, ...]  # the fields that the request named


@dataclass(slots=True)
class Findings:
    """What the rules have found so far."""

    faults: list[Fault] = field(default_factory=list[Fault])
    warnings: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def fault(self, param: str, code: str, message: str) -> None:
        """Note a reason to refuse."""
        self.faults.append(Fault(param, code, message))

    def warn(self, param: str, code: str, message: str) -> None:
        """Note what the sender should know."""
        self.warnings.append({"code": code, "param": param, "message": message})


def resolve(
    request: Overrides,
    *,
    default_text_model: str,
    default_image_model: str,
    image: ImageRef | None = None,
    adapters: Mapping[str, Adapter] = _NONE,
    private_webhooks: bool = False,
) -> Resolved:
    """Apply the model's defaults and every rule.

    Args:
        request: the fields, each within its own range.
        default_text_model: the model of a request that names none and brings no image.
        default_image_model: the same, with an image.
        image: the image of `input_reference`, cleaned and stored.
        adapters: the LoRAs there are, by name.
        private_webhooks: take webhook_url for http and private addresses too.

    Raises:
        RequestRejected: with every fault found.
    """
    name = request.model or (default_image_model if image else default_text_model)
    model = find_model(name)
    if model is None:
        raise RequestRejected([_unknown_model(name)])
    found = Findings()
    filled = with_quality(request, model)
    values = _values(filled, model, image, found)
    values["loras"] = loras = loras_of(filled, model, adapters, found)
    high = values["guidance_high"]
    warn_of_guidance(loras, model.guidance_high if high is None else high, adapters, found)
    delivery = _delivery(request, found, private_webhooks=private_webhooks)
    if found.faults:
        raise RequestRejected(found.faults)
    given = {name: value for name, value in values.items() if value is not None}
    spec = GenerationSpec.model_validate({"model": model.id, "image": image} | given)
    asked = sorted(n for n in request.model_fields_set if getattr(request, n) is not None)
    return Resolved(spec, delivery, tuple(found.warnings), tuple(asked))


def _unknown_model(name: str) -> Fault:
    return Fault(
        "model",
        "model_not_found",
        f"model is '{name[:60]}'. This farm does not know it. Use one of {', '.join(MODELS)}.",
    )


def _values(
    request: Overrides, model: Model, image: ImageRef | None, found: Findings
) -> dict[str, Any]:
    _check_image(model, image, found)
    size = size_of(request.size, model, image, found)
    frames = frames_of(request, model, found)
    sigmas = _sigmas(request, found)
    high, low = _guidance(request, model, found)
    if request.boundary is not None and model.boundary is None:
        found.fault("boundary", "not_for_model", _one_expert("boundary", request.boundary, model))
    if request.fps not in {None, model.fps}:
        found.warn(
            "fps",
            "fps_changes_speed",
            f"fps is {request.fps}. {model.id} learned motion at {model.fps} fps. "
            "The video plays faster or slower.",
        )
    seed = draw_seed() if request.seed in {None, -1} else request.seed
    return {
        "prompt": _prompt(request, found),
        "negative_prompt": _negative_prompt(request, model, high, found),
        "width": size.width,
        "height": size.height,
        "frames": frames,
        "fps": request.fps,
        "steps": _steps(request, model),
        "guidance_high": high,
        "guidance_low": low,
        "shift": request.shift,
        "boundary": request.boundary,
        "sampler": request.sampler,
        "sigmas": sigmas,
        "seed": seed,
        "image_fit": request.image_fit,
        "cache": _cache(request, model, found),
        "embed_provenance": request.embed_provenance,
    }


def draw_seed() -> int:
    """Draw a seed for whoever has named none."""
    return secrets.randbelow(_DRAWN_SEEDS)


def _prompt(request: Overrides, found: Findings) -> str:
    prompt = (request.prompt or "").strip()
    if not prompt:
        found.fault(
            "prompt", "invalid_value", "prompt is empty. It says what the video shows. Send text."
        )
    return prompt


def _negative_prompt(
    request: Overrides, model: Model, high: float | None, found: Findings
) -> str | None:
    sent = request.negative_prompt
    unused = high is not None and high <= 1
    if unused and sent and sent != model.negative_prompt:
        found.warn(
            "negative_prompt",
            "negative_prompt_unused",
            "guidance_high is 1 or less, which turns guidance off. The negative prompt has no "
            "effect. Raise guidance_high to use it.",
        )
    return sent


def _check_image(model: Model, image: ImageRef | None, found: Findings) -> None:
    if model.needs_image and image is None:
        found.fault(
            "input_reference",
            "image_required",
            f"input_reference is missing. {model.id} animates an image. Send one, or use a "
            "text model.",
        )
    if image is not None and not model.takes_image:
        found.fault(
            "input_reference",
            "image_not_allowed",
            f"input_reference was sent. {model.id} renders from text alone. Leave it out, or use "
            "an image model.",
        )


def _steps(request: Overrides, model: Model) -> int | None:
    if request.steps is not None:
        return request.steps
    if request.sigmas is not None:
        return len(request.sigmas)
    return max(1, model.steps // 2) if request.quality == "draft" else None


def _sigmas(request: Overrides, found: Findings) -> tuple[float, ...] | None:
    if request.sigmas is None:
        return None
    sigmas = tuple(request.sigmas)
    falling = all(a > b for a, b in itertools.pairwise(sigmas))
    if not falling or not 0 < sigmas[-1] <= sigmas[0] <= 1:
        found.fault(
            "sigmas",
            "invalid_value",
            f"sigmas runs from {sigmas[0]:g} to {sigmas[-1]:g}. It must fall at every step, within "
            "0 (excluded) and 1. Correct the list, or leave it out.",
        )
    if request.steps not in {None, len(sigmas)}:
        found.fault(
            "sigmas",
            "conflicting_fields",
            f"sigmas has {len(sigmas)} values and steps is {request.steps}. There is one value "
            "per step. Leave steps out, or make them agree.",
        )
    return sigmas


def _guidance(
    request: Overrides, model: Model, found: Findings
) -> tuple[float | None, float | None]:
    """Settle both experts' guidance; None leaves the model's own."""
    both = request.guidance_scale
    if both is not None and request.guidance_high is not None:
        found.fault(
            "guidance_scale",
            "conflicting_fields",
            f"guidance_scale is {both:g} and guidance_high is {request.guidance_high:g}. The first "
            "sets every expert. Send one of the two.",
        )
    high = both if request.guidance_high is None else request.guidance_high
    low = request.guidance_low
    if model.guidance_low is None:
        if low is not None:
            found.fault("guidance_low", "not_for_model", _one_expert("guidance_low", low, model))
        return high, None
    off = (model.guidance_high if high is None else high) <= 1
    if off and low is not None and low > 1:
        found.fault(
            "guidance_low",
            "conflicting_fields",
            f"guidance_low is {low:g}. guidance_high of 1 or less turns guidance off for the whole "
            "run. Leave guidance_low out, or raise guidance_high.",
        )
    fallback = both if both is not None or not off else 1.0
    return high, fallback if low is None else low


def _one_expert(name: str, value: float, model: Model) -> str:
    return f"{name} is {value:g}. {model.id} has one expert. Leave {name} out."


def _cache(request: Overrides, model: Model, found: Findings) -> CachePolicyName | CacheWish | None:
    """Keep what the request says, and nothing it does not say: its group settles the rest."""
    wish = request.cache
    if wish is None:
        return _CACHE_OF.get(request.quality) if request.quality else None
    if not isinstance(wish, CacheWish):
        return wish
    if wish.secondary is not None and model.experts == 1:
        found.fault(
            "cache.secondary",
            "not_for_model",
            f"cache.secondary was sent. {model.id} has one expert. Leave cache.secondary out.",
        )
    settled = settle(wish, CacheEnvironment(), model)
    found.faults += settled.faults(model) if settled else []
    if wish.enabled is False:
        return "off"
    return wish if says_anything(wish) else "default"


def _delivery(request: Overrides, found: Findings, *, private_webhooks: bool) -> Delivery:
    start, finish = request.start_within_s, request.finish_within_s
    if start is not None and finish is not None and finish < start:
        found.fault(
            "finish_within_s",
            "conflicting_fields",
            f"finish_within_s is {finish} and start_within_s is {start}. A video cannot finish "
            "before it starts. Raise finish_within_s.",
        )
    if request.webhook_url is not None and (
        fault := url_fault("webhook_url", request.webhook_url, allow_private=private_webhooks)
    ):
        found.faults.append(fault)
    said = {name: getattr(request, name) for name in _DELIVERY}
    return Delivery.model_validate({n: value for n, value in said.items() if value is not None})
