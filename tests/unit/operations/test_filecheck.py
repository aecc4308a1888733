"""`config check` looks at every file, directory, user and program that a setting names."""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from deploykit.config import load_settings
from deploykit.daemons.packages import program
from deploykit.errors import SettingsError
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.operations.filecheck import FILE_CHECKS, file_problems
from deploykit.settings import AccessSettings, AccessSiteSettings, NodeSiteSettings, Settings
from deploykit.settings.packages import PackageSourceSettings, PackagesSettings
from deploykit.settings.webhook import WebhookSettings, WebhookSourceSettings
from deploykit.trust.keyfiles import generate_key
from tests.brokers.certs import Authority
from tests.support.cli import run


def classes_of(kind: object) -> Iterator[type]:
    """Every settings class that a type hint leads to."""
    if isinstance(kind, type) and attrs.has(kind):
        yield kind
        for hint in typing.get_type_hints(kind).values():
            yield from classes_of(hint)
    for inner in typing.get_args(kind):
        yield from classes_of(inner)


def holds_path(kind: object) -> bool:
    return kind is Path or any(holds_path(inner) for inner in typing.get_args(kind))


def test_every_setting_that_holds_a_path_is_looked_at() -> None:
    named = {
        (cls, name)
        for cls in set(classes_of(Settings))
        for name, hint in typing.get_type_hints(cls).items()
        if holds_path(hint)
    }
    assert len(named) >= 14
    assert named - FILE_CHECKS.keys() == set()


def test_every_look_is_at_a_setting_there_is() -> None:
    assert [key for key in FILE_CHECKS if key[1] not in attrs.fields_dict(key[0])] == []


