"""What the programs of apt and dpkg print, and what it means. Pure; all of it was seen with apt 2.6.1, dpkg 1.21.22.

Rules:

* What is not understood is an error, never a guess: a version or an architecture that cannot be one is refused.
* A repository may have a package with a version that dpkg would refuse: apt shows it as its candidate. That is none,
  and keeps nothing back that is known of other packages.
* apt exits 0 where it has read nothing: a file that is gone, empty or switched off. So a source counts as read only if
  apt reports an answer of it (`Get:`, `Hit:`).
* apt reports an unreachable source as a warning and exits 0, unless `APT::Update::Error-Mode=any` is known to it (2.1.9
  and later): the warning counts as a failure too. A line `Err:` alone does not: apt has tried what need not be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from deploykit.daemons.packages.ports import PackageVersions, SourceRead
from deploykit.daemons.packages.program import ProgramResult, lines_of, shown
from deploykit.errors import PackageError

#: What `dpkg-query -W -f` prints of a package, a line each.
DPKG_FORMAT: Final = "${db:Status-Abbrev}|${Package}|${Version}|${Architecture}\n"

_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~:-]{0,254}").fullmatch
_ARCHITECTURE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}").fullmatch
_ANSWERED: Final = re.compile(r"^(?:Get|Hit):\d+ ", re.MULTILINE)
_UNREACHABLE: Final = "W: Failed to fetch "
_CANDIDATE: Final = re.compile(r"^  Candidate: (.+)$", re.MULTILINE)
_LOCKED: Final = "E: Could not get lock "
#: Lines that only repeat that there was another one.
_NO_REASON: Final = ("E: Some index files failed to download", "E: The list of sources could not be read")
#: The cause where apt's error is only that something "is not signed".
_SIGNATURE: Final = "GPG error: "
#: Characters: addresses are long, and the key that is missing stands at the end.
_REASON: Final = 500
#: Second letter of dpkg's abbreviation: not installed; only its configuration is left.
_NOT_HERE: Final = "nc"


def judge_update(result: ProgramResult, file: str) -> SourceRead:
    """Return what came of `apt-get update` for one source.

    Args:
        file: that holds the source.
    """
    if result.code is None:
        return SourceRead(outcome="failed", detail="apt-get was killed at its deadline")
    lines = lines_of(result.errors)
    for line in lines:
        if line.startswith(_LOCKED):
            return SourceRead(outcome="locked", detail=shown(line.removeprefix("E: ")))
    if result.code != 0 or any(line.startswith(_UNREACHABLE) for line in lines):
        return SourceRead(outcome="failed", detail=apt_reason(lines) or f"apt-get {result.how}")
    if not _ANSWERED.search(result.output):
        return SourceRead(outcome="missing", detail=shown(f"{file} holds no source that is switched on"))
    return SourceRead(outcome="read")


def apt_reason(lines: Iterable[str]) -> str:
    """Return apt's reasons as one line, empty for none: what a signature lacks, its other errors, its warnings.

    >>> apt_reason(["W: nothing much", "E: not signed", "W: GPG error: NO_PUBKEY 0123"])
    'GPG error: NO_PUBKEY 0123; not signed; nothing much'
    """
    reasons = [line for line in lines if line.startswith(("E: ", "W: ")) and not line.startswith(_NO_REASON)]
    reasons.sort(key=lambda line: (_SIGNATURE not in line, line[:1]))  # each kind stays in apt's own order
    return shown("; ".join(dict.fromkeys(" ".join(line[3:].split()) for line in reasons[:4])), _REASON)


def parse_architecture(output: str) -> str:
    """Return the architecture that dpkg prints.

    Raises:
        PackageError: it is none.
    """
    if not _ARCHITECTURE(output.strip()):
        raise _not_understood("dpkg", output)
    return output.strip()


def parse_installed(output: str, native: str) -> Mapping[str, PackageVersions]:
    """Return the packages that are installed, from lines of `DPKG_FORMAT`.

    A package counts from the moment its files are there: one that is unpacked, or waits for a trigger, is being
    upgraded now, and is of as much interest as before.

    Args:
        native: the machine's architecture, which comes first where a package is installed for several.

    Raises:
        PackageError: a line is none of dpkg's.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for line in lines_of(output):
        status, _, rest = line.partition("|")
        fields = rest.split("|")
        if len(fields) != 3 or not 2 <= len(status) <= 3:
            raise _not_understood("dpkg-query", line)
        if status[1] in _NOT_HERE:
            continue
        name, version, architecture = fields
        if not _VERSION(version) or not _ARCHITECTURE(architecture):
            raise _not_understood("dpkg-query", line)
        found.setdefault(name, []).append((version, architecture))
    return {name: _of_architectures(copies, native) for name, copies in found.items()}


def _of_architectures(copies: list[tuple[str, str]], native: str) -> PackageVersions:
    (version, first), *others = sorted(copies, key=lambda copy: (copy[1] not in (native, "all"), copy[1]))
    return PackageVersions(installed=version, architecture=first, others=tuple(other for _, other in others))


def apt_pattern(name: str, architecture: str = "") -> str:
    r"""Return what `apt-cache policy` is asked for.

    apt takes a name that it does not know for a regular expression, if one of its characters can stand in one; `a++`
    would match half of all packages.

    >>> apt_pattern("libstdc++6", "i386"), apt_pattern("hello")
    ('^libstdc\\+\\+6$:i386', 'hello')
    """
    if "+" in name or "." in name:
        name = f"^{re.escape(name)}$".replace("\\-", "-")
    return f"{name}:{architecture}" if architecture else name


def parse_candidates(output: str, asked: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    """Return the versions that `apt-cache policy` would install, by name; empty for none, or for an unknown package.

    Only the paragraph whose head is the name counts: apt prints more, for a name that it does not know.

    Args:
        asked: names, and the architecture that was asked for; empty for the machine's own. Its packages, and those of
            no architecture, have no architecture in their heads.

    Raises:
        PackageError: a paragraph has no candidate.
    """
    heads = dict[str, str]()
    for head, body in _paragraphs(output):
        heads.setdefault(head, body)
    found = {}
    for name, architecture in asked:
        head = f"{name}:{architecture}:" if architecture else f"{name}:"
        found[name] = _candidate(head, heads[head]) if head in heads else ""
    return found


def _candidate(head: str, body: str) -> str:
    match = _CANDIDATE.search(body)
    if match is None:
        raise _not_understood("apt-cache", head)
    return match[1] if _VERSION(match[1]) else ""  # else `(none)`, or what dpkg would refuse


def _paragraphs(output: str) -> Iterator[tuple[str, str]]:
    """Yield heads with the indented lines below them."""
    head, body = "", list[str]()
    for line in lines_of(output):
        if line.startswith(" "):
            body.append(line)
            continue
        yield head, "\n".join(body)
        head, body = line, []
    yield head, "\n".join(body)


def _not_understood(program: str, line: str) -> PackageError:
    return PackageError(f"{program} printed what is not understood: {shown(line, 100)!a}", "run it by hand, as root")


__all__ = [
    "DPKG_FORMAT",
    "apt_pattern",
    "apt_reason",
    "judge_update",
    "parse_architecture",
    "parse_candidates",
    "parse_installed",
]
