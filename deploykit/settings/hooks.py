"""The settings of a hook: from small TOML files, from git's own configuration, or defaults. On the path of a push.

Rules:
* Places, the later one wins key by key: `/etc/deploykit/hooks.toml`, `deploykit.toml` in the repository (beside its
  `hooks` directory), git config `deploykit.*`.
* A hook works with none: it queues in the default spool, to the default topics.
* All problems are reported at once, each with its place and what was expected.
* It reads its files itself, and loads nothing that `config` needs for its own.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from deploykit.errors import DeploykitError, SettingsError
from deploykit.messages.topics import TopicMap, with_preset
from deploykit.names import RepoName, parse_repo_name

SYSTEM_FILE: Final = "/etc/deploykit/hooks.toml"
SYSTEM_SPOOL: Final = "/var/spool/deploykit"
RELAY_FILE: Final = "/etc/deploykit/deploykit.toml"
REPOSITORY_FILE: Final = "deploykit.toml"


@attrs.frozen(kw_only=True, slots=True)
class HookSettings:
    """How a hook behaves. Paths are absolute.

    Args:
        repo: the repository's name in messages; made from its place when None.
        root: the directory that repository names are relative to.
        refs: patterns of the refs that are announced; `*` also crosses `/`.
        spool: where messages wait for the relay. None: the system's where we may write, else one of the user's own.
        relay: settings file of the relay that is started when none is running; empty starts none.
        topics: where messages go.
        notices: also publish one line for people about each event, on the notice topic.
        legacy: write the original's text bodies, to the original's topics where `topics` names no preset.
        legacy_deletes: with `legacy`, also publish that refs were deleted, and not only a line for people: the
            original's Jenkins daemon builds a deleted branch then, as if it were new.
        strict: end with an error when not everything could be queued; git and svn accept the push nevertheless.
        timeout: seconds that git or svnlook may take.
        signing_key: private key that build results are signed with.
        python: used by a script that was copied by hand; known here only so that it is no unknown setting.
        trunk, branches, tags: SVN: the directories that mark a project.
        incoming, archive, reprepro: Debian: where packages come in, where they go, and the repository's base.
        files: the files this was read from.
        git_config: the settings that came from git's own configuration, as they are called here.
    """

    repo: RepoName | None = None
    root: str = ""
    refs: tuple[str, ...] = ("refs/heads/*", "refs/tags/*")
    spool: str | None = None
    relay: str = RELAY_FILE
    topics: TopicMap = attrs.field(factory=TopicMap)
    notices: bool = True
    legacy: bool = False
    legacy_deletes: bool = False
    strict: bool = False
    timeout: float = 10.0
    signing_key: str = ""
    python: str = ""
    trunk: tuple[str, ...] = ("trunk",)
    branches: tuple[str, ...] = ("branches",)
    tags: tuple[str, ...] = ("tags",)
    incoming: str = ""
    archive: str = ""
    reprepro: str = ""
    files: tuple[str, ...] = ()
    git_config: tuple[str, ...] = ()

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        found = [
            f"{name}: expected an absolute path, not {value!a}"
            for name in _PATHS
            if (value := getattr(self, name)) and not (value.startswith("/") and "\0" not in value)
        ]
        if not 0 < self.timeout < _HOUR:
            found.append(f"timeout: expected a number of seconds above 0 and below {_HOUR}, not {self.timeout:g}")
        return (*found, *(f"topics.{problem}" for problem in self.topics.problems()))


def load_hook_settings(
    directory: str, *, config: Iterable[tuple[str, str]] = (), system_file: str = SYSTEM_FILE
) -> HookSettings:
    """Read the settings for the hooks of one repository.

    Args:
        directory: where its `deploykit.toml` would be; empty for none.
        config: git config's `deploykit.*`, as (key without that prefix, value).
        system_file: read first.

    Raises:
        SettingsError: a file cannot be read, or is wrong; all problems are in `problems`.
    """
    values: dict[str, object] = {}
    problems: list[str] = []
    files = []
    tables: list[Mapping[str, object]] = []
    for path in (system_file, f"{directory}/{REPOSITORY_FILE}" if directory else ""):
        table = _read(path) if path else None
        if table is not None:
            files.append(path)
            tables.append(table)
            _merge(values, table, path, problems)
    of_git = _of_git(config)
    tables.append(of_git)
    _merge(values, of_git, "git config deploykit", problems)
    if problems:
        head = problems[0] if len(problems) == 1 else f"{problems[0]}, and {len(problems) - 1} more problems"
        raise SettingsError(head, "try `deploykit hooks check`", problems=tuple(problems))
    if values.get("legacy"):
        named = [table["topics"] for table in tables if "topics" in table]
        values["topics"] = _topics(named[-1] if named else {}, legacy=True)
    known = {"files": tuple(files), "git_config": tuple(of_git)}
    return HookSettings(**values, **known)  # type: ignore[arg-type]  # each was converted by its own rule


def default_spool(environ: Mapping[str, str]) -> tuple[str, bool]:
    """Return the system's spool where we may write to it, else the user's own; and whether it is the system's."""
    if os.access(SYSTEM_SPOOL, os.W_OK | os.X_OK):
        return SYSTEM_SPOOL, True
    # Only absolute places count (XDG Base Directory): a relative one would be in the repository.
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    if not state.startswith("/"):
        state = f"{home if home.startswith('/') else _home()}/.local/state"
    return f"{state}/deploykit/spool", False


