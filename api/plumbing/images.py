"""An input image, however it was sent, as a clean RGB PNG in the store."""

import base64
import binascii
import hashlib
import io
import re
import struct
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from api.plumbing.wire import is_object
from shared.jobs.removal import image_key
from shared.machinery.farm import Farm
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.spec import ImageRef

_PARAM: Final = "input_reference"
_DATA_URL: Final = re.compile(r"data:[^,]{0,100};base64,", re.IGNORECASE)
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

    def store(self, farm: Farm) -> None:
        """Keep it; the same picture is kept once."""
        farm.storage.put_bytes(self.png, image_key(self.ref.sha256))


def read_image(sent: object, *, limit: int) -> CleanImage:
    """Take the value of `input_reference`, or a file part's bytes, and clean it.

    Raises:
        WanfarmError: `invalid_image`, `image_too_large`, `url_fetch_disabled`,
            `unsupported_feature` or `invalid_value`.
    """
    content = sent if isinstance(sent, bytes) else _from_reference(sent)
    if len(content) > limit:
        raise WanfarmError(
            "image_too_large",
            f"The image has {len(content)} bytes. This farm takes {limit}. Send a smaller one.",
            param=_PARAM,
        )
    image = _clean(content)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=3)
    png = out.getvalue()
    sha256 = hashlib.sha256(png).hexdigest()
    return CleanImage(ImageRef(sha256=sha256, width=image.width, height=image.height), png)


def _from_reference(sent: object) -> bytes:
    text = _text_of(sent)
    if text.startswith(("http://", "https://")):
        raise WanfarmError(
            "url_fetch_disabled",
            "input_reference is an address. This farm fetches nothing by itself. "
            "Send the image as a file part or a data URL.",
            param=_PARAM,
        )
    if text.startswith("file_"):
        raise _unsupported()
    head = _DATA_URL.match(text)
    if head is None:
        raise WanfarmError(
            "invalid_value",
            f"input_reference is '{text[:40]}'. It must be a file part or a data URL. "
            "Send data:image/png;base64,...",
            param=_PARAM,
        )
    try:
        return base64.b64decode(text[head.end() :], validate=True)
    except (binascii.Error, ValueError) as err:
        raise _invalid("Its data URL is not valid base64.") from err


def _text_of(sent: object) -> str:
    if isinstance(sent, str):
        return sent
    if is_object(sent) and set(sent) == {"image_url"} and isinstance(sent["image_url"], str):
        return sent["image_url"]
    if is_object(sent) and set(sent) == {"file_id"}:
        raise _unsupported()
    raise WanfarmError(
        "invalid_value",
        "input_reference is neither text nor an object with image_url. It must be a file part or a "
        "data URL. Send one of them.",
        param=_PARAM,
    )


def _clean(content: bytes) -> Image.Image:
    """Decode by content, never by name; turn upright, drop metadata and transparency."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_shape(image)
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(("I", "F")):
                raise _invalid("It has 16 or 32 bits per channel.")
            return _flat(upright)
    except _BROKEN as err:
        raise _invalid("It cannot be decoded.") from err


def _flat(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        flat = image.convert("RGB")
    else:
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
    flat.info.clear()  # the encoder would copy profiles and comments from here
    return flat


def _check_shape(image: Image.Image) -> None:
    least, most = min(image.size), max(image.size)
    if least < _LEAST_SIDE or most > _MOST_SIDE or image.width * image.height > _MOST_PIXELS:
        raise _invalid(f"It is {image.width}x{image.height} pixels.")


def _invalid(why: str) -> WanfarmError:
    return WanfarmError(
        "invalid_image",
        f"input_reference is no image that can be used. {why} Send a PNG, JPEG or WebP of "
        f"{_LEAST_SIDE} to {_MOST_SIDE} pixels a side.",
        param=_PARAM,
    )


def _unsupported() -> WanfarmError:
    return WanfarmError(
        "unsupported_feature",
        "input_reference names an uploaded file. This version keeps no uploads. "
        "Send the image as a file part or a data URL.",
        param=_PARAM,
    )
