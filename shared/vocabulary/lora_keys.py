"""What the keys of a LoRA file mean: which layers of a transformer they change, and how."""

import math
import re
from collections.abc import Mapping
from typing import Final, TypeVar

from shared.vocabulary.transformer import Room, Shape

T = TypeVar("T")

_PREFIX: Final = re.compile(
    r"^(base_model\.model\.|model\.)?(diffusion_model\.|transformer\.|lora_unet_|lora_transformer_)?"
)
_KEY: Final = re.compile(
    r"(?P<place>.+?)\.(?:"
    r"(?P<down>lora_A(?:\.\w+)?\.weight|lora[_.]down\.weight)|"
    r"(?P<up>lora_B(?:\.\w+)?\.weight|lora[_.]up\.weight)|"
    r"(?P<up_bias>lora_B(?:\.\w+)?\.bias)|(?P<alpha>alpha)|"
    r"(?P<diff>diff)|(?P<diff_b>diff_b))$"
)
_DORA: Final = ("dora_scale", "lora_magnitude_vector")
_CHANGES: Final = {"diff": "weight", "diff_b": "bias", "up_bias": "bias"}  # stored as they are
# From diffusers' names to those of the Wan code; both are found in adapters.
_ORIGINAL: Final = (
    ("attn1.", "self_attn."),
    ("attn2.", "cross_attn."),
    ("to_out.0", "o"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("add_k_proj", "k_img"),
    ("add_v_proj", "v_img"),
    ("norm_added_k", "norm_k_img"),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
    ("norm2", "norm3"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("proj_out", "head.head"),
)


class Unusable(ValueError):
    """A file that can be merged into no model; the text goes on after the file's name."""


class Misfit(Unusable):
    """A file that is made for another model."""


def homes_of(parameters: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Sort parameters by layer, then `weight` and `bias`.

    Each layer has its names in diffusers and in the Wan code, with kohya's `_` for `.`.
    """
    homes: dict[str, dict[str, T]] = {}
    for name, parameter in parameters.items():
        place, _, kind = name.rpartition(".")
        if kind not in {"weight", "bias"}:  # a table that is a parameter itself
            place, kind = name, "weight"
        for known in (place, _original(place)):
            homes.setdefault(_flat(known), {})[kind] = parameter
    return homes


def layers_of(
    shapes: Mapping[str, Shape], homes: Mapping[str, Mapping[str, Room]]
) -> dict[str, dict[str, str]]:
    """Sort a file's keys by the layer that they change: layer: kind: key.

    Kinds are `down`, `up`, `up_bias` and `alpha` of a low-rank pair, and the plain changes `diff`
    and `diff_b`. Every shape is held against its home.

    Args:
        shapes: of the file's tensors, by key.
        homes: of the model's parameters, as `homes_of` sorts them.

    Raises:
        Misfit: when a key or a shape has no home there.
        Unusable: when the file would fit nowhere.
    """
    layers: dict[str, dict[str, str]] = {}
    for key in shapes:
        place, kind = _read(key)
        if place not in homes:
            raise Misfit(_homeless(key))
        layers.setdefault(place, {})[kind] = key
    if not layers:
        raise Unusable("holds no weights")
    for place, keys in layers.items():
        _check(keys, shapes, homes[place])
    return layers


def _read(key: str) -> tuple[str, str]:
    """Take a key apart: the layer, and what the tensor is to it."""
    if key.endswith(_DORA):
        raise Unusable(f"has the DoRA scale '{key}', which cannot be merged")
    found = _KEY.match(_PREFIX.sub("", key))
    if found is None or found.lastgroup is None:
        raise Unusable(_homeless(key))
    return _flat(found["place"]), found.lastgroup


def _check(keys: dict[str, str], shapes: Mapping[str, Shape], home: Mapping[str, Room]) -> None:
    if ("down" in keys) != ("up" in keys) or not keys.keys() - {"alpha"}:
        raise Unusable(f"has only half of a pair: '{min(keys.values())}'")
    if "alpha" in keys and math.prod(shapes[keys["alpha"]]) != 1:
        raise Unusable(_misshapen(keys["alpha"], shapes))
    if "down" in keys:
        _check_pair(keys["down"], keys["up"], shapes, home["weight"])
    for kind in keys.keys() & _CHANGES.keys():
        room = home.get(_CHANGES[kind])
        if room is None:
            raise Misfit(_homeless(keys[kind]))
        if not _fits(shapes[keys[kind]], room):
            raise Misfit(_misshapen(keys[kind], shapes))


def _check_pair(down: str, up: str, shapes: Mapping[str, Shape], weight: Room) -> None:
    """Hold that B A has the weight's shape; for a convolution A has its kernel."""
    rank, inner = shapes[down][:1], shapes[down][1:]
    if not math.prod(rank) or not _fits(inner, weight[1:]):
        raise Misfit(_misshapen(down, shapes))
    outer, rest = shapes[up][:2], shapes[up][2:]
    if not _fits(outer, (weight[0], *rank)) or math.prod(rest) != 1:
        raise Misfit(_misshapen(up, shapes))


def _fits(shape: Shape, room: Room) -> bool:
    pairs = zip(shape, room, strict=False)
    return len(shape) == len(room) and all(wide is None or side == wide for side, wide in pairs)


def _homeless(key: str) -> str:
    return f"has the key '{key}', which has no home in this model"


def _misshapen(key: str, shapes: Mapping[str, Shape]) -> str:
    return f"has '{key}' in a shape {[*shapes[key]]} that does not fit"


def _original(place: str) -> str:
    for ours, theirs in _ORIGINAL:
        place = place.replace(ours, theirs)
    if place == "scale_shift_table":
        return "head.modulation"
    return place.replace("scale_shift_table", "modulation")


def _flat(place: str) -> str:
    return place.replace(".", "_")
