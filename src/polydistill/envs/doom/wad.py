"""A WAD file: named lumps one after another, and a directory (id Software's format of 1993)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

Lump = tuple[str, bytes]

_HEADER = struct.Struct("<4sii")
_ENTRY = struct.Struct("<ii8s")


def wad(lumps: Iterable[Lump]) -> bytes:
    """A PWAD of ``lumps``, in their order.

    Raises:
        ValueError: a name that is not 1 to 8 ASCII characters.
    """
    body, directory, at = [], [], _HEADER.size
    for name, data in lumps:
        if not (name.isascii() and 1 <= len(name) <= 8):
            raise ValueError(f"a lump's name has 1 to 8 ASCII characters; found {name!r}")
        directory.append(_ENTRY.pack(at, len(data), name.encode("ascii")))
        body.append(data)
        at += len(data)
    return b"".join([_HEADER.pack(b"PWAD", len(directory), at), *body, *directory])


def map_lumps(name: str, textmap: str) -> list[Lump]:
    """The three lumps of a UDMF map."""
    return [(name, b""), ("TEXTMAP", textmap.encode("ascii")), ("ENDMAP", b"")]


def level_wad(texts: Mapping[str, str], maps: Sequence[tuple[str, str]]) -> bytes:
    """A WAD of text lumps (DECORATE, ...) and of as many maps as there are pairs ``(name, textmap)``."""
    lumps = [(name, text.encode("ascii")) for name, text in texts.items()]
    for name, textmap in maps:
        lumps += map_lumps(name, textmap)
    return wad(lumps)


def read_wad(data: bytes) -> list[Lump]:
    """The lumps of a WAD.

    Raises:
        ValueError: no WAD, or a directory that points outside it.
    """
    if len(data) < _HEADER.size or data[:4] not in (b"PWAD", b"IWAD"):
        raise ValueError("not a WAD file")
    _, count, at = _HEADER.unpack_from(data)
    if count < 0 or at < 0 or at + count * _ENTRY.size > len(data):
        raise ValueError("a WAD file that is cut short")
    lumps = []
    for i in range(count):
        start, size, name = _ENTRY.unpack_from(data, at + i * _ENTRY.size)
        if min(start, size) < 0 or start + size > len(data):
            raise ValueError("a WAD file that is cut short")
        lumps.append((name.rstrip(b"\0").decode("ascii"), data[start : start + size]))
    return lumps
