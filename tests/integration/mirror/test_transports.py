"""Every way to an origin, over real servers: the right refs, the right objects, the right refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from deploykit.errors import OriginError, SettingsError
from deploykit.mirror import Mirror, RefChange
from deploykit.names import ObjectId, RefName
from deploykit.settings import MirrorSettings
from tests.support.origins import GitRepo, Server, git_daemon, http_backend, run_git, ssh_server

MAIN = RefName("refs/heads/main")


@attrs.frozen
class Origin:
    """A repository, its address on some transport, and the settings to get there."""

    repo: GitRepo
    url: str
    settings: MirrorSettings = attrs.field(factory=MirrorSettings)


@pytest.fixture(params=["path", "file", "git", "https", "ssh", "ssh-v0"])
def origin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Origin]:
    """The same repository behind each transport."""
    repo = GitRepo.make(tmp_path / "served" / "site.git")
    root = tmp_path / "served"
    match request.param:
        case "path":
            yield Origin(repo, str(repo.path))
        case "file":
            yield Origin(repo, f"file://{repo.path}")
        case "git":
            with git_daemon(root) as server:
                yield Origin(repo, server.url("site.git"))
        case "https":
            with http_backend(root) as server:
                yield Origin(repo, server.url("site.git"), https_settings(server))
        case _:
            with ssh_server(root, accept_protocol=request.param == "ssh") as server:
                yield Origin(repo, server.url("site.git"), ssh_settings(server))


def https_settings(server: Server) -> MirrorSettings:
    return MirrorSettings(ca_file=server.ca_file, credentials_file=server.credentials)


def ssh_settings(server: Server) -> MirrorSettings:
    return MirrorSettings(ssh_key=server.key, ssh_known_hosts=server.known_hosts)


def same(mirror: Mirror, repo: GitRepo) -> None:
    assert mirror.refs == repo.refs()
    assert run_git(mirror.path, "fsck", "--strict", "--no-dangling") == ""


def test_a_mirror_follows_its_origin(origin: Origin, tmp_path: Path) -> None:
    repo = origin.repo
    with Mirror.open(tmp_path / "mirror.git", origin.url, origin.settings) as mirror:
        assert mirror.fetch().changes == ()  # an empty repository
        first = repo.commit({"a": b"1\n" * 500})
        repo.git("tag", "-a", "-m", "one", "v1", first)
        mirror.fetch()
        same(mirror, repo)
        assert mirror.resolve("v1").commit == first
        assert mirror.resolve("v1").object_id == repo.tip("refs/tags/v1")
        second = repo.commit({"a": b"1\n" * 500 + b"2\n"})
        told = RefChange(MAIN, ObjectId(first), ObjectId(second))
        result = mirror.fetch(told)
        assert result.changes == (told,)
        assert result.confirmed is True
        assert not result.gap
        same(mirror, repo)
        repo.git("branch", "foo", second)
        mirror.fetch()
        repo.git("branch", "-D", "foo")
        repo.git("branch", "foo/bar", first)
        repo.git("symbolic-ref", "HEAD", "refs/heads/foo/bar")
        mirror.fetch()
        same(mirror, repo)
        assert mirror.head == "refs/heads/foo/bar"


def test_a_repository_of_sha256_objects_is_mirrored_alike(origin: Origin, tmp_path: Path) -> None:
    repo = GitRepo.make(origin.repo.path.with_name("wide.git"), object_format="sha256")
    with Mirror.open(tmp_path / "mirror.git", origin.url.replace("site.git", "wide.git"), origin.settings) as mirror:
        first = repo.commit({"a": b"1\n" * 500})
        repo.git("tag", "-a", "-m", "one", "v1", first)
        mirror.fetch()
        same(mirror, repo)
        assert mirror.resolve("v1").commit == first
        second = repo.commit({"a": b"1\n" * 500 + b"2\n"})
        assert mirror.fetch(RefChange(MAIN, ObjectId(first), ObjectId(second))).confirmed
        repo.git("update-ref", "-d", "refs/tags/v1")
        mirror.fetch()
        same(mirror, repo)
        assert mirror.check().sound


def test_an_event_that_lies_moves_nothing_the_origin_does_not_show(origin: Origin, tmp_path: Path) -> None:
    repo = origin.repo
    first = repo.commit()
    with Mirror.open(tmp_path / "mirror.git", origin.url, origin.settings) as mirror:
        mirror.fetch()
        hidden = repo.commit(branch=None, parents=(first,))
        repo.git("update-ref", "refs/secret/x", hidden)
        lie = RefChange(MAIN, ObjectId(first), ObjectId(hidden))
        result = mirror.fetch(lie)
        assert result.changes == ()
        assert result.confirmed is False
        same(mirror, repo)
        nonsense = mirror.fetch(RefChange(MAIN, ObjectId(first), ObjectId("f" * 40)))
        assert nonsense.changes == ()
        assert nonsense.confirmed is False
        same(mirror, repo)
        second, third = repo.commit(), repo.commit()
        late = mirror.fetch(RefChange(MAIN, ObjectId(first), ObjectId(second)))
        assert [change.new for change in late.changes] == [third]
        assert late.confirmed is False
        same(mirror, repo)


def test_an_event_cannot_move_a_ref_to_something_else_that_is_held(origin: Origin, tmp_path: Path) -> None:
    """The object is here already, so no fetch would fail: only the origin's own list stands in the way."""
    repo = origin.repo
    first, second = repo.commit(), repo.commit()
    with Mirror.open(tmp_path / "mirror.git", origin.url, origin.settings) as mirror:
        mirror.fetch()
        for ref in (MAIN, RefName("refs/tags/made-up")):
            result = mirror.fetch(RefChange(ref, ObjectId(second), ObjectId(first)))
            assert result.changes == ()
            assert result.confirmed is False
        deletion = mirror.fetch(RefChange(MAIN, ObjectId(second), ObjectId("0" * 40)))
        assert deletion.changes == ()
        assert mirror.refs == {MAIN: second}


