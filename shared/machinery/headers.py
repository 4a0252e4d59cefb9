"""What a safetensors file says of itself, read without its tensors."""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import from_json

from shared.vocabulary.transformer import Shape

_LIMIT: Final = 100 * 2**20  # as safetensors itself has it
_WIDTHS: Final = {  # bytes of one number
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F64", "I64", "U64"), 8),
}
_Count = Annotated[int, Field(ge=0, lt=2**48)]


def header_of(path: Path) -> dict[str, Any]:
    """Read a file's header: its tensors by name, and its own words under `__metadata__`.

    Raises:
        OSError: when the file cannot be read.
        TypeError: when it does not begin with a header.
        ValueError: likewise.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return dict(json.loads(file.read(min(size, _LIMIT))))


class _Tensor(BaseModel):
    """Where a tensor is in its file."""

    model_config = ConfigDict(extra="forbid")

    dtype: str
    shape: Annotated[tuple[_Count, ...], Field(max_length=8)]
    data_offsets: tuple[_Count, _Count]


_TENSORS: Final = TypeAdapter(dict[str, _Tensor])


def shapes_of(path: Path, *, most: int) -> dict[str, Shape]:
    """Read the shapes of a file's tensors, and hold that the file is whole.

    Args:
        path: the file; of its tensors nothing is read.
        most: bytes that its header may have.

    Raises:
        OSError: when the file cannot be read.
        ValueError: when it is no safetensors, or a part of one; the text says why.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= most:
            raise ValueError("does not begin as safetensors do")
        header = file.read(size)
    try:
        told: dict[str, Any] = from_json(header)
        told.pop("__metadata__", None)
        tensors = _TENSORS.validate_python(told)
    except (ValueError, TypeError, AttributeError) as err:
        raise ValueError("has a header that safetensors would not have") from err
    _check_whole(tensors, path.stat().st_size - 8 - size)
    return {name: tensor.shape for name, tensor in tensors.items()}


def _check_whole(tensors: dict[str, _Tensor], size: int) -> None:
    """Hold that the tensors fill the file, one after the other."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda one: one[1].data_offsets):
        numbers = math.prod(tensor.shape)
        begin, after = tensor.data_offsets
        if begin != end or after - begin != numbers * _WIDTHS.get(tensor.dtype, 0):
            raise ValueError(f"gives '{name}' a size or a place that cannot be")
        end = after
    if end != size:
        raise ValueError(f"has {size} bytes of tensors where its header says {end}")
