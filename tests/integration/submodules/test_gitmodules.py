"""`.gitmodules` as git reads it, addresses as git makes them whole, grafted trees as git writes them; hostile ones."""

from __future__ import annotations

import contextlib
import io
import subprocess
from pathlib import Path

import pytest
from dulwich.object_store import MemoryObjectStore
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.errors import TreeError
from deploykit.git.composedstore import ComposedStore
from deploykit.git.repository import Repository
from deploykit.trees.gitmodules import Submodule, absolute_url, read_gitmodules, url_key
from deploykit.trees.graft import graft
from tests.support.gitrepo import GitRepo
from tests.support.submodules import git

TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=20)


def by_git(file: Path) -> dict[tuple[str, str], str]:
    """Return (name, key) -> value of each setting of a submodule, as git reads the file."""
    out = git("config", "-f", str(file), "-z", "--list", cwd=file.parent)
    found: dict[tuple[str, str], str] = {}
    for entry in out.split("\0"):
        key, _, value = entry.partition("\n")
        section, _, rest = key.partition(".")
        name, _, setting = rest.rpartition(".")
        if section == "submodule" and name:
            found[name, setting] = value
    return found


@settings(max_examples=40)
@given(st.dictionaries(TEXT, st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_what_git_wrote_is_read_as_git_reads_it(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, tuple[str, str]]
) -> None:
    file = tmp_path_factory.mktemp("modules") / "gitmodules"
    for name, (path, url) in entries.items():
        git("config", "-f", str(file), f"submodule.{name}.path", path, cwd=file.parent)
        git("config", "-f", str(file), f"submodule.{name}.url", url, cwd=file.parent)
    known = by_git(file)
    expected: dict[bytes, str] = {}
    for name in entries:
        place, address = known[name, "path"].rstrip("/").encode(), known[name, "url"]
        if known[name, "path"] and address and expected.setdefault(place, address) != address:
            with pytest.raises(TreeError, match="two addresses"):
                read_gitmodules(file.read_bytes())
            return
    found = {path: module.url for path, module in read_gitmodules(file.read_bytes()).items()}
    assert found == {path: url for path, url in expected.items() if path}


@pytest.mark.parametrize(
    "content",
    [
        b'[submodule "x"]\n\tpath = lib\n',
        b'[submodule "x"]\n\turl = https://git.example.org/x\n',
        b"[submodule]\n\tpath = lib\n\turl = u\n",
        b"[core]\n\tpath = lib\n\turl = u\n",
        b'[submodule "x"]\n\tpath =\n\turl =\n',
        b'[submodule "../x"]\n\tpath = lib\n\turl = u\n',
        b'[submodule "x\\\\..\\\\y"]\n\tpath = lib\n\turl = u\n',
        b'[submodule ""]\n\tpath = lib\n\turl = u\n',
        b"",
    ],
)
def test_entries_that_say_nothing_count_for_nothing(content: bytes) -> None:
    assert read_gitmodules(content) == {}


def test_other_files_are_not_read(tmp_path: Path) -> None:
    """Threat 15: what a repository says does not make us open what is beside it."""
    secret = tmp_path / "secret"
    secret.write_text('[submodule "s"]\n\tpath = lib\n\turl = https://found.example.org/\n')
    content = f'[include]\n\tpath = {secret}\n[includeIf "gitdir:/"]\n\tpath = {secret}\n'
    content += '[submodule "x"]\n\tpath = lib\n\turl = ../x\n\tupdate = !touch /tmp/never\n'
    assert read_gitmodules(content.encode()) == {b"lib": Submodule(path=b"lib", url="../x")}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'[submodule "x"\n', "cannot be parsed"),
        (b'[submodule "a"]\npath = l\nurl = u\n[submodule "b"]\npath = l/\nurl = v\n', "two addresses for l"),
        (b'[submodule "x"]\npath = ' + b"d/" * 300 + b"lib\nurl = u\n", "a path of 603 bytes"),
        (b'[submodule "x"]\npath = ' + b"d" * 5000 + b"\nurl = u\n", "a path of 5000 bytes"),
        (b"#" * (300 << 10), "262144 are allowed"),
        (b"".join(b'[submodule "%d"]\npath = p%d\nurl = u\n' % (n, n) for n in range(1002)), "more than 1000"),
    ],
)
def test_what_cannot_be_meant_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(TreeError, match=why):
        read_gitmodules(content)


@pytest.mark.parametrize("line", [b"url x https://u:s3cret@h/x", b"https://u:s3cret@h/x = 1", b"[https://u:s3cret@h/]"])
def test_what_cannot_be_parsed_is_not_quoted(line: bytes) -> None:
    with pytest.raises(TreeError, match="cannot be parsed") as caught:
        read_gitmodules(b'[submodule "x"]\n' + line + b"\n")
    assert "s3cret" not in f"{caught.value}{caught.value.__cause__}"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(TreeError):
        read_gitmodules(b'[submodule "x"]\n' + content)


