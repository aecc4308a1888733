"""git's post-receive hook on real pushes: which repository, who pushed, and what a forge says of both."""

from __future__ import annotations

import pytest

from tests.support.gitpush import push
from tests.support.hookworld import World, lines

# -- forges: what they run, and in which environment -------------------------------------------------------------------


#: A dispatcher like Gitea's and Forgejo's: every hook of the directory gets the input, the first failure is the result.
_GITEA = """\
#!/bin/sh
input=$(cat)
name=$(basename "$0")
code=0
for each in "${GIT_DIR:-.}"/hooks/"${name}".d/*; do
  test -x "$each" || continue
  echo "$input" | "$each" || code=$?
done
exit $code
"""


#: Gitaly runs git's hooks from a directory of its own, and from there the repository's custom_hooks.
_GITALY = """\
#!/bin/sh
input=$(cat)
for each in "$GIT_DIR"/custom_hooks/$(basename "$0").d/*; do echo "$input" | "$each" || exit 1; done
"""


GITEA = {
    "GITEA_REPO_NAME": "shop", "GITEA_REPO_USER_NAME": "team", "GITEA_REPO_IS_WIKI": "false", "GITEA_REPO_ID": "7",
    "GITEA_PUSHER_NAME": "ada", "GITEA_PUSHER_EMAIL": "ada@example.org", "GITEA_PUSHER_ID": "3", "GITEA_KEY_ID": "9",
    "SSH_ORIGINAL_COMMAND": "gitea-internal",
}  # fmt: skip


GITLAB = {
    "GL_ID": "user-3", "GL_USERNAME": "ada", "GL_PROJECT_PATH": "team/shop", "GL_PROTOCOL": "ssh",
    "GL_REPOSITORY": "project-7",
}  # fmt: skip


@pytest.mark.parametrize("forge", ["gitea", "gitlab"])
def test_a_forge_runs_it_from_its_directory_and_names_repository_and_pusher(world: World, forge: str) -> None:
    origin = world.origin("3f9a.git", install=False)  # a hashed name: only the forge knows what it is called
    if forge == "gitea":
        world.write(origin / "hooks" / "post-receive", _GITEA, 0o755)
        place = world.directory("3f9a.git/hooks/post-receive.d")
        world.write(place / "gitea", "#!/bin/sh\ncat >/dev/null\n", 0o755)
    else:
        own = world.directory("gitaly")
        world.write(own / "post-receive", _GITALY, 0o755)
        place = world.directory("3f9a.git/custom_hooks") / "post-receive.d"
    installed = world.deploykit("hooks", "install", origin)
    assert installed.returncode == 0, installed.stderr
    assert [p.name for p in place.iterdir() if "deploykit" in p.name] == ["50-deploykit"]
    if forge == "gitlab":
        world.git("config", "core.hooksPath", own, cwd=origin)
    work = world.clone(origin)
    world.commit(work)
    done = world.git("push", "origin", "main", cwd=work, env=GITEA if forge == "gitea" else GITLAB)
    assert lines(done) == [f"deploykit: 1 event queued in {world.spool}; no relay is at work"]
    (event,) = world.events()
    assert (event.repo, event.pusher, event.ref, event.commit_count) == ("team/shop", "ada", "refs/heads/main", 1)


# -- who and where -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "who"),
    [
        ({"GL_USER": "ada"}, "ada"),
        ({"GITEA_PUSHER_NAME": "bob", "GITEA_PUSHER_EMAIL": "b@c"}, "bob"),
        ({"GL_USERNAME": "carol", "GL_ID": "key-7"}, "carol"),
        ({"GL_ID": "key-7"}, "key-7"),
        ({"REMOTE_USER": "dave"}, "dave"),
        ({"GL_USER": "a\nb\x1b[31m"}, "a b [31m"),
        ({"USER": "liar", "LOGNAME": "liar"}, None),
    ],
)
def test_the_pusher_is_who_the_forge_let_in(world: World, env: dict[str, str], who: str | None) -> None:
    work = world.clone(world.origin())
    world.commit(work)
    world.git("push", "origin", "main", cwd=work, env=env)
    (event,) = world.events()
    assert event.pusher == who if who else event.pusher not in ("", "liar")


