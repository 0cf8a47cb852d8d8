"""What a JSON text says while it is still being written: events, and the value so far.

    matcher.events()    # [JsonEvent(path=("lines", 0, "price"), kind="number", value=12.5), …] since the last call
    matcher.partial()   # {"lines": [{"price": 12.5, "name": "Scr"}]}

A matcher of a JSON grammar feeds a `JsonEvents` with the bytes of the tokens accepted since the last call, so no byte
is read twice. Tokens may end anywhere, inside an escape or a character too. What is kept per token is one small state
(where the text and the list of events end there, and the open containers as a linked list), so going back costs no
reading. The reader trusts the grammar that the text is JSON; it does not check it again.
"""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from guiderail.errors import GrammarError, LimitError

__all__ = ["MAX_DEPTH", "JsonEvent", "JsonEvents"]

# Paths are as long as the text is nested, and `json.loads` gives up near this depth as well.
MAX_DEPTH = 1000


class JsonEvent(NamedTuple):
    """One thing that a JSON text has said.

    Args:
        path: keys and indices from the root to the value; for "key", the path of its object.
        kind: when it is complete, "key", "string", "number", "true", "false" or "null"; "begin_object", "end_object",
            "begin_array", "end_array"; and "partial_string", for the string value in which the text ends as yet.
        value: the key, the string, the number (int or float, as `json.loads` reads it), True, False or None; None
            for the begin and end of containers; the text so far (never empty) for "partial_string".
    """

    path: tuple[str | int, ...]
    kind: str
    value: str | int | float | bool | None


# The way to a value, shared by all that lies below it: (way to its container, key or index); None: the root.
_Way: TypeAlias = "tuple[_Way, str | int] | None"


class _Frame(NamedTuple):
    """An open container; `step` is the key or index of the member that is next or open, None where a key is next."""

    below: _Frame | None
    way: _Way
    is_object: bool
    step: str | int | None
    depth: int


class _State(NamedTuple):
    """The reader after some bytes; `length` and `events` count bytes read and events found up to there."""

    length: int
    events: int
    mode: str
    start: int  # where the open string (behind its quote) or scalar begins
    frame: _Frame | None


_BETWEEN, _STRING, _ESCAPE, _SCALAR = "between", "string", "escape", "scalar"
_STRING_STOPS = re.compile(rb'["\\]')
_SCALAR_STOPS = re.compile(rb"[\s,\]}]")
_WHOLE_CHARACTERS = re.compile(rb'(?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*')
_LITERALS: dict[bytes, tuple[str, bool | None]] = {
    b"true": ("true", True),
    b"false": ("false", False),
    b"null": ("null", None),
}


