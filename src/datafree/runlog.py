"""run.json: what a run did, resolved settings, input hashes, seed, versions, device and time, so that it can be repeated."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from . import __version__
from .commandline import ARGV
from .data import sha256
from .files import canonical, read_json, sha256_file, write_json
from .quantization.stack import FURTHER, WANTED

if TYPE_CHECKING:
    from .data import Dataset

__all__ = ["IGNORED", "Difference", "RunLog", "commit", "device_name", "hash_of", "lasting", "versions"]

IGNORED = ("quiet", "threads", "data_dir", "device", "workers")
"""Settings that change no result."""


NAMES = {"model": "model", "teacher": "teacher", "student": "student", "source": "source", "what": "statistics"}
"""Settings that are no flags, in messages."""


@dataclass(frozen=True)
class Difference:
    """One thing in which a run is another than an earlier one."""

    setting: str
    got: Any
    expected: Any

    def __str__(self) -> str:
        return f"{self.setting}: got {_short(self.got)}, expected {_short(self.expected)}"


class RunLog:
    """Started with the run, written at its end into its output folder; paths stay as the user typed them."""

    def __init__(
        self, verb: str, settings: dict[str, Any], inputs: list[str | Path | None], data: Dataset | None = None
    ):
        hashes = {str(path): hash_of(path) for path in inputs if path is not None and Path(path).exists()}
        if data is not None:
            hashes[f"{data.name} ({data.split})"] = sha256(data)
        self.began = time.perf_counter()
        self.resumed = False
        """Whether a part of the result is there already, so that this run's time is not all that it took."""
        self.content: dict[str, Any] = {
            "format": 2,
            "verb": verb,
            "argv": list(ARGV.get()),
            "settings": {key: str(own) if isinstance(own, Path) else own for key, own in settings.items()},
            "inputs": hashes,
            "versions": versions(),
            "device": device_name(str(settings.get("device") or "cpu")),
            "commit": commit(),
        }
        canonical(self.content, "the settings of the run")  # before the work whose log could not be written

    @property
    def identity(self) -> dict[str, Any]:
        """What the run is: verb, settings, and inputs."""
        kept = {key: self.content[key] for key in ("format", "verb", "settings", "inputs")}
        return json.loads(json.dumps(kept))

    def difference(self, old: dict[str, Any], *, but: str | None = None) -> Difference | None:
        """The first thing, `but` aside, in which this run is another than the one of the log `old`; None for the same."""
        new = self.identity
        if old.get("verb") != new["verb"]:
            return Difference("command", f"datafree {new['verb']}", f"datafree {old.get('verb')}")
        got, expected = lasting(new["settings"]), lasting(old.get("settings"))
        for key in (*got, *expected):
            if key != but and got.get(key) != expected.get(key):
                flag = NAMES.get(key, f"--{key.replace('_', '-')}")
                return Difference(flag, *_apart(got.get(key), expected.get(key)))
        got, expected = new["inputs"], old.get("inputs")
        if old.get("format") != 2 or not isinstance(expected, dict):  # of an earlier version: by other names
            return None
        for key in (*got, *expected):
            if got.get(key) != expected.get(key):
                return Difference(f"content of {key}", got.get(key), expected.get(key))
        return None

    def write(self, folder: str | Path, result: dict[str, Any]) -> Path:
        """run.json in `folder`."""
        return self.write_to(Path(folder) / "run.json", result)

    def write_to(self, path: Path, result: dict[str, Any]) -> Path:
        """As `write`, in a file of that name."""
        seconds = round(time.perf_counter() - self.began, 3)
        resumed = {"resumed": True} if self.resumed else {}
        write_json(path, {**self.content, **self._before(path), "seconds": seconds, **resumed, "result": result})
        return path

    def check(self, folder: str | Path) -> None:
        """Raises UserError where the log in `folder`, which is to be kept, is damaged; before any work is done."""
        self._before(Path(folder) / "run.json")

    def _before(self, path: Path) -> dict[str, Any]:
        """A record is added to a release that another run made: that run's log stays, under "before"; and its own under
        "recorded", where the release is then made again.

        Raises UserError where the log that is there is damaged, rather than lose it.
        """
        if not path.is_file():
            return {}
        old = read_json(path)
        if self.content["verb"] != "record":
            still = old.get("verb") == "record" and (path.parent / "record.safetensors").is_file()
            return {"recorded": {key: value for key, value in old.items() if key != "before"}} if still else {}
        earlier = old.get("before") if old.get("verb") == "record" else old
        return {"before": earlier} if isinstance(earlier, dict) else {}


def lasting(settings: Any) -> dict[str, Any]:
    """The settings that decide a result, as they are in a file."""
    own = settings if isinstance(settings, dict) else {}
    return json.loads(json.dumps({key: value for key, value in own.items() if key not in IGNORED}))


def _apart(got: Any, expected: Any) -> tuple[Any, Any]:
    """The first entries in which two tables or lists differ."""
    if isinstance(got, dict) and isinstance(expected, dict):
        key = next(key for key in (*got, *expected) if got.get(key) != expected.get(key))
        one, other = _apart(got.get(key), expected.get(key))
        return f"{key} {one}", f"{key} {other}"
    if isinstance(got, list) and isinstance(expected, list) and len(got) == len(expected):
        return _apart(*next(pair for pair in zip(got, expected) if pair[0] != pair[1]))
    return got, expected


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    import numpy

    return {
        "datafree": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        **_installed(),
    }


def _installed() -> dict[str, str]:
    """The packages that quantize and run quantized files, those that are there; none is imported."""
    found = {}
    for name in (*WANTED, *FURTHER):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def device_name(device: str) -> str:
    """In words: the processor or accelerator and the number of threads."""
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    return f"CPU {_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def hash_of(path: str | Path) -> str:
    """sha256 of a file, or of what counts in a release (its record aside), a synthetic or a condensed set."""
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors", "set.json", "condensed.safetensors"):
        if (path / name).is_file():
            digest.update(f"{name} {sha256_file(path / name)}\n".encode())
    return digest.hexdigest()


def commit() -> str | None:
    """The commit of the library's own checkout, None where it is installed otherwise."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
