"""The catalogue over HTTP: the very data that the request check reads."""

from typing import Any, Final, get_args

from flask import Response

from api.plumbing.registry import Call, NoQuery, Route, endpoint
from api.plumbing.runtime import farm
from api.plumbing.schemas import ModelCard, ModelList
from api.plumbing.wire import json_response
from shared.jobs import groups
from shared.machinery.farm import Farm
from shared.vocabulary.catalog import MODELS, Model, find_model
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.spec import CachePolicyName
from shared.vocabulary.states import GroupState

_CREATED: Final = 1_753_660_800  # the day Wan2.2 came out
_CACHE_POLICIES: Final = list(get_args(CachePolicyName))


@endpoint(
    Route(
        method="GET",
        path="/v1/models",
        scope="read",
        summary="List the models.",
        query=NoQuery,
        returns=ModelList,
    )
)
def list_models(_call: Call[NoQuery]) -> Response:
    """Show every model this farm knows, with the groups that take it now."""
    return json_response(ModelList(data=_cards(farm(), list(MODELS.values()))))


@endpoint(
    Route(
        method="GET",
        path="/v1/models/{model_id:path}",
        scope="read",
        summary="Look at a model.",
        query=NoQuery,
        returns=ModelCard,
        errors=("model_not_found",),
    )
)
def retrieve_model(call: Call[NoQuery]) -> Response:
    """Show one model by id or alias; the id may hold slashes."""
    name = call.path["model_id"]
    model = find_model(name)
    if model is None:
        raise WanfarmError(
            "model_not_found",
            f"There is no model '{name[:60]}'. This farm knows {', '.join(MODELS)}. "
            "Use one of them.",
        )
    return json_response(_cards(farm(), [model])[0])


def _cards(handles: Farm, models: list[Model]) -> list[ModelCard]:
    known = groups.all_groups(handles)
    served = groups.served_models(known)
    warm = {group["warm_model"] for group in known if group["state"] is not GroupState.DOWN}
    defaults = {handles.settings.default_text_model, handles.settings.default_image_model}
    return [
        ModelCard(
            id=model.id,
            created=_CREATED,
            aliases=list(model.aliases),
            task_type=model.task,
            experts=model.experts,
            groups=served.get(model.id, []),
            warm=model.id in warm,
            default=model.id in defaults,
            defaults=_defaults(model),
            limits=_limits(model),
            cache_policies=_CACHE_POLICIES,
        )
        for model in models
    ]


def _defaults(model: Model) -> dict[str, Any]:
    return {
        "size": str(model.native_sizes[0]),
        "frames": model.frames,
        "fps": model.fps,
        "steps": model.steps,
        "guidance_high": model.guidance_high,
        "guidance_low": model.guidance_low,
        "shift": model.shift,
        "boundary": model.boundary,
        "sampler": "unipc",
        "negative_prompt": model.negative_prompt,
    }


def _limits(model: Model) -> dict[str, Any]:
    return {
        "image": "required" if model.needs_image else "optional" if model.takes_image else "none",
        "native_sizes": [str(size) for size in model.native_sizes],
        "size_multiple": model.size_multiple,
        "max_area": model.max_area,
        "min_side": model.min_side,
        "max_side": model.max_side,
        "max_frames": model.max_frames,
        "max_steps": 100,
        "blocks": model.blocks,
    }


ENDPOINTS: Final = (list_models, retrieve_model)
