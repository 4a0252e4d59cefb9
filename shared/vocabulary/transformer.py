"""The parameters of a Wan transformer by name, with their shapes as far as the catalogue goes."""

from typing import Final

from shared.vocabulary.catalog import Model

Shape = tuple[int, ...]
Room = tuple[int | None, ...]  # a shape; None is a width that the catalogue does not name

_ATTENTION: Final = ("to_q", "to_k", "to_v", "to_out.0")


def parameters_of(model: Model) -> dict[str, Room]:
    """Name every parameter of one expert as diffusers does; checked against it by a test."""
    width = model.width
    found: dict[str, Room] = {"scale_shift_table": (1, 2, width)}
    found |= _layer("patch_embedding", (width, None, 1, 2, 2))
    found |= _layer("proj_out", (None, width))
    found |= _layer("condition_embedder.time_proj", (6 * width, width))
    for name in ("time_embedder", "text_embedder"):
        found |= _layer(f"condition_embedder.{name}.linear_1", (width, None))
        found |= _layer(f"condition_embedder.{name}.linear_2", (width, width))
    for number in range(model.blocks):
        found |= {f"blocks.{number}.{name}": room for name, room in _block(model).items()}
    return found


def _block(model: Model) -> dict[str, Room]:
    width, ffn = model.width, model.ffn
    found: dict[str, Room] = {"scale_shift_table": (1, 6, width)}
    for attention in ("attn1", "attn2"):
        for name in _ATTENTION:
            found |= _layer(f"{attention}.{name}", (width, width))
        found |= {f"{attention}.{norm}.weight": (width,) for norm in ("norm_q", "norm_k")}
    found |= _layer("norm2", (width,))
    return found | _layer("ffn.net.0.proj", (ffn, width)) | _layer("ffn.net.2", (width, ffn))


def _layer(name: str, weight: Room) -> dict[str, Room]:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}
