"""What is on a disk after a kill, and what may be after a power cut, from the operations before it."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from operations import Operation

__all__ = ["after_a_cut", "after_a_kill"]


@dataclass
class _Inode:
    data: bytearray = field(default_factory=bytearray)
    synced: bytes | None = None
    """Its content at the last fsync; None before the first."""

    def left(self, rng: random.Random) -> bytes:
        """Synced content is certain; of the rest all, a part, zeros of its length, or nothing may be there."""
        if self.synced == bytes(self.data):
            return bytes(self.data)
        old, new = self.synced or b"", bytes(self.data)
        part, grown = new[: rng.randint(0, len(new))], old[: len(new)] + bytes(max(0, len(new) - len(old)))
        return rng.choice([old, new, part, bytes(len(new)), grown])


def after_a_kill(base: Path, root: Path, log: list[Operation]) -> None:
    """Makes `root` as it is after the operations of `log` on what is in `base`: all of them, in their order."""
    shutil.copytree(base, root)
    data: dict[int, bytearray] = {}
    names: dict[str, int] = {}
    for kind, *rest in log:
        if kind == "file":
            inode, path = rest
            known = names.get(path)
            (root / path).touch()
            data[inode] = bytearray((root / path).read_bytes()) if known is None else data[known]
            names[path] = inode
        elif kind in ("write", "truncate") and rest[0] in data:
            if kind == "write":
                data[rest[0]] += rest[1]
            else:
                del data[rest[0]][rest[1] :]
            for path in [path for path, inode in names.items() if data[inode] is data[rest[0]]]:
                (root / path).write_bytes(data[rest[0]])
        elif kind == "rename":
            os.replace(root / rest[0], root / rest[1])
            if rest[0] in names:
                names[rest[1]] = names.pop(rest[0])
        elif kind == "unlink":
            (root / rest[0]).unlink(missing_ok=True)  # a library may have written it by itself
            names.pop(rest[0], None)
        elif kind == "mkdir":
            (root / rest[0]).mkdir()
        elif kind == "rmdir":
            (root / rest[0]).rmdir()


def after_a_cut(base: Path, root: Path, log: list[Operation], rng: random.Random) -> None:
    """Makes `root` as a disk may hold it that had `base` on it, certain, and then saw the operations of `log`.

    A change of a folder (a new name, a rename, a removal) is certain once that folder was synced; of the later ones any
    may be there, in any combination, as on a file system that does not order them.
    """
    shutil.copytree(base, root)
    inodes: dict[int, _Inode] = {}
    names: dict[str, int | None] = {}
    placed: dict[str, int] = {}
    pending: list[tuple[str, tuple]] = []
    for kind, *rest in log:
        if kind == "file":
            inode, path = rest
            if path in names and names[path] is not None:
                inodes[inode] = inodes[names[path]]  # opened again
            else:
                existing = root / path
                known = path not in names and existing.is_file()
                inodes[inode] = _Inode(bytearray(existing.read_bytes()) if known else bytearray())
                inodes[inode].synced = bytes(inodes[inode].data) if known else None
                if not known:
                    pending.append((os.path.dirname(path), ("name", path, inode)))
            names[path] = inode
        elif kind == "write" and rest[0] in inodes:
            inodes[rest[0]].data += rest[1]
        elif kind == "truncate":
            del inodes[rest[0]].data[rest[1] :]
        elif kind == "fsync":
            inodes[rest[0]].synced = bytes(inodes[rest[0]].data)
        elif kind == "rename":
            source, target = rest
            names[target] = names.pop(source, None)
            pending.append((os.path.dirname(target), ("rename", source, target, names[target])))
        elif kind in ("unlink", "mkdir", "rmdir"):
            names[rest[0]] = None
            pending.append((os.path.dirname(rest[0]), (kind, rest[0])))
        elif kind == "syncdir":
            folder = "" if rest[0] == "." else rest[0]
            certain = [own for where, own in pending if where == folder]
            pending = [(where, own) for where, own in pending if own not in certain]
            _apply(root, certain, placed)
    _apply(root, [own for _, own in pending if rng.random() < 0.5], placed)
    for path, inode in placed.items():
        if (root / path).is_file():
            (root / path).write_bytes(inodes[inode].left(rng))


def _apply(root: Path, changes: list[tuple], placed: dict[str, int]) -> None:
    """Makes those changes of names; `placed` says which inode a new name has."""
    for kind, *rest in changes:
        path = root / rest[0]
        if kind == "name":
            if path.parent.is_dir():
                path.touch()
                placed[rest[0]] = rest[1]
        elif kind == "rename":
            source, target, inode = rest
            if (root / source).is_dir():
                (root / source).rename(root / target)
            elif inode is not None and (root / target).parent.is_dir():
                (root / source).unlink(missing_ok=True)
                placed.pop(source, None)
                (root / target).touch()
                placed[target] = inode
            elif (root / source).is_file():
                os.replace(root / source, root / target)
        elif kind == "mkdir":
            path.mkdir(exist_ok=True, parents=True)
        elif kind == "unlink":
            path.unlink(missing_ok=True)
            placed.pop(rest[0], None)
        elif kind == "rmdir":
            shutil.rmtree(path, ignore_errors=True)
