"""`make crash`: every crash point, every failing operation, random kills, two runs at once, and power cuts.

Each command runs in forked processes on networks of a few hundred weights. After each disturbance: no file that opens is
wrong, the same command then finishes with the bytes of an undisturbed run, and nothing is left over.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from operations import CRASHED, Operation, child, finish, start
from power import after_a_cut
from verbs import VERBS, Verb, contents, copy, prepare

from datafree.errors import UserError
from datafree.files import read_tensors, read_weights

SETTLED = ("model.safetensors", "record.safetensors", "condensed.safetensors", "model.onnx", "new.safetensors")
"""Files that a reader takes for a result as soon as they open."""


class Case:
    """One command, its undisturbed run, and a folder to disturb it in."""

    def __init__(self, work: Path, name: str):
        self.work, self.name, self.verb = work, name, VERBS[name]
        self.base, self.root = work / "base", work / "root"
        self.faults: list[str] = []
        self.points = 0
        copy(self.base, self.root)
        done = child(self.root, self.verb.argv)
        assert done.code == 0, (name, done)
        self.before, self.after = contents(self.base, self.verb), contents(self.root, self.verb)
        self.log = done.operations
        self.written = written(self.log)
        """What an undisturbed run wrote, also on its way: `--online generator` leaves a whole release every epoch."""
        self.numbers = [index + 1 for index, own in enumerate(self.log) if own[0] != "file"]

    def fault(self, what: str, detail: str = "") -> None:
        self.faults.append(f"{self.name}: {what}: {detail}"[:400])

    def known(self) -> dict[str, list[Any]]:
        return {
            key: [own[key] for own in (self.before, self.after) if key in own] for key in {**self.before, **self.after}
        }

    def check_now(self, what: str) -> None:
        """No result that opens is other than before or after; a card fits its record."""
        now = contents(self.root, Verb("", (*self.verb.loose, "run.json", *self._logs())))
        for key, options in self.known().items():
            if (
                key in now
                and Path(key).name in SETTLED
                and now[key] not in [*options, *self.written]
                and self._opens(self.root / key)
            ):
                self.fault(f"{what}: a wrong file opens", key)
        card, record = "teacher/README.md", "teacher/record.safetensors"
        pair = now.get(card), now.get(record)
        whole = [(own.get(card), own.get(record)) for own in (self.before, self.after)]
        if None not in pair and pair not in whole and b"AUC" in pair[0]:
            self.fault(f"{what}: the card is of another record")

    def _logs(self) -> list[str]:
        return [Path(key).name for key in {**self.before, **self.after} if key.endswith("run.json")]

    @staticmethod
    def _opens(path: Path) -> bool:
        readers = [read_weights, *(lambda p, kind=kind: read_tensors(p, kind=kind) for kind in ("record", "condensed"))]
        if path.suffix != ".safetensors":
            return True
        for reader in readers:
            with contextlib.suppress(UserError):
                reader(path)
                return True
        return False

    def check_again(self, what: str) -> None:
        """The same command finishes, to the same bytes, with nothing left over."""
        again = child(self.root, self.verb.argv)
        complete = self.verb.argv[0] == "convert" and again.code == 2 and (self.root / "new.safetensors").exists()
        if again.code != 0 and not complete:
            return self.fault(f"{what}: the same command does not finish", again.error.strip()[-250:])
        now = contents(self.root, self.verb)
        more, fewer = sorted(now.keys() - self.after.keys()), sorted(self.after.keys() - now.keys())
        if more or fewer:
            return self.fault(f"{what}: left over {more}, missing {fewer}")
        other = [key for key in now if now[key] != self.after[key]]
        if other:
            self.fault(f"{what}: other bytes", ", ".join(f"{key} {apart(now[key], self.after[key])}" for key in other))
        return None


def crash_points(case: Case, numbers: list[int]) -> None:
    """The process ends right before its N-th operation."""
    for number in numbers:
        copy(case.base, case.root)

        def act(here: int, _: Operation, number: int = number) -> None:
            if here >= number:
                os._exit(CRASHED)

        what = f"ended before operation {number}, {shown(case.log[number - 1])}"
        done = child(case.root, case.verb.argv, act)
        case.points += 1
        if done.code not in (CRASHED, 0):
            case.fault(what, f"exit {done.code}: {done.error[-200:]}")
        case.check_now(what)
        case.check_again(what)


def failures(case: Case, numbers: list[int], rng: random.Random) -> None:
    """The N-th operation fails: one line and exit code 2, or no consequence at all."""
    for number in numbers:
        copy(case.base, case.root)
        code = rng.choice([errno.ENOSPC, errno.EIO])

        def act(here: int, _: Operation, number: int = number, code: int = code) -> None:
            if here == number:
                raise OSError(code, os.strerror(code))

        what = f"{errno.errorcode[code]} at operation {number}, {shown(case.log[number - 1])}"
        done = child(case.root, case.verb.argv, act)
        case.points += 1
        one_line = done.error.startswith("datafree: ") and done.error.count("\n") == 1
        if done.code != 0 and not (done.code == 2 and one_line):
            case.fault(what, f"exit {done.code}: {done.error[-200:]}")
        case.check_now(what)
        case.check_again(what)


def kills(case: Case, count: int, rng: random.Random) -> None:
    """SIGKILL at a random time, up to three times in a row, then the command to its end."""
    copy(case.base, case.root)
    began = time.perf_counter()
    child(case.root, case.verb.argv)
    whole = time.perf_counter() - began
    for _ in range(count):
        copy(case.base, case.root)
        times = [rng.uniform(0, 1.1 * whole) for _ in range(rng.randint(1, 3))]
        what = f"killed after {', '.join(f'{own:.3f} s' for own in times)}"
        for seconds in times:
            child(case.root, case.verb.argv, kill_after=seconds)
            case.check_now(what)
        case.points += 1
        case.check_again(what)


def two_at_once(case: Case) -> None:
    """Of two runs in one folder one finishes and the other is told so; another run's result is never touched."""
    copy(case.base, case.root)
    case.points += 1

    def slowly(*_: object) -> None:
        time.sleep(0.02)

    first = start(case.root, case.verb.argv, slowly)
    while not (case.root / "new").exists() and case.verb.argv[-2:] and time.sleep(0.005) is None:
        if os.waitid(os.P_PID, first[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
    second = child(case.root, case.verb.argv)
    one = finish(*first)
    if sorted([one.code, second.code]) not in ([0, 2], [0, 0]) or one.code != 0:
        case.fault("two at once", f"exit {one.code} and {second.code}: {one.error[-150:]} {second.error[-150:]}")
    if contents(case.root, case.verb) != case.after:
        case.fault("two at once", "the result is another")
    if "--epochs 2" in case.verb.line or "--per-class 1" in case.verb.line:
        other = case.verb.line.replace("--epochs 2", "--epochs 3").replace("--per-class 1", "--per-class 2")
        for seconds in (0.05, 0.2, 0.5):
            child(case.root, other.split(), kill_after=seconds)
            if contents(case.root, case.verb) != case.after:
                case.fault("another run, killed", "changed the finished result")


def power_cuts(case: Case, count: int, rng: random.Random) -> None:
    """What a disk may hold after a power cut: unsynced writes lost, cut, zeroed or reordered."""
    for _ in range(count):
        cut = rng.randint(0, len(case.log))
        shutil.rmtree(case.root, ignore_errors=True)
        after_a_cut(case.base, case.root, case.log[:cut], rng)
        what = f"power cut after operation {cut}"
        case.points += 1
        case.check_now(what)
        case.check_again(what)


def written(log: list[Operation]) -> set[bytes]:
    """The contents of files when they were synced."""
    data: dict[int, bytes] = {}
    whole: set[bytes] = set()
    for kind, *rest in log:
        if kind == "write":
            data[rest[0]] = data.get(rest[0], b"") + rest[1]
        elif kind == "fsync":
            whole.add(data.get(rest[0], b""))
    return whole


def apart(got: Any, expected: Any) -> str:
    """The first place where two logs differ; their lengths for bytes."""
    if isinstance(got, dict) and isinstance(expected, dict):
        key = next(key for key in (*got, *expected) if got.get(key) != expected.get(key))
        return f"{key}: {apart(got.get(key), expected.get(key))}"
    one, other = (f"{len(own)} bytes" if isinstance(own, bytes) else str(own)[:80] for own in (got, expected))
    return f"{one}, not {other}"


def shown(operation: Operation) -> str:
    return " ".join(str(part) if not isinstance(part, bytes) else f"{len(part)} bytes" for part in operation)


def some(numbers: list[int], most: int | None, rng: random.Random) -> list[int]:
    return numbers if most is None or len(numbers) <= most else sorted(rng.sample(numbers, most))


def examine(
    work: Path, names: list[str], rng: random.Random, *, points: int | None, random_kills: int, cuts: int
) -> list[str]:
    """Runs everything on the named commands; the faults. `points` limits the crash points of each kind and command."""
    faults: list[str] = []
    counts: Counter[str] = Counter()
    for name in names:
        case, began = Case(work, name), time.perf_counter()
        tests = {
            "crash points": partial(crash_points, case, some(case.numbers, points, rng)),
            "failures": partial(failures, case, some(case.numbers, points, rng), rng),
            "random kills": partial(kills, case, random_kills, rng),
            "pairs of runs": partial(two_at_once, case),
            "power cuts": partial(power_cuts, case, cuts, rng),
        }
        for kind, test in tests.items():
            case.points = 0
            test()
            counts[kind] += case.points
        seconds = time.perf_counter() - began
        print(f"{name}: {len(case.numbers)} operations, {len(case.faults)} faults, {seconds:.0f} s", flush=True)
        for fault in case.faults[:20]:
            print(f"  {fault}", flush=True)
        faults += case.faults
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()) + f"; {len(faults)} faults")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument(
        "--points", type=int, default=None, help="crash points and failures of each command; all by default"
    )
    parser.add_argument("--kills", type=int, default=20, help="random kills of each command")
    parser.add_argument("--cuts", type=int, default=10, help="power cuts of each command")
    parser.add_argument("--only", nargs="*", default=list(VERBS), choices=list(VERBS))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        with contextlib.redirect_stdout(io.StringIO()):
            prepare(Path(work) / "base")
        limits = {"points": options.points, "random_kills": options.kills, "cuts": options.cuts}
        faults = examine(Path(work), options.only, random.Random(options.seed), **limits)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
