"""`make crash`: every crash point, failing operations, interrupts, random kills, two runs at once, and power cuts.

Each command runs in forked processes on networks of a few hundred weights. After each disturbance: every file is as before
or as after, nothing of another run has changed, nothing is in the folder for temporary files; the same command then
finishes with the bytes of an undisturbed run, and nothing is left over.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import io
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from judge import contents, stages, unfinished_faults, wrong_files
from operations import CRASHED, Act, Ended, Operation, child, finish, start
from power import after_a_cut, after_a_kill
from verbs import READERS, VERBS, copy, prepare, warm

from datafree._core.files.atomic import TEMPORARY
from datafree._core.files.lock import LOCK
from datafree.runs.output_folder import STATE

FULL = ("create", "open", "write", "mkdir", "fsync")
"""Operations that a full disk refuses; names and removals go on."""
FINISHED = "already complete: "


class Case:
    """One command, its undisturbed run, and a folder to disturb it in."""

    def __init__(self, work: Path, name: str):
        self.work, self.name, self.verb = work, name, VERBS[name]
        self.base, self.root = work / "base", work / "root"
        self.faults: list[str] = []
        self.points = 0
        began = time.perf_counter()
        done = self.begin()
        self.seconds = time.perf_counter() - began
        assert done.code == 0, (name, done)
        self.before, self.after = contents(self.base, self.verb), contents(self.root, self.verb)
        self.log = done.operations
        self.on_the_way = stages(self.log, self.verb)
        self.numbers = [index + 1 for index, own in enumerate(self.log) if own[0] != "file"]
        shutil.rmtree(self.root)
        after_a_kill(self.base, self.root, self.log)
        if self.name != "quantize --executorch":  # whose writer is not seen
            self.check_same("the log of operations")

    def begin(self, act: Act = lambda *_: None, *, kill_after: float | None = None) -> Ended:
        """The command in a fresh copy."""
        copy(self.base, self.root)
        return child(self.root, self.verb.argv, act, kill_after=kill_after)

    def fault(self, what: str, detail: str = "") -> None:
        self.faults.append(f"{self.name}: {what}: {detail}"[:500])

    def check_now(self, what: str) -> None:
        for fault in wrong_files(self.root, self.verb, self.before, self.after, self.on_the_way):
            self.fault(what, fault)

    def check_same(self, what: str) -> None:
        for fault in unfinished_faults(contents(self.root, self.verb), self.after):
            self.fault(what, fault)

    def check_again(self, what: str) -> None:
        """The same command finishes, to the same bytes, with nothing left over; with the stopped run's threads."""
        out = self.root / self.verb.writes[0]
        stopped = (out / STATE).exists() or (self.root / "teacher.recording").exists()
        again = child(self.root, self.verb.argv, threads=2 if stopped else 1)
        if again.code != 0:
            return self.fault(f"{what}: the same command does not finish", again.error.strip()[-250:])
        return self.check_same(what)


def crash_points(case: Case, numbers: list[int]) -> None:
    """The process ends right before its N-th operation.

    One point in ten is of a process that ends there; the others are made from the log of the undisturbed run. Where two
    differ in the content of temporary files alone, which nobody reads, the command goes on from the first of them.
    """
    seen: list[dict] = []
    for index, number in enumerate(numbers):

        def act(here: int, _: Operation, number: int = number) -> None:
            if here >= number:
                os._exit(CRASHED)

        what = f"ended before operation {number}, {shown(case.log[number - 1])}"
        case.points += 1
        if index % 10 == 0:
            done = case.begin(act)
            if done.code not in (CRASHED, 0):
                case.fault(what, f"exit {done.code}: {done.error[-200:]}")
        else:
            shutil.rmtree(case.root)
            after_a_kill(case.base, case.root, case.log[: number - 1])
        case.check_now(what)
        now = contents(case.root, case.verb)
        now = {path: ... if TEMPORARY.fullmatch(Path(path).name) else value for path, value in now.items()}
        if now not in seen:
            seen.append(now)
            case.check_again(what)


