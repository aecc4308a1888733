"""A pointer of Git LFS is exactly what its specification says, and everything else is a file."""

from __future__ import annotations

import pytest

from deploykit.git.lfspointer import POINTER_MAX, LfsPointer, parse_pointer

OID = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
GOOD = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 12345\n".encode()


def test_the_example_of_the_specification_is_a_pointer() -> None:
    assert parse_pointer(GOOD) == LfsPointer(OID, 12345)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\n",
        GOOD + b"x 1\n",
        b"\n" + GOOD,
        b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"version", b"Version"),
        GOOD.replace(b"spec/v1", b"spec/v2"),
        GOOD.replace(b"github.com", b"example.net"),
        GOOD.replace(b"sha256", b"sha512"),
        GOOD.replace(b"sha256:", b""),
        GOOD.replace(OID.encode(), OID.upper().encode()),
        GOOD.replace(OID.encode(), OID[:-1].encode()),
        GOOD.replace(OID.encode(), OID.encode() + b"0"),
        GOOD.replace(OID.encode(), b"../" + OID[3:].encode()),
        GOOD.replace(b"12345", b"-1"),
        GOOD.replace(b"12345", b"012"),
        GOOD.replace(b"12345", b"1e3"),
        GOOD.replace(b"12345", b""),
        GOOD.replace(b"12345", b"9" * 19),
        GOOD.replace(b"12345", "١٢".encode()),
        GOOD.replace(b"oid", b"ext-0-foo sha256:%b\noid" % OID.encode()),
        b"size 12345\n" + GOOD.replace(b"size 12345\n", b""),
        GOOD.replace(b"size 12345\n", b"") + b"size 12345\nsize 1\n",
        GOOD.ljust(POINTER_MAX, b"\n"),
    ],
)
def test_what_is_nearly_one_is_none(data: bytes) -> None:
    assert parse_pointer(data) is None