class JsonEvents:
    """Reads one JSON text in pieces, and can go back to the end of any piece.

    Args:
        prefix: text that stands before the first piece; going back does not undo it, and its events count as new.
        decode: the meaning of a complete text, for `partial`; None: what `json.loads` gives.

        >>> reader = JsonEvents(b"", None)
        >>> reader.read(0, [b'{"a": [1', b', "x'])
        >>> [tuple(event) for event in reader.events()][-2:]
        [(('a', 0), 'number', 1), (('a', 1), 'partial_string', 'x')]
        >>> reader.partial()
        {'a': [1, 'x']}
        >>> reader.read(1, [b"2]}"])
        >>> [tuple(event) for event in reader.events()]
        [(('a', 0), 'number', 12), (('a',), 'end_array', None), ((), 'end_object', None)]
    """

    __slots__ = ("_decode", "_log", "_reported", "_shown", "_states", "_text")

    def __init__(self, prefix: bytes, decode: Callable[[str], Any] | None) -> None:
        self._decode = decode
        self._text = bytearray()
        self._log: list[tuple[_Way, str, str | int | float | bool | None]] = []
        self._states = [_State(0, 0, _BETWEEN, 0, None)]  # [0] after the prefix, then one per piece
        self._reported = 0  # events of the log that were handed out
        self._shown = 0  # where the text ended when a partial string was last handed out
        self._states[0] = self._read(self._states[0], prefix)

    def copy(self) -> JsonEvents:
        """A reader at the same place, that has reported the same events. O(text), as a matcher's `fork`."""
        other = object.__new__(JsonEvents)
        other._decode = self._decode
        other._text = self._text[:]
        other._log = self._log[:]
        other._states = self._states[:]
        other._reported = self._reported
        other._shown = self._shown
        return other

    def read(self, kept: int, pieces: Sequence[bytes | None]) -> None:
        """Go back to the end of piece `kept` (0: the prefix), forget what came behind it, and read on.

        Args:
            pieces: bytes of any length; None: the text ends here.
        Raises: LimitError for text nested deeper than `MAX_DEPTH`, or for an integer of more digits than Python reads.
            What stood before that piece stays read.
        """
        del self._states[kept + 1 :]
        state = self._states[-1]
        # Also what a call that raised has left behind.
        del self._text[state.length :], self._log[state.events :]
        self._reported = min(self._reported, state.events)
        self._shown = min(self._shown, state.length)
        for piece in pieces:
            state = self._read(state, piece) if piece is not None else self._end(state)
            self._states.append(state)

    def events(self) -> list[JsonEvent]:
        """What is new since the last call: the events of the log, then the string in which the text ends."""
        found = [JsonEvent(_path(way), kind, value) for way, kind, value in self._log[self._reported :]]
        self._reported = len(self._log)
        state = self._states[-1]
        if self._shown < state.length and (text := self._open_string(state)):
            found.append(JsonEvent(_path(_way(state.frame)), "partial_string", text))
        self._shown = state.length
        return found

    def partial(self) -> Any:
        """The value so far, made afresh: complete members, and the text so far of a string that is not finished.

        An unfinished key, number or literal is left out, and so is a key whose value has not begun. None where there is
        no value yet. Once the text is one complete value: its meaning, by `decode`.

        Raises: what `decode` raises.
        """
        state = self._states[-1]
        if self._log and state.frame is None and state.mode == _BETWEEN and self._decode is not None:
            return self._decode(self._text.decode("utf-8"))
        root: list[Any] = []
        containers: list[list[Any] | dict[str, Any]] = [root]
        keys: list[str] = []  # of the objects among the containers, the last key of each
        for _, kind, value in self._log:
            if kind == "key":
                keys[-1] = str(value)
            elif kind in ("end_object", "end_array"):
                if isinstance(containers.pop(), dict):
                    keys.pop()
            else:
                made: Any = {} if kind == "begin_object" else [] if kind == "begin_array" else value
                _put(containers[-1], keys, made)
                if kind in ("begin_object", "begin_array"):
                    containers.append(made)
                    if kind == "begin_object":
                        keys.append("")
        text = self._open_string(state)
        if text is not None:
            _put(containers[-1], keys, text)
        return root[0] if root else None

    # --- reading -----------------------------------------------------------------------------------------------------

    def _read(self, state: _State, piece: bytes) -> _State:
        text, (at, _, mode, start, frame) = self._text, state
        text += piece
        while at < len(text):
            if mode == _STRING:
                stop = _STRING_STOPS.search(text, at)
                if stop is None:
                    break
                at = stop.end()
                if stop[0] == b"\\":
                    mode = _ESCAPE
                    continue
                mode, value = _BETWEEN, _string(bytes(text[start : at - 1]))
                if frame is not None and frame.step is None:
                    frame = frame._replace(step=value)
                    self._log.append((frame.way, "key", value))
                else:
                    self._log.append((_way(frame), "string", value))
            elif mode == _ESCAPE:  # the digits of \uXXXX may be read as any other character
                at, mode = at + 1, _STRING
            elif mode == _SCALAR:
                stop = _SCALAR_STOPS.search(text, at)
                end = len(text) if stop is None else stop.start()
                # A literal is complete with its last letter, a number with what follows it.
                if stop is not None or bytes(text[start:end]) in _LITERALS:
                    self._scalar(frame, start, end)
                    mode = _BETWEEN
                at = end
            else:
                byte = bytes(text[at : at + 1])
                at += 1
                if byte == b'"':
                    mode, start = _STRING, at
                elif byte in (b"{", b"["):
                    frame = self._open(frame, byte == b"{")
                elif byte in (b"}", b"]") and frame is not None:
                    self._log.append((frame.way, "end_object" if frame.is_object else "end_array", None))
                    frame = frame.below
                elif byte == b"," and frame is not None:
                    frame = frame._replace(step=frame.step + 1 if isinstance(frame.step, int) else None)
                elif byte not in b" \t\n\r:":
                    mode, start, at = _SCALAR, at - 1, at - 1
        return _State(len(text), len(self._log), mode, start, frame)

    def _end(self, state: _State) -> _State:
        """The text ends: a number at the root has nothing behind it that would say so."""
        if state.mode == _SCALAR:
            self._scalar(state.frame, state.start, state.length)
        return state._replace(mode=_BETWEEN, events=len(self._log))

    def _open(self, frame: _Frame | None, is_object: bool) -> _Frame:
        depth = 1 if frame is None else frame.depth + 1
        if depth > MAX_DEPTH:
            raise LimitError(f"JSON text nested deeper than {MAX_DEPTH}", limit="json_events.MAX_DEPTH")
        way = _way(frame)
        self._log.append((way, "begin_object" if is_object else "begin_array", None))
        return _Frame(frame, way, is_object, None if is_object else 0, depth)

    def _scalar(self, frame: _Frame | None, start: int, end: int) -> None:
        text = bytes(self._text[start:end])
        if text in _LITERALS:
            self._log.append((_way(frame), *_LITERALS[text]))
            return
        digits = text.lstrip(b"-")
        if digits.isdigit() and len(digits) > sys.get_int_max_str_digits() > 0:
            raise LimitError(f"an integer of {len(digits)} digits at byte {start}", limit="int_max_str_digits")
        try:
            self._log.append((_way(frame), "number", json.loads(text)))
        except ValueError as error:
            raise GrammarError(f"no JSON value at byte {start}: {text[:40]!r}") from error

    def _open_string(self, state: _State) -> str | None:
        """The text so far of the string value in which the text ends; None if it ends elsewhere."""
        inside = state.mode in (_STRING, _ESCAPE)
        if not inside or (state.frame is not None and state.frame.step is None):
            return None
        found = _WHOLE_CHARACTERS.match(self._text, state.start, state.length)
        assert found is not None, "it matches the empty text"
        # Bytes of a character that is not finished stay away, and so does half a surrogate pair.
        known, _ = codecs.utf_8_decode(found[0], "strict", False)
        text = str(json.loads(f'"{known}"'))
        return text[:-1] if text and "\ud800" <= text[-1] <= "\udbff" else text


def _string(raw: bytes) -> str:
    return str(json.loads(f'"{raw.decode("utf-8")}"'))


def _way(frame: _Frame | None) -> _Way:
    """The way to the value that is next or open."""
    if frame is None:
        return None
    assert frame.step is not None, "a value follows its key"
    return frame.way, frame.step


def _path(way: _Way) -> tuple[str | int, ...]:
    steps: list[str | int] = []
    while way is not None:
        way, step = way
        steps.append(step)
    return tuple(reversed(steps))


def _put(container: list[Any] | dict[str, Any], keys: Sequence[str], value: Any) -> None:
    if isinstance(container, dict):
        container[keys[-1]] = value
    else:
        container.append(value)
