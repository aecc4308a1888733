"""The process of a simulated fleet, and `Fleet`, with which a test starts it, reads its books and ends it."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from deploykit.messages import SiteRelease
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, ObjectId, SiteName, parse_ref_name
from deploykit.settings.trust import GrantSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.policy import Policy
from deploykit.trust.signature import SigningKey
from tests.support.simfleet.model import Faults, SimulatedNode, node_names
from tests.support.simfleet.node import NodeOnBus

SITE = SiteName("shop")
#: What is live on each node at the start.
FIRST = SiteRelease(release="0-first", ref=parse_ref_name("refs/tags/v0"), commit=ObjectId("0" * 39 + "1"))
#: Most bytes of the line that says what the nodes are: a hundred each, and more.
_MOST_PLAN = 64 * 1024 * 1024
#: Connections that are made at once.
_AT_ONCE = 20


class Fleet:
    """A running process of simulated nodes.

    Args:
        port, login, passcode: of the broker.
        faults: of each node, which are called `sim001` and so on.
        operator: the public line of the key whose commands they obey, under the principal `ops`.
        start_timeout: seconds until all of them must be subscribed.
    """

    def __init__(
        self, port: int, login: str, passcode: str, *, faults: Sequence[Faults], operator: str, top: Path
    ) -> None:
        self.nodes = tuple(node_names(len(faults)))
        plan = {
            "port": port,
            "login": login,
            "passcode": passcode,
            "operator": operator,
            "faults": [attrs.asdict(each) for each in faults],
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.simfleet.process"],
            cwd=top,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.allowed_signers = "".join(self._call(json.dumps(plan)))

    def _call(self, line: str) -> list[str]:
        """Send one line and return the lines of the answer, which an empty line ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer: list[str] = []
        for each in self._process.stdout:
            if each == "\n":
                return answer
            answer.append(each)
        raise AssertionError(f"the simulated fleet ended: {self._process.wait(10)}")

    def books(self) -> dict[NodeName, dict[str, Any]]:
        """Return each node's state: commit of `live`, `previous` and `prepared`, and what it `acted` on."""
        books: dict[NodeName, dict[str, Any]] = json.loads("".join(self._call("books")))
        return books

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _made(plan: dict[str, Any]) -> list[tuple[NodeOnBus, SigningKey]]:
    signers = AllowedSigners.parse(f"ops {plan['operator']}")
    policy = Policy(grants=(GrantSettings(principal="ops", types=("deploy.requested", "node.queried")),))
    made = []
    for number, (name, faults) in enumerate(zip(node_names(len(plan["faults"])), plan["faults"], strict=True)):
        key = SigningKey.generate()
        node = SimulatedNode(name=name, site=SITE, faults=Faults(**faults), live=FIRST)
        trust = Trust(lambda: signers, policy, name)
        made.append((NodeOnBus(node, key, trust, TopicMap(), random.Random(number)), key))
    return made


async def _run() -> None:
    reader = asyncio.StreamReader(limit=_MOST_PLAN)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    plan = json.loads(await reader.readline())
    fleet = _made(plan)
    places = asyncio.Semaphore(_AT_ONCE)

    async def begin(member: NodeOnBus) -> asyncio.Task[None]:
        async with places:
            stomp = await member.connect(plan["port"], plan["login"], plan["passcode"])
        return asyncio.create_task(member.serve(stomp))

    serving = await asyncio.gather(*(begin(member) for member, _key in fleet))
    for member, key in fleet:
        print(f"{member.node.name} {key.public_openssh}")
    print(flush=True)
    while await reader.readline():
        print(json.dumps({member.node.name: _book(member.node) for member, _key in fleet}), end="\n\n", flush=True)
    for task in serving:
        task.cancel()


def _book(node: SimulatedNode) -> dict[str, object]:
    return {
        **{
            name: release.commit if release is not None else None
            for name, release in (("live", node.live), ("previous", node.previous), ("prepared", node.prepared))
        },
        "acted": [attrs.asdict(act) for act in node.acted],
        "silent": node.faults.silent,
        "failing": node.faults.failing,
    }


if __name__ == "__main__":
    asyncio.run(_run())
