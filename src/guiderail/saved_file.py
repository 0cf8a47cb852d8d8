"""Files of our own: compiled grammars and vocabularies that were saved.

    b"guiderail\\0" | format version, uint32 | length of header, uint32 | SHA-256 of header | header, JSON | sections
    sections: as the header lists them, with lengths and digests

A file is data: reading one runs no code, and every length and digest is checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["FORMAT_VERSION", "read_file", "write_file"]

_MAGIC = b"guiderail\0"
# Raised when a file of an older build could be misread.
FORMAT_VERSION = 2
_START = "<II32s"


def write_file(
    path: str | os.PathLike[str], kind: str, header: Mapping[str, Any], sections: Mapping[str, bytes]
) -> None:
    """Write `path` atomically: another process that reads it meanwhile sees the old content or the new.

    Args:
        kind:   what the file holds; `read_file` is asked for the same.
        header: JSON values; the keys "kind" and "sections" are ours.
    Raises: OSError.
    """
    listed = [[name, len(data), hashlib.sha256(data).hexdigest()] for name, data in sections.items()]
    encoded = json.dumps({**header, "kind": kind, "sections": listed}).encode("utf-8", "surrogatepass")
    start = _MAGIC + struct.pack(_START, FORMAT_VERSION, len(encoded), hashlib.sha256(encoded).digest())
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(b"".join([start, encoded, *sections.values()]))
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_file(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Header and sections of a file that `write_file` wrote.

    Raises:
        ValueError: not such a file, of another kind, in another format version, or damaged.
        OSError: it cannot be read.
    """
    data = Path(path).read_bytes()
    start = len(_MAGIC) + struct.calcsize(_START)
    if not data.startswith(_MAGIC) or len(data) < start:
        raise ValueError(f"{path} is not a {kind} saved by guiderail")
    version, length, expected = struct.unpack_from(_START, data, len(_MAGIC))
    if version != FORMAT_VERSION:
        raise ValueError(f"{path} was saved in format {version}; this version reads format {FORMAT_VERSION}")
    encoded = data[start : start + length]
    if hashlib.sha256(encoded).digest() != expected:
        raise ValueError(f"{path} is damaged")
    try:
        header = json.loads(encoded.decode("utf-8", "surrogatepass"))
        place = start + length
        sections: dict[str, bytes] = {}
        for name, size, digest in header["sections"]:
            section = data[place : place + int(size)]
            if hashlib.sha256(section).hexdigest() != digest:
                raise ValueError(f"{path} is damaged")
            sections[name] = section
            place += int(size)
        if place != len(data):
            raise ValueError(f"{path} is damaged")
        if header["kind"] != kind:
            raise ValueError(f"{path} is not a {kind} saved by guiderail, but a {header['kind']}")
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged") from error
    return header, sections
