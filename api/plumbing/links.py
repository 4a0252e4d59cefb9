"""Absolute addresses for bodies, and the check of signed links to a video's bytes."""

import hmac
import time

from flask import request

from api.plumbing.runtime import farm
from shared.machinery import links
from shared.vocabulary.errors import WanfarmError


def base_url() -> str:
    """Say how clients reach this farm: the public URL, else the checked Host of the request."""
    public = farm().settings.public_url
    return public.rstrip("/") if public else f"{request.scheme}://{request.host}"


def check_link(video_id: str, variant: str, tenant: str, *, expires: int, signature: str) -> None:
    """Let a signed link pass.

    Raises:
        WanfarmError: `link_invalid`, also when it is too old.
    """
    right = links.signature(farm().settings, video_id, variant, expires, tenant)
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
