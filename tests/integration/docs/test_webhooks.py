"""docs/webhooks.md keeps its word: its settings are accepted, its table of results is the code's, its program runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, get_args

from deploykit.config import load_settings
from deploykit.settings import Settings
from deploykit.settings.webhook import Forge
from deploykit.web.receiver.intake import WebhookResult
from tests.support.asgi import Asker
from tests.support.forges import forged

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def load(root: Path) -> Settings:
    """Return the page's settings, with its directories below `root`."""
    text = "\n".join(blocks("toml")).replace("/etc/deploykit", str(root))
    for name in ("forge.secret", "own.secret"):
        (root / name).touch(0o600)
        (root / name).write_text("a secret\n")
    file = root / "deploykit.toml"
    file.write_text(text)
    return load_settings(file)


def test_the_settings_are_accepted(tmp_path: Path) -> None:
    settings = load(tmp_path).webhook
    assert [source.forge for source in settings.sources.values()] == ["github", "generic"]
    assert settings.sources["own"].mapping.repository == "project.name"
    assert settings.path_of("forge") == "/hook/forge"


def test_every_forge_and_every_result_has_its_row() -> None:
    for forge in get_args(Forge):
        assert re.search(rf"^\| `{forge}` \|", PAGE, re.MULTILINE), forge
    for result in get_args(WebhookResult):
        assert re.search(rf"^\| \d.*`{result}`", PAGE, re.MULTILINE), result


def test_the_program_receives(tmp_path: Path) -> None:
    (source,) = blocks("python")
    source = source.replace("/var/spool/deploykit", str(tmp_path / "spool"))
    names: dict[str, object] = {"settings": load(tmp_path)}
    exec(compile(source.replace("/var/lib/deploykit", str(tmp_path)), "webhooks.md", "exec"), names)
    request = forged("github", repository="group/shop", secret=b"a secret")
    asked = Asker(app=names["app"]).ask("POST", "/hook/forge", request.headers, [request.body])  # type: ignore[arg-type]  # exec
    assert asked.status == 202
    names["seen"].close()  # type: ignore[attr-defined]  # exec
