"""Which addresses user-named URLs may lead to: public ones, and those that the operator allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052; how an IPv6-only network reaches every IPv4 address
_PUBLIC_V6 = IPv6Network("2000::/3")  # all that IANA has given out as global unicast

# Refused whatever the configuration allows: addresses that name no single other machine, and the metadata
# services of clouds, which hand credentials to anyone on the machine.
_NEVER: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "224.0.0.0/4", "255.255.255.255", "::", "ff00::/8"),
        *("169.254.169.254", "fd00:ec2::254", "fd20:ce::254"),  # AWS, Azure, Google and others
        *("169.254.170.2", "169.254.170.23", "fd00:ec2::23"),  # AWS containers
        *("168.63.129.16", "100.100.100.200", "192.0.0.192"),  # Azure, Alibaba, Oracle
        *("fd00:c1::a9fe:a9fe", "fe80::a9fe:a9fe", "fd00:42::42"),  # Oracle, OpenStack, Scaleway
    )
)

# Refused unless allowed: https://www.iana.org/assignments/iana-ipv4-special-registry, and -ipv6-. A table of
# our own: ``is_global`` of ipaddress differs between releases of Python and takes e.g. multicast for global.
_SPECIAL: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # private, RFC 1918
        *("100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),  # carriers' NAT, loopback, link-local
        *("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15"),  # protocols, 6to4 relays, benchmarks
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),  # documentation
        "240.0.0.0/4",  # reserved
        *("2001::/23", "2002::/16"),  # protocols (Teredo is one), 6to4
        *("2001:db8::/32", "3fff::/20"),  # documentation
    )
)


def address_refused(address: Address, allow: Sequence[Network] = (), *, allow_loopback: bool = False) -> bool:
    """Whether no connection may go to this address.

    Args:
        address: where the connection would go.
        allow: networks that may be reached although they are not public.
        allow_loopback: the same for 127.0.0.0/8 and ::1.
    """

    def refused(face: Address) -> bool:
        if any(face in network for network in _NEVER):
            return True
        if (allow_loopback and face.is_loopback) or any(face in network for network in allow):
            return False
        if isinstance(face, IPv6Address) and face not in _PUBLIC_V6:
            return True
        return any(face in network for network in _SPECIAL)

    return any(refused(face) for face in faces(address))


def faces(address: Address) -> Iterator[Address]:
    """All addresses at which a packet to this one can end up: those that it wraps, and mostly itself."""
    if isinstance(address, IPv4Address):
        yield address
        return
    bits = int(address)
    last = IPv4Address(bits & 0xFFFFFFFF)
    if address.ipv4_mapped or address in _NAT64:
        yield last  # the kernel or the network's translator makes this of it, and nothing else
        return
    yield IPv6Address(bits)  # without its scope, in which it may be written but not compared
    if bits > 1 and bits >> 32 == 0:  # "IPv4-compatible", RFC 4291 section 2.5.5.1; :: and ::1 are none
        yield last
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
