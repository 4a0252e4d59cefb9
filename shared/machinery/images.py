"""A picture as the engine takes it: decoded by its content, upright, flat, without metadata."""

import hashlib
import io
import struct
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.spec import ImageRef

PARAM: Final = "input_reference"
_LEAST_SIDE: Final = 64
_MOST_SIDE: Final = 8192
_MOST_PIXELS: Final = 40_000_000
_FORMATS: Final = ("PNG", "JPEG", "WEBP")
# What Pillow raises for files that are no image, broken, or bombs.
_BROKEN: Final = (
    UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, struct.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CleanImage:
    """A decoded and re-encoded image: what it is called, and its PNG."""

    ref: ImageRef
    png: bytes


def clean(content: bytes, *, limit: int, param: str = PARAM) -> CleanImage:
    """Decode an image file and encode it anew.

    Args:
        content: a PNG, JPEG or WebP.
        limit: the most bytes that are taken.
        param: the field that brought it.

    Raises:
        WanfarmError: `invalid_image` or `image_too_large`.
    """
    if len(content) > limit:
        raise WanfarmError(
            "image_too_large",
            f"The image has {len(content)} bytes. This farm takes {limit}. Send a smaller one.",
            param=param,
        )
    image = _clean(content, param)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=3)
    png = out.getvalue()
    sha256 = hashlib.sha256(png).hexdigest()
    return CleanImage(ImageRef(sha256=sha256, width=image.width, height=image.height), png)


def invalid(why: str, param: str = PARAM) -> WanfarmError:
    """Refuse what is no usable image."""
    return WanfarmError(
        "invalid_image",
        f"{param} is no image that can be used. {why} Send a PNG, JPEG or WebP of "
        f"{_LEAST_SIDE} to {_MOST_SIDE} pixels a side.",
        param=param,
    )


def _clean(content: bytes, param: str) -> Image.Image:
    """Decode by content, never by name; turn upright, drop metadata and transparency."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_shape(image, param)
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(("I", "F")):
                raise invalid("It has 16 or 32 bits per channel.", param)
            return _flat(upright)
    except _BROKEN as err:
        raise invalid("It cannot be decoded.", param) from err


def _flat(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        flat = image.convert("RGB")
    else:
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
    flat.info.clear()  # the encoder would copy profiles and comments from here
    return flat


def _check_shape(image: Image.Image, param: str) -> None:
    least, most = min(image.size), max(image.size)
    if least < _LEAST_SIDE or most > _MOST_SIDE or image.width * image.height > _MOST_PIXELS:
        raise invalid(f"It is {image.width}x{image.height} pixels.", param)