def failures(case: Case, numbers: list[int], fails: Callable[[int, int, str], bool], words: str, code: int) -> None:
    """Operations fail: one line and exit code 2, or the whole result."""
    for number in numbers:

        def act(here: int, operation: Operation, number: int = number) -> None:
            if fails(here, number, operation[0]):
                raise OSError(code, os.strerror(code))

        what = f"{errno.errorcode[code]} {words} operation {number}, {shown(case.log[number - 1])}"
        done = case.begin(act)
        case.points += 1
        if done.code != 0 and not done.refused:
            case.fault(what, f"exit {done.code}: {done.error[-200:]}")
        if done.code == 0:
            now = contents(case.root, case.verb)
            for fault in unfinished_faults({path: now[path] for path in now if path in case.after}, case.after):
                if ".datafree.json" not in fault:  # what cannot be removed or changed now is mended by the next run
                    case.fault(f"{what}: exit 0", fault)
        case.check_now(what)
        case.check_again(what)


def once(here: int, number: int, _: str) -> bool:
    return here == number


def full(here: int, number: int, kind: str) -> bool:
    return here >= number and kind in FULL


def broken(here: int, number: int, _: str) -> bool:
    return here >= number


def interrupts(case: Case, numbers: list[int]) -> None:
    """Ctrl-C at the N-th operation: one line, exit code 130, and the same command goes on."""
    for number in numbers:

        def act(here: int, _: Operation, number: int = number) -> None:
            if here == number:
                raise KeyboardInterrupt

        what = f"interrupted at operation {number}, {shown(case.log[number - 1])}"
        done = case.begin(act)
        case.points += 1
        if done.code not in (0, 130) or (done.code and done.error.count("\n") != 1):
            case.fault(what, f"exit {done.code}: {done.error[-200:]}")
        case.check_now(what)
        case.check_again(what)


def kills(case: Case, count: int, rng: random.Random) -> None:
    """SIGKILL at a random time, up to three times in a row, then the command to its end."""
    for _ in range(count):
        copy(case.base, case.root)
        times = [rng.uniform(0, 1.1 * case.seconds) for _ in range(rng.randint(1, 3))]
        what = f"killed after {', '.join(f'{own:.3f} s' for own in times)}"
        for seconds in times:
            child(case.root, case.verb.argv, kill_after=seconds)
            case.points += 1
            case.check_now(what)
        case.check_again(what)


def pairs(case: Case, count: int, rng: random.Random) -> None:
    """Two runs at once end as one after the other, or as one of them, the other being refused."""
    lines = [case.verb.line, *([case.verb.other] if case.verb.other else [])]
    outcomes = {pair: _outcomes(case, *pair) for pair in ((case.verb.line, own) for own in lines)}
    for index in range(count):
        one, other = case.verb.line, lines[index % len(lines)]
        copy(case.base, case.root)
        pauses = [rng.uniform(0, 0.01), rng.uniform(0, 0.01)]

        def slowly(*_: object, seconds: float = pauses[0]) -> None:
            time.sleep(seconds)

        gap, what = rng.uniform(0, 2 * case.seconds), f"beside {other!r}"
        first = start(case.root, one.split(), slowly)
        time.sleep(gap)
        second = child(case.root, other.split(), lambda *_, seconds=pauses[1]: time.sleep(seconds))
        ended = finish(first), second
        what = f"{what}, {gap:.3f} s later, pauses of {pauses[0]:.4f} and {pauses[1]:.4f} s"
        case.points += 1
        for done in ended:
            if done.code != 0 and not done.refused:
                case.fault(what, f"exit {done.code}: {done.error[-200:]}")
        codes = tuple(done.code for done in ended)
        expected = outcomes[one, other].get(codes, [])
        now = contents(case.root, case.verb)
        if now not in expected:
            faults = unfinished_faults(now, expected[0]) if expected else [done.error.strip()[-150:] for done in ended]
            case.fault(what, f"exit {codes}: {'; '.join(faults)}")


def _outcomes(case: Case, one: str, other: str) -> dict[tuple[int, ...], list[dict]]:
    """Exit codes -> what there may be after two runs."""
    found: dict[tuple[int, ...], list[dict]] = {}
    for order in ((one, other), (other, one)):
        copy(case.base, case.root)
        codes = []
        for line in order:
            codes.append(child(case.root, line.split()).code)
            now = contents(case.root, case.verb)
            if order[0] == one:
                found.setdefault((*codes, 2)[:2], []).append(now)
            if order[0] == other:
                found.setdefault((2, *codes[::-1])[-2:], []).append(now)
    return found


