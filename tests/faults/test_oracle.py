"""The oracle finds each kind of fault: a judge that lets everything pass is none."""

from dataclasses import replace
from typing import Any

import pytest

from tests.faults.oracle import Evidence, Fault, Found, JobSeen, Sent, judge, verdict

GOOD = Sent(files={"a": "sha1:a", "b": "sha1:b"}, body="sha256:one", status=200, job_id=1)
BAD = Sent(files={"c": "sha1:c"}, body="sha256:two", status=200, job_id=2, fails="not allowed")
CUT = Sent(files={"d": "sha1:d"}, body="sha256:three", status=400, job_id=None)
DONE = JobSeen(
    phase="done", complete=True, state="OK", reason="", staged="", ids={11: "archived", 12: "archived", 13: "garbage"}
)
FAILED = JobSeen(phase="failed", complete=True, state="FAILED", reason="This is not allowed.", staged="2.tar", ids={})
FILES = [Found(path="a", file_id=11, digest="sha1:a"), Found(path="b", file_id=12, digest="sha1:b")]
WELL = Evidence(
    sent=[GOOD, BAD, CUT],
    jobs={1: DONE, 2: FAILED},
    transactions=[(1, FILES)],
    objects={11: "sha1:a", 12: "sha1:b", 13: "sha1:half"},
    staged={"2.tar": "sha256:two"},
)


def test_nothing_is_wrong_when_all_is_well() -> None:
    assert judge(WELL) == []
    begun = replace(FAILED, ids={14: "intent", 15: "archived", 16: "garbage", 17: "void"})
    left = {**WELL.objects, 14: "sha1:x", 15: "sha1:c", 16: "sha1:x"}
    assert judge(replace(WELL, jobs={1: DONE, 2: begun}, objects=left, pieces=[13, 14, 16])) == []
    verdict(WELL)


@pytest.mark.parametrize(
    ("fault", "changes"),
    [
        (Fault.LOST, {"jobs": {2: FAILED}, "transactions": [], "objects": {}}),
        (Fault.LOST, {"transactions": [], "objects": {}}),
        (Fault.LOST, {"transactions": [(1, FILES[:1])]}),
        (Fault.LOST, {"objects": {11: "sha1:a", 12: "sha1:other"}}),
        (Fault.LOST, {"objects": {11: "sha1:a"}}),
        (Fault.LOST, {"staged": {}}),
        (Fault.LOST, {"staged": {"2.tar": "sha256:half"}}),
        (Fault.LOST, {"jobs": {1: DONE, 2: replace(FAILED, reason="")}}),
        (Fault.LOST, {"jobs": {1: DONE, 2: replace(FAILED, reason="another")}}),
        (Fault.LOST, {"jobs": {1: replace(DONE, state="FAILED"), 2: FAILED}}),
        (Fault.STUCK, {"jobs": {1: replace(DONE, phase="running"), 2: FAILED}}),
        (Fault.STUCK, {"jobs": {1: DONE, 2: replace(FAILED, complete=False)}}),
        (Fault.STUCK, {"jobs": {1: DONE, 2: FAILED, 3: replace(DONE, phase="receiving", ids={})}}),
        (Fault.DOUBLED, {"transactions": [(1, FILES), (1, FILES)]}),
        (Fault.DOUBLED, {"transactions": [(1, [*FILES, FILES[0]])]}),
        (Fault.DOUBLED, {"jobs": {1: DONE, 2: replace(FAILED, ids={11: "garbage"})}}),
        (Fault.DOUBLED, {"sent": [GOOD, replace(GOOD, body="sha256:again"), BAD]}),
        (Fault.UNLISTED, {"objects": {**WELL.objects, 99: "sha1:a"}}),
        (Fault.UNLISTED, {"jobs": {1: replace(DONE, ids={**DONE.ids, 13: "intent"}), 2: FAILED}}),
        (Fault.UNLISTED, {"jobs": {1: replace(DONE, ids={**DONE.ids, 12: "garbage"}), 2: FAILED}}),
        (Fault.UNLISTED, {"jobs": {1: replace(DONE, ids={**DONE.ids, 13: "void"}), 2: FAILED}}),
        *(
            (
                Fault.UNLISTED,
                {"jobs": {1: DONE, 2: replace(FAILED, ids={14: state})}, "objects": {**WELL.objects, 14: "sha1:c"}},
            )
            for state in ("void", "removed")
        ),
        (Fault.UNLISTED, {"pieces": [12]}),
        (Fault.UNLISTED, {"pieces": [99]}),
        (Fault.UNLISTED, {"jobs": {1: DONE, 2: replace(FAILED, ids={14: "void"})}, "pieces": [14]}),
        (Fault.UNLISTED, {"transactions": [(1, FILES), (3, [])]}),
        (Fault.UNLISTED, {"staged": {**WELL.staged, "3.tar.part": "sha256:x"}}),
        (Fault.UNLISTED, {"staged": {**WELL.staged, "3.tar": "sha256:three"}}),
        (Fault.UNLISTED, {"transactions": [(1, FILES), (2, [Found(path="d", file_id=14, digest="sha1:d")])]}),
    ],
)
def test_each_kind_of_fault_is_found(fault: Fault, changes: dict[str, Any]) -> None:
    assert fault in {found for found, _ in judge(replace(WELL, **changes))}
    with pytest.raises(AssertionError, match=fault):
        verdict(replace(WELL, **changes))
