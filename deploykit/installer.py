"""Put hook scripts into repositories, and take them out again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import deploykit
from deploykit.errors import InstallError, UsageError


def hooks_dir() -> Path:
    """Where the hook scripts are: beside the code in a wheel, at the top of the tree in an editable install.

    Raises:
        InstallError: this installation has none.
    """
    package = Path(deploykit.__file__).resolve().parent
    for candidate in (package / "_hooks", package.parent / "hooks"):
        if (candidate / "git" / "post-receive").is_file():
            return candidate
    raise InstallError(f"no hook scripts beside {package}", "install deploykit from its wheel")


def install_git(repository: Path) -> Path:
    """Write the post-receive hook into a git repository, with the interpreter that runs this, and return its path.

    Raises:
        UsageError: there is no git repository.
        InstallError: another hook is there already, or it cannot be written.
    """
    git_dir = repository / ".git" if (repository / ".git").is_dir() else repository
    if not (git_dir / "HEAD").is_file() or not (git_dir / "objects").is_dir():
        raise UsageError(f"not a git repository: {repository}", "give the bare repository that is pushed to")
    source = (hooks_dir() / "git" / "post-receive").read_text()
    text = f"#!{sys.executable}\n" + source.partition("\n")[2]
    target = git_dir / "hooks" / "post-receive"
    if target.exists() and "deploykit" not in target.read_text(errors="replace"):
        raise InstallError(f"{target} is somebody else's", "move it to post-receive.d/ and install with --chain")
    temporary = target.with_name(f".post-receive.{os.getpid()}")
    try:
        target.parent.mkdir(exist_ok=True)
        temporary.write_text(text)
        temporary.chmod(0o755)
        temporary.replace(target)
    except OSError as error:
        raise InstallError(f"cannot write {target}: {error.strerror}") from error
    return target
