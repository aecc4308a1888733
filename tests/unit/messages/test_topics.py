"""Where messages go: every type has a topic, and the original's map is there by name."""

from __future__ import annotations

import pytest

from deploykit.config import parse_settings
from deploykit.errors import SettingsError
from deploykit.messages import BY_TYPE, BuildFinished, BuildStarted, Notice, Unknown
from deploykit.messages.topics import _LOGICAL, PRESETS, TopicMap, topic_of


def test_every_message_type_but_a_notice_has_a_topic_of_its_own() -> None:
    assert set(BY_TYPE) - set(_LOGICAL) == {Notice.TYPE}


def test_what_has_no_topic_goes_where_people_read() -> None:
    assert topic_of(Unknown(type="com.example.x"), TopicMap()) == "/topic/deploykit.notice"


@pytest.mark.parametrize(
    ("outcome", "destination"),
    [
        ("success", "/topic/future.jenkins.success"),
        ("failure", "/topic/future.jenkins.cake"),
        ("unstable", "/topic/future.jenkins.cake"),
        ("aborted", "/topic/future.jenkins.cake"),
    ],
)
def test_the_original_fleet_hears_of_builds_by_their_outcome(outcome: str, destination: str) -> None:
    ended = BuildFinished(job="shop", outcome=outcome)  # type: ignore[arg-type]
    assert topic_of(ended, PRESETS["future"]) == destination
    assert topic_of(ended, TopicMap()) == topic_of(BuildStarted(job="shop"), TopicMap()) == "/topic/deploykit.build"


def test_begun_builds_of_the_original_have_a_topic_with_a_name() -> None:
    assert topic_of(BuildStarted(job="shop"), PRESETS["future"]) == "/topic/future.jenkins"


def test_human_lines_go_to_the_topic_of_their_publisher() -> None:
    future = PRESETS["future"]
    assert topic_of(Notice(text="x", source="svn/host"), future) == "/topic/future.events.svnserver"
    assert topic_of(Notice(text="x", source="somebody"), future) == "/topic/future.events.deploykit"


def test_destinations_name_each_topic_once() -> None:
    assert len(set(TopicMap().destinations)) == len(TopicMap().destinations)
    assert "" not in TopicMap().destinations
    assert "/topic/future.events.gitlab" in PRESETS["future"].destinations


def test_settings_take_a_preset_by_name_and_single_topics_over_it() -> None:
    found = parse_settings(b'node = "n"\n[topics]\npreset = "future"\nsource = "/topic/mine"\n').topics
    assert found.source == "/topic/mine"
    assert found.build_failure == "/topic/future.jenkins.cake"
    assert found.notices["git"] == "/topic/future.events.gitolite"


def test_lines_of_one_kind_elsewhere_leave_those_of_the_others_where_they_are() -> None:
    """The original's bot listens to each topic of the preset: a line sent elsewhere is seen by nobody."""
    raw = b'node = "n"\nlegacy = true\n[topics.notices]\nmirror = "/topic/mine"\n'
    assert parse_settings(raw).topics.notices == {**PRESETS["future"].notices, "mirror": "/topic/mine"}
    own = raw.replace(b"legacy = true\n", b"")
    assert parse_settings(own).topics.notices == {"mirror": "/topic/mine"}


def test_in_a_mixed_fleet_the_originals_topics_are_meant_where_no_preset_is_named() -> None:
    assert parse_settings(b'node = "n"\nlegacy = true\n').topics == PRESETS["future"]
    found = parse_settings(b'node = "n"\nlegacy = true\n[topics]\nsource = "/topic/mine"\n').topics
    assert (found.source, found.mirror) == ("/topic/mine", "/topic/future.mirror")
    own = b'node = "n"\nlegacy = true\n[topics]\npreset = "deploykit"\n'
    assert parse_settings(own).topics == TopicMap()
    assert parse_settings(b'node = "n"\n').topics == TopicMap()


def test_a_wrong_kind_of_legacy_or_topics_is_still_one_clear_problem() -> None:
    with pytest.raises(SettingsError, match="topics"):
        parse_settings(b'node = "n"\nlegacy = true\ntopics = 3\n')
    with pytest.raises(SettingsError, match="legacy"):
        parse_settings(b'node = "n"\nlegacy = "yes"\n')


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(SettingsError, match=r"topics\.preset: expected one of deploykit, future"):
        parse_settings(b'node = "n"\n[topics]\npreset = "past"\n')
