"""Instant neighbours: UniqueID, Policy, Archive Interface and Metadata in one small process.

What it is: a server on one port that answers as the four services do, as cheaply as Python can: threads that wait in
`accept`, requests parsed by hand, those of a pipeline answered with one write.  What the archive part was sent, it can
send back.

What it is not: an archive.  Nothing is made durable, and nobody is refused.

How it keeps bytes: a body of a mebibyte or more that only repeats its first mebibyte, as those of `benchmarks.bundles`
do, is kept as that mebibyte and a length; all others go into one file, which has no name and which should lie in memory
(`/dev/shm`).  So 20 GiB of one file take a mebibyte, and a million files of 1 KiB take 1 GiB and about 200 bytes each.

It imports nothing but the standard library and is started as a script, so that any Python can run it::

    python sink.py PORT SPOOL MOVED     # SPOOL: folder for what is kept; MOVED: folder on the disk of what is moved
"""

import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

__all__ = ["Sink", "main"]

#: So many connections are served at once.
THREADS = 96
#: Bytes of a body that are compared, and how long a body must be for that.
PERIOD = 1 << 20
#: What is received at once.
BUFFER = 1 << 20
#: Small bodies are written to the file so many bytes at a time.
BATCH = 4 << 20

_END = b"\r\n\r\n"
_REASONS = {200: b"200 OK", 201: b"201 Created", 204: b"204 No Content", 404: b"404 Not Found", 500: b"500 Error"}


