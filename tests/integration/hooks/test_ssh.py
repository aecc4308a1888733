"""Pushes over real ssh: a private sshd on loopback with a user of its own, and gitolite behind it.

The user is real to sshd alone: its line of /etc/passwd is in a mount namespace, and gone with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.brokers.process import PortLease
from tests.support.hookworld import GROUP, PUSHER, World, lines
from tests.support.needs import missing, needs
from tests.support.wait import wait_until

#: Who sits at the other machine. ssh wants its user to have a name, and every system has this one.
CLIENT = 65534
_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {home}/host
AuthorizedKeysFile {home}/authorized_keys {user_home}/.ssh/authorized_keys
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
"""


@attrs.frozen
class Ssh:
    """A running sshd whose only user is `git`, the pusher."""

    port: int
    home: Path
    user_home: Path
    pid: int

    def command(self, key: str = "shell") -> str:
        """The ssh command line that logs in with a key."""
        options = f"-F none -i {self.home}/{key} -o IdentitiesOnly=yes -o UserKnownHostsFile={self.home}/known_hosts"
        return f"ssh {options} -o BatchMode=yes"

    def url(self, path: str) -> str:
        """The address of a repository."""
        return f"ssh://git@127.0.0.1:{self.port}/{path.lstrip('/')}"


