"""The documented module for carrying a bundle by hand: open, load, ingest, post.

A façade for programs that were written for 0.4.1: it holds no rule of its own, and nothing in this package uses it but the
documented steps in `tasks`.  What is done by hand has no claim, no recovery and no second try; `pipeline` has.  The one
place that uses `tarfile` on a bundle, and only on one that `bundle` has accepted.
"""

import hashlib
import json
import tarfile
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pacifica.ingest.app import Service, current, limits
from pacifica.ingest.bundle import Bundle
from pacifica.ingest.check import check_bundle, check_catalogue
from pacifica.ingest.core.digests import ALGORITHMS, Digest
from pacifica.ingest.core.errors import BadBundle, BadMetadata, Conflict, FaultyBundle, IngestError
from pacifica.ingest.core.metadata import Document, Entry
from pacifica.ingest.core.paths import clip as get_clipped
from pacifica.ingest.core.paths import is_metadata
from pacifica.ingest.core.states import Step
from pacifica.ingest.deposit import Depot
from pacifica.ingest.local.clock import SystemClock
from pacifica.ingest.pipeline import read_document
from pacifica.ingest.ports import Catalogue, IdMode, Parcel, Shipment
from pacifica.ingest.relocate import Relocation
from pacifica.ingest.source import Sources
from pacifica.ingest.work import Work

__all__ = [
    "FileIngester",
    "HashValidationException",
    "MetaParser",
    "TarIngester",
    "file_count",
    "get_clipped",
    "open_tar",
    "patch_files",
]

#: Raised when bytes are not what the metadata says of them.
HashValidationException = FaultyBundle


class _ByHand(Work):
    """Work without a claim: nobody is told, nobody may stop it."""

    def __init__(self) -> None:
        pass

    def begin(self, step: Step, total: int = 0) -> None:
        pass

    def advance(self, amount: int = 0) -> None:
        pass

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:  # noqa: ARG002 (the base's)
        yield


