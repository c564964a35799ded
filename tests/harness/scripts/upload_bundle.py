"""Upload files with the unmodified pacifica-uploader library, as its documentation shows.

Runs inside the clients' environment (see `tests.harness.clients`). Standard input is
JSON with ``folder``, ``entries`` (of the metadata), ``login``, ``upload_url``,
``status_url``, ``policy_uploader_url`` (null: do not ask), ``hash_name``, ``poll_s`` and
``wait_s``. Standard output is JSON: ``{"job_id": …, "state": …}``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_DONE = 100


def main() -> None:
    """Bundle, upload, and ask for the state until it is final."""
    job = json.load(sys.stdin)
    if job["policy_uploader_url"] is not None:
        # The library takes these addresses from the environment.
        os.environ["POLICY_UPLOADER_URL"] = job["policy_uploader_url"]
    bundler = importlib.import_module("pacifica.uploader.bundler")
    uploader = importlib.import_module("pacifica.uploader")
    metadata = _metadata(job)
    with tempfile.TemporaryFile() as bundle:
        files = _files(Path(job["folder"]))
        bundler.Bundler(metadata, files, hashfunc=job["hash_name"]).stream(bundle)
        length = bundle.tell()
        bundle.seek(0)
        client = uploader.Uploader(upload_url=job["upload_url"], status_url=job["status_url"])
        job_id = client.upload(bundle, content_length=length)
    state = _wait(client, job_id, job["poll_s"], job["wait_s"])
    json.dump({"job_id": job_id, "state": state}, sys.stdout)


def _metadata(job: dict[str, Any]) -> Any:
    """Make the metadata object; with Policy's help if asked for, as the library intends."""
    library = importlib.import_module("pacifica.uploader.metadata")
    known = library.metadata_decode(json.dumps(job["entries"]))
    if job["policy_uploader_url"] is None:
        return known
    update = library.MetaUpdate(job["login"])
    update.extend(known)
    for item in known:
        if item.metaID and not update[item.metaID].value:
            update.update_parents(item.metaID)
    return update


def _files(folder: Path) -> list[dict[str, Any]]:
    """Describe all files of a folder in the form that the bundler wants."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        {
            "name": f"data/{path.relative_to(folder).as_posix()}",
            "size": path.stat().st_size,
            "mtime": path.stat().st_mtime,
            "fileobj": path.open("rb"),
        }
        for path in paths
    ]


def _wait(client: Any, job_id: int, poll_s: float, wait_s: float) -> dict[str, Any]:
    """Poll like every client does: until not OK, or `ingest metadata` is at 100 %."""
    deadline = time.monotonic() + wait_s
    while True:
        state: dict[str, Any] = client.getstate(job_id)
        if state["state"] != "OK" or _is_done(state) or time.monotonic() > deadline:
            return state
        time.sleep(poll_s)


def _is_done(state: dict[str, Any]) -> bool:
    return state["task"] == "ingest metadata" and int(float(state["task_percent"])) == _DONE


if __name__ == "__main__":
    main()
