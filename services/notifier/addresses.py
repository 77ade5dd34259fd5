"""Which addresses a webhook may reach: the public internet, and what the operator allows.

An endpoint's URL comes from a client, so it must not become a way into the operator's network
(SSRF). The decision is made on the address of the very socket that is about to connect: a check of
the name, or in a resolver, is passed by by IP literals and by a DNS answer that changes.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SETTING: Final = "FLORIN_WEBHOOK_ALLOWED_NETWORKS"
PLAIN_SETTING: Final = "FLORIN_WEBHOOK_ALLOW_HTTP"

_PUBLIC_V6: Final = ipaddress.ip_network("2000::/3")
"""All that is assigned for the public internet (RFC 4291)."""

# `is_global` is true for these, though each reaches, or may carry, something that is not.
_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # a cloud's service on the host, on an address that looks public
        "192.0.0.0/24",  # protocol assignments (RFC 6890)
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation (RFC 9637)
    )
)


class AddressRefused(OSError):  # noqa: N818 - it says what happened
    """The endpoint's name leads to an address that webhooks may not reach."""


def refusal(address: str, allowed: Sequence[Network], *, plain: bool = False) -> str | None:
    """Why a webhook may not reach `address`, naming the setting that would let it; or None.

    `plain` is http, which anybody on the way can read: only for networks that are allowed.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    reached = _unwrapped(found)
    if _within(reached, allowed):
        return None
    if _is_public(reached) and not _within(reached, _NOT_PUBLIC):
        if not plain:
            return None
        return (
            f"the address {found} is public and the URL is http, which anybody on the way can read:"
            f" use https, or set {PLAIN_SETTING}=true"
        )
    return (
        f"the address {found} is not public; to send webhooks there, add its network to {SETTING}"
    )


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _is_public(address: Address) -> bool:
    # NAT64, IPv4-compatible, translated and local addresses all lie outside of 2000::/3.
    return address.is_global and (address.version == 4 or address in _PUBLIC_V6)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv4-mapped IPv6 address (::ffff:a.b.c.d) really reaches."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
