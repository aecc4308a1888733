"""The demo's small fleet: a broker, an origin with three tags, three nodes, and the settings of an operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from deploykit.demo.stage import Stage, answers, free_port
from deploykit.demo.timeline import Timeline

NODES: Final = ("web1", "web2", "web3")
CANARY: Final = NODES[0]
#: The machine of the web console, where there is one.
CONSOLE: Final = "console"
#: By which whoever plays with the console signs.
YOU: Final = "you@demo"
#: What the console's key may ask of the nodes.
_PRESSED: Final = (
    "deploy.requested", "rollout.abort", "rollout.run", "node.queried", "site.locked", "site.unlocked",
    "access.grant-requested", "access.revoke-requested",
)  # fmt: skip
#: Scripts of the demo's site. They take their time, so that there is something to see.
_PRE_DEPLOY: Final = """#!/bin/sh
for table in orders customers prices; do
    echo "migrating $table"
    sleep 0.2
done
"""
POST_DEPLOY: Final = """#!/bin/sh
echo "asking the shop for its front page"
sleep 0.3
echo "200 OK"
"""
BROKEN: Final = """#!/bin/sh
echo "asking the shop for its front page"
sleep 0.3
echo "500 Internal Server Error" >&2
exit 1
"""


class DemoFleet:
    """Three nodes and what they need, each a process of its own.

    Args:
        stage: the directory and processes it uses.
        timeline: where it prints.
        figures: seconds by name, to which it adds its own.
        origin: of a web console from which people press and sign, `http://localhost:PORT`; empty for none.
    """

    def __init__(self, stage: Stage, timeline: Timeline, figures: dict[str, float], *, origin: str = "") -> None:
        self._origin = origin
        self._stage = stage
        self._timeline = timeline
        self._figures = figures
        self._port = 0
        root = stage.root
        #: Who may see the protected site `docs`, where there is a console.
        self.users = root / "docs.users"
        self.origin, self.work = root / "git" / "shop.git", root / "work"
        #: The settings file of whoever steers the fleet.
        self.operator = root / "operator.toml"

    def set_up_broker(self) -> None:
        """Start the embedded broker."""
        stage = self._stage
        (stage.root / "passcode").touch(mode=0o600)
        (stage.root / "passcode").write_text("demo-passcode\n")
        self._port = free_port()
        stage.start(
            "broker",
            *stage.command("broker", "--port", str(self._port), "--data", str(stage.root / "broker")),
            *("--user", "demo", "--passcode-file", str(stage.root / "passcode")),
        )
        stage.wait(lambda: answers(self._port), "the embedded broker to listen")
        self._timeline.event("broker", f"the embedded broker answers on 127.0.0.1:{self._port}")

    def set_up_origin(self) -> None:
        """Make the origin and three releases, the second of them broken."""
        git = self._stage.git
        self.origin.parent.mkdir()
        git("init", "--quiet", "--bare", "--initial-branch=main", str(self.origin))
        git("clone", "--quiet", str(self.origin), str(self.work))
        git("checkout", "--quiet", "-B", "main", cwd=self.work)
        self.release("v1.0", "first release", POST_DEPLOY)
        self.release("v1.1", "a release whose front page is broken", BROKEN)
        self.release("v1.2", "the front page mended", POST_DEPLOY)
        git("push", "--quiet", "--tags", "origin", "main", cwd=self.work)
        self._timeline.event("developer", "pushed v1.0, v1.1 (its front page is broken) and v1.2")

    def release(self, tag: str, message: str, post_deploy: str) -> None:
        """Commit and tag a release; it is not pushed."""
        (self.work / "deploy").mkdir(exist_ok=True)
        (self.work / "index.html").write_text(f"<h1>Shop {tag}</h1>\n")
        for name, text in (("pre-deploy", _PRE_DEPLOY), ("post-deploy", post_deploy)):
            (self.work / "deploy" / name).write_text(text)
            (self.work / "deploy" / name).chmod(0o755)
        git = self._stage.git
        git("add", "--all", cwd=self.work)
        git("commit", "--quiet", "--message", message, cwd=self.work)
        git("tag", "--annotate", "--message", f"Release {tag}", tag, cwd=self.work)

    def set_up_nodes(self) -> None:
        """Make keys and settings, start three agents, and wait for their mirrors."""
        from deploykit.trust.keyfiles import generate_key, trust

        stage, root = self._stage, self._stage.root
        for who in ("operator", CONSOLE, *NODES):
            made = generate_key(root / f"{who}.key")
            trust(root / "allowed_signers", "operator@demo" if who == "operator" else who, made.public_blob)
        self.write_settings("operator", self.operator)
        if self._origin:
            self.users.touch(mode=0o640)
        for node in NODES:
            (root / node).mkdir()
            self.write_settings(node, root / node / "deploykit.toml")
            words = ("run", "agent", "access") if self._origin and node == CANARY else ("agent",)
            stage.start(node, *stage.command(*words, "--config", str(root / node / "deploykit.toml")))
        took = stage.wait(lambda: all("ready" in stage.output_of(node) for node in NODES), "three agents to start")
        stage.wait(
            lambda: all((root / node / "state/mirrors/shop.git/packed-refs").exists() for node in NODES),
            "the nodes' first mirrors",
        )
        self._figures["three agents start"] = took
        self._timeline.event("node", f"{', '.join(NODES)}: three agents, each with a directory of its own")

    def write_settings(self, name: str, path: Path, *, key: str = "", more: str = "") -> None:
        """Write the settings of a node, of the operator, or of whoever signs with the `key` of another.

        Args:
            more: TOML tables at the end.
        """
        root = self._stage.root
        text = f"""\
