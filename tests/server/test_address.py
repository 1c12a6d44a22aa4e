"""The table of addresses that posts may go to: both ends of every range, and the ways to wrap one in another."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline_server.address import address_refused

PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.216.34", "100.63.255.255", "100.128.0.0"),
    *("126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0"),
    *("192.0.1.0", "192.0.3.0", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0"),
    *("198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0"),
    *("168.63.129.15", "168.63.129.17", "223.255.255.255"),
    *("2001:200::1", "2001:4860:4860::8888", "2001:db7:ffff::", "2001:db9::", "2003::", "2606:4700::1111"),
    *("2a00:1450::1", "3ffe::1", "3fff:1000::"),
    *("::ffff:8.8.8.8", "64:ff9b::8.8.8.8"),
]

REFUSED = [
    *("10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255"),
    *("100.64.0.0", "100.127.255.255"),
    *("127.0.0.0", "127.0.0.1", "127.255.255.255"),
    *("169.254.0.0", "169.254.255.255"),
    *("192.0.0.0", "192.0.0.255", "192.0.2.0", "192.0.2.255", "192.88.99.0", "192.88.99.255"),
    *("198.18.0.0", "198.19.255.255", "198.51.100.0", "198.51.100.255", "203.0.113.0", "203.0.113.255"),
    *("240.0.0.0", "255.255.255.254"),
    *("::1", "fe80::1", "fe80::1%eth0", "febf::1", "fc00::", "fdff:ffff::1", "fec0::1"),
    *("::ffff:0:7f00:1", "100::1", "4000::1", "5f00::1", "8000::1", "e000::1"),
    *("2001:db8::", "2001:db8:ffff::1", "3fff::", "3fff:fff::1"),
    *("2001:1::1", "2001:2::1", "2001:20::1", "2001:1ff::1"),
    "64:ff9b:1::8.8.8.8",  # local NAT64, RFC 8215: private whatever it wraps
]

NEVER = [
    *("0.0.0.0", "0.0.0.1", "0.255.255.255", "::"),
    *("::2", "2001::"),  # wrap addresses of 0.0.0.0/8
    *("224.0.0.1", "239.255.255.255", "255.255.255.255", "ff00::1", "ff02::1", "ff0e::1"),
    *("169.254.169.254", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
    *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42"),
    *("fe80::a9fe:a9fe", "fe80::a9fe:a9fe%eth0"),
]

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))

v4 = st.ip_addresses(v=4)


def wrapped(address: IPv4Address) -> dict[str, IPv6Address]:
    """Each way to write an IPv4 address into an IPv6 one."""
    bits = int(address)
    return {
        "mapped": IPv6Address(0xFFFF << 32 | bits),
        "NAT64": IPv6Address(int(IPv6Address("64:ff9b::")) | bits),
        "compatible": IPv6Address(bits),
        "6to4": IPv6Address(0x2002 << 112 | bits << 80 | 1),
        "Teredo server": IPv6Address(0x2001 << 112 | bits << 64 | (0xFFFFFFFF ^ 0x08080808)),
        "Teredo client": IPv6Address(0x2001 << 112 | 0x08080808 << 64 | (0xFFFFFFFF ^ bits)),
    }


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str) -> None:
    assert not address_refused(ip_address(text))


@pytest.mark.parametrize("text", REFUSED + NEVER)
def test_refused(text: str) -> None:
    assert address_refused(ip_address(text))


@pytest.mark.parametrize("text", NEVER)
def test_never(text: str) -> None:
    assert address_refused(ip_address(text), EVERYTHING, allow_loopback=True)


@pytest.mark.parametrize("text", sorted(set(REFUSED) - set(NEVER)))
def test_can_be_allowed(text: str) -> None:
    assert not address_refused(ip_address(text), EVERYTHING)


@given(v4)
def test_wrapping_opens_no_door(address: IPv4Address) -> None:
    """A wrapped address is refused if the bare one is; where the wrapping itself is no route, always."""
    bare = address_refused(address)
    for way, outer in wrapped(address).items():
        assert address_refused(outer) == (bare if way in ("mapped", "NAT64") else True), way


@pytest.mark.parametrize("text", ["169.254.169.254", "224.0.0.1"])
def test_wrapped_never(text: str) -> None:
    for way, outer in wrapped(IPv4Address(text)).items():
        assert address_refused(outer, EVERYTHING, allow_loopback=True), way


def test_an_allowed_network_opens_nothing_that_it_does_not_hold() -> None:
    allow = (ip_network("10.1.0.0/16"), ip_network("fd01::/16"), ip_network("2002::/16"))
    for text in ("10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd01::1"):
        assert not address_refused(ip_address(text), allow), text
    for text in ("10.0.255.255", "10.2.0.0", "127.0.0.1", "fd02::1", "::1", "2002:a00:1::1", "::10.1.2.3"):
        assert address_refused(ip_address(text), allow), text


def test_loopback_means_loopback() -> None:
    for text in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert not address_refused(ip_address(text), allow_loopback=True), text
    for text in ("10.0.0.1", "0.0.0.0", "::", "::127.0.0.1", "169.254.1.1", "2002:7f00:1::1", "fe80::1"):
        assert address_refused(ip_address(text), allow_loopback=True), text
