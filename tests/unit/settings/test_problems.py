"""Each family of settings finds what is wrong with it by itself, in the words that bus, config and hooks all show."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import attrs
import pytest

from deploykit.bus import Bus
from deploykit.config import parse_settings
from deploykit.errors import SettingsError
from deploykit.messages.topics import PRESETS, TopicMap
from deploykit.names import RepoName
from deploykit.settings import (
    AuditSettings,
    BusSettings,
    CheckoutSettings,
    MirrorSettings,
    NodeSiteSettings,
    OutboxSettings,
    RepositorySettings,
    ServiceSettings,
    Settings,
    SiteSettings,
    TreeSettings,
    TrustSettings,
)
from deploykit.settings.hooks import HookSettings


class Family(Protocol):
    def problems(self) -> tuple[str, ...]: ...


CHECKOUT = CheckoutSettings(mode="tags", target=Path("/srv/tags"))
SITE = NodeSiteSettings(path=Path("/srv/shop"), repo=RepoName("shop"))


@pytest.mark.parametrize(
    "family",
    [
        AuditSettings(),
        BusSettings(),
        OutboxSettings(),
        ServiceSettings(),
        MirrorSettings(),
        RepositorySettings(url="/srv/git/shop.git"),
        CHECKOUT,
        SITE,
        SiteSettings(),
        TreeSettings(),
        TrustSettings(),
        HookSettings(),
        TopicMap(),
        PRESETS["future"],
        Settings(node="web1"),  # type: ignore[arg-type]  # a checked name
    ],
    ids=lambda family: type(family).__name__,
)
def test_the_defaults_of_every_family_are_right(family: Family) -> None:
    assert family.problems() == ()


@pytest.mark.parametrize(
    ("family", "found"),
    [
        (BusSettings(address="nonsense"), "address: "),
        (BusSettings(connect_timeout=0.0), "connect_timeout: expected at least 0.1, not 0"),
        (BusSettings(connect_timeout=float("nan")), "connect_timeout: expected at least 0.1, not nan"),
        (BusSettings(connect_timeout=float("inf")), "connect_timeout: expected seconds below 1e+09, not inf"),
        (BusSettings(publish_timeout=0.0), "publish_timeout: expected seconds above 0 and below 1e+09, not 0"),
        (BusSettings(heartbeat=-1.0), "heartbeat: expected seconds from 0 and below 86400, not -1"),
        (BusSettings(versions=()), "versions: expected some of 1.2, 1.1, 1.0"),
        (BusSettings(passcode="canary", passcode_file=Path("/x")), "passcode, passcode_file: give one of them"),
        (BusSettings(passcode="canary\n"), "passcode: holds a line break"),
        (BusSettings(tls_key=Path("/k")), "tls_cert, tls_key: give both"),
        (OutboxSettings(rescan=0.0), "rescan: expected at least 0.1, not 0"),
        (TrustSettings(max_expiry=0.0), "max_expiry: expected seconds, at least 1 and at most 1e+09, not 0.0"),
        (TrustSettings(skew=float("nan")), "skew: expected seconds, at least 0"),
        (MirrorSettings(signed=("refs/heads/main",)), "signed: needs allowed_signers"),
        (MirrorSettings(lfs=True, lfs_max_object_bytes=0), "lfs_max_object_bytes: expected at least 1, not 0"),
        (MirrorSettings(lfs=True, lfs_max_bytes=-1), "lfs_max_bytes: expected at least 1, not -1"),
        (MirrorSettings(lfs=True, lfs_deadline=0.0), "lfs_deadline: expected seconds above 0"),
        (MirrorSettings(lfs_url="https://lfs.example.net/x"), "lfs_url: has no effect without lfs = true"),
        (MirrorSettings(lfs=True, lfs_url="lfs.example.net"), "lfs_url: expected https://HOST/PATH"),
        (MirrorSettings(lfs=True, lfs_url="https://lfs.example.net:x/"), "lfs_url: not a URL"),
        (MirrorSettings(lfs=True, lfs_url="https://u:canary@lfs.example.net/x"), "lfs_url: holds a login"),
        (MirrorSettings(lfs=True, lfs_url="https://lfs.example.net/x?canary"), "lfs_url: expected neither ? nor #"),
        (MirrorSettings(lfs=True, lfs_url="https://lfs.example.net/a b"), "lfs_url: holds what no URL has"),
        (MirrorSettings(lfs=True, lfs_url="http://lfs.example.net/x"), "lfs_url: http sends everything in clear"),
        (
            RepositorySettings(url="git@h:x.git", mirror=MirrorSettings(lfs=True)),
            "mirror.lfs_url: expected the address",
        ),
        (attrs.evolve(CHECKOUT, umask=-1), "umask: expected 0 to 0o777, not -0o1"),
        (SiteSettings(umask=0o1777), "umask: expected 0 to 0o777, not 0o1777"),
        (SiteSettings(required=("postdeploy",)), "required: expected some of pre-deploy"),
        (SiteSettings(environment={"A=B": "canary"}), "environment: 'A=B' cannot be a variable"),
        (SiteSettings(run_as="owner"), 'run_as: "owner" needs an owner'),
        (attrs.evolve(SITE, path=Path("shop")), "path: expected an absolute path, not 'shop'"),
        (attrs.evolve(SITE, release=SiteSettings(umask=-1)), "release.umask: expected 0 to 0o777"),
        (RepositorySettings(url="/u", checkouts=(CHECKOUT, attrs.evolve(CHECKOUT, umask=-1))), "checkouts[1].umask: "),
        (TopicMap(source=""), "source: expected a destination, e.g. /topic/deploykit.source"),
        (TopicMap(notices={"git": "a\nb"}), "notices.git: expected a destination"),
        (HookSettings(spool="spool"), "spool: expected an absolute path, not 'spool'"),
        (HookSettings(timeout=0.0), "timeout: expected a number of seconds above 0 and below 3600, not 0"),
        (HookSettings(topics=TopicMap(source="")), "topics.source: expected a destination"),
        (Settings(node="web1", reconcile_every=0.0), "reconcile_every: expected at least 1"),  # type: ignore[arg-type]
        (Settings(node="web1", broker=BusSettings(window=0)), "broker.window: expected at least 1"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_is_named_with_its_field_and_without_a_secret(family: Family, found: str) -> None:
    (problem,) = family.problems()
    assert problem.startswith(found)
    assert "canary" not in problem


def test_bus_and_config_use_the_same_words() -> None:
    with pytest.raises(SettingsError) as by_bus:
        Bus(BusSettings(address="nonsense", window=0))
    with pytest.raises(SettingsError) as by_config:
        parse_settings(b'[broker]\naddress = "nonsense"\nwindow = 0\n')
    assert by_config.value.problems == tuple(f"broker.{problem}" for problem in by_bus.value.problems)
    assert len(by_bus.value.problems) == 2


def test_what_a_site_and_a_checkout_share_is_one_family() -> None:
    """And stays flat: each field is set and named as if it were the site's or checkout's own."""
    for kind in (SiteSettings, CheckoutSettings):
        assert issubclass(kind, TreeSettings)
        assert set(attrs.fields_dict(TreeSettings)) <= set(attrs.fields_dict(kind))
    settings = parse_settings(
        b'[repositories.r]\nurl = "/u"\n'
        b'checkouts = [{ mode = "tags", target = "/t", umask = 0o22, symlinks = "any" }]\n'
        b'[sites.s]\npath = "/s"\nrepo = "r"\nrelease = { umask = 0o22, max_entries = 5 }\n'
    )
    (repository,), (site,) = settings.repositories.values(), settings.sites.values()
    assert repository.checkouts[0] == CheckoutSettings(mode="tags", target=Path("/t"), umask=0o22, symlinks="any")
    assert site.release == SiteSettings(umask=0o22, max_entries=5)
