"""The unmodified clients: the pacifica-uploader library and the pacifica-cli command.

What it is: two functions that upload a folder and return what the client was told.
Both run in the neighbours' environment as processes of their own, so their old pins
stay out of the test run.

What it is not: a test of the clients, or a client of ours.

Who may call it: tests, with the address of any ingest: ours or the original.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.harness.command import HarnessError, base_environment, run
from tests.harness.venvs import core_env

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.harness.reference import Submission

__all__ = ["Upload", "upload_with_cli", "upload_with_uploader"]

#: A client that nobody stops would poll for ever.
_WAIT_S = 180.0
#: The process needs time to start, to bundle and to say what went wrong.
_GRACE_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What a client knows in the end.

    Attributes:
        job_id: The number that ingest gave.
        state: The last answer of ``/get_state``; empty if the client did not ask.
        output: The client's standard output.
    """

    job_id: int
    state: dict[str, Any]
    output: str


def upload_with_uploader(
    folder: Path,
    ingest_url: str,
    submission: Submission,
    *,
    key_values: Mapping[str, str] | None = None,
    policy_uploader_url: str | None = None,
    hash_name: str = "sha1",
    poll_s: float = 0.1,
    wait_s: float = _WAIT_S,
) -> Upload:
    """Upload all files below a folder with the library.

    Args:
        folder: Its files become ``data/…`` in the bundle.
        ingest_url: Root of the service, without a slash at the end.
        submission: Who, for which project, from which instrument.
        key_values: Become ``TransactionKeyValue`` entries.
        policy_uploader_url: Have the library ask Policy for submitter, project and
            instrument. By default they are put in as they are, right or wrong.
        hash_name: Digest of the files.
        poll_s: Pause between two questions for the state.
        wait_s: How long to ask; then the last state is returned as it is.

    Raises:
        HarnessError: The library raised (say, an answer that is not JSON); the message
            carries its trace.
    """
    job = {
        "folder": str(folder),
        "entries": _entries(submission, key_values, ask=policy_uploader_url is not None),
        "login": submission.login,
        "upload_url": f"{ingest_url}/upload",
        "status_url": f"{ingest_url}/get_state",
        "policy_uploader_url": policy_uploader_url,
        "hash_name": hash_name,
        "poll_s": poll_s,
        "wait_s": wait_s,
    }
    script = Path(__file__).parent / "scripts" / "upload_bundle.py"
    with tempfile.TemporaryDirectory(prefix="pacifica-uploader-") as home:
        output = run(
            [core_env().python, script],
            env=base_environment(Path(home)),
            text=json.dumps(job),
            wait_s=wait_s + _GRACE_S,
        )
    answer = json.loads(output)
    return Upload(job_id=int(answer["job_id"]), state=answer["state"], output=output)


def upload_with_cli(
    folder: Path,
    ingest_url: str,
    policy_url: str,
    submission: Submission,
    *,
    key_values: Mapping[str, str] | None = None,
    names: Sequence[str] | None = None,
    options: Sequence[str] = (),
    wait_s: float = _WAIT_S,
) -> Upload:
    """Upload with ``pacifica-cli upload``, run inside a folder.

    The command asks Policy for the submitter's projects and instruments first, yet sends
    what is typed also when Policy did not list it.

    Args:
        folder: Working folder of the command.
        ingest_url: Root of the ingest service, without a slash at the end.
        policy_url: Root of the Policy service, without a slash at the end.
        submission: Who (by network name), for which project, from which instrument.
        key_values: Become ``TransactionKeyValue`` entries.
        names: Files and folders as typed; by default all entries of `folder`. Absolute
            ones and ``.`` give the odd member names that the command makes of them.
        options: More options of the ``upload`` command, like ``--tar-in-tar``.
        wait_s: Deadline for the whole command; it polls once a second.

    Raises:
        HarnessError: The command failed or missed the deadline; carries its output.
    """
    typed = sorted(path.name for path in folder.iterdir()) if names is None else list(names)
    with tempfile.TemporaryDirectory(prefix="pacifica-cli-") as home:
        ini, template = Path(home) / "config.ini", Path(home) / "uploader.json"
        ini.write_text(_cli_ini(ingest_url, policy_url), encoding="utf-8")
        template.write_text(json.dumps(_entries(submission, key_values, ask=True)), "utf-8")
        output = run(
            [
                core_env().bin("pacifica-cli"),
                *("--config", template, "--config-ini", ini, "upload"),
                *("--logon", submission.login),
                *("--project", submission.project),
                *("--instrument", str(submission.instrument)),
                *options,
                *typed,
            ],
            env=base_environment(Path(home)),
            cwd=folder,
            wait_s=wait_s,
        )
    return _cli_result(output)


def _cli_ini(ingest_url: str, policy_url: str) -> str:
    return (
        "[endpoints]\n"
        f"upload_url = {ingest_url}/upload\n"
        f"upload_status_url = {ingest_url}/get_state\n"
        f"upload_policy_url = {policy_url}/uploader\n"
        f"upload_validation_url = {policy_url}/ingest\n"
        "ca_bundle = True\n"
        "[authentication]\n"
        "type = None\n"
    )


def _cli_result(output: str) -> Upload:
    """Read job and state from what the command prints.

    Raises:
        HarnessError: It printed no job.
    """
    job = re.search(r"(?:to complete|Job ID) \((-?\d+)\)", output)
    if job is None:
        message = f"pacifica-cli names no job:\n{output}"
        raise HarnessError(message)
    start = output.find("\n{", job.end())
    state = json.loads(output[start:]) if start >= 0 else {}
    return Upload(job_id=int(job.group(1)), state=state, output=output)


def _entries(submission: Submission, key_values: Mapping[str, str] | None, *, ask: bool) -> list[dict[str, Any]]:
    """Return the metadata template: with fixed values, or with questions to Policy."""
    entries = _questions() if ask else submission.document()
    for number, (key, value) in enumerate((key_values or {}).items()):
        # The command fails on an entry that has neither `metaID` nor `query_results`.
        entries.append(
            {
                "destinationTable": "TransactionKeyValue",
                "metaID": f"pair{number}",
                "key": key,
                "value": value,
                "query_results": [],
            }
        )
    return entries


def _questions() -> list[dict[str, Any]]:
    """Return a template whose values the clients find out by asking Policy."""
    return [
        {
            "destinationTable": "Transactions.submitter",
            "metaID": "logon",
            "sourceTable": "users",
            "queryDependency": {"_id": "logon"},
            "queryFields": ["_id", "network_id", "first_name", "last_name"],
            "valueField": "_id",
            "displayType": "logged_on",
            "displayTitle": "Submitter",
            "displayFormat": "{last_name}, {first_name}",
            "value": "",
        },
        {
            "destinationTable": "Transactions.project",
            "metaID": "project",
            "sourceTable": "projects",
            "queryDependency": {"user_id": "logon"},
            "queryFields": ["_id", "title"],
            "valueField": "_id",
            "displayType": "select",
            "displayTitle": "Project",
            "displayFormat": "{_id}: {title}",
            "value": "",
        },
        {
            "destinationTable": "Transactions.instrument",
            "metaID": "instrument",
            "sourceTable": "instruments",
            "queryDependency": {"project_id": "project"},
            "queryFields": ["_id", "name_short", "display_name"],
            "valueField": "_id",
            "displayType": "select",
            "displayTitle": "Instrument",
            "displayFormat": "{_id}: {display_name}",
            "value": "",
        },
    ]
