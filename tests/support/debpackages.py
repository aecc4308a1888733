"""Small Debian packages, repositories of them by reprepro, and a root of apt and dpkg that is not this machine's."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploykit.settings.packages import PackageSourceSettings
from tests.support.needs import needs, needs_file
from tests.support.stubhttp import Fault, Reply, Seen, StubServer

_DISTRIBUTIONS = """\
Codename: stable
Components: main
Architectures: amd64 i386
Description: for tests
"""
_CONFIGURATION = """\
Dir "{root}/";
Dir::State::status "{root}/var/lib/dpkg/status";
Dir::Etc::parts "{root}/etc/apt/apt.conf.d/";
Dir::Etc::main "/dev/null";
Dir::Bin::methods "/usr/lib/apt/methods";
Dir::Bin::dpkg "/usr/bin/dpkg";
APT::Sandbox::User "";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; "i386"; }};
Acquire::Languages "none";
Acquire::Retries "0";
Acquire::http::Timeout "1";
"""


def build_package(where: Path, name: str, version: str, more: str = "", arch: str = "all") -> Path:
    """Build a small package with dpkg-deb."""
    program = needs("dpkg-deb", package="dpkg")
    tree = where / "tree"
    shutil.rmtree(where, ignore_errors=True)
    (tree / "DEBIAN").mkdir(parents=True)
    fields = f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\n"
    fields += "Maintainer: A <a@example.org>\nSection: misc\n"
    (tree / "DEBIAN" / "control").write_text(f"{fields}Priority: optional\nDescription: x{more}\n")
    target = where / f"{name}_{version.partition(':')[2] or version}_{arch}.deb"
    subprocess.run([program, "--root-owner-group", "-b", str(tree), str(target)], check=True, capture_output=True)
    return target


class DebianRepository:
    """A repository made by reprepro: distribution `stable`, component `main`.

    Args:
        base: its directory; made.
        sign_with: the fingerprint of a key in `keys`, a directory of gpg.
    """

    def __init__(self, base: Path, *, sign_with: str = "", keys: Path | None = None) -> None:
        needs("reprepro", package="reprepro")
        self.base = base
        self._environment = {"PATH": "/usr/bin:/bin", **({"GNUPGHOME": str(keys)} if keys else {})}
        (base / "conf").mkdir(parents=True)
        text = _DISTRIBUTIONS + (f"SignWith: {sign_with}\n" if sign_with else "")
        (base / "conf" / "distributions").write_text(text)

    def include(self, name: str, version: str, *, arch: str = "all") -> None:
        """Build a package and take it in."""
        deb = build_package(self.base / "build", name, version, arch=arch)
        self._reprepro("includedeb", "stable", str(deb))

    def export(self) -> None:
        """Write the indices, though nothing is new."""
        self._reprepro("export", "stable")

    def _reprepro(self, *words: str) -> None:
        command = ["reprepro", "--silent", "-b", str(self.base), *words]
        subprocess.run(command, check=True, capture_output=True, env=self._environment)


class AptRoot:
    """A root of apt and dpkg in a directory: lists, cache, status, sources and configuration."""

    def __init__(self, root: Path) -> None:
        needs("apt-get", package="apt")
        needs_file("/usr/lib/apt/methods/http", package="apt")
        self.root = root
        self.lists = root / "var/lib/apt/lists"
        self.status = root / "var/lib/dpkg/status"
        self.sources = root / "etc/apt/sources.list.d"
        for name in (
            *("etc/apt/sources.list.d", "etc/apt/preferences.d", "etc/apt/trusted.gpg.d", "etc/apt/apt.conf.d"),
            *("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg/info", "var/log/apt"),
        ):
            (root / name).mkdir(parents=True)
        self.status.write_text("")
        (root / "var/lib/dpkg/arch").write_text("amd64\ni386\n")
        (root / "apt.conf").write_text(_CONFIGURATION.format(root=root))

    @property
    def environment(self) -> Mapping[str, str]:
        """What an `AptManager` of this root is made with."""
        return {"APT_CONFIG": str(self.root / "apt.conf"), "DPKG_ADMINDIR": str(self.root / "var/lib/dpkg")}

    def configure(self, text: str) -> None:
        """Put a file into apt.conf.d, as an operator does."""
        (self.root / "etc/apt/apt.conf.d" / "50operator").write_text(text)

    def source(self, name: str, address: str, options: str = "trusted=yes") -> PackageSourceSettings:
        """Write a file of sources and return its settings."""
        file = self.sources / name
        if file.suffix == ".list":
            file.write_text(f"deb [{options}] {address} stable main\n" if options else f"deb {address} stable main\n")
        else:
            fields = f"Types: deb\nURIs: {address}\nSuites: stable\nComponents: main\n"
            file.write_text(fields + "".join(f"{key}: {value}\n" for key, _, value in [options.partition("=")] if key))
        return PackageSourceSettings(file=file)

    def install(self, name: str, version: str, *, status: str = "install ok installed", arch: str = "all") -> None:
        """Write an entry of dpkg's status, as if that were installed."""
        same = "" if arch == "all" else "Multi-Arch: same\n"
        entry = f"Package: {name}\nStatus: {status}\nVersion: {version}\nArchitecture: {arch}\n{same}"
        if "config-files" in status:
            entry += "Conffiles:\n /etc/nothing 00000000000000000000000000000000\n"
        with self.status.open("a") as file:
            file.write(f"{entry}Maintainer: A <a@example.org>\nDescription: x\n\n")

    def list_bytes(self) -> dict[str, bytes]:
        """Return the contents of all lists, by name."""
        return {file.name: file.read_bytes() for file in self.lists.iterdir() if file.is_file() and file.name != "lock"}

    def processes(self) -> list[int]:
        """Return the processes that were started for this root and run."""
        mark = f"APT_CONFIG={self.root / 'apt.conf'}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # it ended, or is another's
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold apt's lock of the lists in another process, as another apt does; its number is given."""
        code = (
            "import fcntl, sys\n"
            "file = open(sys.argv[1], 'w')\n"
            "fcntl.lockf(file, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n"
        )
        command = [sys.executable, "-c", code, str(self.lists / "lock")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder.pid
            assert holder.stdin is not None
            holder.stdin.close()


class RepositorySite:
    """A repository over http, and what goes wrong with it.

    Args:
        base: what is served.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.seen: list[Seen] = []
        self.sent_bytes = 0
        self.fault: Fault | None = None

    def reply(self, seen: Seen) -> Reply:
        """Return a file, or 404."""
        path = seen.path.partition("://")[2].partition("/")[2] if "://" in seen.path else seen.path.lstrip("/")
        file = self.base / path
        return Reply(status=200, body=file.read_bytes()) if file.is_file() else Reply(status=404)

    def take_fault(self, seen: Seen) -> Fault | None:
        """Return the fault for a path that holds its path, any number of times."""
        fault = self.fault
        return fault if fault is not None and fault.path in seen.path else None


@contextlib.contextmanager
def serving(site: RepositorySite) -> Iterator[str]:
    """Serve a repository on loopback; its address is given."""
    server = StubServer(0, site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.end()
        thread.join()


def make_key(keys: Path) -> str:
    """Make a key of gpg in a directory; return its fingerprint."""
    needs("gpg", package="gpg")
    keys.mkdir(mode=0o700)
    words = ["gpg", "--homedir", str(keys), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*words, "--quick-generate-key", "repo@example.org", "ed25519", "sign"], check=True)
    done = subprocess.run([*words, "--with-colons", "--list-keys"], check=True, capture_output=True, text=True)
    return next(line.split(":")[9] for line in done.stdout.splitlines() if line.startswith("fpr:"))


def export_key(keys: Path, file: Path) -> None:
    """Write the public keys of a directory of gpg as apt reads them (.gpg)."""
    done = subprocess.run(["gpg", "--homedir", str(keys), "--batch", "--export"], check=True, capture_output=True)
    file.write_bytes(done.stdout)


def stop_agent(keys: Path) -> None:
    """End the agent that gpg has started for a directory."""
    subprocess.run(["gpgconf", "--homedir", str(keys), "--kill", "gpg-agent"], check=True)
