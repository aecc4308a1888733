"""A module imports only from lower layers or its own package; no circle, not even inside; the two chains stay apart.

Imports are read, not run, wherever they stand in a file. `TYPE_CHECKING` blocks count too, but for those of a package's
`__init__`: they name what the package loads on first use.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import deploykit

PACKAGE = Path(deploykit.__file__).parent
HOOKS = Path(__file__).parents[2] / "hooks"

#: The table of docs/architecture.md. A chain of None may be used by both.
LAYERS: dict[str, tuple[int, str | None]] = {
    "_version": (0, None),
    "errors": (0, None),
    "names": (1, None),
    "system": (1, None),
    "composition": (2, None),
    "ids": (3, "message"),
    "messages": (3, "message"),
    "httpclient": (4, None),
    "settings": (4, None),
    "wire": (4, "message"),
    "audit": (5, None),
    "broker": (5, None),
    "git": (5, "file"),
    "trust": (5, "message"),
    "builds": (6, "message"),
    "outbox": (6, "message"),
    "trees": (6, "file"),
    "bus": (7, "message"),
    "mirror": (7, "file"),
    "aio": (8, "message"),
    "checkouts": (8, "file"),
    "fleet": (8, "message"),
    "hooking": (8, "message"),
    "release": (8, "file"),
    "testing": (8, None),
    "config": (9, None),
    "daemons": (10, None),
    "operations": (11, None),
    "web": (12, None),
    "demo": (13, None),
    "via": (13, None),
    "cli": (14, None),
    "__main__": (15, None),
}
#: Where the chains meet: from here on a module may reach both.
MEET = 9
ONLY_IN: dict[str, tuple[str, ...]] = {
    "stomp": ("bus/stomp/",),
    "dulwich": ("git/", "mirror/", "trees/"),
    "starlette": ("web/",),
    "uvicorn": ("web/",),
    "jinja2": ("web/",),
    "sqlalchemy": ("web/",),
    "alembic": ("web/",),
    "subprocess": (
        "release/scripts.py",
        "git/transport/remote.py",
        "mirror/upkeep.py",
        "trust/agentkey.py",
        "hooking/installer.py",
        "demo/",
        "operations/",
        "daemons/",
    ),
}


@cache
def imports_of(source: str, *, lazy: bool = False) -> frozenset[str]:
    """Every module a file imports, wherever in the file, as dotted names; with `lazy` not those of TYPE_CHECKING."""
    found: set[str] = set()
    for node in statements(ast.parse(source), lazy=lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what a module depends on"
            if node.module and node.module.split(".")[0] == "deploykit":
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif node.module:
                found.add(node.module)
    return frozenset(found)


def statements(tree: ast.Module, *, lazy: bool) -> Iterator[ast.AST]:
    """Every statement, however deep; with `lazy` without what stands under `if TYPE_CHECKING`."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if lazy and isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            todo += getattr(node, field, ())


def room_of(module: str) -> str:
    """The package or top module that `module` (without `deploykit.`) belongs to."""
    return module.split(".", maxsplit=1)[0]


def violations(where: str, source: str) -> list[str]:
    """What `source`, the file `where` (relative to the package), breaks by itself."""
    room = where.split("/", maxsplit=1)[0].removesuffix(".py")
    found = []
    for module in sorted(imports_of(source)):
        top, _, rest = module.partition(".")
        for name, allowed in ONLY_IN.items():
            if top == name and not where.startswith(allowed):
                found.append(f"{where} imports {module}: only {', '.join(allowed)} may")
        if top != "deploykit" or not rest or room == "__init__":
            continue
        target = room_of(rest)
        if target == room:
            continue
        if target not in LAYERS:
            found.append(f"{where} imports {module}, which has no layer")
        elif room not in LAYERS:
            found.append(f"{where} has no layer")
        elif LAYERS[target][0] >= LAYERS[room][0]:
            found.append(f"{where} (layer {LAYERS[room][0]}) imports {module} (layer {LAYERS[target][0]})")
    return found


