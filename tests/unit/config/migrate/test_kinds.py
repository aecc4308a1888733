"""The original's other programs: each of their files is known by its keys, and becomes settings that are accepted."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deploykit.config.migrate.convert import convert, kind_of_file
from deploykit.config.migrate.kinds import all_kinds
from deploykit.config.migrate.model import MigrationDraft, OldFile
from deploykit.config.migrate.render import render_hooks
from deploykit.config.migrate.writing import write_draft
from deploykit.messages.topics import PRESETS
from deploykit.settings.hooks import HookSettings, load_hook_settings
from tests.support.oldkinds import SAMPLES
from tests.support.oldsettings import accepted, lost_keys, old_file


def sample(kind: str) -> OldFile:
    """The file that a kind's program came with."""
    name, text = SAMPLES[kind]
    return old_file(text, name)


def drafted(*kinds: str) -> MigrationDraft:
    """What the files of some kinds become together."""
    return convert([sample(kind) for kind in kinds])


def hook_settings(draft: MigrationDraft, directory: Path) -> HookSettings:
    """The hooks' settings of a draft, read as a hook reads them."""
    file = directory / "hooks.toml"
    file.write_text(render_hooks(draft))
    return load_hook_settings("", system_file=str(file))


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_file_is_of_one_kind_alone(kind: str) -> None:
    file = sample(kind)
    assert [each.name for each in all_kinds() if each.fits(file)] == [kind]
    assert kind_of_file(file).name == kind


@pytest.mark.parametrize("kind", SAMPLES)
def test_it_becomes_settings_that_are_accepted(kind: str, tmp_path: Path) -> None:
    draft = drafted(kind)
    accepted(draft, tmp_path)
    hook_settings(draft, tmp_path)
    assert all(lost.why and lost.key for lost in draft.lost)


def test_all_files_of_a_fleet_together_are_accepted(tmp_path: Path) -> None:
    draft = drafted(*SAMPLES)
    accepted(draft, tmp_path)
    hook_settings(draft, tmp_path)


# -- access ------------------------------------------------------------------------------------------------------------


def test_protected_sites_keep_file_kind_and_topics(tmp_path: Path) -> None:
    draft = drafted("stomp-access")
    settings = accepted(draft, tmp_path)
    sites = {name: (site.kind, str(site.file), site.userlist) for name, site in settings.access.sites.items()}
    assert sites == {
        "example-site": ("htpasswd", "/etc/nginx/includes/preview.access", ""),
        "second-site": ("haproxy", "/etc/haproxy/second.access", "second.access"),
    }
    assert settings.topics.access == "/topic/future.access.stage"
    assert settings.topics == PRESETS["future"]
    assert settings.legacy
    assert not settings.access.legacy
    assert "access.legacy" in " ".join(draft.warnings)
    assert "`*0`" in lost_keys(draft)["sites.example-site.users"]


def test_what_haproxy_needs_for_a_reload_is_proposed_in_comments_that_are_settings(tmp_path: Path) -> None:
    from deploykit.config import parse_settings
    from deploykit.config.migrate.render import render

    draft = drafted("stomp-access")
    accepted(draft, tmp_path)
    text = render(draft, directory=tmp_path)
    for name in ("test", "reload", "master"):
        assert f"\n# {name} = " in text
        text = text.replace(f"\n# {name} = ", f"\n{name} = ")
    (site,) = (s for s in parse_settings(text.encode(), mode=0o600).access.sites.values() if s.kind == "haproxy")
    assert site.test[0] == "/usr/sbin/haproxy"
    assert site.reload
    assert str(site.master) == "/run/haproxy-master.sock"


