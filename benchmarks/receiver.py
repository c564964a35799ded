"""The least that a receiver of uploads can do: one connection at a time, socket to file, no fsync.

A yardstick; started as a script with a port and a folder: `python receiver.py PORT FOLDER`.
"""

import socket
import sys
from pathlib import Path

BUFFER = 1 << 20


def receive(connection: socket.socket, target: Path) -> None:
    """Take one request, and answer when its body is in a file."""
    buffer = memoryview(bytearray(BUFFER))
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1 << 16)
    head, _, body = data.partition(b"\r\n\r\n")
    fields = head.lower()
    at = fields.find(b"content-length:")
    left = int(fields[at + 15 :].partition(b"\r\n")[0]) - len(body) if at >= 0 else 0
    with target.open("wb", buffering=0) as file:
        file.write(body)
        while left > 0:
            count = connection.recv_into(buffer)
            if not count:
                return
            file.write(buffer[:count])
            left -= count
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


def main(port: int, folder: Path) -> None:
    """Serve until killed."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                receive(connection, folder / "received")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