node = "{name}"
fetch_spread = 0
state = "{root / name / "state"}"
signing_key = "{root / f"{key or name}.key"}"

[broker]
address = "stomp://127.0.0.1:{self._port}"
login = "demo"
passcode_file = "{root / "passcode"}"
backoff_max = 0.5

[outbox]
path = "{root / name / "spool"}"

[trust]
allowed_signers = "{root / "allowed_signers"}"
{self._heeded()}
[repositories.shop]
url = "{self.origin}"
"""
        if name in NODES:
            text += f"""
[[trust.grants]]
principal = "operator@demo"
types = ["deploy.requested", "rollout.abort", "node.queried"]

[[trust.grants]]
principal = "{CONSOLE}"
types = {json.dumps(_PRESSED if self._origin else ("node.queried",))}

[sites.shop]
path = "{root / name / "site"}"
repo = "shop"
release = {{ required = ["pre-deploy", "post-deploy"] }}
"""
            text += self._signed_site(root / name) if self._origin else ""
        if self._origin and name == CANARY:
            text += f'\n[access.sites.docs]\nfile = "{self.users}"\n'
        path.write_text(text + more)

    def _heeded(self) -> str:
        """Return which passkeys count."""
        return f'origins = ["{self._origin}"]\nrp_ids = ["localhost"]\n' if self._origin else ""

    @staticmethod
    def _signed_site(directory: Path) -> str:
        """Return the settings of a site that goes live only where a person has signed, and who may."""
        return f"""
[[trust.grants]]
principal = "{YOU}"
types = ["rollout.approved"]

[sites.bank]
path = "{directory / "bank"}"
repo = "shop"
require = "person"
"""

    def write_console(self, path: Path, *, more: str) -> None:
        """Write the settings of the web console, which runs no agent: its sites say only what they ask for."""
        self.write_settings(CONSOLE, path, more=self._signed_site(path.parent / "nowhere") + more)

    @staticmethod
    def by_name() -> tuple[str, ...]:
        """Return the options that choose all three nodes by their names."""
        return tuple(word for node in NODES for word in ("-I", node))

    def links(self) -> dict[str, str]:
        """Return where `current` of each node points; empty where there is none."""
        links = {node: self._stage.root / node / "site" / "current" for node in NODES}
        return {node: str(link.readlink()) if link.is_symlink() else "" for node, link in links.items()}

    def live(self) -> dict[str, str]:
        """Return the version that the page of each node shows."""
        pages = {node: self._stage.root / node / "site" / "current" / "index.html" for node in NODES}
        return {
            node: page.read_text().removeprefix("<h1>Shop ").removesuffix("</h1>\n") if page.exists() else "nothing"
            for node, page in pages.items()
        }