FILE = """
node = "web1"
state = "{root}/state"
signing_key = "{root}/key"
[broker]
address = "stomp+ssl://127.0.0.1:1"
tls_ca = "{root}/ca.pem"
tls_cert = "{root}/cert.pem"
tls_key = "{root}/tls.key"
[audit]
path = "{root}/logs/audit.log"
[outbox]
path = "{root}/spool"
group = "root"
[trust]
allowed_signers = "{root}/signers"
revoked_keys = "{root}/revoked"
grants = [{{ principal = "ops", types = ["deploy.requested"] }}]
[facts]
files = ["{root}/facts.json", "{root}/facts.yaml"]
allow = ["*"]
classes_files = ["{root}/none.txt", "{root}/classes.txt"]
[repositories.shop]
url = "https://git.example.org/shop.git"
checkouts = [{{ mode = "branch", target = "{root}/checkout", branch = "main", owner = "root" }}]
[repositories.shop.mirror]
ssh_key = "{root}/ssh"
ssh_known_hosts = "{root}/hosts"
ca_file = "{root}/ca.pem"
credentials_file = "{root}/cred"
credential_helper = ["sh"]
allowed_signers = "{root}/git_signers"
[jenkins.servers.ci]
url = "https://ci.example.org/"
user = "deploykit"
token_file = "{root}/token"
ca_file = "{root}/ca.pem"
[jenkins.servers.other]
kind = "http"
url = "https://ci.example.org/hook"
headers_file = "{root}/headers"
secret_file = "{root}/secret"
body = "{{job}}"
[[jenkins.jobs]]
repo = "shop"
server = "ci"
job = "shop-tests"
token_file = "{root}/job_token"
[web]
login = "password"
password_file = "{root}/passwords"
database = "postgresql://console@db.example.org/console"
database_password_file = "{root}/db_password"
[sites.shop]
path = "{root}/site"
repo = "shop"
release = {{ scripts = "{root}/scripts", owner = "root", run_as = "root" }}
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certs"))


@pytest.fixture
def file(tmp_path: Path, authority: Authority) -> Path:
    """Settings that name one of everything, and all of it is right."""
    key = generate_key(tmp_path / "key")
    identity = authority.client("ann")
    for name, text, mode in (
        ("ca.pem", authority.ca_file.read_text(), 0o644),
        ("cert.pem", Path(identity.cert_file).read_text(), 0o644),
        ("tls.key", Path(identity.key_file).read_text(), 0o600),
        ("signers", f"ops {key.public_openssh}\n", 0o644),
        ("revoked", "# none\n", 0o644),
        ("ssh", "a key\n", 0o600),
        ("hosts", "git.example.org ssh-ed25519 AAAA\n", 0o644),
        ("cred", "https://a:b@git.example.org\n", 0o600),
        ("token", "t\n", 0o600),
        ("job_token", "t\n", 0o600),
        ("passwords", f"ann:$2b$12${'a' * 53}\n", 0o600),
        ("db_password", "t\n", 0o600),
        ("secret", "s\n", 0o600),
        ("headers", "X-Token: t\n", 0o600),
        ("facts.json", "{}", 0o644),
        ("facts.yaml", "env: live", 0o644),
        ("classes.txt", "nginx", 0o644),
        ("git_signers", f"ops {key.public_openssh}\n", 0o644),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "deploykit.toml").write_text(FILE.format(root=tmp_path))
    return tmp_path / "deploykit.toml"


def test_settings_that_name_what_is_right_pass_and_nothing_is_made(file: Path) -> None:
    before = sorted(file.parent.iterdir())
    done = run("config", "check", "-c", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(file.parent.iterdir()) == before


def named(file: Path, setting: str) -> list[str]:
    """What is said of one setting."""
    return [problem for problem in file_problems(load_settings(file)) if problem.startswith(f"{setting}: ")]


def gone(path: Path) -> None:
    path.unlink()


def rubbish(path: Path) -> None:
    path.write_text("rubbish\n")


def empty(path: Path) -> None:
    path.write_text("")


def binary(path: Path) -> None:
    path.write_bytes(b"\x7fELF\xff")


def is_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def open_to_all(path: Path) -> None:
    path.chmod(0o666)


def is_directory(path: Path) -> None:
    path.mkdir(parents=True)


def open_log(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    path.chmod(0o666)


def is_file(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    path.write_text("in the way")


@pytest.mark.parametrize(
    ("name", "harm", "setting"),
    [
        *[("ca.pem", harm, "broker.tls_ca") for harm in (gone, rubbish, empty)],
        *[("ca.pem", harm, "repositories.shop.mirror.ca_file") for harm in (gone, rubbish, empty)],
        *[("cert.pem", harm, "broker.tls_cert") for harm in (gone, rubbish, empty)],
        *[("tls.key", harm, "broker.tls_key") for harm in (gone, empty)],
        ("tls.key", rubbish, "broker.tls_cert"),
        *[("key", harm, "signing_key") for harm in (gone, rubbish, open_to_all)],
        *[("signers", harm, "trust.allowed_signers") for harm in (gone, rubbish, open_to_all)],
        *[("revoked", harm, "trust.revoked_keys") for harm in (gone, rubbish, open_to_all)],
        *[("ssh", harm, "repositories.shop.mirror.ssh_key") for harm in (gone, empty, open_to_all)],
        *[("hosts", harm, "repositories.shop.mirror.ssh_known_hosts") for harm in (gone, empty)],
        *[("cred", harm, "repositories.shop.mirror.credentials_file") for harm in (gone, open_to_all)],
        *[("git_signers", harm, "repositories.shop.mirror.allowed_signers") for harm in (gone, empty)],
        *[("ca.pem", harm, "jenkins.servers.ci.ca_file") for harm in (gone, rubbish, empty)],
        *[("token", harm, "jenkins.servers.ci.token_file") for harm in (gone, empty, open_to_all)],
        *[("headers", harm, "jenkins.servers.other.headers_file") for harm in (gone, rubbish, open_to_all)],
        *[("secret", harm, "jenkins.servers.other.secret_file") for harm in (gone, empty, open_to_all)],
        *[("job_token", harm, "jenkins.jobs[0].token_file") for harm in (gone, empty, open_to_all)],
        *[("passwords", harm, "web.password_file") for harm in (gone, rubbish, empty, open_to_all)],
        *[("db_password", harm, "web.database_password_file") for harm in (gone, empty, open_to_all)],
        *[("facts.json", harm, "facts.files") for harm in (gone, rubbish, empty, is_pipe)],
        *[("facts.yaml", harm, "facts.files") for harm in (gone, rubbish, is_pipe)],
        *[("classes.txt", harm, "facts.classes_files") for harm in (gone, binary, is_pipe)],
        ("scripts", is_file, "sites.shop.release.scripts"),
        ("state", is_file, "state"),
        ("logs", is_file, "audit.path"),
        ("logs/audit.log", is_directory, "audit.path"),
        ("logs/audit.log", open_log, "audit.path"),
        ("spool", is_file, "outbox.path"),
        ("site", is_file, "sites.shop.path"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_setting(
    file: Path, name: str, harm: Callable[[Path], None], setting: str
) -> None:
    harm(file.parent / name)
    assert named(file, setting)


@pytest.mark.parametrize(
    ("old", "new", "setting"),
    [
        ('owner = "root", run_as', 'owner = "nosuchuser", run_as', "sites.shop.release.owner"),
        ('run_as = "root"', 'run_as = "nosuchuser"', "sites.shop.release.run_as"),
        (
            'branch = "main", owner = "root"',
            'branch = "main", owner = "nosuch"',
            "repositories.shop.checkouts[0].owner",
        ),
        ('group = "root"', 'group = "nosuchgroup"', "outbox.group"),
        ('allow = ["*"]', 'allow = ["*"]\nfacter = true', "facts.facter"),
        ('["sh"]', '["nosuchprogram"]', "repositories.shop.mirror.credential_helper"),
    ],
)
def test_a_user_or_program_that_is_not_there_is_said(file: Path, old: str, new: str, setting: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert named(file, setting)


def test_each_file_of_facts_that_cannot_be_used_has_a_line(file: Path) -> None:
    for name in ("facts.json", "facts.yaml"):
        gone(file.parent / name)
    assert len(named(file, "facts.files")) == 2


def test_scripts_that_run_as_the_owner_name_no_user_of_that_name(file: Path) -> None:
    file.write_text(file.read_text().replace('run_as = "root"', 'run_as = "owner"'))
    assert file_problems(load_settings(file)) == ()


def test_a_key_of_another_certificate_is_said(file: Path, authority: Authority) -> None:
    other = authority.client("bob")
    (file.parent / "tls.key").write_text(Path(other.key_file).read_text())
    assert named(file, "broker.tls_cert")


@pytest.mark.parametrize("field", ["tls_cert", "tls_key"])
def test_a_certificate_without_its_key_is_no_setting(file: Path, field: str) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.startswith(field)]
    file.write_text("\n".join(lines))
    with pytest.raises(SettingsError, match="give both"):
        load_settings(file)


def test_all_that_is_wrong_is_said_at_once(file: Path) -> None:
    for name in ("key", "signers", "cred"):
        gone(file.parent / name)
    done = run("config", "check", "-c", str(file))
    assert done.returncode == 2
    for setting in ("signing_key", "trust.allowed_signers", "repositories.shop.mirror.credentials_file"):
        assert f"{setting}: " in done.stderr


def test_a_node_that_can_obey_nobody_passes_with_a_warning(file: Path) -> None:
    file.write_text(file.read_text().replace('types = ["deploy.requested"]', 'types = ["node.queried"]'))
    done = run("config", "check", "-c", str(file))
    assert done.returncode == 0
    assert "warning: no grant is for deploy.requested" in done.stderr
    assert "warning no grant is for" in run("status", "-c", str(file)).stdout


def test_settings_that_name_nothing_have_no_mistakes(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('node = "web1"\n')
    assert run("config", "check", "-c", str(tmp_path / "x.toml")).returncode == 0


def test_a_key_with_a_passphrase_is_for_people_and_not_for_an_agent(tmp_path: Path) -> None:
    generate_key(tmp_path / "key", passphrase="open sesame")
    desk = Settings(node=NodeName("desk"), state=tmp_path, signing_key=tmp_path / "key")
    assert file_problems(desk) == ()
    assert file_problems(attrs.evolve(desk, signing_key=tmp_path / "key.pub")) == ()
    site = NodeSiteSettings(repo=RepoName("shop"), path=tmp_path / "shop")
    node = attrs.evolve(desk, sites={SiteName("shop"): site})
    (problem,) = file_problems(node)
    assert "signing_key" in problem
    assert "protected by a passphrase" in problem
    (problem,) = file_problems(attrs.evolve(node, signing_key=tmp_path / "key.pub"))
    assert "is a public key" in problem


def test_secrets_of_webhook_sources_are_looked_at(tmp_path: Path) -> None:
    good, loose, cut, empty = (tmp_path / name for name in ("good", "loose", "cut", "empty"))
    for file, mode, text in ((good, 0o600, "s"), (loose, 0o644, "s"), (cut, 0o600, "whsec_AAAA"), (empty, 0o600, "")):
        file.write_text(text)
        file.chmod(mode)
    sources = {
        "good": WebhookSourceSettings(forge="github", secret_files=(good,)),
        "two": WebhookSourceSettings(forge="github", secret_files=(loose, tmp_path / "missing")),
        "cut": WebhookSourceSettings(forge="gitlab", secret_files=(cut, empty)),
        "azure": WebhookSourceSettings(forge="azure", secret_files=(good,)),
    }
    settings = Settings(node=NodeName("web1"), state=tmp_path, webhook=WebhookSettings(sources=sources))
    found = [line for line in file_problems(settings) if line.startswith("webhook.")]
    for line, source, says in zip(
        found,
        ("two", "two", "cut", "cut", "azure"),
        ("mode 0644", "missing", "whsec_", "is empty", "USER:PASSWORD"),
        strict=True,
    ):
        assert line.startswith(f"webhook.sources.{source}.secret_files: ")
        assert says in line


def test_access_files_are_read_as_the_daemon_reads_them(tmp_path: Path) -> None:
    users, listed, link = tmp_path / "users", tmp_path / "users.cfg", tmp_path / "link"
    users.write_text("monitor:x\n")
    listed.write_text("userlist other\n")
    link.symlink_to(users)
    sites = {
        SiteName("good"): AccessSiteSettings(file=users, reload=("/bin/true",)),
        SiteName("link"): AccessSiteSettings(file=link, test=("/nowhere/nginx", "-t")),
        SiteName("list"): AccessSiteSettings(file=listed, kind="haproxy", userlist="stage"),
        SiteName("none"): AccessSiteSettings(file=tmp_path / "none"),
    }
    settings = Settings(node=NodeName("web1"), state=tmp_path, access=AccessSettings(sites=sites))
    problems = dict(problem.split(": ", 1) for problem in file_problems(settings) if problem.startswith("access."))
    assert problems.keys() == {f"access.sites.{name}" for name in ("link.file", "link.test", "list.file", "none.file")}
    assert "symbolic link" in problems["access.sites.link.file"]
    assert "no program /nowhere/nginx" in problems["access.sites.link.test"]
    assert "no userlist stage" in problems["access.sites.list.file"]
    assert "install -m 640" in problems["access.sites.none.file"]


@pytest.mark.parametrize("harm", [gone, empty, binary, is_pipe])
def test_a_package_source_s_file_must_be_there(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    source = tmp_path / "ours.sources"
    source.write_text("Types: deb\n")
    packages = PackagesSettings(sources={"ours": PackageSourceSettings(file=source)})
    settings = Settings(node=NodeName("web1"), state=tmp_path, packages=packages)

    def found() -> list[str]:
        return [each for each in file_problems(settings) if each.startswith("packages.sources.ours.file: ")]

    assert found() == []
    harm(source)
    assert found()


def test_a_package_manager_must_be_there_where_it_has_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_ENVIRONMENT", {"PATH": str(tmp_path)})
    sources = {"ours": PackageSourceSettings(file=tmp_path)}
    for packages, problems in (
        (PackagesSettings(), []),
        (PackagesSettings(sources=sources), ["packages.tool: apt-get is not installed"]),
        (PackagesSettings(sources=sources, tool="dnf"), ["packages.tool: dnf is not installed"]),
    ):
        settings = Settings(node=NodeName("web1"), state=tmp_path, packages=packages)
        assert [each for each in file_problems(settings) if each.startswith("packages.tool")] == problems