@pytest.mark.parametrize(
    ("place", "settings", "env", "name"),
    [
        ("shop.git", "", {}, "shop"),
        ("group/sub/shop.git", "", {}, "shop"),
        ("group/sub/shop.git", 'root = "{root}"\n', {}, "group/sub/shop"),
        ("x.git", 'repo = "team/other"\n', {"GL_REPO": "not/this"}, "team/other"),
        ("x.git", "", {"GL_REPO": "team/gitolite"}, "team/gitolite"),
        ("x.git", "", {"GITEA_REPO_USER_NAME": "team", "GITEA_REPO_NAME": "gitea"}, "team/gitea"),
        ("x.git", "", {"GL_REPOSITORY": "project-7", "GL_PROJECT_PATH": "team/gitlab"}, "team/gitlab"),
    ],
)
def test_the_repository_is_named_by_settings_place_or_forge(
    world: World, place: str, settings: str, env: dict[str, str], name: str
) -> None:
    origin = world.origin(place, settings.format(root=world.root))
    work = world.clone(origin)
    world.commit(work)
    world.git("push", "origin", "main", cwd=work, env=env)
    assert [e.repo for e in world.events()] == [name]


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "a b", "x\ny", "-x"])
def test_a_hostile_repository_name_is_refused_in_one_line(world: World, name: str) -> None:
    """Threat 9: a name from the environment is parsed like any other."""
    work = world.clone(world.origin())
    world.commit(work)
    done = world.git("push", "origin", "main", cwd=work, env={"GL_REPO": name})
    assert world.events() == []
    (line,) = lines(done)
    assert "nothing queued: not a repository name" in line
    assert 'repo = "NAME"' in line


def test_settings_may_stand_in_git_config(world: World) -> None:
    origin = world.origin()
    (origin / "deploykit.toml").unlink()
    for key, value in (
        ("spool", str(world.spool)),
        ("repo", "by/config"),
        ("notices", "no"),
        ("topics.source", "/topic/x"),
    ):
        world.git("config", f"deploykit.{key}", value, cwd=origin)
    world.git("config", "--add", "deploykit.refs", "refs/heads/*", cwd=origin)
    work = world.clone(origin)
    world.commit(work)
    world.git("tag", "v1", cwd=work)
    world.git("push", "origin", "main", "v1", cwd=work)
    (record,) = world.records()
    assert record.destination == "/topic/x"
    assert world.events()[0].repo == "by/config"


@pytest.mark.parametrize("text", ["[include]\n\tpath = nowhere\n", '[remote "x"]\n\turl = /srv/deploykit.git\n'])
def test_a_git_config_that_says_nothing_to_us_is_no_trouble(world: World, text: str) -> None:
    """Nothing of ours is in it, though at a first look something might be."""
    origin = world.origin()
    with (origin / "config").open("a") as file:
        file.write(text)
    work = world.clone(origin)
    world.commit(work)
    assert len(push(world, work, "main")) == 1


def test_a_git_config_includes_settings_of_ours(world: World) -> None:
    origin = world.origin()
    world.write(world.root / "included", "[deploykit]\n\trepo = by/include\n\tnotices\n")
    world.git("config", "include.path", world.root / "included", cwd=origin)
    work = world.clone(origin)
    world.commit(work)
    (event,) = push(world, work, "main")
    assert event.repo == "by/include"


def test_a_repository_with_a_work_tree_is_told_by_its_directory(world: World) -> None:
    place = world.directory("site")
    world.git("init", "--quiet", place)
    world.git("config", "receive.denyCurrentBranch", "ignore", cwd=place)
    world.settle(place / ".git")
    assert world.deploykit("hooks", "install", place).returncode == 0
    work = world.clone(place)
    world.commit(work)
    (event,) = push(world, work, "main")
    assert event.repo == "site"


def test_a_sha256_repository(world: World) -> None:
    place = world.directory("new.git")
    world.git("init", "--quiet", "--bare", "--object-format=sha256", place)
    world.settle(place)
    assert world.deploykit("hooks", "install", place).returncode == 0
    work = world.directory("work")
    world.git("init", "--quiet", "--object-format=sha256", work)
    world.git("remote", "add", "origin", place, cwd=work)
    commit = world.commit(work)
    (event,) = push(world, work, "main")
    assert (event.new, event.kind, event.commit_count, len(event.old)) == (commit, "created", 1, 64)
    world.git("config", "receive.denyDeleteCurrent", "ignore", cwd=place)
    (event,) = push(world, work, ":main")
    assert event.kind == "deleted"


def test_git_is_the_one_that_runs_the_hook_and_its_settings_do_not_show(world: World) -> None:
    """Settings that change what `git log` prints change nothing here: commits are read as git stores them."""
    origin = world.origin()
    for key, value in (
        ("log.showSignature", "true"),
        ("i18n.logOutputEncoding", "UTF-16"),
        ("format.pretty", "oneline"),
    ):
        world.git("config", key, value, cwd=origin)
    work = world.clone(origin)
    world.commit(work, "Grüße")
    (event,) = push(world, work, "main")
    assert event.commits[0].message == "Grüße"
