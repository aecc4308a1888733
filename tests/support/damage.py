"""Damage of the kind that disks do: bytes of an object change where a repository keeps it."""

from __future__ import annotations

from pathlib import Path

from tests.support.submodules import git


def damage_object(repository: Path, oid: str) -> None:
    """Change the middle of an object, in the pack that has it or in its own file."""
    for pack in sorted((repository / "objects" / "pack").glob("*.pack")):
        for line in git("verify-pack", "-v", str(pack), cwd=repository).splitlines():
            name, *words = line.split()
            if name == oid:
                _change(pack, int(words[3]), int(words[2]))
                return
    file = repository / "objects" / oid[:2] / oid[2:]
    _change(file, 0, file.stat().st_size)


def _change(file: Path, start: int, size: int) -> None:
    content = bytearray(file.read_bytes())
    for at in range(start + size // 3, start + size - size // 3):
        content[at] ^= 0xFF
    file.chmod(0o644)
    file.write_bytes(content)


__all__ = ["damage_object"]
