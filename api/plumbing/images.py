"""An input image, however it was sent, as a clean RGB PNG in the store."""

import base64
import binascii
import re
from typing import Final

from api.plumbing.wire import is_object
from shared.jobs import files
from shared.jobs.pauses import refuse_full_store
from shared.jobs.removal import image_key
from shared.machinery.farm import Farm
from shared.machinery.images import PARAM, CleanImage, clean, invalid
from shared.vocabulary.errors import Fault, RequestRejected, WanfarmError
from shared.vocabulary.ids import is_id
from shared.vocabulary.metrics import STORAGE_SECONDS
from shared.vocabulary.spec import ImageRef

_DATA_URL: Final = re.compile(r"data:[^,]{0,100};base64,", re.IGNORECASE)


def store(farm: Farm, image: CleanImage) -> None:
    """Keep it; the same picture is kept once.

    Raises:
        WanfarmError: `storage_full`, or what the store says.
    """
    refuse_full_store(farm)
    with farm.meters.timed(STORAGE_SECONDS, op="put"):
        farm.storage.put_bytes(image.png, image_key(image.ref.sha256))


def uploaded(farm: Farm, sent: object, tenant: str) -> CleanImage | None:
    """Read the uploaded file that the value of `input_reference` names; None if it names none.

    The picture is stored anew with its video: what removes unused ones leaves fresh ones alone.

    Raises:
        RequestRejected: `file_not_found`, also for another tenant's.
    """
    if is_object(sent) and set(sent) == {"file_id"}:
        named = str(sent["file_id"])
    elif isinstance(sent, str) and sent.startswith("file_"):
        named = sent
    else:
        return None
    row = files.one(farm, named, tenant) if is_id(named, "file") else None
    png = farm.storage.read(image_key(row["sha256"])) if row else None
    if row is None or png is None:
        raise RequestRejected([Fault(PARAM, "file_not_found", _no_file(named))])
    ref = ImageRef(sha256=row["sha256"], width=row["width"], height=row["height"])
    return CleanImage(ref, png)


def _no_file(file_id: str) -> str:
    return (
        f"input_reference names the file '{file_id[:40]}'. There is none of that id: it may have "
        "been deleted, have expired, or belong to another tenant. Upload it again."
    )


def read_image(sent: object, *, limit: int) -> CleanImage:
    """Take the value of `input_reference`, or a file part's bytes, and clean it.

    Raises:
        WanfarmError: `invalid_image`, `image_too_large`, `url_fetch_disabled` or
            `invalid_value`.
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
    head = _DATA_URL.match(text)
    if head is None:
        raise WanfarmError(
            "invalid_value",
            f"input_reference is '{text[:40]}'. It must be a file part, a data URL "
            "or the id of an uploaded file. Send data:image/png;base64,...",
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
    raise WanfarmError(
        "invalid_value",
        "input_reference is neither text nor an object with image_url or file_id. It must be a "
        "file part, a data URL or the id of an uploaded file. Send one of them.",
        param=PARAM,
    )
