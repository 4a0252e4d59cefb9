"""An input image, however it was sent, as a clean RGB PNG in the store."""

import base64
import binascii
import re
from typing import Final

from api.plumbing.wire import is_object
from shared.jobs.pauses import refuse_full_store
from shared.jobs.removal import image_key
from shared.machinery.farm import Farm
from shared.machinery.images import PARAM, CleanImage, clean, invalid
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.metrics import STORAGE_SECONDS

_DATA_URL: Final = re.compile(r"data:[^,]{0,100};base64,", re.IGNORECASE)


def store(farm: Farm, image: CleanImage) -> None:
    """Keep it; the same picture is kept once.

    Raises:
        WanfarmError: `storage_full`, or what the store says.
    """
    refuse_full_store(farm)
    with farm.meters.timed(STORAGE_SECONDS, op="put"):
        farm.storage.put_bytes(image.png, image_key(image.ref.sha256))


def read_image(sent: object, *, limit: int) -> CleanImage:
    """Take the value of `input_reference`, or a file part's bytes, and clean it.

    Raises:
        WanfarmError: `invalid_image`, `image_too_large`, `url_fetch_disabled`,
            `unsupported_feature` or `invalid_value`.
    """
    return clean(sent if isinstance(sent, bytes) else _from_reference(sent), limit=limit)


def _from_reference(sent: object) -> bytes:
    text = _text_of(sent)
    if text.startswith(("http://", "https://")):
        raise WanfarmError(
            "url_fetch_disabled",
            "input_reference is an address. This farm fetches nothing by itself. "
            "Send the image as a file part or a data URL.",
            param=PARAM,
        )
    if text.startswith("file_"):
        raise _unsupported()
    head = _DATA_URL.match(text)
    if head is None:
        raise WanfarmError(
            "invalid_value",
            f"input_reference is '{text[:40]}'. It must be a file part or a data URL. "
            "Send data:image/png;base64,...",
            param=PARAM,
        )
    try:
        return base64.b64decode(text[head.end() :], validate=True)
    except (binascii.Error, ValueError) as err:
        raise invalid("Its data URL is not valid base64.") from err


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
        param=PARAM,
    )


def _unsupported() -> WanfarmError:
    return WanfarmError(
        "unsupported_feature",
        "input_reference names an uploaded file. This version keeps no uploads. "
        "Send the image as a file part or a data URL.",
        param=PARAM,
    )
