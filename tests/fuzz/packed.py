"""Spoils what is inside of compressed files and puts their lengths and checksums right again: the decoder gets to see it."""

from __future__ import annotations

import gzip
import io
import lzma
import random
import struct
import zipfile
import zlib
from pathlib import Path

from .mutations import spoilt_bytes

__all__ = ["inside", "inside_mat", "inside_png", "inside_zip"]


def inside(folder: Path, name: str, rng: random.Random) -> tuple[str, bool]:
    """Of a file by its ending; one that is not compressed is changed as it is."""
    path = folder / name
    kinds = {".gz": _gz, ".xz": _xz, ".mat": inside_mat, ".png": inside_png}
    kinds |= dict.fromkeys((".npz", ".zip", ".pt"), inside_zip)
    words, data = kinds.get(path.suffix, spoilt_bytes)(path.read_bytes(), rng)
    path.write_bytes(data)
    return f"inside, {words}", True


def _gz(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    words, data = spoilt_bytes(gzip.decompress(data), rng)
    return words, gzip.compress(data, rng.choice([1, 9]))


def _xz(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    words, data = spoilt_bytes(lzma.decompress(data), rng)
    if rng.random() < 0.1:  # unpacks to 2^28 bytes
        return "a bomb", lzma.compress(data + bytes(1 << 28), preset=0)
    form = rng.choice([lzma.FORMAT_XZ, lzma.FORMAT_ALONE])
    return words, lzma.compress(data, form, preset=1)


def inside_zip(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One member changed, renamed, twice, gone, or packed otherwise."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    at = rng.randrange(len(members))
    name, content = members[at]
    kind = rng.choice(["bytes", "bytes", "bytes", "bytes", "rename", "twice", "gone", "bomb"])
    words, method = f"{kind} of {name}", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    if kind == "bytes":
        part, content = spoilt_bytes(content, rng)
        members[at], words = (name, content), f"{name}: {part}"
    elif kind == "rename":
        members[at] = rng.choice([f"../{name}", f"/{name}", name.upper(), "x" * 5000, f"{name}\0x", "é.npy"]), content
    elif kind == "twice":
        members.append(rng.choice(members))
    elif kind == "gone":
        del members[at]
    else:
        members[at], method = (name, content + bytes(1 << 28)), zipfile.ZIP_DEFLATED
    if rng.random() < 0.1:
        method = rng.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    return words, _zip(members, method)


def _zip(members: list[tuple[str, bytes]], method: int) -> bytes:
    import warnings

    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, content in members:
                archive.writestr(name, content)
    return stream.getvalue()


def inside_png(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One chunk changed, with its length and CRC right; pixels as they are before compression."""
    chunks, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    here = rng.randrange(len(chunks))
    kind, content = chunks[here]
    pixels = kind == b"IDAT"
    words, content = spoilt_bytes(zlib.decompress(content) if pixels else content or b"x", rng)
    if kind == b"IHDR" and rng.random() < 0.5:
        sides = [rng.choice([0, 1, 8, 4000, 30_000, 1 << 20, (1 << 31) - 1, 1 << 31]) for _ in range(2)]
        content = struct.pack(">II", *sides) + chunks[here][1][8:]
        words = f"sides {sides}"
    chunks[here] = kind, zlib.compress(content) if pixels else content
    if rng.random() < 0.3:
        more = rng.choice([b"tEXt", b"iTXt", b"zTXt", b"iCCP", b"eXIf", b"tRNS", b"PLTE", b"acTL", b"gAMA", b"sBIT"])
        chunks.insert(1, (more, rng.choice([b"", b"x\0\0" + zlib.compress(bytes(1 << 24)), rng.randbytes(50)])))
        words += f", and {more.decode()}"
    out = data[:8]
    for kind, content in chunks:
        out += len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
    return words, out


def inside_mat(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One element of a MATLAB file (version 5) changed; compressed ones are compressed again."""
    elements, at = [], 128
    while at + 8 <= len(data):
        kind, size = struct.unpack("<II", data[at : at + 8])
        elements.append((kind, data[at + 8 : at + 8 + size]))
        at += 8 + size
    here = rng.randrange(len(elements))
    kind, content = elements[here]
    packed = kind == 15
    content = zlib.decompress(content) if packed else content
    if rng.random() < 0.6:  # flags, dimensions, names and types are in the first bytes
        words, head = spoilt_bytes(content[:72], rng)
        content = head + content[72:]
    else:
        words, content = spoilt_bytes(content, rng)
    elements[here] = kind, zlib.compress(content) if packed else content
    return words, data[:128] + b"".join(struct.pack("<II", kind, len(own)) + own for kind, own in elements)
