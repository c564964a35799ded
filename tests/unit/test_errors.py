"""The error tree: drawn as it is, with stable codes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from pacifica.ingest.core import errors
from pacifica.ingest.core.errors import (
    ArchiveMismatch,
    BadBundle,
    BadMetadata,
    BadPath,
    Busy,
    Conflict,
    DigestMismatch,
    FaultyBundle,
    IdTaken,
    IngestError,
    LengthMismatch,
    NeighbourDown,
    NoSuchJob,
    PolicyRefused,
    TooLarge,
    TooManyUploads,
    TooSlow,
    Unavailable,
)


def tree(root: type[IngestError]) -> Iterator[type[IngestError]]:
    """Return a class and all below it."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


ALL = list(tree(IngestError))

CODES = {
    "IngestError": ("error", 500),
    "Refused": ("refused", 400),
    "BadRequest": ("bad_request", 400),
    "LengthRequired": ("length_required", 411),
    "LengthMismatch": ("length_mismatch", 400),
    "TooLarge": ("too_large", 413),
    "TooSlow": ("too_slow", 408),
    "Busy": ("busy", 503),
    "TooManyUploads": ("too_many_uploads", 429),
    "KeyReused": ("key_reused", 422),
    "UntrustedPeer": ("untrusted_peer", 403),
    "BadBundle": ("bad_bundle", 400),
    "BadMetadata": ("bad_metadata", 400),
    "BadPath": ("bad_path", 400),
    "FaultyBundle": ("faulty_bundle", 400),
    "DigestMismatch": ("digest_mismatch", 400),
    "PolicyRefused": ("policy_refused", 412),
    "Conflict": ("conflict", 409),
    "NoSuchJob": ("no_such_job", 404),
    "JobBusy": ("job_busy", 409),
    "Unavailable": ("unavailable", 503),
    "NeighbourDown": ("neighbour_down", 503),
    "ArchiveMismatch": ("archive_mismatch", 503),
    "IdTaken": ("id_taken", 503),
    "DatabaseDown": ("database_down", 503),
    "Unconfirmed": ("unconfirmed", 202),
    "NoSpace": ("no_space", 507),
    "ClaimLost": ("claim_lost", 500),
    "Stopping": ("stopping", 503),
    "BadConfiguration": ("bad_configuration", 500),
    "UnsafeSchema": ("unsafe_schema", 500),
}


def test_codes_and_statuses_are_stable() -> None:
    assert {kind.__name__: (kind.code, kind.status) for kind in ALL} == CODES
    assert len({kind.code for kind in ALL}) == len(ALL)
    assert all(HTTPStatus(kind.status) for kind in ALL)


def test_all_are_public() -> None:
    assert sorted(kind.__name__ for kind in ALL) == sorted(errors.__all__)


def test_only_what_may_pass_by_itself_is_retryable() -> None:
    assert {kind for kind in ALL if kind.retryable} == set(tree(Unavailable))


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn: list[tuple[str, str]] = []
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^    ((?:│   |    )*)(?:├──|└──) (\w+)|^    (IngestError)$", line):
            depth = 0 if match[3] else 1 + len(match[1]) // 4
            name = match[3] or match[2]
            above[depth:] = [name]
            drawn.append((above[depth - 1] if depth else "", name))
    real = [
        (kind.__base__.__name__ if kind is not IngestError and kind.__base__ else "", kind.__name__) for kind in ALL
    ]
    assert sorted(drawn) == sorted(real)


@pytest.mark.parametrize("kind", ALL)
def test_each_says_in_its_docstring_what_is_wrong(kind: type[IngestError]) -> None:
    assert "__doc__" in vars(kind)
    assert inspect.getdoc(kind)


@pytest.mark.parametrize(
    ("fault", "data"),
    [
        (LengthMismatch(10, 4), {"expected": 10, "found": 4}),
        (LengthMismatch(None, 4), {"expected": None, "found": 4}),
        (TooLarge(77), {"limit": 77}),
        (TooSlow(77), {"limit": 77}),
        (Busy(77), {"limit": 77}),
        (TooManyUploads(77), {"limit": 77}),
        (BadBundle("a link", "data/x"), {"reason": "a link", "member": "data/x"}),
        (BadBundle("no tar"), {"reason": "no tar", "member": None}),
        (BadMetadata(["one", "two"]), {"faults": ("one", "two")}),
        (BadPath("../x", "no"), {"path": "../x", "reason": "no"}),
        (FaultyBundle(["one", "two"]), {"faults": ("one", "two")}),
        (DigestMismatch("x", "md5", "aa", "bb"), {"field": "x", "algorithm": "md5", "expected": "aa", "found": "bb"}),
        (PolicyRefused("no"), {"reason": "no"}),
        (NoSuchJob(5), {"job_id": 5}),
        (NeighbourDown("policy", "away"), {"neighbour": "policy", "reason": "away"}),
        (ArchiveMismatch(7, "x", "size"), {"file_id": 7, "path": "x", "reason": "size"}),
        (IdTaken(7, "x"), {"file_id": 7, "path": "x"}),
        (Conflict("two of them"), {}),
    ],
)
def test_data_are_fields_and_told_in_the_message(fault: IngestError, data: dict[str, object]) -> None:
    for key, value in data.items():
        assert getattr(fault, key) == value
        for told in value if isinstance(value, tuple) else [value]:
            assert told is None or str(told) in str(fault)


def test_a_hundred_faults_are_shown_and_the_rest_is_counted() -> None:
    faults = [f"fault {number}" for number in range(150)]
    lines = str(FaultyBundle(faults)).splitlines()
    assert lines == [*faults[:100], "… and 50 more"]
    assert FaultyBundle(faults).faults == tuple(faults)
    assert str(FaultyBundle(faults[:100])).splitlines() == faults[:100]


def test_no_message_runs_over_one_line_for_one_fault() -> None:
    assert "\n" not in str(BadPath("a\nb", "control characters"))
    assert "\n" not in str(BadBundle("two members", "a\nb"))
