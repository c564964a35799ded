"""JSON with one meaning and a bounded price, every fault of which has a path.

The standard library decodes, one element of the outermost list after the other, so that a document of any length takes the
memory of one element.  What it lets pass (keys given twice, NaN, broken text) or chokes on (numbers of any
length) becomes a `Flaw` in the place of the value, so that all flaws are found in one walk, each with its path.  What
would cost more than an honest document is refused before it is decoded.

Not a check of what a document means, which is `metadata`.  Any floor may import this.

Source: RFC 8259; RFC 7493 (I-JSON) for what readers disagree about.  `docs/decisions/0007-json-of-the-standard-library.md`.
"""

import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

__all__ = [
    "MAX_DEPTH",
    "MAX_NUMBER",
    "MAX_OBJECTS",
    "MAX_VALUES",
    "Elements",
    "Flaw",
    "NotAList",
    "Text",
    "decode",
    "ensure_bounded",
    "flaws",
    "is_plain",
    "shown",
]

#: How deep lists and objects may lie in each other.
MAX_DEPTH: Final = 32
#: How many characters a number may have.
MAX_NUMBER: Final = 100
#: How many objects and values a document may have: twice a million files, and sixteen values for each.  Both are counted
#: by their brackets and commas, also those within strings: a bound from above that costs no time.
MAX_OBJECTS: Final = 2_000_000
MAX_VALUES: Final = 16 * MAX_OBJECTS

#: How much of a value is shown to people, in characters.
_SHOWN: Final = 80
_ESCAPED_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_NUMBER_GOES_ON: Final = re.compile(r"[-+.0-9eE]*")
_BYTE_ORDER_MARK: Final = "\ufeff"
#: How many characters of a list are decoded at once, as far as its elements are objects.
_RUN: Final = 1 << 15
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, slots=True)
class Flaw:
    """Stands where a value cannot be taken; the reason says why."""

    reason: str


_NOT_PLAIN: Final = {dict, list, Flaw}


class NotAList(ValueError):
    """A text that is JSON, but no list.

    Attributes:
        value: what it is.

    """

    def __init__(self, value: object) -> None:
        """Tell what it is."""
        super().__init__("not a list")
        self.value = value


def ensure_bounded(pieces: Iterable[bytes]) -> None:
    """Refuse a text that would take too long to decode, at the speed of reading it.

    Raises:
        ValueError: it has too many objects or values; not retryable.

    """
    objects = values = 0
    for piece in pieces:
        braces = piece.count(b"{")
        objects += braces
        values += braces + piece.count(b"[") + piece.count(b",")
        _limit(objects, MAX_OBJECTS, "opening braces")
        _limit(values, MAX_VALUES, "values")