def test_a_repository_that_is_not_there_is_one_clear_line(origin: Origin, tmp_path: Path) -> None:
    url = origin.url.replace("site.git", "other.git")
    with Mirror.open(tmp_path / "mirror.git", url, origin.settings) as mirror:
        with pytest.raises(OriginError) as caught:
            mirror.fetch()
        assert "\n" not in str(caught.value)
        assert mirror.refs == {}


class TestHttps:
    """What only HTTP can get wrong."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        GitRepo.make(tmp_path / "served" / "site.git").commit()
        with http_backend(tmp_path / "served") as server:
            yield server

    def test_a_wrong_password_is_refused_and_never_shown(self, server: Server, tmp_path: Path) -> None:
        wrong = tmp_path / "credentials"
        wrong.write_text(f"https://mirror:canary-5f1@localhost:{server.port}\n")
        wrong.chmod(0o600)
        settings = MirrorSettings(ca_file=server.ca_file, credentials_file=wrong)
        with pytest.raises(OriginError, match="HTTP 401") as caught:
            Mirror.open(tmp_path / "m.git", server.url("site.git"), settings).fetch()
        assert "canary-5f1" not in repr(caught.value)

    def test_a_credentials_file_that_others_can_read_is_refused(self, server: Server, tmp_path: Path) -> None:
        assert server.credentials is not None
        server.credentials.chmod(0o644)
        with pytest.raises(SettingsError, match="mode 0644"):
            Mirror.open(tmp_path / "m.git", server.url("site.git"), https_settings(server)).fetch()

    def test_a_credential_helper_is_asked(self, server: Server, tmp_path: Path) -> None:
        assert server.credentials is not None
        helper = ("git", "credential-store", f"--file={server.credentials}")
        settings = MirrorSettings(ca_file=server.ca_file, credential_helper=helper)
        mirror = Mirror.open(tmp_path / "m.git", server.url("site.git"), settings)
        assert mirror.fetch().changes

    def test_a_certificate_nobody_vouches_for_is_refused(self, server: Server, tmp_path: Path) -> None:
        settings = MirrorSettings(credentials_file=server.credentials)
        with pytest.raises(OriginError, match="no trusted certificate"):
            Mirror.open(tmp_path / "m.git", server.url("site.git"), settings).fetch()

    def test_a_redirect_is_followed_with_the_question_only(self, server: Server, tmp_path: Path) -> None:
        mirror = Mirror.open(tmp_path / "m.git", server.url("old/site.git"), https_settings(server))
        assert mirror.fetch().changes
        assert mirror.fetch().changes == ()

    def test_a_redirect_to_clear_text_is_refused(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(OriginError, match="redirects to an address that is not allowed"):
            Mirror.open(tmp_path / "m.git", server.url("evil/site.git"), https_settings(server)).fetch()

    def test_a_web_server_that_is_no_git_server_is_told_from_one(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(OriginError, match=r"HTTP 404|not a smart git server"):
            Mirror.open(tmp_path / "m.git", server.url("nothing/here"), https_settings(server)).fetch()


class TestSsh:
    """What only ssh can get wrong."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        GitRepo.make(tmp_path / "served" / "site.git").commit()
        with ssh_server(tmp_path / "served") as server:
            yield server

    def test_an_unknown_host_key_is_refused(self, server: Server, tmp_path: Path) -> None:
        empty = tmp_path / "known_hosts"
        empty.touch()
        settings = MirrorSettings(ssh_key=server.key, ssh_known_hosts=empty)
        with pytest.raises(OriginError, match="Host key verification failed"):
            Mirror.open(tmp_path / "m.git", server.url("site.git"), settings).fetch()

    def test_a_key_that_is_not_let_in_is_one_clear_line(self, server: Server, tmp_path: Path) -> None:
        assert server.key is not None
        settings = attrs.evolve(ssh_settings(server), ssh_key=server.key.with_name("host"))
        with pytest.raises(OriginError, match="Permission denied"):
            Mirror.open(tmp_path / "m.git", server.url("site.git"), settings).fetch()

    def test_a_path_with_quotes_reaches_no_shell(self, server: Server, tmp_path: Path) -> None:
        GitRepo.make(tmp_path / "served" / "it's $(touch pwned).git").commit()
        url = server.url("it's%20$(touch%20pwned).git")
        mirror = Mirror.open(tmp_path / "m.git", url, ssh_settings(server))
        assert mirror.fetch().changes
        assert not list(tmp_path.rglob("pwned"))
