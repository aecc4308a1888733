"""Real git origins for tests: repositories made with git, and real servers in front of them.

    repo = GitRepo.make(tmp_path / "origin")      a repository to commit in
    with git_daemon(tmp_path) as server: ...      git://; also http_backend (nginx, TLS, a login) and ssh_server (a key)
    server.url("origin")                          its address there

Servers listen on a leased loopback port, carry the run's mark, and are ended by their pid. Whatever is missing on the
machine is named, as `tests.support.needs` does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import attrs

from tests.brokers.certs import Authority
from tests.brokers.process import PortLease, current_run
from tests.brokers.reaper import MARK_VARIABLE
from tests.support.needs import needs, needs_file
from tests.support.ports import listens

_ENV = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "A Person",
    "GIT_AUTHOR_EMAIL": "person@example.net",
    "GIT_COMMITTER_NAME": "A Person",
    "GIT_COMMITTER_EMAIL": "person@example.net",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C.UTF-8",
}


def git_env(**more: str) -> dict[str, str]:
    """The environment for git in tests: no settings of this machine, a fixed person."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **_ENV, **more}


def run_git(
    path: Path, *args: str, data: bytes | None = None, check: bool = True, env: Mapping[str, str] | None = None
) -> str:
    """Run git in `path` and return what it printed, without the line end."""
    done = subprocess.run(
        ["git", "-C", str(path), *args], input=data, capture_output=True, env=git_env(**(env or {})), timeout=120
    )
    if check and done.returncode:
        raise AssertionError(f"git {' '.join(args)} failed: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")


