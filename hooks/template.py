"""The body of all hook scripts: works with any Python 3.6 or later until deploykit is found, and imports little.

`python -m deploykit.hooking.scripts --write hooks` makes the four scripts of it, each with its own head in place of
this text and its own KIND. Edit this file and the table there, never the scripts; a test compares them.
"""

import os
import sys

KIND = "git"
#: The directories of deploykit and its dependencies; `deploykit hooks install` fills them in, so nothing is searched.
LIBRARY: "list[str]" = []
#: Interpreters that may have deploykit, tried after those that the settings name (`python = "..."`).
USUAL = (
    "/opt/deploykit/bin/python",
    "/opt/pipx/venvs/deploykit/bin/python",
    "~/.local/share/pipx/venvs/deploykit/bin/python",
    "~/.local/share/uv/tools/deploykit/bin/python",
)


def main() -> int:
    """Queue the event and run the hooks beside this one; return the exit code: 0, but where `strict` is set."""
    data = sys.stdin.buffer.read() if KIND == "git" and sys.stdin else b""
    others = other_hooks()
    run_hooks([path for path in others if os.path.basename(path) < "50"], data)
    code = queue(data)
    run_hooks([path for path in others if os.path.basename(path) >= "50"], data)
    return code


def queue(data: bytes) -> int:
    """Queue the event with the library of this interpreter, or of another one; return the exit code."""
    sys.path.extend(LIBRARY)
    try:
        try:
            from deploykit.hooking import run
        except ImportError:
            import site

            site.main()  # the installer leaves it out, for speed
            from deploykit.hooking import run
    except Exception as error:
        return run_elsewhere(data, error)
    return run(KIND, sys.argv[1:], data)


def run_elsewhere(data: bytes, error: Exception) -> int:
    """Run the hook in another interpreter, those of the settings first; print one line if none has deploykit."""
    import subprocess

    code = "import sys\ntry: from deploykit.hooking import run\nexcept Exception: sys.exit(111)\n"
    code += "sys.exit(run(sys.argv[1], sys.argv[2:], sys.stdin.buffer.read()))"
    named = configured_interpreters()
    for python in [*named, *map(os.path.expanduser, USUAL)]:
        if os.access(python, os.X_OK):
            try:
                done = subprocess.run([python, "-I", "-c", code, KIND, *sys.argv[1:]], input=data, check=False)
            except OSError:
                continue
            if done.returncode != 111:
                return done.returncode
    where = " and ".join([sys.executable or "python3", *named])
    remedy = 'run `deploykit hooks install` again, or name one that has it in deploykit.toml: python = "PATH"'
    print_line(f"nothing queued: no deploykit in {where} ({error}); {remedy}")
    return 0


def configured_interpreters() -> "list[str]":
    """Return the interpreters that settings name: git's, those of the files the arguments name, the system's."""
    import re
    import subprocess

    found = []
    if KIND == "git":
        try:
            done = subprocess.run(["git", "config", "deploykit.python"], stdout=subprocess.PIPE, check=False)
            found.append(os.fsdecode(done.stdout).strip())
        except OSError:
            pass
    # The working directory is read for git alone: that of a build is full of other people's files.
    words = [word.rpartition("=")[2] for word in sys.argv[1:]]
    places = ["."] if KIND == "git" else [word for word in words if word.startswith("/")]
    for place in [*places, "/etc/deploykit/hooks.toml"]:
        path = place if place.endswith(".toml") else os.path.join(place, "deploykit.toml")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                text = os.fsdecode(os.read(fd, 1 << 20))
            finally:
                os.close(fd)
        except OSError:
            continue
        found += re.findall(r"""^\s*python\s*=\s*["'](.+?)["']""", text, re.MULTILINE)
    return list(dict.fromkeys(path for path in found if path.startswith("/")))


def other_hooks() -> "list[str]":
    """Return the hooks beside this one, and beside the file that this is a link to, in the order of their names."""
    found = {}
    for place in (os.path.realpath(sys.argv[0]) + ".d", sys.argv[0] + ".d"):
        try:
            names = os.listdir(place)
        except OSError:
            continue  # usually there is none
        for name in names:
            path = os.path.join(place, name)
            if name[0] != "." and os.path.isfile(path) and os.access(path, os.X_OK):
                found[name] = os.path.abspath(path)
    return [found[name] for name in sorted(found)]


def run_hooks(paths: "list[str]", data: bytes) -> None:
    """Run other hooks one after the other, each with our arguments and our input."""
    for path in paths:
        import errno
        import subprocess  # costs time, and most repositories have no other hook

        try:
            try:
                code = subprocess.run([path, *sys.argv[1:]], input=data, check=False).returncode
            except OSError as error:
                if error.errno != errno.ENOEXEC:
                    raise
                # No first line that names an interpreter: sh runs it, as git does.
                code = subprocess.run(["/bin/sh", path, *sys.argv[1:]], input=data, check=False).returncode
        except OSError as error:
            print_line(f"{path} did not run: {error.strerror}")
            continue
        if code != 0:
            print_line(f"{path} ended with {code}")


def print_line(text: str) -> None:
    """Print one line to standard error, for whoever pushes; a closed one is ignored."""
    line = "deploykit: " + "".join(c if c.isprintable() else "?" for c in text) + "\n"
    try:
        os.write(2, line.encode("utf-8", "replace"))
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
