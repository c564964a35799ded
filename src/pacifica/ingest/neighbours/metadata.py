"""The catalogue kept by the Metadata service.  Fulfils `ports.Catalogue`.

Source: `PUT /ingest`, `GET /transactions`, `GET /files`, `GET /users`, measured on pacifica-metadata 0.13.0.
"""

import itertools
from collections.abc import Collection
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import BadPath, Conflict, Refused
from pacifica.ingest.core.metadata import Registration
from pacifica.ingest.core.paths import canonical
from pacifica.ingest.neighbours.http import KIB, MIB, TIMEOUTS, Answer, Client, Timeouts, native
from pacifica.ingest.ports import RegisteredFile

__all__ = ["HttpCatalogue"]

#: One file of a page, in bytes: four texts of 255 characters, each of which JSON may write as twelve bytes, and the rest.
_FILE: Final = 16 * KIB
#: What the service says, with a 400, when a transaction or file of that id is there.
_DUPLICATE: Final = "duplicated ID"


class HttpCatalogue:
    """`ports.Catalogue` over HTTP."""

    def __init__(self, ingest_url: str, *, page_files: int = 10_000, timeouts: Timeouts = TIMEOUTS) -> None:
        """Register at `ingest_url`; look up beside it, `page_files` at a time."""
        url = ingest_url.rstrip("/").removesuffix("/ingest")
        self._client = Client("metadata", url, connections=4, timeouts=timeouts)
        # A million files in one answer would be half a gigabyte, on both sides.
        self._page_files = page_files

    def register(self, job_id: int, document: Registration) -> None:
        """See `ports.Catalogue.register`.

        Raises:
            NeighbourDown: also for documents that the service chokes on, which it tells by the same 500 as any trouble.

        """
        wait_s = self._client.timeouts.answer_s + self._client.timeouts.per_file_s * len(document)
        answer = self._client.ask_list("PUT", "/ingest", document, wait_s=wait_s)
        if answer.status == HTTPStatus.OK and answer.field("status") == "success":
            return
        if answer.status == HTTPStatus.BAD_REQUEST and _DUPLICATE in str(answer.field("message")):
            msg = f"Metadata has transaction {job_id}, or the id of one of its files, already: {answer.words()}"
            raise Conflict(msg)
        if answer.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            msg = "The metadata is longer than the Metadata service takes: send fewer files in one bundle."
            raise Refused(msg)
        raise self._client.down(answer)

    def lookup(self, job_id: int) -> list[RegisteredFile] | None:
        """See `ports.Catalogue.lookup`."""
        found, answer = self._objects(f"/transactions?_id={job_id}&recursion_depth=0")
        if not found:
            return None
        if [item.get("_id") for item in found] != [job_id]:
            raise self._client.down(answer)
        return sorted(self._files(job_id), key=lambda file: file.file_id)

    def registered(self, file_ids: Collection[int]) -> set[int]:
        """See `ports.Catalogue.registered`."""
        found: set[int] = set()
        for file_id in file_ids:
            objects, answer = self._objects(f"/files?_id={file_id}&recursion_depth=0")
            if [item.get("_id") for item in objects] not in ([], [file_id]):
                raise self._client.down(answer)
            if objects:
                found.add(file_id)
        return found

    def people_of(self, login: str) -> set[str] | None:
        """See `ports.Catalogue.people_of`.  Logins are compared without regard to case, as the service keeps them."""
        name = native(login)
        found, answer = self._objects(f"/users?network_id={quote(name, safe='')}&recursion_depth=0", limit=MIB)
        # A service that passed over the condition would tell of everybody.
        if any(item.get("network_id") != name.lower() or type(item.get("_id")) is not int for item in found):
            raise self._client.down(answer)
        return {str(item["_id"]) for item in found}

    def _files(self, job_id: int) -> list[RegisteredFile]:
        files: list[RegisteredFile] = []
        for page in itertools.count(1):
            query = f"transaction={job_id}&recursion_depth=0&page_number={page}&items_per_page={self._page_files}"
            found, answer = self._objects(f"/files?{query}")
            try:
                more = [_file(item) for item in found]
            except (KeyError, TypeError) as fault:
                raise self._client.down(answer) from fault
            if files and more and more[0].file_id <= files[-1].file_id:
                # It knows no pages, or not in order; asking on would have no end.
                raise self._client.down(answer)
            files += more
            if len(found) != self._page_files:
                break
        return files

    def _objects(self, path: str, limit: int | None = None) -> tuple[list[dict[str, Any]], Answer]:
        answer = self._client.ask("GET", path, limit=limit or MIB + self._page_files * _FILE)
        found = answer.json()
        if (
            answer.status != HTTPStatus.OK
            or not isinstance(found, list)
            or not all(isinstance(item, dict) for item in found)
        ):
            raise self._client.down(answer)
        return found, answer


def _file(item: dict[str, Any]) -> RegisteredFile:
    file_id, size = item["_id"], item["size"]
    if type(file_id) is not int or type(size) is not int:
        raise TypeError
    return RegisteredFile(file_id=file_id, path=_path(item), size_bytes=size, digest=_digest(item))


def _path(item: dict[str, Any]) -> str:
    """Where it lies below `data/`: what is registered was clipped before, and a second `data` in front is a folder."""
    path = f"{item['subdir']}/{item['name']}"
    try:
        return canonical(path)
    except BadPath:
        # Somebody else registered it; it equals nothing of ours.
        return path


def _digest(item: dict[str, Any]) -> str:
    try:
        return str(Digest.parse(item["hashtype"], item["hashsum"]))
    except ValueError:
        return f"{item['hashtype']}:{item['hashsum']}"
