"""Which proxy is on the way to an origin, by the environment."""

from __future__ import annotations

import base64

import pytest

from deploykit.errors import SettingsError
from deploykit.git.transport.address import parse_origin_url
from deploykit.git.transport.proxy import HttpProxy, proxy_for

HTTPS, HTTP = "https://git.example.net/site.git", "http://git.example.net:8080/site.git"


def found(url: str, **environment: str) -> HttpProxy | None:
    return proxy_for(parse_origin_url(url, allow_http=True), environment)


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        (HTTPS, {"https_proxy": "http://proxy:3128"}, ("proxy", 3128)),
        (HTTPS, {"https_proxy": "proxy:3128"}, ("proxy", 3128)),
        (HTTPS, {"https_proxy": "proxy"}, ("proxy", 1080)),
        (HTTPS, {"https_proxy": "http://[::1]:3128/"}, ("::1", 3128)),
        (HTTPS, {"HTTPS_PROXY": "proxy:3128"}, ("proxy", 3128)),
        (HTTPS, {"https_proxy": "one:1", "HTTPS_PROXY": "two:2", "all_proxy": "three:3"}, ("one", 1)),
        (HTTPS, {"all_proxy": "proxy:3"}, ("proxy", 3)),
        (HTTPS, {"ALL_PROXY": "proxy:3", "http_proxy": "other:1"}, ("proxy", 3)),
        (HTTPS, {"http_proxy": "proxy:3128"}, None),
        (HTTPS, {"https_proxy": ""}, None),
        (HTTPS, {}, None),
        (HTTP, {"http_proxy": "proxy:3128"}, ("proxy", 3128)),
        (HTTP, {"HTTP_PROXY": "proxy:3128"}, None),
        (HTTP, {"all_proxy": "proxy:3"}, ("proxy", 3)),
        ("http://[::1]/x", {"http_proxy": "proxy:3"}, ("proxy", 3)),
    ],
)
def test_the_variables_count_as_for_git(
    url: str, environment: dict[str, str], expected: tuple[str, int] | None
) -> None:
    proxy = found(url, **environment)
    assert (None if proxy is None else (proxy.host, proxy.port)) == expected


@pytest.mark.parametrize(
    ("url", "no_proxy", "direct"),
    [
        (HTTPS, "git.example.net", True),
        (HTTPS, "example.net", True),
        (HTTPS, ".example.net", True),
        (HTTPS, "*.example.net", True),
        (HTTPS, "localhost, Example.NET.", True),
        (HTTPS, "localhost example.net", True),
        (HTTPS, "*", True),
        (HTTPS, "ample.net", False),
        (HTTPS, "git.example.net.evil", False),
        (HTTPS, "git.example.net:443", True),
        (HTTPS, "git.example.net:8443", False),
        (HTTP, "example.net:8080", True),
        ("https://10.1.2.3/x", "10.0.0.0/8", True),
        ("https://11.1.2.3/x", "10.0.0.0/8", False),
        ("https://10.1.2.3/x", "10.1.2.3", True),
        ("https://[2001:db8::1]/x", "[2001:db8::1]", True),
        ("https://[2001:db8::1]/x", "2001:db8::/32", True),
        ("https://[2001:db8::1]/x", "[2001:db8::1]:444", False),
        (HTTPS, ",,:,[,/8,", False),
        (HTTPS, "", False),
    ],
)
def test_no_proxy_lists_hosts_domains_addresses_and_networks(url: str, no_proxy: str, direct: bool) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        assert (found(url, all_proxy="proxy:1", **{name: no_proxy}) is None) is direct


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("socks5://proxy:1080", "'socks5', which is not supported"),
        ("https://proxy:3128", "'https', which is not supported"),
        ("http://proxy:port", "names no proxy"),
        ("http://[::1", "names no proxy"),
        ("http://", "names no proxy"),
        ("http://pro xy:1", "names no proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_names_its_variable(value: str, match: str) -> None:
    with pytest.raises(SettingsError, match=f"variable https_proxy .*{match}"):
        found(HTTPS, https_proxy=value)


def test_a_login_is_sent_and_never_shown() -> None:
    proxy = found(HTTPS, https_proxy="http://me:canary-%407@proxy:3128")
    assert proxy is not None
    assert proxy.headers == {"Proxy-Authorization": f"Basic {base64.b64encode(b'me:canary-@7').decode()}"}
    assert "canary" not in repr(proxy) + proxy.shown
    with pytest.raises(SettingsError) as caught:
        found(HTTPS, https_proxy="socks5://me:canary-7@proxy:3128")
    assert "canary" not in str(caught.value)