@pytest.mark.parametrize("order", [("stomp-access", "cillit-access"), ("cillit-access", "stomp-access")])
def test_labels_of_the_form_go_to_the_sites_of_the_daemon_in_either_order(
    order: tuple[str, ...], tmp_path: Path
) -> None:
    draft = drafted(*order)
    sites = accepted(draft, tmp_path).access.sites
    assert {name: site.label for name, site in sites.items()} == {
        "example-site": "Example site",
        "second-site": "Second site (haproxy)",
    }
    assert not [key for key in lost_keys(draft) if key.startswith("sites.Example")]


def test_a_form_alone_loses_its_labels_with_the_setting_to_make() -> None:
    assert "set its label" in lost_keys(drafted("cillit-access"))["sites.Example site"]


def access(sites: str) -> MigrationDraft:
    """What a daemon's file with these sites becomes."""
    return convert([old_file(f"listen-topic: t\nsites:\n{sites}", "stomp-access.yaml")])


def test_a_site_with_blanks_in_its_name_keeps_it_as_label(tmp_path: Path) -> None:
    draft = access("  Example site (live): {type: nginx, file: /etc/nginx/x}\n")
    (name, site) = next(iter(accepted(draft, tmp_path).access.sites.items()))
    assert (name, site.label) == ("Example-site-live", "Example site (live)")


@pytest.mark.parametrize(
    ("site", "why"),
    [
        ("a: {type: apache, file: /x}", "neither nginx nor haproxy"),
        ("a: {type: nginx}", "no file"),
        ("a: {type: nginx, file: x}", "no file"),
        ("a: {type: nginx, file: /etc/../x}", "no file"),
        ("a: {file: /x}", "neither nginx nor haproxy"),
        ("'..': {type: nginx, file: /x}", "not a site name"),
        ('"a\\n": {type: nginx, file: /x}', "not a site name"),
        ("a: nginx", "expected a map"),
        ("a: [nginx]", "expected a map"),
        ("b: {type: nginx, file: /x}\n  a: {type: nginx, file: /x}", "that of b, too"),
    ],
)
def test_a_site_that_cannot_be_protected_is_lost_with_the_reason(site: str, why: str, tmp_path: Path) -> None:
    draft = access(f"  {site}\n")
    assert "a" not in accepted(draft, tmp_path).access.sites
    reasons = [lost.why for lost in draft.lost if lost.key.startswith("sites.")]
    assert reasons
    assert why in reasons[-1]


# -- the deploy agent and its pages ------------------------------------------------------------------------------------


def test_facts_of_the_agent_become_sites(tmp_path: Path) -> None:
    draft = drafted("gitagent-facts")
    settings = accepted(draft, tmp_path)
    sites = {
        name: (str(site.path), site.repo, site.release.scripts, site.release.owner, site.release.run_as)
        for name, site in settings.sites.items()
    }
    assert sites == {
        "shop": ("/data/site/shop", "shop", "future-control", "www-data", "owner"),
        "blog": ("/data/site/blog", "blog", "/data/control/blog", "www-data", ""),
    }
    assert {site.release.required for site in settings.sites.values()} == {("pre-deploy", "post-deploy")}
    assert settings.facts.own == {"sitetype_shop": "live", "sitetype_blog": "stage"}
    assert "facts.allow" in lost_keys(draft)["country"]


def test_facts_in_lines_and_in_json_are_the_same(tmp_path: Path) -> None:
    import json

    data = dict(sample("gitagent-facts").data)
    lines = "".join(f"{key}={value}\n" for key, value in data.items())
    wanted = accepted(drafted("gitagent-facts"), tmp_path)
    for name, text in (("facts.txt", lines), ("facts.json", json.dumps(data))):
        assert accepted(convert([old_file(text, name)]), tmp_path) == wanted