def finished(case: Case, rng: random.Random) -> None:
    """A finished command is complete when it is given again, and refused with another setting, killed or not."""
    case.begin()
    case.points += 1
    before = raw(case.root)
    again = child(case.root, case.verb.argv)
    if again.code != 0 or FINISHED not in again.output or again.error:
        case.fault("given again", f"exit {again.code}: {again.output[-150:]} {again.error[-150:]}")
    if case.verb.other is None:
        return
    for seconds in (None, rng.uniform(0, case.seconds), rng.uniform(0, case.seconds)):
        other = child(case.root, case.verb.other.split(), kill_after=seconds)
        if seconds is None and not other.refused and case.name != "record --add":
            case.fault("another run", f"exit {other.code}: {other.error[-200:]}")
        if case.name != "record --add" and raw(case.root) != before:
            case.fault("another run", "changed the finished result")


def raw(root: Path) -> dict[Path, bytes]:
    """Every byte of every file but for locks, which a killed process cannot remove."""
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.name.endswith(LOCK)}


def power_cuts(case: Case, count: int, rng: random.Random) -> None:
    """What a disk may hold after a power cut: unsynced writes lost, cut, zeroed or reordered."""
    for index in range(count):
        cut = len(case.log) if index == 0 else rng.randint(0, len(case.log))
        shutil.rmtree(case.root, ignore_errors=True)
        after_a_cut(case.base, case.root, case.log[:cut], rng)
        what = f"power cut after operation {cut}"
        case.points += 1
        case.check_now(what)
        if index == 0:
            # the removal of a lock may be lost; without its process it locks nobody out
            for lock in case.root.rglob(f"*{LOCK}"):
                if str(lock.relative_to(case.root)) not in case.after:
                    lock.unlink()
            case.check_same(f"{what}, the last")
        case.check_again(what)


def readers(work: Path) -> list[str]:
    """Commands that only read, write nothing, wherever they are killed."""
    faults = []
    for line in READERS:
        done = child(copy(work / "base", work / "root"), line.split())
        if done.code != 0 or done.operations:
            faults.append(f"{line}: exit {done.code}, {list(map(shown, done.operations))[:4]} {done.error[-200:]}")
    return faults


def shown(operation: Operation) -> str:
    return " ".join(str(part) if not isinstance(part, bytes) else f"{len(part)} bytes" for part in operation)


def some(numbers: list[int], most: int | None, rng: random.Random) -> list[int]:
    return numbers if most is None or len(numbers) <= most else sorted(rng.sample(numbers, most))


def examine(
    work: Path,
    names: list[str],
    rng: random.Random,
    *,
    points: int | None,
    failing: int | None,
    random_kills: int,
    at_once: int,
    cuts: int,
) -> list[str]:
    """Runs everything on the named commands; the faults. `points` and `failing` limit the points of each command."""
    faults: list[str] = []
    counts: Counter[str] = Counter()
    warm(work / "base", work / "root", names)
    gc.freeze()  # a collection in a forked process would copy every page of this one
    for name in names:
        case, began = Case(work, name), time.perf_counter()
        fails = partial(failures, case)
        tests = {
            "crash points": partial(crash_points, case, some(case.numbers, points, rng)),
            "operations that fail": partial(fails, some(case.numbers, failing, rng), once, "at", errno.EIO),
            "disks that are full from there on": partial(
                fails, some(case.numbers, failing, rng), full, "from", errno.ENOSPC
            ),
            "disks that are broken from there on": partial(
                fails, some(case.numbers, failing, rng), broken, "from", errno.EROFS
            ),
            "interrupts": partial(interrupts, case, some(case.numbers, failing, rng)),
            "random kills": partial(kills, case, random_kills, rng),
            "pairs of runs": partial(pairs, case, at_once, rng),
            "finished runs": partial(finished, case, rng),
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
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()) + f"; {len(faults)} faults", flush=True)
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--points", type=int, default=None, help="crash points of each command; all by default")
    parser.add_argument(
        "--failing", type=int, default=None, help="points of each kind of failure and interrupt; all by default"
    )
    parser.add_argument(
        "--kills", type=int, default=20, help="runs of each command that are killed, up to three times each"
    )
    parser.add_argument("--pairs", type=int, default=10, help="pairs of runs at once of each command")
    parser.add_argument("--cuts", type=int, default=10, help="power cuts of each command")
    parser.add_argument("--only", nargs="*", default=list(VERBS), choices=list(VERBS))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        with contextlib.redirect_stdout(io.StringIO()):
            prepare(Path(work) / "base")
        limits = {
            "points": options.points, "failing": options.failing, "random_kills": options.kills,
            "at_once": options.pairs, "cuts": options.cuts,
        }  # fmt: skip
        faults = examine(Path(work), options.only, random.Random(options.seed), **limits)
        faults += (found := readers(Path(work)))
        for fault in found:
            print(f"  {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
