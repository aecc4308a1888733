"""The manifest: what was written into a directory, to be checked later.

One row per file or link: path, mode, the git id of the bytes *written*, and the result of `lstat` right after (mode,
size, mtime, ctime, inode). A row with the same `lstat` is unchanged and its file is not read; any other file is read
and hashed.

The file is a JSON line that names the format version and the counts, then the columns one after the other, and it
ends in a digest of all of it: 5,000 rows load in about a millisecond, and a torn file is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import attrs

from deploykit.errors import TreeError
from deploykit.system.durable import replace_file

FORMAT: Final = 1
_MAGIC: Final = b"deploykit-manifest "
#: Columns of `Manifest.numbers`, per row.
WIDTH: Final = 6
MODE, PERM, SIZE, MTIME, CTIME, INODE = range(WIDTH)
#: Set in the MODE column for what deploykit added to the tree (TAG, links to shared directories).
OURS: Final = 1 << 24
#: Inode numbers are kept in a signed column; no two files differ in the lost bit alone.
INODE_MASK: Final = (1 << 63) - 1


class ManifestRow(NamedTuple):
    """One file or link as it was written. `ours` marks one that deploykit added to the tree (TAG, links to shared)."""

    path: str
    mode: int
    perm: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    ours: bool
    oid: str


@attrs.frozen(kw_only=True, slots=True, eq=False)
class Manifest:
    """The rows of one written tree, column by column.

    Args:
        tree: the git tree it was written from (hex).
        fingerprint: the rules it was written by; a tree written by other rules cannot be patched.
        device: the file system it was written on.
        taken_ns: the file system's clock after the last row was written. A file changed at or after it may look the
            same to `lstat`, and is always read.
        directories: every directory, relative; the root is not among them.
        paths: relative, as `os.fsdecode` gives them.
        numbers: WIDTH numbers per row.
        oids: the ids of the rows as one run of bytes, `oid_length` each; zeros where the content was never hashed.
    """

    tree: str
    fingerprint: str
    device: int
    taken_ns: int
    oid_length: int
    directories: frozenset[str]
    paths: list[str] = attrs.field(repr=False)
    numbers: array[int] = attrs.field(repr=False)
    oids: bytes = attrs.field(repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def total_bytes(self) -> int:
        """The sum of all sizes."""
        return sum(self.numbers[SIZE::WIDTH])

    def row(self, at: int) -> ManifestRow:
        """Return row `at`."""
        n = self.numbers[at * WIDTH : at * WIDTH + WIDTH]
        oid = self.oids[at * self.oid_length : (at + 1) * self.oid_length].hex()
        return ManifestRow(
            self.paths[at],
            n[MODE] & ~OURS,
            n[PERM],
            n[SIZE],
            n[MTIME],
            n[CTIME],
            n[INODE],
            bool(n[MODE] & OURS),
            oid,
        )

    def rows(self) -> Iterator[ManifestRow]:
        """Yield every row."""
        return map(self.row, range(len(self.paths)))

    def save(self, path: Path, *, durable: bool = True) -> None:
        """Replace the file `path` by this manifest, whole or not at all."""
        replace_file(path, self.to_bytes(), mode=0o640, durable=durable)

    def to_bytes(self) -> bytes:
        """Return the content of the manifest's file."""
        names = os.fsencode("\0".join(self.paths))
        directories = os.fsencode("\0".join(sorted(self.directories)))
        head = {
            "tree": self.tree,
            "fingerprint": self.fingerprint,
            "device": self.device,
            "taken_ns": self.taken_ns,
            "oid_length": self.oid_length,
            "rows": len(self.paths),
            "names": len(names),
            "directories": len(directories),
            "order": _ORDER,
        }
        body = b"".join(
            (
                _MAGIC + b"%d\n" % FORMAT,
                json.dumps(head, separators=(",", ":")).encode() + b"\n",
                names,
                directories,
                self.oids,
                self.numbers.tobytes(),
            )
        )
        return body + hashlib.sha256(body).digest()

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Return the manifest in the file `path`.

        Raises:
            TreeError: missing, torn, or of a format this version does not know.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TreeError(f"cannot read the manifest {path}: {error.strerror}", _WAY_OUT) from error
        return cls.from_bytes(content, path)

    @classmethod
    def from_bytes(cls, content: bytes, path: Path) -> Manifest:
        """Parse a manifest's content; `path` is for the error text."""
        first = content[:64].partition(b"\n")[0]
        if not content.startswith(_MAGIC):
            raise TreeError(f"{path} is not a manifest", _WAY_OUT)
        if first != _MAGIC + b"%d" % FORMAT:
            found = first[len(_MAGIC) :].decode("ascii", "replace")
            raise TreeError(
                f"{path} has manifest format {found!a}, known is {FORMAT}",
                "use the deploykit version that wrote it, or deploy once more",
            )
        if len(content) < 32 or hashlib.sha256(content[:-32]).digest() != content[-32:]:
            raise TreeError(f"the manifest {path} is damaged", _WAY_OUT)
        start = len(first) + 1
        end = content.index(b"\n", start)
        head = json.loads(content[start:end])
        if head["order"] != _ORDER:
            raise TreeError(f"the manifest {path} was written on another kind of machine", _WAY_OUT)
        cut = [end + 1]
        for size in (head["names"], head["directories"], head["rows"] * head["oid_length"]):
            cut.append(cut[-1] + size)
        numbers: array[int] = array("q")
        numbers.frombytes(content[cut[3] : -32])
        names = content[cut[0] : cut[1]]
        directories = content[cut[1] : cut[2]]
        return cls(
            tree=head["tree"],
            fingerprint=head["fingerprint"],
            device=head["device"],
            taken_ns=head["taken_ns"],
            oid_length=head["oid_length"],
            directories=frozenset(os.fsdecode(directories).split("\0")) if directories else frozenset(),
            paths=os.fsdecode(names).split("\0") if head["rows"] else [],
            numbers=numbers,
            oids=content[cut[2] : cut[3]],
        )