class Elements:
    """The elements of a list in UTF-8, with or without a byte order mark, decoded one by one; to be iterated once.

    Whoever reads a text for the first time calls `ensure_bounded` before.

    Attributes:
        broken: whether strings of what was given so far may have lone surrogates.

    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """Read nothing yet.

        Args:
            pieces: the text, cut anywhere.

        """
        self.broken = False
        self._pieces = _Pieces(pieces)
        #: What was read and is not decoded yet, and how much of that was passed.
        self._text = ""
        self._at = 0
        #: Where the next run may begin: up to here it was tried in vain.
        self._run_from = 0
        #: How many characters came before, how many lines, and where the present one began.
        self._gone = 0
        self._lines = 0
        self._line_start = 0

    def __iter__(self) -> Iterator[Any]:
        """Lists, dicts and scalars, and a `Flaw` for what is none.

        Raises:
            NotAList: it is another value; not retryable.
            ValueError: not JSON; not retryable.

        """
        if self._peek() != "[":
            value = self._value()
            self._end()
            raise NotAList(value)
        self._at += 1
        if self._peek() == "]":
            self._at += 1
        else:
            yield from self._listed()
        self._end()

    def _listed(self) -> Iterator[Any]:
        mark = ","
        while mark == ",":
            yield from self._run()
            self._peek()
            yield self._value()
            mark = self._peek()
            if mark not in {",", "]"}:
                msg = "Expecting ',' delimiter"
                raise self._told(msg, self._at)
            self._at += 1

    def _run(self) -> list[Any]:
        """As many elements as surely are whole; one by one they take longer."""
        end = self._text.rfind("},", self._at, self._at + _RUN) + 1
        if not end or self._at < self._run_from:
            return []
        # The beginning of a list is one when a bracket ends it, and no other bracket did: a place within a string, or an
        # object, is none.
        run = f"[{self._text[self._at : end]}]"
        try:
            values, length = _DECODER.raw_decode(run)
        except (json.JSONDecodeError, RecursionError):
            length = 0
        if length < len(run):
            self._run_from = end
            return []
        self._at = end + 1
        return cast("list[Any]", values)

    def _end(self) -> None:
        if self._peek():
            msg = "Extra data"
            raise self._told(msg, self._at)

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _value(self) -> Any:  # noqa: ANN401 (it is whatever was sent)
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as fault:
                # It may go on in the next piece.  Looking for it moves the text.
                place = fault.pos - self._at
                if not self._more():
                    raise self._told(fault.msg, self._at + place) from None
            except RecursionError:
                msg = f"lists and objects lie more than {MAX_DEPTH} deep in each other"
                raise ValueError(msg) from None
            else:
                # So may a number that ends with the piece, or of which only the beginning is one yet.
                length = end - self._at
                if _NUMBER_GOES_ON.fullmatch(self._text, end) is None or not self._more():
                    self._at += length
                    return value

    def _more(self) -> bool:
        """Read on; False at the end.  At least as much as is left, so that a long element is not decoded again too often."""
        text, self._text = self._text, self._text[self._at :]
        self._run_from = max(0, self._run_from - self._at)
        lines = text.count("\n", 0, self._at)
        if lines:
            self._lines += lines
            self._line_start = self._gone + text.rfind("\n", 0, self._at) + 1
        self._gone += self._at
        self._at = 0
        more = self._pieces.take(max(1, len(self._text)))
        self._text += more
        self.broken = self.broken or _ESCAPED_SURROGATE.search(self._text) is not None
        return bool(more)

    def _told(self, what: str, at: int) -> ValueError:
        """A fault at a place of the text that is not decoded yet, as the standard library tells it of a whole one."""
        line = self._lines + self._text.count("\n", 0, at) + 1
        newline = self._text.rfind("\n", 0, at)
        start = self._line_start if newline < 0 else self._gone + newline + 1
        place = self._gone + at
        return ValueError(f"{what}: line {line} column {place - start + 1} (char {place})")


class _Pieces:
    """Text out of bytes that come in pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._bytes = 0
        self._is_begun = False
        self._is_over = False

    def take(self, least: int) -> str:
        """The next characters, `least` of them or more; fewer, or none, at the end."""
        found: list[str] = []
        length = 0
        while length < least and not self._is_over:
            found.append(self._next())
            length += len(found[-1])
        return "".join(found)

    def _next(self) -> str:
        piece = next(self._pieces, None)
        self._is_over = piece is None
        text = self._decoded(piece or b"")
        if text and not self._is_begun:
            self._is_begun = True
            text = text.removeprefix(_BYTE_ORDER_MARK)
        return text

    def _decoded(self, piece: bytes) -> str:
        held, _ = self._decoder.getstate()
        try:
            text = self._decoder.decode(piece, final=self._is_over)
        except UnicodeDecodeError as fault:
            msg = f"not UTF-8 from byte {self._bytes - len(held) + fault.start} on: {fault.reason}"
            raise ValueError(msg) from None
        self._bytes += len(piece)
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A decoded text.

    Attributes:
        value: lists, dicts and scalars, and a `Flaw` for what is none.
        broken: whether strings may have lone surrogates.

    """

    value: Any
    broken: bool


def decode(text: bytes) -> Text:
    """Decode a text that is in memory, which may be any JSON.

    Raises:
        ValueError: not JSON, or too much of it; not retryable.

    """
    ensure_bounded([text])
    elements = Elements([text])
    try:
        return Text(value=list(elements), broken=elements.broken)
    except NotAList as other:
        return Text(value=other.value, broken=elements.broken)


def is_plain(entry: dict[str, Any]) -> bool:
    """Whether an object holds nothing but scalars, and so no flaw but broken text; true for nearly all, and quick."""
    return _NOT_PLAIN.isdisjoint(map(type, entry.values()))


def flaws(entry: dict[str, Any], path: str, *, broken: bool) -> Iterator[str]:
    """Every flaw within one object of the outermost list, as `path: reason`.

    Args:
        entry: the object.
        path: of the object.
        broken: see `Text`.

    """
    yield from _walk(entry, path, 2, broken=broken)


def shown(value: object) -> str:
    """A value for people, as JSON writes it: short, on one line, and without characters that could hide something."""
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "an object"
    if not isinstance(value, str):
        return json.dumps(value)
    cut = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def _walk(value: dict[str, Any] | list[Any], path: str, depth: int, *, broken: bool) -> Iterator[str]:
    if depth > MAX_DEPTH:
        yield f"{path}: lies more than {MAX_DEPTH} deep"
        return
    children: Iterable[tuple[str | int, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in children:
        if isinstance(child, dict | list):
            yield from _walk(child, _below(path, key), depth + 1, broken=broken)
        elif isinstance(child, Flaw):
            yield f"{_below(path, key)}: {child.reason}"
        elif broken and isinstance(child, str) and _is_broken(child):
            yield f"{_below(path, key)}: broken text, a lone surrogate"
        if broken and isinstance(key, str) and _is_broken(key):
            yield f"{_below(path, key)}: the key is broken text, a lone surrogate"


def _below(path: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{shown(key)}]"


def _is_broken(text: str) -> bool:
    return not text.isascii() and _SURROGATE.search(text) is not None


def _limit(count: int, limit: int, of_what: str) -> None:
    if count > limit:
        msg = f"more than {limit} {of_what}"
        raise ValueError(msg)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                found[key] = Flaw("the key is given twice")
            seen.add(key)
    return found


def _integer(text: str) -> int | Flaw:
    return int(text) if len(text) <= MAX_NUMBER else Flaw(f"a number of {len(text)} characters")


def _float(text: str) -> float | Flaw:
    if len(text) > MAX_NUMBER:
        return Flaw(f"a number of {len(text)} characters")
    value = float(text)
    return value if math.isfinite(value) else Flaw(f"{text} is too large for a number")


def _constant(name: str) -> Flaw:
    return Flaw(f"{name} is no JSON number")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
