"""The settings file: every mistake at once, each with its path; secrets only in files that are private."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from deploykit.bus.passcode import read_passcode
from deploykit.config import load_settings, load_site_settings, parse_settings
from deploykit.config.crosschecks import warnings
from deploykit.errors import SettingsError
from deploykit.names import RepoName
from tests.support.needs import needs_root

GOOD = b"""
node = "web1"
[broker]
address = "stomp://127.0.0.1:61613"
login = "agent"
passcode = "env:PASS"
[repositories."group/shop"]
url = "file:///srv/git/shop.git"
[sites.shop]
path = "/srv/shop"
repo = "group/shop"
release = { keep = 3, shared = ["log"] }
[[trust.grants]]
principal = "ops@example.org"
types = ["deploykit.deploy.requested.v1"]
"""


def problems(raw: bytes, **kwargs: object) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        parse_settings(raw, **kwargs)  # type: ignore[arg-type]
    return caught.value.problems


def test_a_good_file_becomes_settings() -> None:
    settings = parse_settings(GOOD, environ={"PASS": "s3cret"})
    assert settings.node == "web1"
    assert settings.broker.passcode == "s3cret"
    assert "s3cret" not in repr(settings)
    (site,) = settings.sites.values()
    assert site.path == Path("/srv/shop")
    assert site.release.keep == 3
    assert site.release.shared == ("log",)


def test_every_mistake_is_reported_at_once_with_its_path() -> None:
    found = problems(
        b"""
        colour = "red"
        reconcile_every = "often"
        [broker]
        adress = "stomp://x:1"
        heartbeat = -1
        [log]
        level = "loud"
        [repositories."../x"]
        url = 7
        [sites.shop]
        repo = "nowhere"
        [trust]
        grants = [{ principal = "x" }]
        """
    )
    text = "\n".join(found)
    assert "colour: unknown setting" in text
    assert "reconcile_every: expected a number" in text
    assert "broker.adress: unknown setting (did you mean address?)" in text
    assert "broker.heartbeat: expected a number of at least 0" in text
    assert "log.level: expected one of 'debug'" in text
    assert "repositories" in text
    assert "not a repository name: '../x'" in text
    assert "sites.shop.path: required, but missing" in text
    assert "trust.grants[0].types: required, but missing" in text


def test_what_does_not_go_together_is_told_with_what_cannot_be_read() -> None:
    found = problems(
        b"""
        colour = "red"
        [broker]
        adress = "stomp://x:1"
        address = "nonsense"
        window = 0
        [outbox]
        window = "many"
        max_attempts = 0
        [repositories.torn]
        mirror = { deadline = "soon" }
        [repositories.whole]
        url = "--upload-pack=x"
        [sites.a]
        path = "relative"
        repo = "torn"
        [sites.b]
        path = "/b"
        repo = "nowhere"
        release = { keep = 0, lock_wait = "x" }
        [[trust.grants]]
        principal = "*"
        types = ["DeployRequested"]
        """
    )
    assert sorted(line.partition(": ")[0] for line in found) == [
        "broker.address",
        "broker.adress",
        "broker.window",
        "colour",
        "outbox.max_attempts",
        "outbox.window",
        "repositories.torn.mirror.deadline",
        "repositories.torn.url",
        "repositories.whole.url",
        "sites.a.path",
        "sites.b.release.lock_wait",
        "sites.b.repo",
        "trust.grants[0].principal",
    ]
    assert "canary" not in "".join(found)


@pytest.mark.parametrize(
    "raw",
    [
        b'[broker]\nlogin = "canary"\npasscode = "canary"\naddress = "stomp://canary:canary@h:1"',
        b'[broker]\naddress = "failover:(stomp://u:canary@h:1,stomp://u:canary%2F@h:1,stomp://canary@h:1)"',
        b'[repositories.r]\nurl = "https://canary@h/r.git"',
        b'[repositories.r]\nurl = "u:canary@h/r.git"',
        b'[repositories.r]\nurl = "u"\n[sites.a]\npath = "/a"\nrepo = "r"\nrelease.health_url = "https://u:canary@h/"',
        b'[repositories.r]\nurl = "u"\n[sites.a]\npath = "/a"\nrepo = "r"\nrelease.environment = { T = "canary" }',
    ],
)
def test_no_secret_is_in_the_repr_of_the_settings(raw: bytes) -> None:
    assert "canary" not in repr(parse_settings(raw, environ={}))


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"node = [", "not TOML"),
        (b"\xff", "not TOML"),
        (b"heartbeat = " + b"9" * 5000, "not TOML"),
        (b'broker = "x"', "broker: expected a table"),
        (b'[[broker]]\naddress = "x"', "broker: expected a table"),
        (b'[sites.a]\npath = "/a"\nrepo = "r"', "sites.a.repo: 'r' is not in [repositories]"),
        (b'[broker]\npasscode = "env:NOPE"', "NOPE is not set"),
        (b'[broker]\npasscode_file = "/nonexistent/x"', "cannot read /nonexistent/x"),
        (b'[[trust.grants]]\nprincipal = "ops"\ntypes = ["deploy.everything"]', "deploy.everything"),
        (b"[mirror]\nx = 1", "mirror: unknown setting"),
        (b"[[sites]]\na = 1", "sites: expected a table, not a list"),
        (b"repositories = 5", "repositories: expected a table, not a number"),
        (b"[broker]\npasscode_file = 5", "broker.passcode_file: expected a path, not a number"),
        (b'[broker]\npasscode_file = "a\\u0000b"', "broker.passcode_file: expected a path"),
        (b'[broker]\nversions = ["1.3"]', "broker.versions: expected some of 1.2, 1.1, 1.0"),
        (b'[topics]\nsource = ""', "topics.source: expected a destination"),
        (b'[topics]\nnotices = { git = "a\\nb" }', "topics.notices.git: expected a destination"),
        (b"[trust]\nmax_expiry = 0", "trust.max_expiry: expected seconds, at least 1"),
        (b'[repositories.r]\nurl = ""', "repositories.r.url: not an origin's address"),
        (
            b'[repositories.r]\nurl = "u"\n[sites.a]\npath = "/a"\nrepo = "r"\nrelease.keep = 0',
            "sites.a.release.keep: expected at least 1",
        ),
        *(
            (b'[repositories.r]\nurl = "u"\n[sites.a]\npath = "/a"\nrepo = "r"\nrelease.' + line, says)
            for line, says in (
                (b'required = ["postdeploy"]', "sites.a.release.required: expected some of pre-deploy, pre-link"),
                (b"timeouts = { post_deploy = 5 }", "sites.a.release.timeouts: expected some of pre-deploy"),
                (b'at_crash = { all = "stop" }', "sites.a.release.at_crash: expected some of pre-deploy"),
                (b'health_url = "http://h:99999/"', "sites.a.release.health_url: expected an http or https address"),
                (b'environment = { "A=B" = "canary" }', "sites.a.release.environment: 'A=B' cannot be a variable"),
                (b"umask = 99999", "sites.a.release.umask: expected 0 to 0o777"),
            )
        ),
        (b'[repositories.r]\nurl = "u"\nmirror.refs = ["main"]', "repositories.r.mirror.refs: expected full ref names"),
        (
            b'[repositories.r]\nurl = "u"\nmirror = { signed = ["v*"], allowed_signers = "/a" }',
            "repositories.r.mirror.signed: expected full ref",
        ),
        (
            b'[repositories.r]\nurl = "u"\nmirror.signed = ["refs/*"]',
            "repositories.r.mirror.signed: needs allowed_signers",
        ),
        (b'[broker]\ntls_cert = "/a"', "broker.tls_cert, tls_key: give both"),
        (b'[broker]\ntls_key = "/a"', "broker.tls_cert, tls_key: give both"),
        (
            b'[repositories.r]\nurl = "u"\ncheckouts = [{ mode = "tags", target = "/t", refs = ["v*"] }]',
            "repositories.r.checkouts[0].refs: expected full ref names",
        ),
        (b"a = " + b"[" * 100_000, "nested too deep"),
    ],
)
def test_a_single_mistake_is_one_clear_line(raw: bytes, says: str) -> None:
    (line,) = problems(raw, environ={})
    assert says in line


def test_two_sites_may_not_share_a_directory() -> None:
    raw = b'[repositories.r]\nurl="u"\n[sites.a]\npath="/a"\nrepo="r"\n[sites.b]\npath="/a"\nrepo="r"\n'
    assert "already the path of a" in problems(raw)[0]


@pytest.mark.parametrize(
    "line",
    [
        'passcode = "x"',
        'address = "stomp://u:p@h:1"',
        'address = "stomp://u:p/q@h:1"',
        'address = "stomp://u:p,(q) r@h:1"',
        'address = "stomp://u@example.com:p@h:1"',
        'address = "stomp://:p@h:1"',
        'address = "failover:(stomp://a,stomp://u:p/q@b)"',
    ],
)
def test_a_secret_in_a_readable_file_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "deploykit.toml"
    file.write_text(f"[broker]\n{line}\n")
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="0644"):
        load_settings(file)
    for mode in (0o600, 0o640):
        file.chmod(mode)
        assert load_settings(file).broker is not None


def test_a_passcode_file_must_be_private_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "passcode"
    secret.write_text("canary-9\n")
    secret.chmod(0o604)
    raw = f'[broker]\npasscode_file = "{secret}"\n'.encode()
    (line,) = problems(raw)
    assert "0604" in line
    assert "canary" not in line
    secret.chmod(0o600)
    settings = parse_settings(raw)
    assert read_passcode(settings.broker) == "canary-9"
    assert "canary" not in repr(settings)


def test_a_missing_file_names_it_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml.*--config"):
        load_settings(tmp_path / "none.toml")


@needs_root("to be the one whose settings count for more")
@pytest.mark.parametrize("alone", [False, True])
def test_root_reads_no_settings_that_others_can_change(tmp_path: Path, alone: bool) -> None:
    """They say what runs as whom."""
    file = tmp_path / "site.toml"
    file.write_text("keep = 3\n" if alone else GOOD.decode())

    def read() -> object:
        if alone:
            return load_site_settings(file, tmp_path)
        return load_settings(file, environ={"PASS": "x"})

    read()
    nobody = pwd.getpwnam("nobody")
    for uid, gid, mode, why, remedy in (
        (nobody.pw_uid, 0, 0o600, "it belongs to uid", f"chown root {file}"),
        (0, nobody.pw_gid, 0o660, "the group nogroup can write it", f"chmod g-w {file}"),
        (0, 0, 0o602, "everybody can write it", f"chmod o-w {file}"),
    ):
        os.chown(file, uid, gid)
        file.chmod(mode)
        with pytest.raises(SettingsError, match=why) as caught:
            read()
        assert caught.value.remedy == remedy
    os.chown(file, 0, nobody.pw_gid)
    file.chmod(0o640)
    read()


@pytest.mark.parametrize(
    "raw",
    [
        b'broker = "stomp://u:canary@h:1"',
        b'[broker]\npasscode = ["canary"]',
        b"[broker]\npasscode = 20261",
        b'[broker]\naddress = ["stomp://u:canary@h:1"]',
        b'[broker]\naddress = "stomp//u:canary@h:1"',
        b'[broker]\naddress = "stomp://u:canary@h:99999"',
        b'[repositories]\nr = "https://u:canary@h/r"',
        b'[repositories.r]\nurl = "https://u:canary@h/r.git"',
        b'[repositories.r]\nurl = "u"\n[sites.a]\npath = "/a"\nrepo = "r"\nrelease = { environment = "canary" }',
    ],
)
def test_a_mistake_around_a_secret_is_told_without_it(raw: bytes) -> None:
    (line,) = problems(raw, environ={})
    assert "canary" not in line
    assert "20261" not in line


@pytest.mark.parametrize(
    "line",
    ["reconcile_every = 0", "[broker]\nconnect_timeout = 0", "[outbox]\nwindow = 0", "[outbox]\nmax_attempts = -1"],
)
def test_a_number_that_would_stall_a_daemon_or_make_it_spin_is_refused(line: str) -> None:
    (problem,) = problems(line.encode())
    assert "expected at least" in problem


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("publish_timeout = 0", "broker.publish_timeout"),
        ("heartbeat = 100_000", "broker.heartbeat"),
        ('keepalive = ["/queue/"]', "broker.keepalive"),
        ('vhost = "a\\nb"', "broker.vhost"),
        ("connect_timeout = 0", "broker.connect_timeout"),
        ("login_retry = -1", "broker.login_retry"),
        ("login_retry = nan", "broker.login_retry"),
        ("backoff_max = 1e10", "broker.backoff_max"),
        ("stall_timeout = inf", "broker.stall_timeout"),
    ],
)
def test_what_every_bus_would_refuse_is_a_mistake_of_the_file(line: str, path: str) -> None:
    (problem,) = problems(f"[broker]\n{line}\n".encode())
    assert f" {path}: " in problem


def test_a_bad_broker_address_is_found_with_the_other_mistakes() -> None:
    found = problems(b'[broker]\naddress = "nonsense"\n[outbox]\nwindow = 0\n')
    assert [line.partition(":")[0] for line in found] == ["broker.address", "outbox.window"]


def test_an_origin_that_is_not_allowed_and_a_checkout_that_cannot_be_are_found_together() -> None:
    raw = b"""
