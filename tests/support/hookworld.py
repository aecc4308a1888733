"""Where hook tests play: a machine in small, as unfriendly as a real one.

    world.git("init", ...)                       git as the pusher, with an empty environment
    origin = world.origin("shop.git")            a bare repository of the pusher's, the hook installed
    world.events(), world.lines(done)            what is in the spool; what the pusher was told

deploykit is in a virtual environment that is on nobody's PATH. The pusher is an ordinary user, a member of the spool's
group; the spool belongs to another one. Without root all of them are whoever runs the tests.
"""

from __future__ import annotations

import compileall
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

import deploykit
from deploykit.hooking import scripts
from deploykit.messages import Message, Notice
from deploykit.outbox import Outbox, Record
from deploykit.wire import decode
from tests.support.needs import missing, needs

#: Numbers are enough for the kernel; nobody has these.
PUSHER, OWNER, GROUP = 64111, 64112, 64210
_PUSHED = "-c user.name=Ada -c user.email=ada@example.org -c init.defaultBranch=main -c protocol.file.allow=always"


def make_venv(where: Path) -> Path:
    """Make a virtual environment with deploykit and what it needs, readable by all; return its interpreter."""
    subprocess.run([_base_python(), "-m", "venv", "--without-pip", str(where)], check=True)
    (library,) = where.glob("lib/python3*/site-packages")
    for name in _closure("deploykit"):
        for file in metadata.files(name) or () if name != "deploykit" else ():
            if ".." not in file.parts:
                target = library / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(file.locate()), target)  # with its time: what is compiled already stays so
    ignore = shutil.ignore_patterns("__pycache__", ".mypy_cache")
    shutil.copytree(Path(deploykit.__file__).parent, library / "deploykit", ignore=ignore)
    if not (library / "deploykit" / "_hooks").is_dir():
        shutil.copytree(scripts.hooks_dir(), library / "deploykit" / "_hooks", ignore=ignore)
    compileall.compile_dir(library, quiet=2, workers=1)
    for path in (where, *where.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
    return where / "bin" / "python"


def _base_python() -> Path:
    """An interpreter of this version that other users may run: this one, or Debian's."""
    name = f"python3.{sys.version_info.minor}"
    for path in (Path(os.path.realpath(sys.executable)), *(Path(d, name) for d in ("/usr/bin", "/usr/local/bin"))):
        if path.exists() and (os.geteuid() != 0 or all(p.stat().st_mode & stat.S_IXOTH for p in (path, *path.parents))):
            return path
    missing(f"a {name} that other users may run")
    raise AssertionError("unreachable")


def _closure(name: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """The distributions that one needs, itself among them."""
    found = {name}
    for line in metadata.requires(name) or ():
        need = re.split(r"[ ;<>=!~\[(]", line, maxsplit=1)[0]
        if "extra ==" in line or need in seen:
            continue
        try:
            found |= _closure(need, seen | found)
        except metadata.PackageNotFoundError:
            continue  # for another platform
    return found


#: What `deploykit hooks install` of an interpreter wrote.
_INSTALLED: dict[Path, str] = {}


@attrs.frozen(kw_only=True)
class World:
    """See above. `root` is a directory that all may enter, `python` the interpreter off PATH, `uid` the pusher."""

    root: Path
    python: Path
    spool: Path
    uid: int = PUSHER

    @property
    def is_root(self) -> bool:
        """Whether the users are different ones."""
        return os.geteuid() == 0

    def run(
        self,
        *argv: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        data: bytes = b"",
        uid: int | None = None,
        groups: Sequence[int] = (GROUP,),
        timeout: float = 120,
        preexec: Any = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as the pusher, with exactly this environment: nothing, if nothing is given."""
        uid = self.uid if uid is None else uid
        who: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": list(groups)} if self.is_root else {}
        done = subprocess.run(
            [str(word) for word in argv],
            env=dict(env or {}),
            cwd=cwd or self.root,
            input=data,
            capture_output=True,
            timeout=timeout,
            check=False,
            preexec_fn=preexec,
            **who,
        )
        out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def git(
        self,
        *words: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        data: bytes = b"",
        check: bool = True,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run git as the pusher, with an empty environment but for `env`."""
        program = needs("git", package="git")
        done = self.run(program, *_PUSHED.split(), *words, cwd=cwd, env=env, data=data, timeout=timeout)
        assert not check or done.returncode == 0, done.stderr
        return done

    def deploykit(self, *words: str | Path, uid: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line of the environment off PATH."""
        path = os.environ["PATH"]
        return self.run(
            self.python, "-I", "-m", "deploykit", *words, env={"PATH": path, "HOME": str(self.root)}, uid=uid
        )

    # -- places --------------------------------------------------------------------------------------------------------

    def directory(self, name: str) -> Path:
        """Make a directory of the pusher's."""
        path = self.root / name
        path.mkdir()
        if self.is_root:
            os.chown(path, self.uid, self.uid)
        return path

    def write(self, path: Path, text: str, mode: int = 0o644) -> Path:
        """Write a file of the pusher's."""
        path.write_text(text)
        path.chmod(mode)
        if self.is_root:
            os.chown(path, self.uid, self.uid)
        return path

    def origin(self, name: str = "shop.git", settings: str | None = None, *, install: bool = True) -> Path:
        """Make a bare repository of the pusher's, with the hook; `settings` are added to the spool's."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.directory(name)
        self.git("init", "--quiet", "--bare", path)
        self.git("config", "receive.denyDeleteCurrent", "ignore", cwd=path)
        self.settle(path, settings)
        if install:
            self._install(path)
        return path

    def _install(self, origin: Path) -> None:
        """Install the hook into a new repository: by the command once, after that by what the command wrote.

        The script is the same in each new repository; `test_installation.py` and `test_check.py` try the command.
        """
        script = origin / "hooks" / "post-receive"
        if self.python in _INSTALLED:
            self.write(script, _INSTALLED[self.python], 0o755)
            return
        done = self.deploykit("hooks", "install", origin)
        assert done.returncode == 0, done.stderr
        _INSTALLED[self.python] = script.read_text()

    def settle(self, directory: Path, settings: str | None = None) -> None:
        """Write a repository's settings: the spool, no relay, time enough on a busy machine, and what is given."""
        text = f'spool = "{self.spool}"\n' + ("" if settings and "relay" in settings else 'relay = ""\n')
        text += "" if settings and "timeout" in settings else "timeout = 100\n"
        self.write(directory / "deploykit.toml", text + (settings or ""))

    def clone(self, origin: Path, name: str = "work") -> Path:
        """Clone an origin for the pusher, on branch main."""
        self.directory(name)
        self.git("clone", "--quiet", origin, self.root / name)
        self.git("checkout", "--quiet", "-B", "main", cwd=self.root / name)
        return self.root / name

    def commit(self, work: Path, message: str = "change", *more: str) -> str:
        """Commit nothing in particular, and return the id."""
        self.git("commit", "--quiet", "--allow-empty", "-m", message, *more, cwd=work)
        return self.git("rev-parse", "HEAD", cwd=work).stdout.strip()

    # -- what came of it -----------------------------------------------------------------------------------------------

    def records(self, spool: Path | None = None) -> list[Record]:
        """Everything in the spool, in order."""
        return list(Outbox(spool or self.spool, create=False).pending(everyone=True))

    def messages(self, spool: Path | None = None) -> list[Message]:
        """Every message in the spool, in order, the lines for people too."""
        found = (decode(r.frame.headers, r.frame.body, r.destination) for r in self.records(spool))
        return [message for message in found if message is not None]

    def events(self, spool: Path | None = None) -> list[Any]:
        """Every event in the spool, in order."""
        return [message for message in self.messages(spool) if not isinstance(message, Notice)]

    def empty_spool(self) -> None:
        """Forget what is in the spool."""
        for path in self.spool.glob("*.rec"):
            path.unlink()


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What our hook said to the pusher."""
    said = (line.removeprefix("remote: ").rstrip() for line in done.stderr.splitlines())
    return [line for line in said if line.startswith("deploykit:")]


def make_world(root: Path, python: Path) -> World:
    """Make a spool in `root`, owned by another user of the pusher's group."""
    spool = root / "spool"
    Outbox(spool)
    if os.geteuid() == 0:
        for path in (spool, *spool.iterdir()):
            os.chown(path, OWNER, GROUP, follow_symlinks=False)
            path.chmod(0o3770)
    return World(root=root, python=python, spool=spool)


def temporary_root() -> Iterator[Path]:
    """A directory that every user may enter: pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="deploykit-hooks-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def told_by(done: subprocess.CompletedProcess[str]) -> Any:
    """The JSON lines a command printed."""
    return [json.loads(line) for line in done.stdout.splitlines()]
