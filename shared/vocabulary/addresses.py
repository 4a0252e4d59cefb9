"""Which addresses a stranger may have the farm call: https, and nothing inside a network."""

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from shared.vocabulary.errors import Fault

_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")
_NETWORK = ipaddress.ip_network
# All that was ever given out for IPv6 hosts: leaves out what maps or translates IPv4 (::ffff:0:0,
# 64:ff9b::), unique local, link-local and multicast addresses.
_GIVEN_OUT: Final = _NETWORK("2000::/3")
_NOT_HOSTS: Final = (
    _NETWORK("192.0.0.0/24"),  # protocols; older Pythons take parts of it for global
    _NETWORK("192.88.99.0/24"),  # relays of 6to4
    _NETWORK("2001::/23"),  # Teredo and other protocols
    _NETWORK("2002::/16"),  # 6to4: an IPv4 address inside
    _NETWORK("3fff::/20"),  # for documents; older Pythons take it for global
)


def is_public(address: str) -> bool:
    """Tell whether an IP address is a host of the public internet, and no way around to another."""
    ip = ipaddress.ip_address(address)
    if ip.version == 6 and ip not in _GIVEN_OUT:
        return False
    special = any(ip in network for network in _NOT_HOSTS if network.version == ip.version)
    return ip.is_global and not ip.is_multicast and not special


def url_fault(param: str, url: str, *, allow_private: bool) -> Fault | None:
    """Tell what is wrong with an address that webhooks shall go to, before it is resolved.

    Args:
        param: the field that brings it.
        url: as it was sent.
        allow_private: take http and private addresses too.
    """
    why = _why_not(url, allow_private=allow_private)
    if why is None:
        return None
    return Fault(param, "invalid_value", f"{param} is '{url[:60]}'. {why} Send another address.")


def _why_not(url: str, *, allow_private: bool) -> str | None:
    schemes = {"https", "http"} if allow_private else {"https"}
    if not _PRINTABLE.fullmatch(url):
        return "It has characters that must be percent-encoded, or a name that must be in punycode."
    try:
        parts = urlsplit(url)
        port_is_good = parts.port != 0
    except ValueError:
        return "It cannot be read as an address."
    if parts.scheme not in schemes:
        return f"It must begin with {' or '.join(f'{one}://' for one in sorted(schemes))}."
    if not parts.hostname or not port_is_good:
        return "It must name a host, and no port 0."
    if parts.username is not None or parts.fragment:
        return "It must have no user and no fragment; webhooks are signed instead."
    if not allow_private and _is_private(parts):
        return "The host is not one of the public internet."
    return None


def _is_private(parts: SplitResult) -> bool:
    """Look at what can be seen in the text; a name is looked at when it is resolved."""
    host = parts.hostname or ""
    try:
        return not is_public(host)
    except ValueError:  # a name
        return host.rstrip(".").rpartition(".")[2] in {"localhost", "local", "internal"}
