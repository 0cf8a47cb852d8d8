"""RFC 8259 read byte by byte: is this still the beginning of a JSON text, and is it one?

A hand-written machine with a stack, quick enough to try every token of a real vocabulary. States are named after what
has just been read. UTF-8 inside strings is checked to the byte: no overlong forms, no surrogates, nothing above
U+10FFFF.
"""

from __future__ import annotations

from dataclasses import dataclass

WHITE = b" \t\r\n"
DIGITS = b"0123456789"
HEX = b"0123456789abcdefABCDEF"
LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}

# Lead byte -> ranges of the bytes that must follow (RFC 3629, section 4).
TAIL = (0x80, 0xBF)
UTF8: dict[int, tuple[tuple[int, int], ...]] = {
    **dict.fromkeys(range(194, 224), (TAIL,)),
    0xE0: ((0xA0, 0xBF), TAIL),
    **dict.fromkeys(range(225, 240), (TAIL, TAIL)),
    0xED: ((0x80, 0x9F), TAIL),
    0xF0: ((0x90, 0xBF), TAIL, TAIL),
    **dict.fromkeys(range(241, 244), (TAIL, TAIL, TAIL)),
    0xF4: ((0x80, 0x8F), TAIL, TAIL),
}


@dataclass(frozen=True)
class JsonPrefix:
    """state: what came last; stack: open brackets, innermost last; rest: what a literal or character still needs.

    A string is `in_key` when a colon must follow it.
    """

    state: str = "value"
    stack: bytes = b""
    rest: tuple[bytes | tuple[int, int], ...] = ()
    in_key: bool = False

    def _with(self, state: str, **changes: object) -> JsonPrefix:
        values = {"stack": self.stack, "rest": (), "in_key": self.in_key, **changes}
        return JsonPrefix(state, **values)  # type: ignore[arg-type]

    def _value_ended(self) -> JsonPrefix:
        return self._with("after value", in_key=False)

    @property
    def complete(self) -> bool:
        return not self.stack and self.state in ("after value", "zero", "integer", "fraction", "exponent")

    def step(self, byte: int) -> JsonPrefix | None:
        """After one more byte; None if no JSON text starts so."""
        match self.state:
            case "value" | "value or ]":
                return self._begin_value(byte)
            case "key" | "key or }":
                if byte in WHITE:
                    return self
                if byte == ord('"'):
                    return self._with("string", in_key=True)
                return self._close(byte) if self.state == "key or }" else None
            case "colon":
                return self if byte in WHITE else self._with("value") if byte == ord(":") else None
            case "after value":
                return self._after_value(byte)
            case "string":
                return self._in_string(byte)
            case "escape":
                if byte == ord("u"):
                    return self._with("bytes", rest=(HEX,) * 4)
                return self._with("string") if byte in b'"\\/bfnrt' else None
            case "bytes":
                first, *others = self.rest
                fits = first[0] <= byte <= first[1] if isinstance(first, tuple) else byte in first
                return self._with("bytes" if others else "string", rest=tuple(others)) if fits else None
            case "literal":
                first, *others = self.rest
                assert isinstance(first, bytes)
                if byte not in first:
                    return None
                return self._with("literal", rest=tuple(others)) if others else self._value_ended()
        return self._in_number(byte)

    def _begin_value(self, byte: int) -> JsonPrefix | None:
        if byte in WHITE:
            return self
        if byte == ord("["):
            return self._with("value or ]", stack=self.stack + b"]")
        if byte == ord("{"):
            return self._with("key or }", stack=self.stack + b"}")
        if byte == ord('"'):
            return self._with("string", in_key=False)
        if byte in LITERALS:
            return self._with("literal", rest=tuple(bytes([b]) for b in LITERALS[byte][1:]))
        if byte == ord("-"):
            return self._with("minus")
        if byte in DIGITS:
            return self._with("zero" if byte == ord("0") else "integer")
        return self._close(byte) if self.state == "value or ]" else None

    def _close(self, byte: int) -> JsonPrefix | None:
        if not self.stack or byte != self.stack[-1]:
            return None
        return self._with("after value", stack=self.stack[:-1], in_key=False)

    def _after_value(self, byte: int) -> JsonPrefix | None:
        if byte in WHITE:
            return self._with("after value")
        if byte == ord(",") and self.stack:
            return self._with("value" if self.stack[-1] == ord("]") else "key")
        return self._close(byte)

    def _in_string(self, byte: int) -> JsonPrefix | None:
        if byte == ord('"'):
            return self._with("colon", in_key=False) if self.in_key else self._value_ended()
        if byte == ord("\\"):
            return self._with("escape")
        if 0x20 <= byte < 0x80:
            return self
        return self._with("bytes", rest=UTF8[byte]) if byte in UTF8 else None

    def _in_number(self, byte: int) -> JsonPrefix | None:
        state = self.state
        if byte in DIGITS and state != "zero":
            after = {"minus": "integer", "point": "fraction", "e": "exponent", "e sign": "exponent"}.get(state, state)
            return self._with("zero" if state == "minus" and byte == ord("0") else after)
        if byte == ord(".") and state in ("zero", "integer"):
            return self._with("point")
        if byte in b"eE" and state in ("zero", "integer", "fraction"):
            return self._with("e")
        if byte in b"+-" and state == "e":
            return self._with("e sign")
        return self._after_value(byte) if state in ("zero", "integer", "fraction", "exponent") else None

    def read(self, text: bytes) -> JsonPrefix | None:
        state: JsonPrefix | None = self
        for byte in text:
            if state is None:
                return None
            state = state.step(byte)
        return state
