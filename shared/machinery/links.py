"""Signs the links that open a video's files without a key."""

import hashlib
import hmac
import time
from typing import Final

from shared.machinery.settings import Settings

_LIFE_S: Final = 86_400
_HOUR_S: Final = 3600


def signed_query(settings: Settings, video_id: str, variant: str, tenant: str) -> str | None:
    """Sign a link for a day; None in a process that was not given the secret.

    The expiry is a full hour, so that bodies and ETags stay the same.
    """
    if not settings.secret_key.get_secret_value():
        return None
    now = int(time.time())
    expires = (now + _LIFE_S + _HOUR_S - 1) // _HOUR_S * _HOUR_S
    return f"exp={expires}&sig={signature(settings, video_id, variant, expires, tenant)}"


def signature(settings: Settings, video_id: str, variant: str, expires: int, tenant: str) -> str:
    """Sign a link to one file of a video, until a moment in unix seconds."""
    secret = settings.secret_key.get_secret_value().encode()
    text = f"content|{video_id}|{variant}|{expires}|{tenant}"
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