@pytest.mark.parametrize(
    ("facts", "key", "why"),
    [
        ("sitedir_a: data/a\nrepo_a: /r/a\n", "sitedir_a", "absolute path"),
        ("sitedir_a: /x/../y\nrepo_a: /r/a\n", "sitedir_a", "absolute path"),
        ("sitedir_a: [/x]\nrepo_a: /r/a\n", "sitedir_a", "not a list"),
        ("sitedir_../a: /x\nrepo_../a: /r\n", "repo_../a", "not a repository name"),
        ("sitedir_../a: /x\nrepo_../a: /r\n", "sitedir_../a", "as repo_../a"),
        ("controldir_a: /x\n", "controldir_a", "no sitedir_a"),
        ("sitedir_a: /x\nsitedir_b: /x\n", "sitedir_b", "directory of site a already"),
        ("sitedir_a: /x\ncontroldir_a: /x\n", "controldir_a", "root of the tree"),
        ("sitedir_a: /x\nsitetype_a: {deep: 1}\n", "sitetype_a", "not a map"),
        ("sitedir_a: /x\nsitetype_a: [live, 1]\n", "sitetype_a", "not a list"),
        ("sitedir_a: /x\nsitetype_a:\n", "sitetype_a", "not nothing"),
    ],
)
def test_a_fact_that_makes_no_site_is_lost_with_the_reason(facts: str, key: str, why: str, tmp_path: Path) -> None:
    draft = convert([old_file(facts, "facts.yaml")])
    accepted(draft, tmp_path)
    assert why in lost_keys(draft)[key]


def test_a_site_of_several_repositories_keeps_the_one_at_its_root_and_its_shared_directories(tmp_path: Path) -> None:
    draft = drafted("bloatagent")
    settings = accepted(draft, tmp_path)
    (site,) = settings.sites.values()
    assert (str(site.path), site.repo) == ("/data/site/www.example.org", "shopfront")
    assert (site.release.scripts, site.release.shared) == ("future-control", ("content/uploads/", "content/films/"))
    assert set(settings.repositories) == {"shopfront", "forms"}
    assert "made from one repository" in lost_keys(draft)["repo-list[1].target"]
    assert "deploykit deploy" in lost_keys(draft)["repo-list[0].base_tag"]
    assert "move /data/user/pictures to shared/content/uploads" in lost_keys(draft)["directorymap[0].source"]


@pytest.mark.parametrize(
    ("target", "why"),
    [("../x", "inside the site"), ("/x", "inside the site"), ("content", "is inside"), ("", "inside")],
)
def test_a_shared_directory_stays_inside_the_site(target: str, why: str, tmp_path: Path) -> None:
    text = SAMPLES["bloatagent"][1] + f"  - {{source: s, target: '{target}'}}\n"
    draft = convert([old_file(text, "site.yaml")])
    (site,) = accepted(draft, tmp_path).sites.values()
    assert site.release.shared == ("content/uploads/", "content/films/")
    assert why in lost_keys(draft)["directorymap[2]"]


def test_the_puppet_modules_data_says_the_origins(tmp_path: Path) -> None:
    draft = drafted("puppet-module")
    settings = accepted(draft, tmp_path)
    assert {name: repository.url for name, repository in settings.repositories.items()} == {
        "shopfront": "git@git.example.org:shopfront",
        "forms": "git@git.example.org:forms",
    }
    assert [(name, str(site.path)) for name, site in settings.sites.items()] == [
        ("www.example.org", "/data/site/www.example.org")
    ]
    assert "ntp::servers" in lost_keys(draft)


def test_an_origin_replaces_what_stood_for_it_in_another_file(tmp_path: Path) -> None:
    draft = drafted("bloatagent", "puppet-module")
    settings = accepted(draft, tmp_path)
    assert {repository.url for repository in settings.repositories.values()} == {
        "git@git.example.org:shopfront",
        "git@git.example.org:forms",
    }


def test_titles_of_the_pages_become_commands_with_a_selector(tmp_path: Path) -> None:
    draft = drafted("grubby")
    assert accepted(draft, tmp_path).web.listen == "127.0.0.1:8470"
    lost = lost_keys(draft)
    assert "deploykit deploy shop --ref TAG -S 'node=/web[12]|blog/'" in lost["First site"]
    assert "deploykit deploy blog --ref TAG -S sitetype_blog=live" in lost["Second site"]
    assert "git-svn" in lost["The old one"]


