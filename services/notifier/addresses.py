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

# `is_global` is true for these, though each reaches, or may carry, something that is not.
_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved
        "64:ff9b::/96",  # NAT64 (RFC 6052)
        "64:ff9b:1::/48",  # local NAT64 (RFC 8215)
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local, deprecated
        "ff00::/8",  # multicast
    )
)


def refusal(address: str, allowed: Sequence[Network]) -> str | None:
    """Why a webhook may not reach `address`, naming the setting that would let it; or None."""
    found = ipaddress.ip_address(address.partition("%")[0])
    reached = _unwrapped(found)
    if any(reached in network for network in allowed if network.version == reached.version):
        return None
    if reached.is_global and not any(
        found in network for network in _NOT_PUBLIC if network.version == found.version
    ):
        return None
    return (
        f"the address {found} is not public; to send webhooks there, add its network to {SETTING}"
    )


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv4-mapped IPv6 address (::ffff:a.b.c.d) really reaches."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