def _home() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/nonexistent"


#: No settings file is longer.
_MAX_FILE: Final = 1 << 20


def read_plain(path: str, limit: int = _MAX_FILE) -> bytes:
    """Read a file that others may have put there: a push waits for no FIFO, and reads no device to its end.

    Raises:
        OSError: it cannot be read, is no file, or is longer than `limit` bytes.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode) and path != os.devnull and os.path.realpath(path) != os.devnull:
            raise OSError(errno.EINVAL, "not a plain file")
        parts, size = list[bytes](), 0
        while block := os.read(fd, limit + 1 - size):
            parts.append(block)
            size += len(block)
            if size > limit:
                raise OSError(errno.EFBIG, f"longer than {limit} bytes")
        return b"".join(parts)
    finally:
        os.close(fd)


def _read(path: str) -> Mapping[str, object] | None:
    try:
        raw = read_plain(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}", "let the user that pushes read it") from error
    import tomllib

    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}", "correct the line it names") from error


def _of_git(config: Iterable[tuple[str, str]]) -> dict[str, object]:
    """Bring git's flat, case-blind keys into the shape of the TOML file; a key given more than once is a list."""
    names = {name.replace("_", ""): name for name in _RULES}
    found: dict[str, list[str]] = {}
    topics: dict[str, object] = {}
    for key, value in config:
        head, _, tail = key.lower().partition(".")
        if head == "topics" and tail:
            topics[tail.replace("-", "_")] = value
        else:
            found.setdefault(names.get(key.lower().replace("-", ""), key), []).append(value)
    table: dict[str, object] = {}
    for name, values in found.items():
        kind = _RULES[name][0] if name in _RULES else ""
        word = values[-1].lower()
        if kind == _LIST:
            table[name] = values
        elif kind == _FLAG and word in _WORDS:
            table[name] = _WORDS[word]
        elif kind == _SECONDS and word.replace(".", "", 1).isdecimal():
            table[name] = float(word)
        else:
            table[name] = values[-1]
    return table | ({"topics": topics} if topics else {})


def _merge(values: dict[str, object], table: Mapping[str, object], place: str, problems: list[str]) -> None:
    """Convert and check what one place holds; add it to `values`, and what is wrong with it to `problems`."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _RULES:
            problems.append(f"{place}: {key}: unknown setting (known: {', '.join(_RULES)})")
            continue
        expected, convert = _RULES[key]
        try:
            found[key] = convert(value)
        except DeploykitError as error:
            problems.append(f"{place}: {key}: {error}")
        except _WrongTopics as error:
            problems.append(f"{place}: {key}.{error}")
        except (ValueError, TypeError, OverflowError):
            problems.append(f"{place}: {key}: expected {expected}")
    problems += (f"{place}: {problem}" for problem in HookSettings(**found).problems())
    values |= found


# -- rules: the kind of each setting, in words and as a function that converts to it or raises -------------------------

_FLAG, _LIST, _SECONDS, _ABSOLUTE = "true or false", "a list of texts", "a number of seconds", "an absolute path"
_WORDS: Final = {"true": True, "yes": True, "on": True, "1": True, "": True} | dict.fromkeys(
    ("false", "no", "off", "0"), False
)
_PATHS: Final = ("root", "spool", "relay", "signing_key", "python", "incoming", "archive", "reprepro")
_HOUR: Final = 3600


class _WrongTopics(ValueError):
    """A topic that is not known, or not of the right kind; the text begins with its name."""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _text_or_empty(value: object) -> str:
    return "" if value == "" else _text(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(v, str) and v for v in value):
        raise TypeError
    return tuple(value)


def _topics(value: object, *, legacy: bool = False) -> TopicMap:
    if not isinstance(value, dict):
        raise TypeError
    known = {field.name for field in attrs.fields(TopicMap)} | {"preset"}
    for name, topic in value.items():
        if name not in known:
            raise _WrongTopics(f"{name}: unknown topic (known: {', '.join(sorted(known))})")
        if name == "notices" and not isinstance(topic, dict):
            raise _WrongTopics("notices: expected a table")
    try:
        filled: dict[str, Any] = with_preset(value, legacy=legacy)
    except ValueError as error:
        raise _WrongTopics(str(error)) from None
    return TopicMap(**filled)


_RULES: Final[dict[str, tuple[str, Callable[[object], object]]]] = {
    "repo": ("a repository name", parse_repo_name),
    "root": (_ABSOLUTE, _text),
    "refs": (_LIST, _texts),
    "spool": (_ABSOLUTE, _text),
    "relay": ("an absolute path, or nothing", _text_or_empty),
    "topics": ("a table", _topics),
    "notices": (_FLAG, _flag),
    "legacy": (_FLAG, _flag),
    "legacy_deletes": (_FLAG, _flag),
    "strict": (_FLAG, _flag),
    "timeout": (_SECONDS, _seconds),
    "signing_key": (_ABSOLUTE, _text),
    "python": (_ABSOLUTE, _text),
    "trunk": (_LIST, _texts),
    "branches": (_LIST, _texts),
    "tags": (_LIST, _texts),
    "incoming": (_ABSOLUTE, _text),
    "archive": (_ABSOLUTE, _text),
    "reprepro": (_ABSOLUTE, _text),
}