def test_a_misspelt_filter_never_means_every_node() -> None:
    draft = convert([old_file("T: {filter: class_filtre, payload: web, repo: shop}\n", "sites.yaml")])
    assert "addressed every node" in lost_keys(draft)["T"]


def test_mcollective_gives_node_brokers_facts_and_classes(tmp_path: Path) -> None:
    draft = drafted("mcollective")
    settings = accepted(draft, tmp_path)
    assert settings.node == "web1.example.org"
    assert settings.broker.address == "failover:(stomp://broker01:61613,stomp://broker02:61613)?randomize=true"
    assert settings.broker.login == "mcollective"
    assert (tmp_path / "passcode").read_text() == "pool-password"
    assert (settings.broker.heartbeat, settings.broker.backoff_max) == (30, 30)
    assert [str(path) for path in settings.facts.files] == ["/etc/mcollective/facts.yaml"]
    assert [str(path) for path in settings.facts.classes_files] == ["/srv/puppet/classes.txt"]
    lost = lost_keys(draft)
    assert "deploykit keys generate" in lost["plugin.psk"]
    assert "there are no collectives" in lost["collectives"]
    assert not any("shared-by-all" in text or "pool-password" in text for text in (*lost.values(), *draft.warnings))


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ("plugin.stomp.host = b\nplugin.stomp.port = 6163\n", "stomp://b:6163"),
        ("connector = stomp\nplugin.stomp.pool.host1 = a\nplugin.stomp.pool.port1 = 6163\n", "stomp://a:6163"),
        (
            "connector = rabbitmq\nplugin.rabbitmq.pool.1.host = a\nplugin.rabbitmq.pool.1.ssl = 1\n",
            "stomp+ssl://a:61614",
        ),
        ("plugin.activemq.pool.1.host = a\nplugin.activemq.pool.1.ssl = maybe\n", "stomp+ssl://a:61614"),
        ("plugin.activemq.pool.1.host = ::1\n", "stomp://[::1]:61613"),
        ("connector = rabbitmq\nplugin.activemq.pool.1.host = a\n", "stomp://127.0.0.1:61613"),
        ("plugin.activemq.pool.1.port = 61613\n", "stomp://127.0.0.1:61613"),
        ("plugin.activemq.pool.1.host = a b\n", "stomp://127.0.0.1:61613"),
    ],
)
def test_each_form_of_mcollectives_brokers_is_read(lines: str, address: str, tmp_path: Path) -> None:
    draft = convert([old_file(f"securityprovider = psk\n{lines}", "client.cfg")])
    assert accepted(draft, tmp_path).broker.address == address


def test_half_a_client_certificate_is_lost(tmp_path: Path) -> None:
    text = "collectives = m\nplugin.activemq.pool.1.host = a\nplugin.activemq.pool.1.ssl.cert = /c.pem\n"
    draft = convert([old_file(text, "client.cfg")])
    assert accepted(draft, tmp_path).broker.tls_cert is None
    assert "set both" in " ".join(lost.why for lost in draft.lost)


def test_a_login_never_goes_to_the_brokers_of_another_file(tmp_path: Path) -> None:
    other = old_file("STOMP_SERVER=elsewhere\n", "stomp.conf")
    draft = convert([other, sample("mcollective")])
    broker = accepted(draft, tmp_path).broker
    assert (broker.address, broker.login, broker.passcode_file) == ("stomp://elsewhere:61613", "", None)
    assert "came first" in lost_keys(draft)["plugin.activemq.pool.1.host"]


