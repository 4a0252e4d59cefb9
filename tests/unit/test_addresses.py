"""The guard of addresses that strangers name: nothing inside a network is ever called."""

import pytest

from shared.vocabulary.addresses import is_public, url_fault

PUBLIC = ["93.184.215.14", "1.1.1.1", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "2a00:1450::8a"]
INSIDE = {
    "loopback": "127.0.0.1",
    "loopback far": "127.8.9.1",
    "loopback 6": "::1",
    "any": "0.0.0.0",
    "any 6": "::",
    "private a": "10.1.2.3",
    "private b": "172.16.0.1",
    "private c": "192.168.1.1",
    "carrier's": "100.64.0.1",
    "link-local": "169.254.10.10",
    "metadata": "169.254.169.254",
    "metadata 6": "fd00:ec2::254",
    "link-local 6": "fe80::1",
    "with a zone": "fe80::1%eth0",
    "site-local": "fec0::1",
    "unique local": "fc00::1",
    "mapped": "::ffff:127.0.0.1",
    "mapped public": "::ffff:1.1.1.1",
    "compatible": "::127.0.0.1",
    "NAT64": "64:ff9b::7f00:1",
    "NAT64 local": "64:ff9b:1::a00:1",
    "6to4": "2002:7f00:1::1",
    "6to4 relay": "192.88.99.1",
    "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "documents": "192.0.2.1",
    "documents 6": "2001:db8::1",
    "new documents 6": "3fff::1",
    "benchmarks": "198.18.0.1",
    "multicast": "224.0.0.1",
    "multicast 6": "ff02::1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "protocols": "192.0.0.8",
    "segment routing": "5f00::1",
    "discard": "100::1",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_host_of_the_internet_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize("address", INSIDE.values(), ids=INSIDE)
def test_everything_else_is_not(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/hooks?farm=1",
        "https://xn--bcher-kva.example/a%20b",
        "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
    ],
)
def test_an_https_address_is_taken(url):
    assert url_fault("url", url, allow_private=False) is None


BAD = {
    "http://example.com/": "begin with https://",
    "ftp://example.com/": "begin with https://",
    "//example.com/": "begin with https://",
    "example.com": "begin with https://",
    "": "percent-encoded",
    "https://bücher.example/": "punycode",
    "https://example.com/a b": "percent-encoded",
    "https://exam\nple.com/": "percent-encoded",
    "https:///path": "name a host",
    "https://example.com:0/": "no port 0",
    "https://example.com:99999/": "cannot be read",
    "https://[::1/": "cannot be read",
    "https://user:secret@example.com/": "no user",
    "https://example.com/#top": "no fragment",
    "https://127.0.0.1/": "public internet",
    "https://[::ffff:10.0.0.1]/": "public internet",
    "https://169.254.169.254/latest": "public internet",
    "https://localhost/": "public internet",
    "https://api.localhost./": "public internet",
    "https://metadata.google.internal/": "public internet",
}


@pytest.mark.parametrize(("url", "why"), BAD.items(), ids=map(repr, BAD))
def test_another_address_is_refused_with_its_reason(url, why):
    fault = url_fault("webhook_url", url, allow_private=False)

    assert (fault.param, fault.code) == ("webhook_url", "invalid_value")
    assert why in fault.message
    assert len(fault.message) <= 300


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/", "https://localhost/", "http://a.local/"])
def test_a_lab_takes_its_own_addresses(url):
    assert url_fault("url", url, allow_private=True) is None
