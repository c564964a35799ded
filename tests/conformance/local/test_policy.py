"""What is special to the local policy: the rule file, and what it does without one."""

import os
from pathlib import Path
from typing import Any

import pytest

from pacifica.ingest.core.errors import NeighbourDown, PolicyRefused
from pacifica.ingest.core.metadata import Registration
from pacifica.ingest.local.policy import LocalPolicy

RULES = """
[[allow]]
submitter = ["10", 11]
project = "1234a"
instrument = 54

[[allow]]
submitter = "99"
project = "*"
instrument = ["*"]
"""


def document(submitter: Any = "10", project: Any = "1234a", instrument: Any = "54") -> Registration:
    values = {"submitter": submitter, "project": project, "instrument": instrument}
    return [{"destinationTable": f"Transactions.{key}", "value": value} for key, value in values.items()]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(RULES, encoding="utf-8")
    return path


@pytest.mark.parametrize("who", [document(), document(10), document("11"), document(11, instrument=54), document("99")])
def test_what_a_rule_matches_is_allowed_whether_ids_are_texts_or_numbers(rules: Path, who: Registration) -> None:
    LocalPolicy(rules).permit(who, "somebody")


@pytest.mark.parametrize(
    "who", [document("12"), document(project="other"), document(instrument="5"), document("*"), document("1")]
)
def test_what_no_rule_matches_is_refused_with_the_three_values(rules: Path, who: Registration) -> None:
    with pytest.raises(PolicyRefused) as caught:
        LocalPolicy(rules).permit(who, "somebody")
    assert all(repr(entry["value"]) in str(caught.value) for entry in who)


@pytest.mark.parametrize("with_rules", [True, False])
@pytest.mark.parametrize("value", [None, "", "  ", True, ["10"], {"id": 10}])
@pytest.mark.parametrize("key", ["submitter", "project", "instrument"])
def test_what_is_missing_is_named(rules: Path, key: str, value: Any, *, with_rules: bool) -> None:
    policy = LocalPolicy(rules if with_rules else None)
    with pytest.raises(PolicyRefused, match=rf"^Transactions\.{key} must be given"):
        policy.permit(document(**{key: value}), "somebody")


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(
        PolicyRefused, match=r"Transactions\.submitter, Transactions\.project, Transactions\.instrument"
    ):
        LocalPolicy(None).permit([], "somebody")


def test_without_rules_any_complete_document_is_allowed() -> None:
    LocalPolicy(None).permit(document("anybody", 0, "anything"), "somebody")


def test_the_first_entry_counts_as_it_does_for_the_catalogue(rules: Path) -> None:
    with pytest.raises(PolicyRefused):
        LocalPolicy(rules).permit(document("12") + document("10"), "somebody")


def test_a_changed_rule_file_is_read_again(rules: Path) -> None:
    policy = LocalPolicy(rules)
    policy.permit(document("10"), "somebody")
    rules.write_text(RULES.replace('"10"', '"77"'), encoding="utf-8")
    os.utime(rules, ns=(1, 1))
    with pytest.raises(PolicyRefused):
        policy.permit(document("10"), "somebody")
    policy.permit(document("77"), "somebody")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[[allow]\n", "line 1"),
        ("[[alow]]\nsubmitter = '*'\n", "alow"),
        ("[allow]\nsubmitter = '*'\n", "two brackets"),
        ("allow = ['*']\n", "rule 1"),
        ("[[allow]]\nsubmitter = '*'\nproject = '*'\n", "rule 1"),
        ("[[allow]]\nsubmitter = '*'\nproject = '*'\ninstrument = '*'\ninstument = '5'\n", "rule 1"),
        ("[[allow]]\nsubmitter = '*'\nproject = '*'\ninstrument = true\n", "rule 1, instrument"),
        ("[[allow]]\nsubmitter = '*'\nproject = '*'\ninstrument = [1.5]\n", "rule 1, instrument"),
        ("[[allow]]\nsubmitter = '*'\nproject = ''\ninstrument = '*'\n", "rule 1, project"),
        ("[[allow]]\nsubmitter = '*'\nproject = [['*']]\ninstrument = '*'\n", "rule 1, project"),
    ],
)
def test_a_broken_rule_file_allows_nothing_and_is_named_with_its_fault(rules: Path, text: str, fault: str) -> None:
    policy = LocalPolicy(rules)
    policy.permit(document(), "somebody")
    rules.write_text(text, encoding="utf-8")
    for _ in range(2):
        with pytest.raises(NeighbourDown, match=fault) as caught:
            policy.permit(document(), "somebody")
        assert str(rules) in str(caught.value)
    rules.write_text(RULES, encoding="utf-8")
    policy.permit(document(), "somebody")


def test_bytes_that_are_no_text_are_a_broken_rule_file(rules: Path) -> None:
    rules.write_bytes(b"\xff\xfe[[allow]]")
    with pytest.raises(NeighbourDown, match="policy"):
        LocalPolicy(rules).permit(document(), "somebody")


def test_a_missing_rule_file_allows_nothing(tmp_path: Path) -> None:
    with pytest.raises(NeighbourDown, match="policy"):
        LocalPolicy(tmp_path / "policy.toml").permit(document(), "somebody")


def test_a_rule_file_that_need_not_be_there_holds_from_when_it_was_seen(rules: Path) -> None:
    policy = LocalPolicy(rules, is_optional=True)
    away = rules.rename(rules.with_name("away"))
    policy.permit(document("12"), "somebody")
    away.rename(rules)
    with pytest.raises(PolicyRefused):
        policy.permit(document("12"), "somebody")
    rules.unlink()
    with pytest.raises(NeighbourDown):
        policy.permit(document("12"), "somebody")


@pytest.mark.parametrize("text", ["", "[[allow]]\nsubmitter = []\nproject = '*'\ninstrument = '*'\n"])
def test_a_rule_file_that_allows_nothing_allows_nothing(rules: Path, text: str) -> None:
    rules.write_text(text, encoding="utf-8")
    with pytest.raises(PolicyRefused):
        LocalPolicy(rules).permit(document(), "somebody")