# -- what publishes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "topic", "kinds"),
    [
        ("stomp-postrec.yaml", "future.events.gitolite", {"git"}),
        ("svn-stomp.yaml", "future.events.svnserver", {"svn"}),
        ("other.yaml", "future.events.people", {"git", "svn"}),
    ],
)
def test_hooks_of_the_repositories_get_a_settings_file_of_their_own(
    name: str, topic: str, kinds: set[str], tmp_path: Path
) -> None:
    text = SAMPLES["repository-hook"][1].replace("future.events.gitolite", topic)
    draft = convert([old_file(text, name)])
    settings = hook_settings(draft, tmp_path)
    assert settings.legacy
    assert settings.topics.source == "/topic/future.git.commits"
    future = PRESETS["future"]
    assert settings.topics.notices == {**future.notices, **dict.fromkeys(kinds, f"/topic/{topic}")}
    without = tmp_path / "without.toml"  # `legacy` goes at the end, and no topic with it
    without.write_text(render_hooks(draft).replace("legacy = true", "legacy = false"))
    assert load_hook_settings("", system_file=str(without)).topics == settings.topics
    assert accepted(draft, tmp_path).broker.login == "gituser"


def test_everybody_who_pushes_may_read_the_settings_of_the_hooks(tmp_path: Path) -> None:
    draft = drafted("repository-hook")
    write_draft(draft, [], tmp_path / "deploykit.toml")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {"deploykit.toml": 0o600, "hooks.toml": 0o644, "passcode": 0o600}


def test_the_helper_of_builds_keeps_the_topics_that_were_in_its_source(tmp_path: Path) -> None:
    topics = hook_settings(drafted("jenkins-helper"), tmp_path).topics
    assert topics.build_success == "/topic/future.jenkins.success"
    assert topics.build_failure == "/topic/future.jenkins.cake"
    assert topics.notices == PRESETS["future"].notices


def test_the_intake_of_packages_keeps_its_directory_and_says_what_is_missing(tmp_path: Path) -> None:
    draft = drafted("auto-reprepro")
    settings = hook_settings(draft, tmp_path)
    assert settings.incoming == "/srv/incoming"
    assert settings.topics.package == "/topic/future.package.updates"
    assert any("set archive and reprepro" in warning for warning in draft.warnings)
    assert "let nothing else be there" in lost_keys(draft)["distro-list"]


@pytest.mark.parametrize("forge", ["gitlab", "github"])
def test_a_receiver_of_webhooks_becomes_a_source_that_needs_a_secret(forge: str, tmp_path: Path) -> None:
    draft = drafted(f"{forge}-stomp")
    settings = accepted(draft, tmp_path)
    source = settings.webhook.sources[forge]
    assert source.forge == forge
    assert [str(path) for path in source.secret_files] == [f"/etc/deploykit/{forge}.secret"]
    assert settings.webhook.legacy
    assert settings.topics.source == "/topic/future.git.commits"
    assert any("openssl rand" in warning and f"/hook/{forge}" in warning for warning in draft.warnings)


@pytest.mark.parametrize("packages", ["[nginx, libfoo1]", "{nginx: 1, libfoo1: 2}"])
def test_packages_of_interest_are_listed_and_the_guess_is_admitted(packages: str, tmp_path: Path) -> None:
    text = SAMPLES["stomp-repo"][1].replace("[nginx, libfoo1]", packages)
    draft = convert([old_file(text, "stomp-repo.yaml")])
    assert accepted(draft, tmp_path).packages.listed == ("nginx", "libfoo1")
    assert "guess" in " ".join(draft.warnings)


def test_what_is_no_package_is_lost(tmp_path: Path) -> None:
    draft = convert([old_file("listen-topic: t\npackages: [a b, -x, {}, nginx, ../x]\n", "stomp-repo.yaml")])
    assert accepted(draft, tmp_path).packages.listed == ("nginx",)
    assert {f"packages[{at}]" for at in (0, 1, 2, 4)} <= lost_keys(draft).keys()