BASES = (
    *("https://git.example.org/web/shop.git", "ssh://git@git.example.org:22/web/shop", "git@git.example.org:shop"),
    *("git@git.example.org:web/shop.git", "/srv/git/shop.git", "file:///srv/git/shop.git/"),
)


@pytest.mark.parametrize("base", BASES)
def test_relative_addresses_become_what_git_makes_of_them(base: str, tmp_path: Path) -> None:
    git("init", "-q", str(tmp_path), cwd=tmp_path)
    git("config", "remote.origin.url", base, cwd=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "x", cwd=tmp_path)
    commit = git("rev-parse", "HEAD", cwd=tmp_path)
    urls = ["../theme.git", "./theme", ".././theme", "../theme/", "https://else.example.org/x"]
    urls += ["../../up/theme.git/"] if base != "git@git.example.org:shop" else []  # git gives up there
    lines = []
    for number, url in enumerate(urls):
        git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib{number}", cwd=tmp_path)
        lines.append(f'[submodule "lib{number}"]\n\tpath = lib{number}\n\turl = {url}\n')
    (tmp_path / ".gitmodules").write_text("".join(lines))
    git("submodule", "init", cwd=tmp_path)
    for number, url in enumerate(urls):
        assert absolute_url(base, url) == git("config", f"submodule.lib{number}.url", cwd=tmp_path), url


def test_addresses_of_one_repository_have_one_key() -> None:
    assert (
        len(
            {
                url_key(url)
                for url in (
                    "https://git.example.org/x",
                    "HTTPS://Git.example.org/x.git/",
                    "https://a:b@git.example.org/x",
                )
            }
        )
        == 1
    )
    assert url_key("https://git.example.org/x") != url_key("https://git.example.org/X")
    assert url_key("https://git.example.org/x") != url_key("ssh://git.example.org/x")
    assert url_key("file:///srv/x.git") == url_key("/srv/x")


# -- grafts ------------------------------------------------------------------------------------------------------------


def test_a_grafted_tree_is_the_one_that_git_writes(tmp_path: Path) -> None:
    repo = GitRepo(tmp_path / "repo")
    root = repo.tree_of(repo.commit({"a": b"1", "lib-x/y": b"2", "lib.txt": b"3", "lib/old": b"4", "z/deep/f": b"5"}))
    other = repo.tree_of(repo.commit({"new": b"6", "sub/n": b"7"}, branch="other", parent=""))
    (tmp_path / "work").mkdir()
    env = {
        "GIT_INDEX_FILE": str(tmp_path / "index"),
        "GIT_WORK_TREE": str(tmp_path / "work"),
        "GIT_DIR": str(repo.path),
    }
    with Repository(repo.path) as opened:
        store = ComposedStore(opened.store)
        for paths in (["lib"], ["z/deep"], ["new/way/down"], ["lib", "lib-x", "a.b/c", "a.b/d"]):
            made = graft(store, root.encode(), {path.encode(): other.encode() for path in paths}).decode()
            repo.git("read-tree", root, env=env)
            for path in paths:
                repo.git("rm", "-r", "-q", "--cached", "--ignore-unmatch", path, env=env)
                repo.git("read-tree", f"--prefix={path}/", other, env=env)  # wants a work tree
            assert made == repo.git("write-tree", env=env).decode().strip(), paths
            assert made.encode() in store  # type: ignore[operator]  # dulwich has a type of its own for ids


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["a/x"], "a is in the way"),
        (["x", "x/y"], "inside another one"),
        (["x/y", "x"], "stands for two"),
        (["../x"], "cannot be a path"),
        (["x/.git"], "cannot be a path"),
        ([""], "cannot be a path"),
        (["x//y"], "cannot be a path"),
    ],
)
def test_paths_that_cannot_be(tmp_path: Path, paths: list[str], why: str) -> None:
    repo = GitRepo(tmp_path / "repo")
    root = repo.tree_of(repo.commit({"a": b"1"}))
    with Repository(repo.path) as opened, pytest.raises(TreeError, match=why):
        graft(ComposedStore(opened.store), root.encode(), {path.encode(): root.encode() for path in paths})


def test_ids_of_another_kind_do_not_mix(tmp_path: Path) -> None:
    repo = GitRepo(tmp_path / "repo", object_format="sha256")
    repo.commit({"a": b"1"})
    with Repository(repo.path) as opened, pytest.raises(TreeError, match="theme has ids of sha256"):
        ComposedStore(MemoryObjectStore()).add(opened.store, "theme")


def test_an_object_that_no_store_has_is_missing(tmp_path: Path) -> None:
    store = ComposedStore(MemoryObjectStore())
    with pytest.raises(KeyError):
        store.get_raw(b"ab" * 20)  # type: ignore[arg-type]
    empty = store.keep_tree(b"")
    git("init", "-q", str(tmp_path), cwd=tmp_path)
    words = ["git", "hash-object", "-t", "tree", "--stdin"]
    assert subprocess.run(words, cwd=tmp_path, input=b"", capture_output=True, check=True).stdout.strip() == empty
    assert io.BytesIO(store[empty].as_raw_string()).read() == b""  # type: ignore[index]
