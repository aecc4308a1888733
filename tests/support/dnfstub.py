"""Stand-ins for dnf and rpm: they keep what was asked, and do what the manual of dnf 4 says, exit codes too."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_DNF = """\
#!{python} -I
import json, pathlib, sys, time
state, words = pathlib.Path({state!r}), sys.argv[1:]
with (state / "calls").open("a") as calls:
    calls.write(json.dumps(["dnf", *words]) + "\\n")
options = dict(word[9:].split("=", 1) for word in words if word.startswith("--setopt="))
def fail(code, text):
    print(text, file=sys.stderr)
    sys.exit(code)
if (state / "lock").exists():
    if options.get("exit_on_lock") != "1":
        time.sleep(600)  # a tool that hangs
    fail(200, "Metadata already locked by 4711\\nError: Failed to obtain the lock")
repos = sorted(path.name for path in (state / "repos").iterdir())
enabled = set(repos)
for word in words:
    key, _, name = word.partition("=")
    if key == "--disablerepo":
        enabled -= set(repos) if name == "*" else {{name}}
    elif key == "--enablerepo":
        if name not in repos:
            fail(1, f"Error: Unknown repo: '{{name}}'")
        enabled.add(name)
if "makecache" in words:
    for name in sorted(enabled):
        repo = state / "repos" / name
        if (repo / "slow").exists():
            (state / "asleep").touch()
            time.sleep(600)  # a tool that hangs
        if (repo / "gone").exists():
            text = f"Failed to download metadata for repo '{{name}}': http://user:secret@{{name}}.example/ timed out"
            if options.get(f"{{name}}.skip_if_unavailable") == "0":
                fail(1, f"Errors during downloading metadata for repository '{{name}}':\\n  - Curl error (28)\\n"
                     f"Error: {{text}}")
            print(f"{{text}}\\nIgnoring repositories: {{name}}", file=sys.stderr)
        elif "--refresh" in words or not (state / "cache" / name).exists():
            (state / "cache" / name).write_text((repo / "packages").read_text())
elif "repoquery" in words:
    assert "--cacheonly" in words
    newest = {{}}
    for cache in sorted((state / "cache").iterdir()):
        for line in cache.read_text().splitlines():
            epoch, name, version, arch = line.split("|")
            if name in words:
                newest[name, arch] = line
    for line in newest.values():
        print(line + "\\n")
"""
_RPM = """\
#!{python} -I
import json, pathlib, sys
state, words = pathlib.Path({state!r}), sys.argv[1:]
with (state / "calls").open("a") as calls:
    calls.write(json.dumps(["rpm", *words]) + "\\n")
if words[0] == "--eval":
    print("x86_64")
    sys.exit(0)
lines = (state / "installed").read_text().splitlines()
absent = 0
for name in words[words.index("--") + 1:]:
    found = [line for line in lines if line.split("|")[1] == name]
    absent += not found
    print("\\n".join(found) or f"package {{name}} is not installed")
sys.exit(absent)
"""


class DnfStub:
    """A machine with dnf and rpm that are not real, in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._state = root / "state"
        for name in ("repos", "cache"):
            (self._state / name).mkdir(parents=True)
        (self._state / "installed").write_text("")
        (root / "bin").mkdir()
        for name, text in (("dnf", _DNF), ("rpm", _RPM)):
            self.replace(name, text.format(python=sys.executable, state=str(self._state)))

    @property
    def environment(self) -> Mapping[str, str]:
        """What a `DnfManager` of this machine is made with."""
        return {"PATH": str(self.root / "bin")}

    def replace(self, program: str, text: str) -> None:
        """Put another program in the place of one."""
        file = self.root / "bin" / program
        file.write_text(text)
        file.chmod(0o755)

    def calls(self) -> list[list[str]]:
        """Return all argument lists so far."""
        return [json.loads(line) for line in (self._state / "calls").read_text().splitlines()]

    def publish(self, repo: str, name: str, version: str, arch: str = "noarch") -> None:
        """Add a package to a repository; nothing is known of it here before that is read."""
        directory = self._state / "repos" / repo
        directory.mkdir(exist_ok=True)
        with (directory / "packages").open("a") as file:
            file.write(self._line(name, version, arch))

    def install(self, name: str, version: str, arch: str = "noarch") -> None:
        """Add a package to what is installed."""
        with (self._state / "installed").open("a") as file:
            file.write(self._line(name, version, arch))

    def mark(self, repo: str, fault: str) -> Path:
        """Make a repository `gone` or `slow`; return the file that is to be removed for its recovery."""
        file = self._state / "repos" / repo / fault
        file.touch()
        return file

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold dnf's lock."""
        lock = self._state / "lock"
        lock.touch()
        yield
        lock.unlink()

    @staticmethod
    def _line(name: str, version: str, arch: str) -> str:
        epoch, _, rest = version.rpartition(":")
        return f"{epoch or 0}|{name}|{rest}|{arch}\n"
