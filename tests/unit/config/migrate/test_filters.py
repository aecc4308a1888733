"""What a filter of MCollective chose is chosen by a selector of ours, or the filter is refused."""

from __future__ import annotations

import sys

import pytest

from deploykit.config.migrate.filters import selector_of_filter
from deploykit.errors import UsageError
from deploykit.fleet.facts import NodeFacts
from deploykit.fleet.selector import Selector
from deploykit.names import NodeName

FACTS = {"env": "live", "os": "Debian GNU", "load": 2, "path": "/srv/www", "site": "west", "n": "10"}
NODE = NodeFacts(node=NodeName("web1.example.org"), classes=("role::web", "nginx"), facts=FACTS)


@pytest.mark.parametrize(
    ("kind", "payload", "selector", "chosen"),
    [
        ("identity_filter", "web1.example.org", "node=web1.example.org", True),
        ("identity_filter", "web1", "node=web1", False),
        ("identity_filter", "/web|db/", "node=/web|db/", True),
        ("identity_filter", "web*", 'node="web*"', False),
        ("class_filter", "role::web", "role::web", True),
        ("class_filter", "/^ngin/", "/^ngin/", True),
        ("class_filter", "and", "/^and$/", False),
        ("class_filter", "a b", r"/^a\ b$/", False),
        ("fact_filter", "env=live", "env=live", True),
        ("fact_filter", "env==live", "env=live", True),
        ("fact_filter", " env = live ", "env=live", True),
        ("fact_filter", "env=/^li/", "env=~/^li/", True),
        ("fact_filter", "env=~li", "env=~/li/", True),
        ("fact_filter", "env!=stage", "env!=stage", True),
        ("fact_filter", "os=Debian GNU", 'os="Debian GNU"', True),
        ("fact_filter", "path=/srv/www", 'path="/srv/www"', True),
        ("fact_filter", r"path=/srv\/www/", r"path=~/srv\/www/", True),
        ("fact_filter", "path=~/srv/www", r"path=~/srv\/www/", True),
        ("fact_filter", "load<=2", "load<=2", True),
        ("fact_filter", "n=>9", "n>=9", True),
        ("fact_filter", "site=west", "facts.site=west", True),
        ("compound_filter", "/^role/ and not env=stage", "/^role/ and not env=stage", True),
    ],
)
def test_it_chooses_the_same_nodes(kind: str, payload: str, selector: str, chosen: bool) -> None:
    assert selector_of_filter(kind, payload) == selector
    assert Selector.parse(selector).matches(NODE) is chosen


@pytest.mark.parametrize(
    ("kind", "payload", "why"),
    [
        ("identiy_filter", "web1", "addressed every node"),
        ("", "web1", "addressed every node"),
        ("fact_filter", "", "the filter is empty"),
        ("fact_filter", "env", "not a comparison"),
        ("fact_filter", "e(v=live", "cannot be the name of a fact"),
        ("identity_filter", "/(?=x)/", "lookaround"),
        ("identity_filter", "a\nb", "is not printed"),
        ("identity_filter", "/" + "x" * 5000 + "/", "over the limit"),
        ("class_filter", "", "the filter is empty"),
        ("compound_filter", "(nginx", "not closed"),
        ("compound_filter", "fstat('/etc/x').md5=1", "asks a plugin"),
        ("compound_filter", "env=~live", "needs a regular expression"),
    ],
)
def test_a_filter_without_a_counterpart_is_refused_with_a_way_out(kind: str, payload: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        selector_of_filter(kind, payload)
    assert why in str(caught.value)
    assert caught.value.remedy


def test_without_google_re2_a_regular_expression_is_taken_over_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    assert selector_of_filter("identity_filter", "/web|db/") == "node=/web|db/"
    with pytest.raises(UsageError, match="begins nothing"):
        selector_of_filter("compound_filter", "nginx & apache")