@attrs.define
class GitRepo:
    """A bare repository made with git; commits come from plumbing, so no work tree is in the way."""

    path: Path
    clock: int = 1_700_000_000

    @classmethod
    def make(cls, path: Path, *, object_format: str = "sha1", branch: str = "main") -> GitRepo:
        """Make an empty one that every transport may serve."""
        needs("git", package="git")
        path.parent.mkdir(parents=True, exist_ok=True)
        run_git(path.parent, "init", "-q", "--bare", "-b", branch, f"--object-format={object_format}", str(path))
        (path / "git-daemon-export-ok").touch()
        return cls(path)

    def git(self, *args: str, data: bytes | None = None, check: bool = True) -> str:
        """Run git in it."""
        when = f"{self.clock} +0000"
        return run_git(
            self.path, *args, data=data, check=check, env={"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        )

    def blob(self, data: bytes) -> str:
        """Store a blob."""
        return self.git("hash-object", "-w", "--stdin", data=data)

    def tree(self, files: Mapping[str, bytes | str]) -> str:
        """Store a tree of files; a `str` value is a symbolic link's target."""
        index = self.path / "index.tmp"
        index.unlink(missing_ok=True)
        lines = b"".join(
            b"%b %b\t%b\0"
            % (
                b"120000" if isinstance(data, str) else b"100644",
                self.blob(data.encode() if isinstance(data, str) else data).encode(),
                name.encode(),
            )
            for name, data in files.items()
        )
        env = {"GIT_INDEX_FILE": str(index)}
        run_git(self.path, "update-index", "-z", "--add", "--index-info", data=lines, env=env)
        tree = run_git(self.path, "write-tree", env=env)
        index.unlink(missing_ok=True)
        return tree

    def commit(
        self,
        files: Mapping[str, bytes | str] | None = None,
        *,
        branch: str | None = "main",
        parents: tuple[str, ...] | None = None,
        message: str = "change",
        tree: str = "",
    ) -> str:
        """Commit a tree on top of `branch` (or of `parents`) and move the branch; return the commit's id."""
        self.clock += 60
        if parents is None:
            tip = self.tip(f"refs/heads/{branch}") if branch else ""
            parents = (tip,) if tip else ()
        tree = tree or self.tree(files if files is not None else {"file": str(self.clock).encode()})
        commit = self.git("commit-tree", tree, *(a for p in parents for a in ("-p", p)), "-m", message)
        if branch:
            self.git("update-ref", f"refs/heads/{branch}", commit)
        return commit

    def tip(self, ref: str) -> str:
        """The id a ref has, or nothing."""
        return self.git("rev-parse", "-q", "--verify", ref, check=False)

    def refs(self) -> dict[str, str]:
        """Heads and tags."""
        lines = self.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags").splitlines()
        return dict(line.split(" ") for line in lines)


@attrs.frozen
class Server:
    """A running server: `url(name)` is the address of a repository below its directory."""

    base: str
    port: int
    pid: int
    log: Path
    ca_file: Path | None = None
    key: Path | None = None
    known_hosts: Path | None = None
    credentials: Path | None = None

    def url(self, name: str) -> str:
        """The address of one repository."""
        return f"{self.base}/{name}"


@contextlib.contextmanager
def git_daemon(root: Path) -> Iterator[Server]:
    """`git daemon` for all repositories below `root`."""
    needs("git", package="git")
    with _directory("git-daemon") as home, _port() as port:
        argv = ["git", "daemon", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", f"--base-path={root}"]
        with _serving([*argv, "--export-all", str(root)], home, port) as process:
            yield Server(f"git://127.0.0.1:{port}", port, process.pid, home / "log")


@contextlib.contextmanager
def http_backend(
    root: Path, *, user: str = "mirror", password: str = "s3cret p%w@", tls: bool = True
) -> Iterator[Server]:
    """git http-backend behind nginx and fcgiwrap: TLS, and a password for everything."""
    nginx, wrap = needs("nginx", package="nginx"), needs("fcgiwrap", package="fcgiwrap")
    backend = Path(run_git(Path("/"), "--exec-path")) / "git-http-backend"
    needs_file(str(backend), package="git")
    with _directory("nginx") as home, _port() as port:
        authority = Authority(home / "ca")
        identity = authority.server("localhost", "127.0.0.1")
        (home / "users").write_text(f"{user}:{{PLAIN}}{password}\n")
        (home / "nginx.conf").write_text(_nginx_conf(home, port, root, backend, identity if tls else None))
        credentials = home / "credentials"
        quoted = quote(password, safe="")
        credentials.write_text(f"{'https' if tls else 'http'}://{user}:{quoted}@localhost:{port}\n")
        credentials.chmod(0o600)
        wrapped = [str(wrap), "-c", "4", "-s", f"unix:{home}/fcgi.sock"]
        argv = [str(nginx), "-c", str(home / "nginx.conf"), "-p", str(home), "-e", str(home / "error.log")]
        with _serving(wrapped, home, None), _serving(argv, home, port) as process:
            scheme = "https" if tls else "http"
            yield Server(
                f"{scheme}://localhost:{port}", port, process.pid, home / "log",
                ca_file=authority.ca_file, credentials=credentials,
            )  # fmt: skip


def _nginx_conf(home: Path, port: int, root: Path, backend: Path, identity: object) -> str:
    tls = ""
    if identity is not None:
        tls = f"ssl_certificate {identity.cert_file}; ssl_certificate_key {identity.key_file};"  # type: ignore[attr-defined]
    return f"""
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;
{"user root;" if os.geteuid() == 0 else ""}
events {{ worker_connections 64; }}
http {{
  access_log {home}/access.log; client_body_temp_path {home}/body; fastcgi_temp_path {home}/fastcgi;
  proxy_temp_path {home}/proxy; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi; client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port}{" ssl" if identity is not None else ""}; {tls}
    location /moved/ {{ return 301 $scheme://localhost:{port}/$uri$is_args$args; }}
    location /old/ {{ rewrite ^/old/(.*)$ /$1 redirect; }}
    location /evil/ {{ return 302 http://localhost:{port}$uri$is_args$args; }}
    location / {{
      auth_basic git; auth_basic_user_file {home}/users;
      fastcgi_pass unix:{home}/fcgi.sock; fastcgi_buffering off;
      fastcgi_param SCRIPT_FILENAME {backend}; fastcgi_param GIT_PROJECT_ROOT {root};
      fastcgi_param GIT_HTTP_EXPORT_ALL 1; fastcgi_param PATH_INFO $uri; fastcgi_param QUERY_STRING $query_string;
      fastcgi_param REQUEST_METHOD $request_method; fastcgi_param CONTENT_TYPE $content_type;
      fastcgi_param CONTENT_LENGTH $content_length; fastcgi_param GIT_PROTOCOL $http_git_protocol;
      fastcgi_param REMOTE_USER $remote_user; fastcgi_param REMOTE_ADDR $remote_addr;
    }}
  }}
}}
"""


@contextlib.contextmanager
def ssh_server(root: Path, *, accept_protocol: bool = True) -> Iterator[Server]:
    """sshd on loopback with a key of its own, for the user who runs the tests; repositories by absolute path."""
    sshd = needs("sshd", package="openssh-server")
    keygen = str(needs("ssh-keygen", package="openssh-client"))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own start script makes it on a real machine
    with _directory("sshd") as home, _port() as port:
        for name in ("host", "client"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)], check=True)
        shutil.copy(home / "client.pub", home / "authorized_keys")
        host_key = (home / "host.pub").read_text().split()
        (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n")
        accept = "AcceptEnv GIT_PROTOCOL" if accept_protocol else ""
        (home / "config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nAuthorizedKeysFile {home}/authorized_keys\n"
            f"PidFile {home}/pid\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
            f"PermitRootLogin prohibit-password\nStrictModes no\n{accept}\n"
        )
        argv = [str(sshd), "-D", "-e", "-f", str(home / "config")]
        with _serving(argv, home, port) as process:
            yield Server(
                f"ssh://127.0.0.1:{port}{root}", port, process.pid, home / "log",
                key=home / "client", known_hosts=home / "known_hosts",
            )  # fmt: skip


# -- processes -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _directory(name: str) -> Iterator[Path]:
    path = current_run().new_directory(name)
    try:
        yield path
    finally:
        current_run().remove_directory(path)


@contextlib.contextmanager
def _port() -> Iterator[int]:
    lease = PortLease()
    try:
        yield lease.port
    finally:
        lease.release()


@contextlib.contextmanager
def _serving(argv: list[str], home: Path, port: int | None) -> Iterator[subprocess.Popen[bytes]]:
    log = home / "log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=home,
            env={**git_env(), MARK_VARIABLE: current_run().mark},
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, port, home, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int | None, home: Path, log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        if any(map(listens, home.glob("*.sock") if port is None else [("127.0.0.1", port)])):
            return
        time.sleep(0.02)
    raise AssertionError(f"{process.args!r} did not come up: {log.read_text(errors='replace')[-2000:]}")
