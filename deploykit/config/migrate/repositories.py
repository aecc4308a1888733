"""What the kinds share that know repositories: a repository's origin, and its checkouts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, get_args
from urllib.parse import quote, unquote, urlsplit

import attrs

from deploykit.checkouts.rules import is_inside, rule_of
from deploykit.config.migrate.clone import origin_of_clone
from deploykit.config.migrate.model import Place
from deploykit.config.migrate.oldtable import OldTable, is_clean
from deploykit.errors import DeploykitError, InvalidName
from deploykit.git.transport.address import parse_origin_url
from deploykit.names import parse_repo_name, path_component
from deploykit.settings.mirror import CheckoutMode, CheckoutSettings

#: Stands for the origin's URL where the old settings have none. Its host can never exist.
NO_URL: Final = "https://write-the-url-here.invalid/{}.git"
_SECRETIVE: Final = re.compile(r"[^?]*\?|[^:/@]+:[^:/@]+@[^:/]+:").match
#: The modes of a checkout.
MODES: Final = get_args(CheckoutMode)


def repository_place(table: OldTable, key: str, name: str) -> Place | None:
    """Return where a repository stands in the new settings; None, and the key lost, where the name is none.

    Args:
        table: holds the key.
        key: is lost where the name is not accepted.
        name: of the repository.
    """
    try:
        return ("repositories", str(parse_repo_name(name)))
    except InvalidName as error:
        table.lose_error(key, error)
        return None


def put_origin(table: OldTable, key: str, place: Place, url: str) -> bool:
    """Set a repository's URL; a password in it goes to a file of its own. Return whether it is set.

    Args:
        table: the old settings.
        key: the key that holds the URL, or from which it was found.
        place: of the repository.
        url: of the origin.
    """
    url, credentials = _apart(url.strip())
    http = url.lower().startswith("http://")
    if _SECRETIVE(url):
        table.lose(key, "has a query or a password in it, which may be a secret: write it by hand, without")
        return False
    try:
        parse_origin_url(url, allow_http=http)
    except DeploykitError as error:
        table.lose_error(key, error)
        return False
    if table.draft.values.get((*place, "url")) == NO_URL.format(place[-1]):  # of a file without the URL
        del table.draft.values[(*place, "url")]
        table.draft.comments.pop((*place, "url"), None)
        table.draft.lost[:] = [lost for lost in table.draft.lost if lost.why != _no_origin(place)]
    table.put(key, (*place, "url"), url)
    if http:
        table.put(key, (*place, "mirror", "allow_http"), True, "http encrypts nothing: better use https")
    if credentials:
        name = f"{path_component(str(place[-1]))}.credentials"
        table.put_secret(key, (*place, "mirror", "credentials_file"), name, credentials)
    return True


def put_origin_of_clone(table: OldTable, key: str, place: Place, clone: str) -> None:
    """Set a URL to that of the origin of a local clone; to a placeholder, and the key is lost, where it has none."""
    url = origin_of_clone(Path(clone)) if clone.startswith("/") else None
    if url is not None and is_clean(url):
        if put_origin(table, key, place, url):
            table.draft.comments.setdefault((*place, "url"), f"from {clone}")
            return
    elif table.draft.values.get((*place, "url"), NO_URL.format(place[-1])) == NO_URL.format(place[-1]):
        table.lose(key, _no_origin(place))
    put_placeholder(table, place)


def _no_origin(place: Place) -> str:
    return f"the origin of this clone could not be read: write its URL into {'.'.join(map(str, place))}.url"


def put_placeholder(table: OldTable, place: Place) -> None:
    """Set a URL that a person has to replace, where there is none yet."""
    url = (*place, "url")
    if url not in table.draft.values:
        table.draft.values[url] = NO_URL.format(place[-1])
        table.draft.comments[url] = "write the URL of the origin here"


def put_checkout(table: OldTable, place: Place, keys: Mapping[str, str], checkout: Mapping[str, object]) -> None:
    """Add a checkout to a repository; where it cannot be, the keys it was made from are lost.

    Args:
        table: the old settings.
        place: of the repository.
        keys: new key of the checkout -> the old key that it came from, for those that came from one.
        checkout: the new keys and values of the checkout.
    """
    try:
        rule = rule_of(_settings(checkout))
        if any(at[:2] == place and other == checkout for at, other in _checkouts(table).items()):
            return  # another file says the same
        others = [rule_of(_settings(other)) for other in _checkouts(table).values()]
        if rule.patterns and any((o.root, o.directory) == (rule.root, rule.directory) for o in others if o.patterns):
            raise InvalidName(f"{checkout.get('target')} is already the target of another checkout")
        if any(is_inside(rule, other) or is_inside(other, rule) for other in others):
            raise InvalidName(f"{checkout.get('target')} is inside another checkout, or holds one")
    except DeploykitError as error:
        for old in dict.fromkeys(keys.values()):
            table.lose_error(old, error)
        return
    at = (*place, "checkouts", table.draft.next_in((*place, "checkouts")))
    for new, value in checkout.items():
        if new in keys:
            table.put(keys[new], (*at, new), value)
        else:
            table.draft.values[(*at, new)] = value
    if "owner" in checkout:
        table.draft.comments[(*at, "owner")] = "needs an agent that runs as root"
    if rule.patterns:
        table.draft.warn(
            "directories of checkouts become symlinks: before the agent starts, move away what is at each target"
        )


def _checkouts(table: OldTable) -> dict[Place, dict[str, object]]:
    """Return the checkouts that the draft has already, by their places."""
    found: dict[Place, dict[str, object]] = {}
    for place, value in table.draft.values.items():
        if len(place) == 5 and place[0] == "repositories" and place[2] == "checkouts":
            found.setdefault(place[:4], {})[str(place[4])] = value
    return found


def _settings(checkout: Mapping[str, object]) -> CheckoutSettings:
    """Return a checkout as settings, as far as its directories need it."""
    names = {field.name for field in attrs.fields(CheckoutSettings)} & {"mode", "branch", "nested", "prefix"}
    found = {key: value for key, value in checkout.items() if key in names}
    target = checkout.get("target")
    return CheckoutSettings(**found, target=Path(str(target)) if target is not None else None)  # type: ignore[arg-type]  # `found` has texts of known fields


def _apart(url: str) -> tuple[str, str]:
    """Return a URL without its password, and a line of a credentials file that holds it; "" where there is none."""
    if not re.match(r"https?://[^/]*@", url, re.IGNORECASE):  # a token may stand there alone
        return url, ""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        login = f"{quote(unquote(parts.username or ''), safe='')}:{quote(unquote(parts.password or ''), safe='')}"
    except ValueError:
        return url, ""
    return parts._replace(netloc=host).geturl(), f"{parts.scheme}://{login}@{host}\n"


__all__ = [
    "MODES",
    "put_checkout",
    "put_origin",
    "put_origin_of_clone",
    "put_placeholder",
    "repository_place",
]