def graph_of(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Which modules each module imports; both without `deploykit.`, a package standing for its `__init__`."""
    packages = {name.rpartition(".")[0] for name in sources}
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        graph[module] = set()
        for name in imports_of(source, lazy=module in packages):
            target = name.removeprefix("deploykit.")
            if target not in sources:
                target = target.rpartition(".")[0]
            if target in sources and target != module and name.startswith("deploykit."):
                graph[module].add(target)
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The modules that import each other, directly or by others: each such group once."""
    reached = {module: reach(graph, module) for module in graph}
    found = {tuple(sorted({m, *(o for o in reached[m] if m in reached[o])})) for m in graph if m in reached[m]}
    return sorted(list(group) for group in found)


def reach(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Every module that importing `start` may load; `start` itself only if it is in a circle."""
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += graph[module]
    return seen


def bridges(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules below the layer where the chains meet that reach modules of both chains, themselves included."""
    found = []
    for module in sorted(graph):
        if not module or LAYERS[room_of(module)][0] >= MEET:
            continue
        rooms = {room_of(other) for other in reach(graph, module) | {module} if other}
        chains = {LAYERS[room][1] for room in rooms if room in LAYERS} - {None}
        if len(chains) > 1:
            found.append(f"{module} reaches both chains: {', '.join(sorted(r for r in rooms if LAYERS[r][1]))}")
    return found


def our_sources() -> dict[str, str]:
    """Every module of the package, by its name without `deploykit.`."""
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 10
    names = (".".join(f.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".") for f in files)
    return {name: f.read_text() for name, f in zip(names, files, strict=True)}


def test_every_module_keeps_to_its_layer() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    found = [v for f in files for v in violations(str(f.relative_to(PACKAGE)), f.read_text())]
    assert found == []


def test_there_is_no_circle_between_modules() -> None:
    assert circles(graph_of(our_sources())) == []


def test_below_the_layer_where_they_meet_no_module_reaches_both_chains() -> None:
    assert bridges(graph_of(our_sources())) == []


@pytest.mark.parametrize(
    ("where", "source", "says"),
    [
        ("names.py", "import deploykit.bus", "layer 1"),
        ("wire/codec.py", "from deploykit.mirror import Mirror", "layer 4"),
        ("release/runner.py", "def f():\n    from deploykit.bus.client import Bus\nimport deploykit.config", "layer 8"),
        ("checkouts/rules.py", "from deploykit import __version__", "no layer"),
        ("bus/client.py", "import stomp.transport", "only bus/stomp/"),
        ("release/site.py", "from dulwich.repo import Repo", "only git/, mirror/, trees/"),
        ("outbox/relay.py", "import subprocess", "only release/scripts.py"),
        ("outbox/relay.py", "from deploykit.bus import Bus", "layer 7"),
        ("outbox/relay.py", "import deploykit.nowhere", "no layer"),
    ],
)
def test_a_broken_rule_is_found(where: str, source: str, says: str) -> None:
    assert any(says in v for v in violations(where, source))


def test_a_circle_inside_a_package_is_found() -> None:
    sources = {
        "bus": "from deploykit.bus.client import Bus",
        "bus.client": "from deploykit.bus.keepalive import Keeper",
        "bus.keepalive": "def f():\n    from deploykit.bus.client import Bus",
        "bus.events": "",
    }
    assert circles(graph_of(sources)) == [["bus.client", "bus.keepalive"]]


def test_a_circle_through_a_package_itself_is_found() -> None:
    sources = {"bus": "from deploykit.bus.client import Bus", "bus.client": "from deploykit.bus import Handler"}
    assert circles(graph_of(sources)) == [["bus", "bus.client"]]


@pytest.mark.parametrize("module", ["settings.crosschecks", "testing.fakes", "hooking.git"])
def test_a_module_that_reaches_both_chains_is_found(module: str) -> None:
    sources = {
        module: "from deploykit.trust.policy import judge\nimport deploykit.names\nimport deploykit.trees.x",
        "trust.policy": "",
        "trees.x": "",
        "names": "",
    }
    assert [text.split()[0] for text in bridges(graph_of(sources))] == [module]


def test_a_module_that_reaches_the_other_chain_through_a_shared_one_is_found() -> None:
    sources = {
        "mirror.pool": "from deploykit.settings import MirrorSettings",
        "settings": "from deploykit.messages.topics import TopicMap",
        "messages.topics": "",
    }
    assert [text.split()[0] for text in bridges(graph_of(sources))] == ["mirror.pool"]


def test_where_the_chains_meet_both_may_be_reached() -> None:
    sources = {"config.load": "import deploykit.mirror\nimport deploykit.bus", "mirror": "", "bus": ""}
    assert bridges(graph_of(sources)) == []


def test_hook_scripts_import_only_the_body_of_the_hooks() -> None:
    scripts = [p for p in HOOKS.rglob("*") if p.is_file() and p.read_bytes().startswith(b"#!")]
    assert len(scripts) == 4
    for script in scripts:
        for module in imports_of(script.read_text()):
            if module.startswith("deploykit."):
                layer, chain = LAYERS[room_of(module.removeprefix("deploykit."))]
                assert layer <= 6 or module.startswith("deploykit.hooking"), f"{script.name} imports {module}"
                assert chain in (None, "message"), f"{script.name} imports {module}"


def test_importing_deploykit_loads_nothing_heavy() -> None:
    code = (
        "import sys, deploykit; "
        "print(*sorted({m.split('.')[0] for m in sys.modules} & "
        "{'stomp','dulwich','cattrs','click','attrs','rich','starlette','sqlalchemy','asyncio'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_resolves() -> None:
    for name in deploykit.__all__:
        assert getattr(deploykit, name) is not None
