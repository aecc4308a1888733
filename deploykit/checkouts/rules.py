"""Which ref gets which directory: one rule, *ref pattern -> directory*; the original's modes are presets of it. Pure.

Rules:

* A directory is a path below the root, of one name or, with `nested`, of one for each part of the ref's name. It is
  safe whatever a ref is called.
* Two refs never share a directory, and none is inside another's. A ref that cannot have one is refused with the reason.
* A directory goes before another takes its place, and after another has taken over its ref.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from deploykit.errors import InvalidName, SettingsError
from deploykit.names import ObjectId, RefName, parse_ref_name, path_component, short_ref

if TYPE_CHECKING:
    from deploykit.settings.mirror import CheckoutSettings

#: Where copies and state live, below the root; no checkout may have a name like it.
OURS: Final = ".deploykit"
#: Longest path of a directory, in bytes: all of it is the name of one below `OURS`, too.
_MAX_PATH: Final = 255
#: Stands for `/` there; no ref's mapped name has it.
_SEPARATOR: Final = ","
#: Modes in which the original put `topic/z` into a directory `topic`, and somebody looks there.
_NESTABLE: Final = ("tags", "atomic")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_]{1,64}").fullmatch
_PUPPET: Final = re.compile(r"[^a-z0-9_]")


@attrs.frozen(kw_only=True, slots=True)
class CheckoutRule:
    """Refs that match a pattern, each in a directory of its own.

    Args:
        patterns: of full ref names; `HEAD` stands for the default branch.
        root: nothing outside of it is touched.
        directory: the path below root; `{}` in it is the ref's short name, mapped.
        puppet: map names to what Puppet takes for an environment: lower case, all but `a-z0-9_` become `_`.
        nested: map each part of a name by itself: `topic/z` is a directory `z` in `topic`.
        remove: the directory of a deleted ref goes.
    """

    patterns: tuple[str, ...]
    root: Path
    directory: str = "{}"
    puppet: bool = False
    nested: bool = False
    remove: bool = True

    def directory_of(self, ref: RefName) -> str:
        """Return the directory's path for a ref. Two refs may get the same one only with `puppet`."""
        name = short_ref(ref)
        if self.puppet:
            mapped = _PUPPET.sub("_", name.lower())
        elif self.nested:
            mapped = "/".join(map(path_component, name.split("/")))
        else:
            mapped = path_component(name)
        return self.directory.replace("{}", mapped)

    def former_directory_of(self, ref: RefName) -> str:
        """Return where a ref's directory was before `nested` was switched on, or off."""
        return self.directory_of(ref) if self.puppet else attrs.evolve(self, nested=not self.nested).directory_of(ref)

    def home_of(self, directory: str) -> str:
        """Return the name that a directory's copies are kept under.

        >>> CheckoutRule(patterns=(), root=Path("/srv"), nested=True).home_of("topic/z")
        'topic,z'
        """
        return directory.replace("/", _SEPARATOR)

    def directory_in(self, home: str) -> str:
        """Return the directory whose copies are kept under a name, whether `nested` was on or off then."""
        fixed = self.directory.partition("{}")[0]
        if home[: len(fixed)].casefold() != fixed.casefold():  # a file system may list names in other case
            return home
        return home[: len(fixed)] + home[len(fixed) :].replace(_SEPARATOR, "/")


def rule_of(settings: CheckoutSettings) -> CheckoutRule:
    """Return the rule that a mode stands for.

    Raises:
        SettingsError: the settings do not fit the mode.
    """
    target = settings.target
    if settings.nested and settings.mode not in _NESTABLE:
        why = (
            "Puppet finds no environment in a deeper directory" if settings.mode == "puppetmaster" else "one directory"
        )
        raise SettingsError(
            f"checkout mode {settings.mode} cannot be nested ({why})", f"nested is for {' and '.join(_NESTABLE)}"
        )
    if settings.prefix and (settings.mode != "puppetmaster" or not _PREFIX(settings.prefix)):
        raise SettingsError(
            f"checkout prefix {settings.prefix[:60]!a} cannot be used",
            "for mode puppetmaster, of letters, digits and _",
        )
    if target is None:
        if settings.mode == "dangerous":
            raise SettingsError(
                "checkout mode dangerous needs to know where",
                'set target = "/DIRECTORY", a new one: unlike the original, deploykit never writes into a clone',
            )
        if settings.mode != "normal":
            raise SettingsError(f"checkout mode {settings.mode} needs to know where", 'set target = "/DIRECTORY"')
        return CheckoutRule(patterns=(), root=Path("/"))
    if not target.is_absolute() or target == target.parent or ".." in target.parts or "{}" in target.name:
        raise SettingsError(f"checkout target {target} is not an absolute path below /", "without .. and {}")
    if settings.mode == "branch" and not settings.branch:
        raise SettingsError("checkout mode branch needs to know which branch", 'set branch = "NAME"')
    if settings.branch:
        try:
            parse_ref_name(f"refs/heads/{settings.branch}")
        except InvalidName as error:
            raise SettingsError(
                f"checkout branch {settings.branch!a} is not a branch's name: {error.problem}"
            ) from None
    one = (f"refs/heads/{settings.branch}",) if settings.branch else ("HEAD",)
    heads, tags = ("refs/heads/*",), ("refs/tags/*",)
    plain = target.name
    rules = {
        "normal": CheckoutRule(patterns=(), root=target),
        "trusting": CheckoutRule(patterns=one, root=target.parent, directory=plain, remove=False),
        "dangerous": CheckoutRule(patterns=one, root=target.parent, directory=plain, remove=False),
        "branch": CheckoutRule(patterns=one, root=target.parent, directory=plain, remove=False),
        "puppetmaster": CheckoutRule(patterns=heads, root=target, directory=settings.prefix + "{}", puppet=True),
        "tags": CheckoutRule(patterns=tags, root=target, nested=settings.nested),
        "atomic": CheckoutRule(patterns=heads, root=target.parent, directory=plain + "_{}", nested=settings.nested),
    }
    rule = rules[settings.mode]
    return rule if settings.remove is None else attrs.evolve(rule, remove=settings.remove)