@pytest.fixture
def ssh(world: World) -> Iterator[Ssh]:
    """sshd in a mount namespace of its own."""
    sshd, keygen = needs("sshd", package="openssh-server"), needs("ssh-keygen", package="openssh-client")
    unshare = needs("unshare", package="util-linux")
    if not world.is_root:
        missing("root (for a mount namespace)")
    home, user_home = world.directory("sshd"), world.directory("home")
    home.chmod(0o755)
    lease = PortLease()
    for name in ("host", "shell", "ada"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(home / name)], check=True)
    for name in ("shell", "ada"):
        os.chown(home / name, CLIENT, CLIENT)
    (home / "authorized_keys").write_text((home / "shell.pub").read_text())
    key = (home / "host.pub").read_text().split()
    (home / "known_hosts").write_text(f"[127.0.0.1]:{lease.port} {key[0]} {key[1]}\n")
    (home / "config").write_text(_CONFIG.format(port=lease.port, home=home, user_home=user_home))
    passwd = f"git:x:{PUSHER}:{PUSHER}:The user of the repositories:{user_home}:/bin/sh\n"
    (home / "passwd").write_text(Path("/etc/passwd").read_text() + passwd)
    (home / "group").write_text(Path("/etc/group").read_text() + f"git:x:{PUSHER}:\nspool:x:{GROUP}:git\n")
    script = f"mount --bind {home}/passwd /etc/passwd && mount --bind {home}/group /etc/group && mkdir -p /run/sshd"
    script += f" && exec {sshd} -D -e -f {home}/config"
    with (home / "log").open("wb") as log:
        server = subprocess.Popen([unshare, "--mount", "sh", "-c", script], stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(lease.port) or server.poll() is not None, "sshd", 60)
        if server.poll() is not None:
            missing(f"the right to make a mount namespace ({(home / 'log').read_text().strip()})")
        yield Ssh(lease.port, home, user_home, server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        lease.release()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_a_push_over_ssh_is_told_with_the_user_that_sshd_let_in(world: World, ssh: Ssh) -> None:
    origin = world.origin()
    client = attrs.evolve(world, uid=CLIENT)
    work = client.directory("work")
    env = {"GIT_SSH_COMMAND": ssh.command(), "PATH": "/usr/bin:/bin"}
    client.git("clone", "--quiet", ssh.url(str(origin)), work, env=env)
    client.git("checkout", "--quiet", "-B", "main", cwd=work)
    commit = client.commit(work, "Grüße über ssh")
    client.git("tag", "-a", "-m", "x", "v1", cwd=work)
    done = client.git("push", "origin", "main", "v1", cwd=work, env=env)
    assert "2 events queued" in lines(done)[0]
    events = world.events()
    assert [(e.ref, e.pusher) for e in events] == [("refs/heads/main", "git"), ("refs/tags/v1", "git")]
    assert events[0].commits[0].id == commit
    (record,) = world.spool.glob("*.rec")
    assert (record.stat().st_uid, record.stat().st_gid) == (PUSHER, GROUP)


def test_the_pushers_ssh_closes_at_once_while_a_relay_goes_on(world: World, ssh: Ssh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections and never answers: the relay stays
        broker = f'[broker]\naddress = "stomp://127.0.0.1:{mute.getsockname()[1]}"\n'
        settings = world.write(world.root / "relay.toml", broker, 0o600)
        origin = world.origin(settings=f'relay = "{settings}"\n')
        client = attrs.evolve(world, uid=CLIENT)
        work = client.directory("work")
        env = {"GIT_SSH_COMMAND": ssh.command(), "PATH": "/usr/bin:/bin"}
        client.git("clone", "--quiet", ssh.url(str(origin)), work, env=env)
        client.git("checkout", "--quiet", "-B", "main", cwd=work)
        client.commit(work)
        done = client.git("push", "origin", "main", cwd=work, env=env)
        # A process shows no command line for an instant while it begins another program, so one look may miss it.
        relays = wait_until(lambda: _with_words(PUSHER, os.fsencode(settings)), "the relay, which outlives the push")
        try:
            assert lines(done) == ["deploykit: 1 event queued"]
            assert len(relays) == 1
        finally:
            for pid in relays:
                os.kill(pid, signal.SIGKILL)


def _with_words(uid: int, word: bytes) -> list[int]:
    """The processes of a user that have a word on their command line: other tests' relays are of the same user."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == uid and word in (path / "cmdline").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found


def test_gitolite_runs_it_as_a_common_hook_and_names_repository_and_pusher(world: World, ssh: Ssh) -> None:
    gitolite = needs("gitolite", package="gitolite3")
    env = {"PATH": "/usr/bin:/bin", "GIT_SSH_COMMAND": ssh.command("ada")}

    def as_git(command: str) -> str:
        words = (*ssh.command().split(), "-p", str(ssh.port), "git@127.0.0.1", command)
        done = world.run(needs("ssh", package="openssh-client"), *words[1:], env={"PATH": "/usr/bin:/bin"}, uid=CLIENT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    as_git(f"{gitolite} setup -pk {ssh.home}/ada.pub")
    common = ssh.user_home / ".gitolite" / "hooks" / "common"
    before = sorted(p.name for p in common.iterdir())
    done = world.deploykit("hooks", "install", ssh.user_home)
    assert done.returncode == 0, done.stderr
    assert "gitolite setup --hooks-only" in done.stdout
    as_git(f"{gitolite} setup --hooks-only")
    repository = ssh.user_home / "repositories" / "testing.git"
    assert (repository / "hooks" / "post-receive").is_symlink()
    world.settle(repository)

    client = attrs.evolve(world, uid=CLIENT)
    work = client.directory("work")
    client.git("clone", "--quiet", f"ssh://git@127.0.0.1:{ssh.port}/testing", work, env=env)
    client.git("checkout", "--quiet", "-B", "main", cwd=work)
    client.commit(work)
    pushed = client.git("push", "origin", "main", cwd=work, env=env)
    assert "1 event queued" in lines(pushed)[0]
    (event,) = world.events()
    assert (event.repo, event.pusher, event.ref) == ("testing", "ada", "refs/heads/main")

    # A mail hook beside the common one runs first, for every repository.
    place = world.directory(str((common / "post-receive.d").relative_to(world.root)))
    world.write(place / "10-mail", f"#!/bin/sh\ncat > {world.root}/home/mailed\n", 0o755)
    client.commit(work)
    client.git("push", "origin", "main", cwd=work, env=env)
    assert "refs/heads/main" in (ssh.user_home / "mailed").read_text()
    assert len(world.events()) == 2

    (place / "10-mail").unlink()
    assert world.deploykit("hooks", "uninstall", ssh.user_home).returncode == 0
    assert sorted(p.name for p in common.iterdir()) == before