class FileIngester:
    """Carries one file of a bundle into the archive.

    Attributes:
        fileobj: what `read` reads from.
        file_id: the id in the archive.
        recorded_hash: what the bytes must hash to.
        hashval: the hash of what was read so far.

    """

    fileobj: BinaryIO

    def __init__(self, hashtype: str, hashcode: str, file_id: int | str) -> None:
        """Send nothing yet.

        Raises:
            ValueError: unknown hash type; not retryable.

        """
        if hashtype not in ALGORITHMS:
            msg = f"hash type {hashtype!r} is not one of {', '.join(sorted(ALGORITHMS))}"
            raise ValueError(msg)
        self.hashval = hashlib.new(hashtype, usedforsecurity=False)
        self.recorded_hash = hashcode
        self.file_id = file_id

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes and add them to the hash."""
        chunk = self.fileobj.read(size)
        self.hashval.update(chunk)
        return chunk

    def validate_hash(self) -> bool:
        """Whether what was read has the hash that was announced."""
        return self.hashval.hexdigest() == self.recorded_hash.lower()

    def upload_file_in_file(self, info: tarfile.TarInfo, tar: tarfile.TarFile) -> bool:
        """Check a member and archive it; returns True.

        Args:
            info: a member of `tar`.
            tar: as `open_tar` returns it.

        Raises:
            HashValidationException: the bytes are others; nothing was sent.  Not retryable.
            Conflict: the archive has something under the id already; not retryable.
            Unavailable: retryable, under another id.

        """
        service = current()
        holder = Path(str(tar.name))
        with holder.open("rb") as self.fileobj:
            self.fileobj.seek(info.offset_data)
            left = info.size
            while left and (chunk := self.read(min(left, service.settings.ingest.transfer_size))):
                left -= len(chunk)
        if not self.validate_hash():
            fault = f"{info.name!r} has hash {self.hashval.hexdigest()}, not {self.recorded_hash}"
            raise HashValidationException([fault])
        digest = Digest(algorithm=self.hashval.name, value=self.hashval.hexdigest())
        parcel = _parcel(self.file_id, info.name, digest, holder, offset=info.offset_data, size=info.size)
        depot = _depot(service)
        if depot.archive.size(parcel.file_id) is not None:
            msg = f"The archive has something under {parcel.file_id} already: take another id."
            raise Conflict(msg)
        depot.archive.store(parcel, lambda _: None)
        depot.archive.flush()
        list(depot.verified([parcel], _ByHand(), depot.verify))
        return True


class MetaParser:
    """A metadata document with ids for its files.

    Attributes:
        files: id, as text → the entry of the file.
        meta_str: the document as JSON.
        start_id: the first id; -1 when there are no files, -999 before anything is loaded, as the two that follow.
        file_count: how many files there are.
        transaction_id: the job's number.

    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.files: dict[str, Entry] = {}
        self.meta_str = ""
        self.start_id = self.file_count = self.transaction_id = -999
        self._members: Container[str] = ()

    @property
    def session(self) -> Catalogue:
        """Who is asked to register the document."""
        return current().neighbours.catalogue

    def file_obj_count(self, meta_list: Sequence[Entry]) -> None:
        """Count the files that a document names, into `file_count`."""
        self.file_count = sum(entry["destinationTable"] == "Files" for entry in meta_list)

    def load_meta(self, tar: tarfile.TarFile, job_id: int) -> None:
        """Read the metadata of a bundle and take ids.

        Raises:
            BadBundle, BadMetadata: not retryable.
            NeighbourDown: UniqueID is away; retryable.

        """
        with Bundle.open(str(tar.name), limits(current().settings)) as bundle:
            self._members = bundle.members
            self._load(Document.read(bundle.metadata, bundle.members), job_id)

    def read_meta(self, metafile: str, job_id: int) -> None:
        """Read the document of a move and take ids; raises as `load_meta`."""
        limit = limits(current().settings).metadata_bytes
        self._load(Document.parse(read_document(Path(metafile), limit)), job_id)

    def _load(self, document: Document, job_id: int) -> None:
        entries = list(document.entries)
        self.transaction_id = job_id
        self.file_obj_count(entries)
        numbers = current().neighbours.ids.reserve(IdMode.FILE, self.file_count) if self.file_count else range(-1, -1)
        self.start_id = numbers.start
        for file_id, file in zip(numbers, document.files, strict=True):
            entries[file.at]["_id"] = file_id
        self.files = {str(file_id): entries[file.at] for file_id, file in zip(numbers, document.files, strict=True)}
        self._dump([*entries, {"destinationTable": "Transactions._id", "value": job_id}])

    def _dump(self, entries: Sequence[Entry]) -> None:
        self.meta_str = json.dumps(entries, sort_keys=True, indent=4)

    def document(self) -> Document:
        """The document as it stands in `meta_str`.

        Raises:
            BadMetadata: it was changed to something else; not retryable.

        """
        try:
            loaded = json.loads(self.meta_str or "null")
        except ValueError as fault:
            raise BadMetadata([f"The metadata is not JSON: {fault}"]) from fault
        own = {"destinationTable": "Transactions._id", "value": self.transaction_id}
        document = [entry for entry in loaded if entry != own] if isinstance(loaded, list) else loaded
        return Document.of(document, self._members)

    def get_hash(self, file_id: str) -> tuple[str, str]:
        """Type and value of a file's hash.

        Raises:
            ValueError: the metadata has no usable one; not retryable.

        """
        entry = self.files[file_id]
        digest = Digest.parse(entry.get("hashtype"), entry.get("hashsum"))
        return digest.algorithm, digest.value

    def get_fname(self, file_id: str) -> str:
        """The name of a file."""
        return str(self.files[file_id]["name"])

    def get_subdir(self, file_id: str) -> str:
        """The folder of a file, as the metadata has it."""
        return str(self.files[file_id]["subdir"])

    def clean_metadata(self) -> None:
        """Bring every `subdir` in `meta_str` below `data/`."""
        self._dump([*self.document().registration(self.transaction_id)])

    def post_metadata(self) -> tuple[bool, str]:
        """Register the document; returns whether that worked, and why not."""
        try:
            self.clean_metadata()
            self.session.register(self.transaction_id, json.loads(self.meta_str))
        except (IngestError, ValueError) as fault:
            return False, str(fault)
        return True, ""


