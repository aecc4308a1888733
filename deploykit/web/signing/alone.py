"""The page of `web.sign_origin`: static files for a web server that the console cannot change.

Rules:

* They hold the one console to which a signature goes. A mandate comes in the fragment of the address.
* Every file but the page itself is named by its content, and the page names the hash of each.
* Nothing is fetched from anywhere else, and nothing is sent: the policy in the page forbids it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Final

from deploykit.errors import UsageError
from deploykit.settings.trust import ORIGIN
from deploykit.system.durable import replace_file

#: As the page has it; what only a header can say stands in contrib/nginx/sign-page.conf.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; form-action 'none'; base-uri 'none'"
)
_CORE: Final = "sign.mjs"
_SCRIPT: Final = "signpage.mjs"
_STYLE: Final = "sign.css"


def sign_page(console: str) -> Mapping[str, bytes]:
    """Return the files of the page, by their names.

    Args:
        console: the address of the console, `https://deploy.example.org`.

    Raises:
        UsageError: it is none that browsers could be sent to.
    """
    home = console.rstrip("/")
    if not ORIGIN.fullmatch(home):
        raise UsageError(f"not the address of a console: {console[:80]!a}", "expected https://HOST, as in web.url")
    static = resources.files("deploykit.web.pages").joinpath("static")
    core, style = static.joinpath(_CORE).read_bytes(), static.joinpath(_STYLE).read_bytes()
    core_name, style_name = _named(_CORE, core), _named(_STYLE, style)
    script = static.joinpath(_SCRIPT).read_bytes().replace(f'"./{_CORE}"'.encode(), f'"./{core_name}"'.encode())
    script_name = _named(_SCRIPT, script)
    page = Template(resources.files("deploykit.web.signing").joinpath("alone.html").read_text("utf-8")).substitute(
        policy=POLICY,
        console=html.escape(home),
        style=style_name,
        style_hash=_integrity(style),
        core=core_name,
        core_hash=_integrity(core),
        script=script_name,
        script_hash=_integrity(script),
    )
    return {"index.html": page.encode(), core_name: core, script_name: script, style_name: style}


def write_sign_page(console: str, directory: Path) -> tuple[Path, ...]:
    """Write the files of the page into a directory, the page itself last; return their paths.

    Files of a former version stay, so a page that is open goes on. All are readable by everybody: none is a secret.

    Raises:
        UsageError: `console` is none, or a file cannot be written.
    """
    files = sign_page(console)
    written = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in sorted(files, key=lambda name: name == "index.html"):
            replace_file(directory / name, files[name], mode=0o644)
            written.append(directory / name)
    except OSError as error:
        raise UsageError(
            f"{directory} cannot be written: {os.strerror(error.errno or 0)}", "give another --write"
        ) from error
    return tuple(written)


def _named(name: str, content: bytes) -> str:
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{ending}"


def _integrity(content: bytes) -> str:
    return f"sha384-{base64.b64encode(hashlib.sha384(content).digest()).decode()}"


__all__ = ["POLICY", "sign_page", "write_sign_page"]