_ORDER: Final = array("H", [1]).tobytes().hex()
_WAY_OUT: Final = "deploy once more: a release without a usable manifest is written afresh"


class ManifestRows:
    """Rows being collected, column by column, to make a manifest from."""

    def __init__(self, oid_length: int) -> None:
        self.oid_length = oid_length
        self.paths: list[str] = []
        self.numbers: array[int] = array("q")
        self.oids = bytearray()
        self.directories: set[str] = set()

    def add(self, path: str, mode: int, seen: os.stat_result, oid: bytes, *, ours: bool = False) -> None:
        """Add one row: `mode` is git's, `oid` the raw id of the content."""
        self.paths.append(path)
        if ours:
            mode |= OURS
        self.numbers.extend(
            (mode, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino & INODE_MASK)
        )
        self.oids += oid

    @classmethod
    def without(cls, manifest: Manifest, drop: set[int]) -> ManifestRows:
        """Return a copy of a manifest's rows without those at `drop`."""
        rows = cls(manifest.oid_length)
        rows.directories = set(manifest.directories)
        size = manifest.oid_length
        start = 0
        for at in [*sorted(drop), len(manifest)]:
            rows.paths += manifest.paths[start:at]
            rows.numbers += manifest.numbers[start * WIDTH : at * WIDTH]
            rows.oids += manifest.oids[start * size : at * size]
            start = at + 1
        return rows

    def finish(self, *, tree: str, fingerprint: str, device: int, taken_ns: int) -> Manifest:
        """Return the manifest of the rows collected."""
        return Manifest(
            tree=tree,
            fingerprint=fingerprint,
            device=device,
            taken_ns=taken_ns,
            oid_length=self.oid_length,
            directories=frozenset(self.directories),
            paths=self.paths,
            numbers=self.numbers,
            oids=bytes(self.oids),
        )