class TarIngester:
    """Carries all files of a bundle into the archive."""

    def __init__(self, tar: tarfile.TarFile, meta: MetaParser) -> None:
        """Take what `open_tar` returned and the parser that has loaded it; send nothing yet."""
        self.tar = tar
        self.meta = meta

    def ingest(self) -> None:
        """Check the whole bundle, then archive every file.

        Raises:
            HashValidationException: bundle and metadata do not fit; all faults, and nothing was sent.  Not retryable.
            Conflict, Unavailable: as `FileIngester.upload_file_in_file`.

        """
        document = self.meta.document()
        settings = current().settings
        with Bundle.open(str(self.tar.name), limits(settings)) as bundle:
            ingest = settings.ingest
            check_bundle(bundle, document, _ByHand(), ingest.transfer_size, ingest.min_hash)
            places = [bundle.members[file.path].offset for file in document.files]
        members = {info.offset_data: info for info in self.tar}
        for file_id, offset in zip(self.meta.files, places, strict=True):
            FileIngester(*self.meta.get_hash(file_id), file_id).upload_file_in_file(members[offset], self.tar)


def open_tar(fpath: str) -> tarfile.TarFile | None:
    """Open a bundle for reading; None when it is no tar, or none that this service takes.

    Raises:
        OSError: the file cannot be read.

    """
    try:
        Bundle.open(fpath, limits(current().settings)).close()
    except BadBundle:
        return None
    return tarfile.open(fpath, "r:")


def file_count(tar: tarfile.TarFile) -> int:
    """How many files a bundle has, without metadata.txt and folders."""
    return sum(info.isfile() and not is_metadata(info.name) for info in tar)


def patch_files(meta_obj: MetaParser) -> None:
    """Check every source of a move, then move all of them into the archive.

    Args:
        meta_obj: has read the document of a move.

    Raises:
        FaultyBundle: all faults, and nothing was moved; not retryable.
        Unavailable: unclear; look at source and archive.

    """
    service = current()
    settings, document, work = service.settings, meta_obj.document(), _ByHand()
    depot = _depot(service)
    sources = Sources(
        roots=settings.move_roots, is_staged=service.staging.owns, chunk_bytes=settings.ingest.transfer_size
    )
    relocation = Relocation(depot=depot, sources=sources, min_hash=settings.ingest.min_hash, clock=SystemClock())
    relocation.check(document.files, {}, work)
    check_catalogue(document, work)
    file_ids = [entry["_id"] for entry in document.entries if entry["destinationTable"] == "Files"]
    parcels = [
        _parcel(file_id, file.path, file.digest, Path(file.source), size=file.size_bytes)
        for file_id, file in zip(file_ids, document.files, strict=True)
        if file.digest and file.size_bytes is not None  # always: the check refuses others
    ]
    depot.archive.adopt_all(parcels, lambda: None, work.advance, Shipment())
    depot.archive.flush()
    list(depot.verified(parcels, work, depot.verify))


def _depot(service: Service) -> Depot:
    ask = service.neighbours
    return Depot(store=service.store, ids=ask.ids, archive=ask.archive, verify=service.settings.archiveinterface.verify)


def _parcel(file_id: int | str, path: str, digest: Digest, holder: Path, *, size: int, offset: int = 0) -> Parcel:
    return Parcel(file_id=int(file_id), path=path, holder=holder, offset=offset, size_bytes=size, digest=digest)