[repositories.a]
url = "ext::sh -c id"
[[repositories.a.checkouts]]
mode = "puppetmaster"
target = "/etc/environments"
[repositories.b]
url = "https://u:canary@git.example.net/b.git"
checkouts = [
  { mode = "branch", target = "/srv/x" },
  { mode = "branch", target = "/srv/x", branch = "a*" },
  { mode = "tags", target = "here" },
  { mode = "puppetmaster", target = "/etc/environments" },
  { mode = "normal", target = "/etc/environments" },
  { mode = "atomic", target = "/etc/environments" },
]
"""
    found = problems(raw)
    assert [line.partition(": ")[0] for line in found] == [
        "repositories.a.url",
        "repositories.b.url",
        "repositories.b.checkouts[0]",
        "repositories.b.checkouts[1]",
        "repositories.b.checkouts[2]",
        "repositories.b.checkouts[3].target",
    ]
    assert "already the target of repositories.a.checkouts[0]" in found[-1]
    assert "canary" not in "".join(found)


@pytest.mark.parametrize("outer_first", [True, False])
@pytest.mark.parametrize("inner", ["/srv/x/in", "/srv/x/a/b"])
def test_no_checkout_is_inside_another(inner: str, outer_first: bool) -> None:
    """What is written below a checkout would be in a copy, and gone with the next push to the outer one."""
    both = ['{ mode = "trusting", target = "/srv/x" }', f'{{ mode = "tags", target = "{inner}" }}']
    checkouts = ", ".join(both if outer_first else both[::-1])
    (found,) = problems(f'[repositories.r]\nurl = "/r"\ncheckouts = [{checkouts}]'.encode())
    places = ["checkouts[1] would be inside", "checkouts[0]"] if outer_first else ["checkouts[0] would", "checkouts[1]"]
    assert all(place in found for place in places), found


@pytest.mark.parametrize(
    ("target", "warned"),
    [("/etc/env/production/modules/x", True), ("/etc/env/x", False), ("/etc/envs/a/b", False)],
)
def test_a_checkout_that_may_be_inside_another_is_warned_of(target: str, warned: bool) -> None:
    checkouts = f'{{ mode = "puppetmaster", target = "/etc/env" }}, {{ mode = "trusting", target = "{target}" }}'
    settings = parse_settings(f'[repositories.r]\nurl = "/r"\ncheckouts = [{checkouts}]'.encode())
    assert ["checkouts[0] may show" in line for line in warnings(settings)] == [True] * warned


def test_mode_normal_needs_no_target_and_takes_none_from_another() -> None:
    checkouts = (
        '{ mode = "normal" }, { mode = "normal" }, { mode = "normal", target = "/srv/x" }, '
        '{ mode = "tags", target = "/srv/x", nested = true }'
    )
    settings = parse_settings(f'[repositories.r]\nurl = "/r"\ncheckouts = [{checkouts}]'.encode())
    assert [each.target for each in settings.repositories[RepoName("r")].checkouts][:2] == [None, None]
    assert warnings(settings) == []


@pytest.mark.parametrize(
    ("checkout", "says"),
    [
        ('mode = "dangerous"', r"a new one: unlike the original, deploykit never writes into a clone"),
        ('mode = "tags"', r"tags needs to know where"),
        ('mode = "puppetmaster", target = "/x", nested = true', r"Puppet finds no environment in a deeper directory"),
        ('mode = "normal", nested = true', r"nested is for tags and atomic"),
    ],
)
def test_a_checkout_that_cannot_be_as_its_mode_says_is_one_clear_line(checkout: str, says: str) -> None:
    (line,) = problems(f'[repositories.r]\nurl = "/r"\ncheckouts = [{{ {checkout} }}]'.encode())
    assert line.startswith("settings: repositories.r.checkouts[0]: ")
    assert says in line


def test_mode_dangerous_is_right_and_a_warning_says_what_is_different() -> None:
    raw = b'[repositories.r]\nurl = "/r"\ncheckouts = [{ mode = "normal" }, { mode = "dangerous", target = "/srv/x" }]'
    (line,) = warnings(parse_settings(raw))
    assert line.startswith("repositories.r.checkouts[1].mode: dangerous is kept as trusting: no clone is written to")
    assert "readers have to look in /srv/x" in line


def test_an_unknown_checkout_setting_is_told_with_what_was_meant() -> None:
    (line,) = problems(b'[repositories.a]\nurl = "/a"\ncheckouts = [{ mode = "tags", target = "/x", branches = "y" }]')
    assert line == "settings: repositories.a.checkouts[0].branches: unknown setting (did you mean branch?)"


@pytest.mark.parametrize(
    ("release", "user", "warned"),
    [
        ('owner = "www:www"', "", "who deploykit runs as"),
        ('owner = "www"', "root", "root"),
        ('owner = "www"\nrun_as = "deploy:www"', "root", "deploy"),
        ('owner = "www"\nrun_as = "root"', "", "root"),
        ('owner = "www"', "www", ""),
        ('owner = "www:www"\nrun_as = "www"', "root", ""),
        ('owner = "www"\nrun_as = "owner"', "root", ""),
        ('owner = "root:www"', "root", ""),
        ('owner = "www"\nscripts = ""', "root", ""),
        ('owner = "www"\nscripts = "/etc/deploykit/scripts"', "root", ""),
        ('run_as = "www"', "root", ""),
    ],
)
def test_scripts_that_their_owner_could_rewrite_for_another_user_are_warned_of(
    release: str, user: str, warned: str
) -> None:
    """No mistake: a site without scripts is well so, and so is an agent that runs as the owner."""
    site = f'[sites.shop]\npath = "/srv/shop"\nrepo = "shop"\n[sites.shop.release]\n{release}\n'
    settings = parse_settings(b'[repositories.shop]\nurl = "https://git.example.org/x"\n' + site.encode())
    found = warnings(settings, user)
    assert len(found) == bool(warned)
    for line in found:
        assert line.startswith(f"sites.shop.release.run_as: releases with scripts are refused: {warned} would run ")
        assert 'set run_as = "owner"' in line


def test_scripts_that_run_as_an_owner_need_one() -> None:
    site = b'[sites.shop]\npath = "/srv/shop"\nrepo = "shop"\nrelease = { run_as = "owner" }\n'
    with pytest.raises(SettingsError, match=r'sites\.shop\.release\.run_as: "owner" needs an owner'):
        parse_settings(b'[repositories.shop]\nurl = "https://git.example.org/x"\n' + site)


def test_a_list_with_a_wrong_item_does_not_renumber_the_others() -> None:
    found = problems(
        b'[[trust.grants]]\nprincipal = "ops"\n[[trust.grants]]\nprincipal = "ops"\ntypes = ["deploy.requested"]\n'
        b'[broker]\nversions = [1.2]\n[repositories.r]\nurl = "u"\n'
        b'checkouts = [{ target = "/srv" }, { mode = "tags", target = "relative" }]\n'
    )
    assert sorted(line.partition(": ")[0] for line in found) == [
        "broker.versions[0]",
        "repositories.r.checkouts[0].mode",
        "repositories.r.checkouts[1]",
        "trust.grants[0].types",
    ]


def test_wrong_items_at_several_places_of_a_list_leave_the_others_checked_under_their_numbers() -> None:
    found = problems(
        b'[repositories.r]\nurl = "https://git.example.org/x"\n'
        b'checkouts = [{ mode = "branch", target = "/a" }, { mode = 7, target = "/b" }, '
        b'{ mode = "tags", target = "relative" }, { mode = "nonsense", target = "/c" }]\n'
    )
    assert sorted(line.partition(": ")[0] for line in found) == [
        "repositories.r.checkouts[0]",
        "repositories.r.checkouts[1].mode",
        "repositories.r.checkouts[2]",
        "repositories.r.checkouts[3].mode",
    ]


def test_a_wrong_name_is_found_with_what_is_wrong_below_it() -> None:
    found = problems(b'[repositories."../x"]\nurl = 7\n[repositories.y]\nurl = "--upload-pack=x"\n')
    assert [line.partition(": ")[0] for line in found] == [
        "repositories.../x",
        "repositories.../x.url",
        "repositories.y.url",
    ]


def test_a_passcode_and_its_file_exclude_each_other(tmp_path: Path) -> None:
    secret = tmp_path / "passcode"
    secret.write_text("canary\n")
    secret.chmod(0o600)
    (line,) = problems(f'[broker]\npasscode = "canary"\npasscode_file = "{secret}"\n'.encode())
    assert "broker.passcode, passcode_file: give one of them, not both" in line
    assert "canary" not in line


def test_a_file_of_release_settings_alone_is_told_of_all_problems(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text('umask = 99999\nrequired = ["nothing"]\nkept = 3\n')
    with pytest.raises(SettingsError) as caught:
        load_site_settings(file, tmp_path)
    assert [line.partition(": ")[0] for line in caught.value.problems] == ["kept", "umask", "required"]


def test_builds_are_required_fetched_on_and_remembered() -> None:
    raw = GOOD.replace(b'repo = "group/shop"', b'repo = "group/shop"\nrequire_build = ["shop-tests", "folder/lint"]')
    raw = raw.replace(b'shop.git"', b'shop.git"\nfetch_on = "build"')
    raw += b'[[trust.grants]]\nprincipal = "j"\ntypes = ["build.finished"]\nrepos = ["*"]\njobs = ["a", "b/*"]\n'
    raw += b"[builds]\nremember = 3600\n"
    settings = parse_settings(raw, environ={"PASS": "s3cret"})
    (site,), (repository,) = settings.sites.values(), settings.repositories.values()
    assert site.require_build == ("shop-tests", "folder/lint")
    assert (repository.fetch_on, settings.builds.remember) == ("build", 3600.0)
    assert settings.trust.grants[1].jobs == ("a", "b/*")
    assert warnings(settings) == []
    assert len(warnings(parse_settings(raw.replace(b"\nrepos", b"\nsites"), environ={"PASS": "x"}))) == 1
    (pattern,) = warnings(parse_settings(raw.replace(b'["shop-tests"', b'["shop-*"'), environ={"PASS": "x"}))
    assert pattern.endswith("'shop-*' is the name of one job, not a pattern: no build of another opens the gate")
    plain = parse_settings(GOOD, environ={"PASS": "s3cret"})
    assert (plain.builds.remember, next(iter(plain.repositories.values())).fetch_on) == (90 * 86400.0, "push")


def test_what_cannot_be_about_builds_is_named() -> None:
    raw = GOOD.replace(b'repo = "group/shop"', b'repo = "group/shop"\nrequire_build = ["", " a", "b"]')
    raw = raw.replace(b'shop.git"', b'shop.git"\nfetch_on = "never"') + b"[builds]\nremember = 0\n"
    found = problems(raw, environ={"PASS": "x"})
    assert sorted(text.partition(":")[0] for text in found) == [
        "builds.remember",
        "repositories.group/shop.fetch_on",
        "sites.shop.require_build[0]",
        "sites.shop.require_build[1]",
    ]