def is_inside(inner: CheckoutRule, outer: CheckoutRule, *, for_some_ref: bool = False) -> bool:
    """Return whether a checkout would be written into the directory of another one, which is replaced as a whole.

    Args:
        inner: the checkout that would be inside.
        outer: the one whose directory it is.
        for_some_ref: count also what is inside only where the outer one has a ref of a certain name.
    """
    if not (inner.patterns and outer.patterns) or ("{}" in outer.directory) is not for_some_ref:
        return False
    place = outer.root / outer.directory
    above = Path(*inner.root.parts[: len(place.parts)])
    before, _, after = place.name.partition("{}")
    return above.parent == place.parent and (
        above == place or (for_some_ref and above.name.startswith(before) and above.name.endswith(after))
    )


@attrs.frozen(kw_only=True, slots=True)
class CheckoutPlan:
    """Which directory shows which ref, which directories go, and which refs get none and why.

    Args:
        directories: what is to be shown.
        removed: directories of refs that are gone; they go first.
        moved: directories of refs that have another one now, each with the ref; they go when that is shown.
        refused: refs, with the reason.
    """

    directories: Mapping[str, RefName]
    removed: tuple[str, ...] = ()
    moved: Mapping[str, RefName] = attrs.field(factory=dict)
    refused: Mapping[str, str] = attrs.field(factory=dict)


def plan_checkouts(
    rule: CheckoutRule,
    refs: Mapping[RefName, ObjectId],
    head: RefName | None,
    held: Mapping[str, str],
    only: tuple[str, ...] = (),
) -> CheckoutPlan:
    """Return which directory shows which ref, and which go.

    Args:
        rule: which refs, and where.
        refs, head: what the mirror holds.
        held: the directories that are there, each with its ref ("" when that is not known).
        only: patterns a ref must match as well, when there are any.
    """
    patterns = tuple(head or "" if pattern == "HEAD" else pattern for pattern in rule.patterns)
    chosen = [
        ref
        for ref in sorted(refs)
        if any(fnmatch.fnmatchcase(ref, p) for p in patterns)
        and (not only or any(fnmatch.fnmatchcase(ref, p) for p in only))
    ]
    claims: dict[str, list[RefName]] = {}
    for ref in chosen:
        claims.setdefault(rule.directory_of(ref), []).append(ref)
    directories: dict[str, RefName] = {}
    refused: dict[str, str] = {}
    for directory, claimants in claims.items():
        problem = objection(directory, nested=rule.nested)
        mine = [ref for ref in claimants if held.get(directory) == ref] or claimants
        for ref in claimants:
            others = [other for other in claimants if other != ref]
            if problem:
                refused[ref] = problem
            elif mine == [ref]:
                directories[directory] = ref
            else:
                refused[ref] = f"its directory {directory} would also be that of {', '.join(others)}"
    former = {rule.former_directory_of(ref): ref for ref in chosen}
    moved = {d: former[d] for d in held if d not in claims and d in former}
    unclaimed = sorted(d for d in held if d not in claims and d not in moved)
    kept = {} if rule.remove else {d: held[d] for d in unclaimed}
    for directory, why in _overlaps(directories, kept, held):
        refused[directories[directory]] = why
    return CheckoutPlan(
        directories={d: ref for d, ref in directories.items() if ref not in refused},
        removed=tuple(unclaimed) if rule.remove else (),
        moved=moved,
        refused=refused,
    )


def objection(directory: str, *, nested: bool) -> str:
    """Return why a directory can be no checkout, or nothing."""
    if len(directory.encode()) > _MAX_PATH:
        return f"its directory's name would be longer than {_MAX_PATH} bytes"
    if directory.startswith(OURS) or any(part in ("", ".", "..") for part in directory.split("/")):
        return "its directory's name is reserved"
    return "its directory's name is reserved" if "/" in directory and not nested else ""


def parents_of(directory: str) -> tuple[str, ...]:
    """Return the directories below the root that a directory is in, outermost first.

    >>> parents_of("a/b/c")
    ('a', 'a/b')
    """
    parts = directory.split("/")[:-1]
    return tuple("/".join(parts[: n + 1]) for n in range(len(parts)))


def _overlaps(
    directories: Mapping[str, RefName], kept: Mapping[str, str], held: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Find directories that cannot be, as they would be inside another one or hold it: git has no `a` beside `a/b`.

    Who is there already stays; where nobody is, or it is not known who, neither comes.
    """

    def there(directory: str) -> bool:
        return directory in kept or held.get(directory) == directories[directory]

    def owner(directory: str) -> str:
        return f"that of {directories.get(directory) or kept[directory] or 'a ref that is gone'}"

    every: Collection[str] = {*directories, *kept}
    for inner in sorted(every):
        for outer in parents_of(inner):
            if outer not in every:
                continue
            if inner in directories and (there(outer) or not there(inner)):
                yield inner, f"its directory {inner} would be inside {outer}, {owner(outer)}"
            if outer in directories and (there(inner) or not there(outer)):
                yield outer, f"its directory {outer} would hold {inner}, {owner(inner)}"
