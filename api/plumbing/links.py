"""Signed links to a video's bytes, and absolute addresses for bodies."""

import hashlib
import hmac
import time
from typing import Final

from flask import request

from api.plumbing.runtime import farm
from shared.vocabulary.errors import WanfarmError

_LIFE_S: Final = 86_400
_HOUR_S: Final = 3600


def base_url() -> str:
    """Say how clients reach this farm: the public URL, else the checked Host of the request."""
    public = farm().settings.public_url
    return public.rstrip("/") if public else request.host_url.rstrip("/")


def signed_query(video_id: str, variant: str, tenant: str) -> str:
    """Sign a link for a day; the expiry is a full hour, so that bodies and ETags stay the same."""
    now = int(time.time())
    expires = (now + _LIFE_S + _HOUR_S - 1) // _HOUR_S * _HOUR_S
    return f"exp={expires}&sig={_signature(video_id, variant, expires, tenant)}"


def check_link(video_id: str, variant: str, tenant: str, *, expires: int, signature: str) -> None:
    """Let a signed link pass.

    Raises:
        WanfarmError: `link_invalid`, also when it is too old.
    """
    right = _signature(video_id, variant, expires, tenant)
    if not hmac.compare_digest(signature.encode(), right.encode()):
        raise WanfarmError(
            "link_invalid",
            "The link's signature does not fit. It may be cut off or made up. "
            "Ask the video for a new link.",
        )
    if expires < time.time():
        raise WanfarmError(
            "link_invalid",
            "The link has expired. Links live for a day. Ask the video for a new one.",
        )


def _signature(video_id: str, variant: str, expires: int, tenant: str) -> str:
    secret = farm().settings.secret_key.get_secret_value().encode()
    text = f"content|{video_id}|{variant}|{expires}|{tenant}"
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
