"""The fuzzer: spoils samples of every kind of file and opens each in a child process with limits of memory and time."""

from __future__ import annotations

import os
import random
import resource
import select
import shutil
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from datafree._core.errors import Notice, UserError

from .mutations import copied, mutate
from .subject import Stopped, meaning, teacher, toy
from .subjects import SUBJECTS

__all__ = ["Report", "fuzz"]

ROUNDS = 5
PATIENCE = 4.0
MEMORY = 600 << 20
"""More than before, for one file."""


@dataclass
class Report:
    """What came of it: counts by verdict, and the failures in words."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def counted(self) -> str:
        """The counts in words."""
        return ", ".join(f"{count:,} {name}" for name, count in sorted(self.counts.items()))


def fuzz(
    folder: Path, *, seed: int, mutants: int, kinds: Iterable[str] | None = None, first: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Report:  # fmt: skip
    """Opens `mutants` spoilt files, kind after kind in turn; mutant `i` depends on the seed, the kinds and `i` alone.

    Says failures as they come, and the counts after every 500.
    """
    names, report = list(kinds or SUBJECTS), Report()
    turns = [name for turn in range(ROUNDS) for name in names if turn == 0 or not SUBJECTS[name].slow]
    teacher(), toy()
    originals = {name: folder / "originals" / str(index) for index, name in enumerate(names)}
    for name in names:
        originals[name].mkdir(parents=True)
        if (prepare := SUBJECTS[name].prepare) is not None:
            prepare()
        said = _child(lambda name=name: _make(name, originals[name]), 300.0)
        if not said.startswith("made"):
            report.failures.append(f"{name}: the sample itself: {said}")
            say(report.failures[-1])
    for index in range(first, first + mutants):
        name = turns[index % len(turns)]
        work, own = folder / "work", SUBJECTS[name]
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(originals[name], work)
        rng = random.Random(f"{seed} {name} {index}")
        target = rng.choice(own.files)
        if own.mutate is not None and rng.random() < 0.6:
            words, sealed = own.mutate(work, target, rng)
        else:
            words, sealed = mutate(work / target, rng)
        expected = None if sealed or not own.sealed else (originals[name] / "meaning.txt").read_text()
        copied(work, folder / "kept")
        verdict = _child(lambda work=work, name=name, e=expected: _verdict(name, work, e), own.seconds)
        report.counts[verdict.partition(":")[0]] += 1
        if verdict.startswith(("refused", "same", "accepted")):
            shutil.rmtree(folder / "kept")
        else:
            kept = folder / f"failure-{index}"
            shutil.move(folder / "kept", kept)
            report.failures.append(f"mutant {index}, {name}, {target}, {words}: {verdict[:2000]} ({kept})")
            say(report.failures[-1])
        if (index + 1 - first) % 500 == 0:
            say(f"{index + 1 - first:,} mutants: {report.counted()}")
    return report


def _make(name: str, folder: Path) -> str:
    SUBJECTS[name].make(folder)
    copy = folder.with_name(f"{folder.name}-read")
    shutil.copytree(folder, copy)
    try:
        said = meaning(SUBJECTS[name].open(copy))
    except UserError:
        if not SUBJECTS[name].refused:
            raise
        said = "refused"
    shutil.rmtree(copy)
    (folder / "meaning.txt").write_text(said)
    return "made"


def _verdict(name: str, work: Path, expected: str | None) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)
            got = meaning(SUBJECTS[name].open(work))
    except UserError as error:
        text = str(error)
        verdict = "refused" if "\n" not in text and text and len(text) < 1500 else f"FAILURE: message {text[:200]!r}"
    except Stopped:
        verdict = "accepted"  # begun anew, and stopped as the sample was
    except MemoryError:
        verdict = "FAILURE: memory"
    except Exception:
        verdict = "FAILURE: " + " | ".join(traceback.format_exc().splitlines()[-5:])
    else:
        verdict = "accepted" if expected is None else "same" if got == expected else "FAILURE: another meaning"
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
    return f"FAILURE: {used:,} bytes of memory" if used > MEMORY else verdict


def _child(work, seconds: float) -> str:
    """What a function returns in a child process; how that ended otherwise. It has `seconds` of processor time, on a busy
    machine up to `PATIENCE` times as many to wait for.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            limit = _mapped() + (3 << 30)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            torch.set_num_threads(1)  # OpenMP's threads are not forked, and two of them would be waited for
            try:
                said = work()
            except BaseException:
                said = "FAILURE: " + " | ".join(traceback.format_exc().splitlines()[-5:])
            os.write(writer, said.encode("utf-8", "backslashreplace")[:4000])
        finally:
            os._exit(0)
    os.close(writer)
    said, part, end = b"", None, time.monotonic() + PATIENCE * seconds
    while part != b"" and time.monotonic() < end and _seconds_of(pid) < seconds:
        if select.select([reader], [], [], 1.0)[0]:
            part = os.read(reader, 4096)
            said += part
    os.close(reader)
    late = part != b""
    if late:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if late:
        return f"FAILURE: longer than {seconds:g} s"
    return f"FAILURE: signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said.decode() or "FAILURE: no answer"


def _seconds_of(pid: int) -> float:
    """Processor time that a running child has used; 0 for one that has ended."""
    with suppress(OSError, IndexError, ValueError):
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
