"""Webhooks reach the public internet and what the operator allows, and nothing else."""

import ipaddress

import pytest

from services.notifier.addresses import PLAIN_SETTING, SETTING, refusal

PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "203.0.114.1",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.167.255.255",
    "192.169.0.1",
    "11.0.0.1",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.1.1",
    "198.17.0.1",
    "198.20.0.1",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "::ffff:8.8.8.8",
)

NOT_PUBLIC = (
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.1.2.3",
    "127.255.255.255",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:192.168.1.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "fc00::1",
    "fd00:ec2::254",
    "fdff::1",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "168.63.129.16",
    "192.0.0.192",
    "::127.0.0.1",
    "::a00:1",
    "::ffff:0:127.0.0.1",
    "::ffff:224.0.0.1",
    "::ffff:192.88.99.1",
    "3fff::1",
    "5f00::1",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_reached(address: str) -> None:
    assert refusal(address, ()) is None


@pytest.mark.parametrize("address", PUBLIC)
def test_it_is_not_reached_by_http_unless_that_is_allowed(address: str) -> None:
    reason = refusal(address, (), plain=True)
    assert reason is not None
    assert PLAIN_SETTING in reason
    assert (
        refusal(
            address, (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")), plain=True
        )
        is None
    )


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_any_other_address_is_refused_naming_it_and_the_setting(address: str) -> None:
    reason = refusal(address, ())
    assert reason is not None
    assert SETTING in reason


def test_what_the_operator_allows_is_reached_and_no_more() -> None:
    allowed = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
    assert refusal("127.0.0.1", allowed) is None
    assert refusal("::ffff:127.0.0.1", allowed) is None
    assert refusal("fd00::1", allowed) is None
    assert refusal("10.0.0.1", allowed) is not None
    assert refusal("::1", allowed) is not None


def test_the_table_is_large_enough() -> None:
    assert len(PUBLIC) + len(NOT_PUBLIC) >= 60
