"""Names that are `.git` on some file system, or no names at all."""

from __future__ import annotations

#: git's own t1014 and t0021 lists, and the NTFS streams.
CONFUSING = [
    b".",
    b"..",
    b".git",
    b".GIT",
    b".Git",
    b".giT",
    b".git.",
    b".git ",
    b".git. .",
    b"git~1",
    b"GIT~1",
    b"git~1.",
    b".git::$INDEX_ALLOCATION",
    b".git:evil",
    b".git\\config",
    b"a\\.git",
    b".\xe2\x80\x8cgit",
    b".g\xe2\x80\x8cit",
    b".gi\xe2\x80\x8dt",
    b".git\xe2\x80\x8c",
    b"\xef\xbb\xbf.git",
    b"\xef\xbb\xbf..",
    b".G\xe2\x80\x8cIT",
    b"",
    b"a/b",
    b"a\0b",
    b"x" * 256,
]
