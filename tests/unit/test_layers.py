"""A module imports only from lower layers or its own package; the two chains never meet below layer 9."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import deploykit

PACKAGE = Path(deploykit.__file__).parent
HOOKS = Path(__file__).parents[2] / "hooks"

#: DESIGN's table. A chain of None may be used by both.
LAYERS: dict[str, tuple[int, str | None]] = {
    "errors": (1, None),
    "hosts": (2, None),
    "names": (2, None),
    "topics": (2, None),
    "ownership": (2, None),
    "settings": (3, None),
    "messages": (4, "message"),
    "wire": (5, "message"),
    "outbox": (6, "message"),
    "ids": (6, "message"),
    "keys": (6, "message"),
    "hooksettings": (6, "message"),
    "bus": (7, "message"),
    "hooking": (7, "message"),
    "testing": (7, None),
    "settingscheck": (7, None),
    "mirror": (4, "file"),
    "trees": (5, "file"),
    "release": (6, "file"),
    "checkouts": (6, "file"),
    "fleet": (8, "message"),
    "config": (8, None),
    "installer": (8, None),
    "daemons": (9, None),
    "demo": (9, None),
    "web": (9, None),
    "cli": (10, None),
    "__main__": (11, None),
}
ONLY_IN: dict[str, tuple[str, ...]] = {
    "stomp": ("bus/connection.py",),
    "dulwich": ("mirror/", "trees/"),
    "subprocess": ("release/scripts.py", "mirror/remote.py", "mirror/upkeep.py", "installer.py", "demo/", "daemons/"),
}


def imports_of(source: str) -> set[str]:
    """Every module a file imports, wherever in the file, as dotted names; TYPE_CHECKING blocks count too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what a module depends on"
            if node.module == "deploykit":
                found |= {f"deploykit.{alias.name}" for alias in node.names}
            elif node.module:
                found.add(node.module)
    return found


def violations(where: str, source: str) -> list[str]:
    """What `source`, the file `where` (relative to the package), breaks."""
    room = where.split("/", maxsplit=1)[0].removesuffix(".py")
    found = []
    for module in sorted(imports_of(source)):
        top, _, rest = module.partition(".")
        for name, allowed in ONLY_IN.items():
            if top == name and not where.startswith(allowed):
                found.append(f"{where} imports {module}: only {', '.join(allowed)} may")
        if top != "deploykit" or not rest or room == "__init__":
            continue
        target = rest.split(".")[0]
        if target == "__version__" or target == room:
            continue
        if target not in LAYERS:
            found.append(f"{where} imports {module}, which has no layer")
        elif room not in LAYERS:
            found.append(f"{where} has no layer")
        elif LAYERS[target][0] >= LAYERS[room][0]:
            found.append(f"{where} (layer {LAYERS[room][0]}) imports {module} (layer {LAYERS[target][0]})")
        elif LAYERS[room][1] and LAYERS[target][1] and LAYERS[room][1] != LAYERS[target][1]:
            found.append(f"{where} ({LAYERS[room][1]} chain) imports {module} ({LAYERS[target][1]} chain)")
    return found


def test_every_module_keeps_to_its_layer() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 10
    found = [v for f in files for v in violations(str(f.relative_to(PACKAGE)), f.read_text())]
    assert found == []


@pytest.mark.parametrize(
    ("where", "source", "says"),
    [
        ("names.py", "import deploykit.bus", "layer 2"),
        ("wire/codec.py", "from deploykit.mirror import Mirror", "chain"),
        ("release/runner.py", "def f():\n    from deploykit.bus.client import Bus", "layer 6"),
        ("checkouts.py", "from deploykit import messages", "chain"),
        ("bus/client.py", "import stomp.transport", "only bus/connection.py"),
        ("release/site.py", "from dulwich.repo import Repo", "only mirror/, trees/"),
        ("bus/relay.py", "import subprocess", "only release/scripts.py"),
        ("bus/relay.py", "import deploykit.nowhere", "no layer"),
    ],
)
def test_a_broken_rule_is_found(where: str, source: str, says: str) -> None:
    assert any(says in v for v in violations(where, source))


def test_hook_scripts_use_only_the_message_chain_below_the_bus() -> None:
    for script in sorted(p for p in HOOKS.rglob("*") if p.is_file() and p.read_bytes().startswith(b"#!")):
        for module in imports_of(script.read_text()):
            if module.startswith("deploykit."):
                layer, chain = LAYERS[module.split(".")[1]]
                # hooking is a hook's own body: it may import nothing above layer 6 either.
                assert layer <= 6 or module == "deploykit.hooking", f"{script.name} imports {module}"
                assert chain in (None, "message"), f"{script.name} imports {module}"


def test_importing_deploykit_loads_nothing_heavy() -> None:
    code = (
        "import sys, deploykit; "
        "print(*sorted({m.split('.')[0] for m in sys.modules} & {'stomp','dulwich','cattrs','click','attrs','rich'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_resolves() -> None:
    for name in deploykit.__all__:
        assert getattr(deploykit, name) is not None
