"""Which ref gets which directory: one rule, *ref pattern -> directory*; the original's modes are presets of it. Pure.

Rules:

* A directory is one name below the root, safe whatever a ref is called.
* Two refs never share a directory. A ref that cannot have one is refused with the reason.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from deploykit.errors import InvalidName, SettingsError
from deploykit.names import ObjectId, RefName, parse_ref_name, path_component, short_ref

if TYPE_CHECKING:
    from deploykit.settings.mirror import CheckoutSettings

#: Where copies and state live, below the root; no checkout may have a name like it.
OURS: Final = ".deploykit"
_MAX_NAME: Final = 255
_PUPPET: Final = re.compile(r"[^a-z0-9_]")


@attrs.frozen(kw_only=True, slots=True)
class CheckoutRule:
    """Refs that match a pattern, each in a directory of its own.

    Args:
        patterns: of full ref names; `HEAD` stands for the default branch.
        root: nothing outside of it is touched.
        directory: the name below root; `{}` in it is the ref's short name, mapped.
        puppet: map names to what Puppet takes for an environment: lower case, all but `a-z0-9_` become `_`.
        remove: the directory of a deleted ref goes.
    """

    patterns: tuple[str, ...]
    root: Path
    directory: str = "{}"
    puppet: bool = False
    remove: bool = True

    def directory_of(self, ref: RefName) -> str:
        """Return the directory's name for a ref. Two refs may get the same one only with `puppet`."""
        name = short_ref(ref)
        mapped = _PUPPET.sub("_", name.lower()) if self.puppet else path_component(name)
        return self.directory.replace("{}", mapped)


def rule_of(settings: CheckoutSettings) -> CheckoutRule:
    """Return the rule that a mode stands for.

    Raises:
        SettingsError: the settings do not fit the mode.
    """
    target = settings.target
    if target is None:
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
        "puppetmaster": CheckoutRule(patterns=heads, root=target, puppet=True),
        "tags": CheckoutRule(patterns=tags, root=target),
        "atomic": CheckoutRule(patterns=heads, root=target.parent, directory=plain + "_{}"),
    }
    rule = rules[settings.mode]
    return rule if settings.remove is None else attrs.evolve(rule, remove=settings.remove)


@attrs.frozen(kw_only=True, slots=True)
class CheckoutPlan:
    """Which directory shows which ref, which directories go, and which refs get none and why."""

    directories: Mapping[str, RefName]
    removed: tuple[str, ...] = ()
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
        problem = _objection(directory)
        mine = [ref for ref in claimants if held.get(directory) == ref] or claimants
        for ref in claimants:
            others = [other for other in claimants if other != ref]
            if problem:
                refused[ref] = problem
            elif mine == [ref]:
                directories[directory] = ref
            else:
                refused[ref] = f"its directory {directory} would also be that of {', '.join(others)}"
    staying = set(directories) | {rule.directory_of(RefName(ref)) for ref in refused}
    removed = tuple(sorted(d for d in held if d not in staying)) if rule.remove else ()
    return CheckoutPlan(directories=directories, removed=removed, refused=refused)


def _objection(directory: str) -> str:
    if len(directory.encode()) > _MAX_NAME:
        return f"its directory's name would be longer than {_MAX_NAME} bytes"
    if directory in ("", ".", "..") or "/" in directory or directory.startswith(OURS):
        return "its directory's name is reserved"
    return ""