class Sink:
    """What the neighbours know.  All threads share one."""

    def __init__(self, spool: Path, moved: Path) -> None:
        """Keep bytes in an unnamed file in `spool`, and moved files in `moved`."""
        self._moved = moved
        self._file = tempfile.TemporaryFile(dir=spool, buffering=0)  # noqa: SIM115 (it lives as long as the process)
        self._handle = self._file.fileno()
        #: What is not in the file yet, and where it will begin there.
        self._tail = bytearray()
        self._start = 0
        #: Id → offset in the file and length in one number: a million tuples would be too much.
        self._kept: dict[int, int] = {}
        #: Id → the part that repeats itself, and the length.
        self._repeated: dict[int, tuple[bytes, int]] = {}
        self._files: set[int] = set()
        self._last = {"upload_job": 0, "file": 0}
        #: Documents that were registered: where they are in the file, and, once somebody asked, what they say.
        self._documents: list[int] = []
        self._transactions: dict[int, list[dict[str, object]]] = {}
        self._lock = threading.Lock()

    # --- bytes

    def keep(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes to the file; returns place and length in one number."""
        with self._lock:
            place = (self._start + len(self._tail)) << 40 | len(data)
            self._tail += data
            if len(self._tail) >= BATCH:
                self._write_out()
        return place

    def _write_out(self) -> None:
        view = memoryview(self._tail)
        written = 0
        while written < len(view):
            written += os.pwrite(self._handle, view[written:], self._start + written)
        self._start += written
        self._tail = bytearray()

    def load(self, place: int, first: int = 0, count: int | None = None) -> bytes:
        """Bytes of the file: `count` of them, from `first` of the place on."""
        offset, length = place >> 40, place & (1 << 40) - 1
        count = length - first if count is None else min(count, length - first)
        with self._lock:
            if offset >= self._start:
                at = offset - self._start + first
                return bytes(self._tail[at : at + count])
            if offset + length > self._start:
                self._write_out()
        return os.pread(self._handle, count, offset + first)

    # --- Archive Interface

    def put(self, file_id: int, data: bytes | bytearray | memoryview) -> None:
        """Keep a small file."""
        self._kept[file_id] = self.keep(data)

    def put_long(self, file_id: int, pieces: Iterator[memoryview]) -> None:
        """Keep a long file, of which only the first `PERIOD` bytes are held as long as the rest repeats them."""
        first = bytearray()
        twice = b""
        length = 0
        for piece in pieces:
            if not twice:
                first += piece
                if len(first) >= PERIOD:
                    twice = bytes(first[:PERIOD]) * 2
                    if len(first) > PERIOD and not twice.startswith(first[PERIOD:]):
                        self._put_plain(file_id, first, pieces)
                        return
                length = len(first)
            elif twice.startswith(piece, length % PERIOD):
                length += len(piece)
            else:
                held = _repeat(twice[:PERIOD], length)
                self._put_plain(file_id, held + piece, pieces)
                return
        if twice:
            self._repeated[file_id] = twice[:PERIOD], length
        else:
            self.put(file_id, first)

    def _put_plain(self, file_id: int, begun: bytes | bytearray, pieces: Iterator[memoryview]) -> None:
        # Somebody else may append meanwhile, so a long file must be in one piece first.
        whole = bytearray(begun)
        for piece in pieces:
            whole += piece
        self.put(file_id, whole)

    def size(self, file_id: int) -> int | None:
        """Length of a file, None when there is none."""
        if file_id in self._kept:
            return self._kept[file_id] & (1 << 40) - 1
        if file_id in self._repeated:
            return self._repeated[file_id][1]
        if file_id in self._files:
            return (self._moved / str(file_id)).stat().st_size
        return None

    def pieces(self, file_id: int) -> Iterator[bytes]:
        """The bytes of a file that is there."""
        if file_id in self._kept:
            place = self._kept[file_id]
            for first in range(0, place & (1 << 40) - 1, PERIOD):
                yield self.load(place, first, PERIOD)
        elif file_id in self._repeated:
            block, length = self._repeated[file_id]
            for _ in range(length // PERIOD):
                yield block
            yield block[: length % PERIOD]
        else:
            with (self._moved / str(file_id)).open("rb") as file:
                while piece := file.read(PERIOD):
                    yield piece

    def adopt(self, file_id: int, source: str) -> bool:
        """Move a file of the same disk here."""
        try:
            os.rename(source, self._moved / str(file_id))  # noqa: PTH104 (no second path object a file)
        except OSError:
            return False
        self._files.add(file_id)
        return True

    def remove(self, file_id: int) -> bool:
        """Forget a file."""
        found = self.size(file_id) is not None
        self._kept.pop(file_id, None)
        self._repeated.pop(file_id, None)
        if file_id in self._files:
            self._files.discard(file_id)
            (self._moved / str(file_id)).unlink()
        return found

    # --- UniqueID and Metadata

    def numbers(self, mode: str, count: int) -> tuple[int, int]:
        """A range of numbers that nobody got before."""
        with self._lock:
            start = self._last.get(mode, 0) + 1
            self._last[mode] = start + count - 1
        return start, start + count - 1

    def register(self, body: bytes | bytearray | memoryview) -> None:
        """Take a document as it is: reading it would not be instant."""
        self._documents.append(self.keep(body))

    def transactions(self) -> dict[int, list[dict[str, object]]]:
        """Transaction → its file entries; here the documents are read."""
        while self._documents:
            entries = json.loads(self.load(self._documents.pop()))
            number = next(int(entry["value"]) for entry in entries if entry["destinationTable"] == "Transactions._id")
            self._transactions[number] = [entry for entry in entries if entry["destinationTable"] == "Files"]
        return self._transactions


def _repeat(block: bytes, length: int) -> bytes:
    return block * (length // len(block)) + block[: length % len(block)]


class Connection:
    """One connection after the other, in one thread."""

    def __init__(self, sink: Sink) -> None:
        """Answer for `sink`."""
        self._sink = sink
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)

    def serve(self, connection: socket.socket) -> None:
        """Answer requests until the client hangs up."""
        self._socket = connection
        self._at = self._filled = 0
        self._answers = bytearray()
        while self._request():
            pass

    def _request(self) -> bool:
        """Take one request; False when there will be no more."""
        end = self._buffer.find(_END, self._at, self._filled)
        while end < 0:
            if not self._receive():
                return False
            end = self._buffer.find(_END, self._at, self._filled)
        head = bytes(self._view[self._at : end])
        self._at = end + len(_END)
        line, _, rest = head.partition(b"\r\n")
        method, target = line.split(b" ", 2)[:2]
        fields = rest.lower()
        if b"expect: 100-continue" in fields:
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = _length(fields)
        if method == b"PUT" and target[1:].isdigit():
            self._put(int(target[1:]), length)
        else:
            self._answer(method, target.decode("ascii"), self._body(length))
        if self._at == self._filled:
            self._flush()
        if len(self._answers) >= BUFFER:
            self._flush()
        return b"connection: close" not in fields or self._flush()

    # --- in and out

    def _receive(self) -> bool:
        """More bytes behind those that wait; False at the end of the connection."""
        self._flush()
        if self._filled == len(self._buffer) or self._at == self._filled:
            self._view[: self._filled - self._at] = bytes(self._view[self._at : self._filled])
            self._at, self._filled = 0, self._filled - self._at
        count = self._socket.recv_into(self._view[self._filled :])
        self._filled += count
        return count > 0

    def _flush(self) -> bool:
        if self._answers:
            self._socket.sendall(self._answers)
            self._answers = bytearray()
        return False

    def _pieces(self, length: int) -> Iterator[memoryview]:
        """The body, as it arrives; each piece is gone with the next one."""
        while length:
            if self._at == self._filled and not self._receive():
                raise ConnectionError
            count = min(length, self._filled - self._at)
            self._at += count
            length -= count
            yield self._view[self._at - count : self._at]

    def _body(self, length: int) -> bytes | bytearray | memoryview:
        while length > self._filled - self._at and length < BUFFER // 2:
            if not self._receive():
                raise ConnectionError
        if length <= self._filled - self._at:
            self._at += length
            return self._view[self._at - length : self._at]
        whole = bytearray()
        for piece in self._pieces(length):
            whole += piece
        return whole

    def _say(self, status: int, body: bytes, fields: bytes = b"") -> None:
        self._answers += b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b" % (
            _REASONS[status],
            fields,
            len(body),
            body,
        )

    def _say_json(self, document: object) -> None:
        self._say(200, json.dumps(document).encode("ascii"))

    # --- the services

    def _put(self, file_id: int, length: int) -> None:
        if length >= PERIOD:
            self._sink.put_long(file_id, self._pieces(length))
        else:
            self._sink.put(file_id, self._body(length))
        self._say(201, b'{"message": "File added to archive", "total_bytes": %d}' % length)

    def _answer(self, method: bytes, target: str, body: bytes | bytearray | memoryview) -> None:
        path, _, query = target.partition("?")
        if path[1:].isdigit():
            self._archive(method, int(path[1:]), body)
        elif path == "/getid":
            asked = parse_qs(query)
            first, last = self._sink.numbers(asked["mode"][0], int(asked["range"][0]))
            self._say(200, b'{"startIndex": %d, "endIndex": %d}' % (first, last))
        elif path == "/ingest":
            if method == b"PUT":
                self._sink.register(body)
            self._say(200, b'{"status": "success"}')
        elif path in {"/transactions", "/files"}:
            self._say_json(self._found(path, {key: values[0] for key, values in parse_qs(query).items()}))
        elif path == "/":
            self._say(200, b'{"message": "Pacifica Sink Up and Running"}')
        else:
            self._say(404, b'{"message": "nothing here"}')

    def _archive(self, method: bytes, file_id: int, body: bytes | bytearray | memoryview) -> None:
        if method == b"PATCH":
            done = self._sink.adopt(file_id, json.loads(bytes(body))["path"])
            self._say(200 if done else 500, b'{"message": "File Moved Successfully"}' if done else b"{}")
            return
        size = self._sink.size(file_id)
        if size is None:
            self._say(404, b"" if method == b"HEAD" else b'{"message": "[Errno 2] nothing here"}')
        elif method == b"HEAD":
            self._answers += b"HTTP/1.1 204 No Content\r\nX-Content-Length: %d\r\n\r\n" % size
        elif method == b"DELETE":
            self._sink.remove(file_id)
            self._say(200, b'{"message": "File removed"}')
        else:
            self._answers += (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % size
            )
            for piece in self._sink.pieces(file_id):
                if len(piece) < BUFFER // 4:
                    self._answers += piece
                else:
                    self._flush()
                    self._socket.sendall(piece)

    def _found(self, path: str, asked: dict[str, str]) -> list[dict[str, object]]:
        known = self._sink.transactions()
        if path == "/transactions":
            number = int(asked.get("_id", 0))
            return [{"_id": number}] if number in known else []
        if "transaction" in asked:
            files = sorted(known.get(int(asked["transaction"]), []), key=lambda entry: int(str(entry["_id"])))
        else:
            wanted = int(asked.get("_id", 0))
            files = [entry for entries in known.values() for entry in entries if entry["_id"] == wanted]
        count = int(asked.get("items_per_page", len(files) or 1))
        first = (int(asked.get("page_number", 1)) - 1) * count
        return files[first : first + count]


def _length(fields: bytes) -> int:
    """Content-Length of headers in lower case; 0 without one."""
    at = fields.find(b"content-length:")
    return int(fields[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else 0


def _serve(sink: Sink, listener: socket.socket) -> None:
    """Take one connection after the other; the kernel wakes one thread for each."""
    worker = Connection(sink)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                worker.serve(connection)
            except OSError:
                # The client hung up; what it had sent whole is kept.
                continue


def main(port: int, spool: Path, moved: Path) -> None:
    """Serve until killed."""
    moved.mkdir(parents=True, exist_ok=True)
    sink = Sink(spool, moved)
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        threads = [threading.Thread(target=_serve, args=(sink, listener), daemon=True) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
