"""run.json: settings, input hashes, versions, time and result of a run; beside its folder, all that repeats it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .._core.errors import UserError
from .._core.files import canonical, read_json, sha256_file, sweep, write_json
from .._core.files.atomic import check_name_length
from .._core.files.paths import MARKER
from .._core.optional_packages import FURTHER, WANTED
from .._core.settings import modern
from .._core.version import FOLDER, VERSION
from ..data import sha256
from .command_line import ARGV
from .difference import CLASS_NAMES, CONTENT, IGNORED, difference, lasting
from .provenance import PARTS, hash_of, is_known, public_settings

if TYPE_CHECKING:
    from ..data import Dataset

__all__ = ["IGNORED", "RunLog", "commit", "device_name", "hash_of", "lasting", "private_log", "versions"]

IMAGE_SETTINGS = ("data", "calibrate", "finetune", "source")
"""Settings that may name a folder of images."""
OURS = (*PARTS, "config.json", MARKER)
"""Files by which a folder is known to be one that datafree wrote."""
FORMAT = 2
"""Format of a public log. Format 1 held the command line and paths, and is still read."""


class RunLog:
    """The log of a run, of a command or from Python, created when the run begins: a public part and a private one.

    The public part is `run.json` in the output folder: data sets, hashes, settings, seeds and versions. The private part is
    FOLDER.run.json beside the folder, with the command line and paths as typed, which `rerun` needs; a run from Python has
    an empty command line. It is not handed over with the folder. ::

        log = RunLog("quantize", {"weights": 8}, {}, hashes={"model_fingerprint": network.fingerprint()})
        with output_folder(folder, KIND, log) as out:
            if out is not None:
                ...  # write the result into `out`
                log.write(out, {"images": 256})
    """

    def __init__(
        self, verb: str, settings: dict[str, Any], inputs: Mapping[str, str | Path | list[Path] | None],
        *data: Dataset | None, images: Mapping[str, Dataset | torch.Tensor | Iterable[Path]] | None = None,
        hashes: Mapping[str, str] | None = None,
    ):  # fmt: skip
        """What a run is: `verb`, `settings` as JSON values, and by role what it reads.

        `inputs` are files and folders, of which one may be several files, and `data` labelled data sets. `images` are data
        whose labels do not count, pixels in memory, or the files of a folder. `hashes` are those of what no file was named for,
        as in a run from Python: `{"model_fingerprint": network.fingerprint()}`.
        """
        self.began = time.perf_counter()
        self.resumed = False
        """Whether a part of the result is there already, so that this run's time is not all that it took."""
        files = {
            role: {str(file): sha256_file(file) for file in paths}
            for role, paths in inputs.items()
            if isinstance(paths, list)
        }
        single = {role: path for role, path in inputs.items() if path is not None and not isinstance(path, list)}
        present = {role: path for role, path in single.items() if Path(path).exists()}
        digests = {role: hash_of(path) for role, path in present.items()}
        sets = {f"{dataset.public} ({dataset.split})": sha256(dataset) for dataset in data if dataset is not None}
        sets |= {
            f"{CLASS_NAMES}{dataset.public} ({dataset.split})": _hash_of_names(dataset)
            for dataset in data
            if dataset is not None
        }
        sets |= {f"{CONTENT}{role} (images)": _hash_of_images(source) for role, source in (images or {}).items()}
        sets |= {f"{CONTENT}{role}": _joined(by_file.values()) for role, by_file in files.items()}
        sets |= hashes or {}
        shared = {"format": FORMAT, "verb": verb, "versions": versions(), "commit": commit()}
        device = str(settings.get("device") or "cpu")
        self.content: dict[str, Any] = {
            **shared,
            "settings": public_settings(settings),
            "inputs": {**digests, **sets},
            "device": "GPU" if device.startswith("cuda") else device.upper(),
            "threads": torch.get_num_threads(),
        }
        self.private: dict[str, Any] = {
            **shared,
            "argv": list(ARGV.get()),
            "folder": os.getcwd(),
            "settings": {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
            "inputs": {
                **{str(present[role]): digest for role, digest in digests.items()},
                **{file: digest for by_file in files.values() for file, digest in by_file.items()},
                **sets,
            },
            "device": device_name(device),
        }
        canonical(self.content, "the settings of the run")  # before the work whose log could not be written

    @property
    def identity(self) -> dict[str, Any]:
        """What the run is: verb, settings, and inputs."""
        return json.loads(json.dumps({key: self.content[key] for key in ("format", "verb", "settings", "inputs")}))

    def difference(self, old: dict[str, Any], *, but: str | None = None) -> str | None:
        """In words, the first thing, `but` aside, in which this run is another than the one of the log `old`; None for the
        same.

        Inputs are compared by their content; an earlier version's log knows settings alone, with paths as they were typed.
        """
        old = modern(old)
        if old.get("format") == FORMAT:
            return difference(self.identity, old, but=but)
        new = self.private if "argv" in old else self.identity
        return difference({"verb": new["verb"], "settings": new["settings"]}, old, but=but)

    def write(self, folder: str | Path, result: dict[str, Any]) -> Path:
        """The publisher's log beside `folder` and then, as the last file of all, run.json in it."""
        path, beside = Path(folder) / "run.json", private_log(folder)
        seconds = round(time.perf_counter() - self.began, 3)
        content = {**self.content, **_redacted(self._before(path)), "seconds": seconds, "result": result}
        if self.resumed:
            content["resumed"] = True
        whole = path.is_file() and beside.is_file()  # else what is beside may be of a folder that is gone
        self._write_private(beside, self._before(path, beside if whole else path))
        write_json(path, content)
        return path

    def write_to(self, path: Path, result: dict[str, Any]) -> Path:
        """The publisher's log and the result in one file of that name."""
        seconds = round(time.perf_counter() - self.began, 3)
        write_json(path, {**self.private, "seconds": seconds, "result": result})
        return path

    def read_folders(self) -> list[Path]:
        """The folders of somebody's images that the settings name: no release, set or record is in them."""
        values = [self.private["settings"].get(key) for key in IMAGE_SETTINGS]
        names = [name for value in values for name in (value if isinstance(value, (list, tuple)) else [value])]
        folders = [Path(name) for name in names if isinstance(name, str) and not is_known(name) and os.path.isdir(name)]
        return [folder for folder in folders if not any((folder / name).exists() for name in OURS)]

    def check(self, folder: str | Path) -> None:
        """Raises UserError where a log that is to be kept is damaged, or a page's is in the place of this run's."""
        self._before(Path(folder) / "run.json")
        beside = private_log(folder)
        check_name_length(beside)
        if os.access(beside.parent, os.W_OK):
            sweep(beside.parent, name=beside.name)  # what a run that was killed left beside the folder
        if not os.path.lexists(beside):
            return
        if not stat.S_ISREG(os.lstat(beside).st_mode):
            raise UserError(f"{beside} is there already and no file, and would be lost; name another `out`")
        old = read_json(beside)
        if not isinstance(old.get("verb"), str) or not isinstance(old.get("settings"), dict):
            raise UserError(
                f"{beside} is there already and no log of datafree's, and would be lost; name another `out`"
            )
        if old["verb"] == "report" != self.content["verb"]:
            raise UserError(
                f"{beside} is the log of a report and would be lost; expected that name free; name another `out`"
            )

    def _write_private(self, beside: Path, before: dict[str, Any]) -> None:
        """Where the folder may not be written to, a line says so; a full disk is an error, as for any other file."""
        content = json.loads(json.dumps({**self.private, **before}))
        if not os.access(beside.parent, os.W_OK):
            print(
                f"datafree: no command line is kept for rerun: {str(beside.parent)!r} is not writable", file=sys.stderr
            )
        elif not beside.is_file() or read_json(beside) != content:
            write_json(beside, content)

    def _before(self, path: Path, log: Path | None = None) -> dict[str, Any]:
        """A record is added to a release that another run made: that run's log stays, under "before"; and its own under
        "recorded", where the release is then made again.

        Raises UserError where the log that is there is damaged, rather than lose it.
        """
        if not path.is_file():
            return {}
        old = read_json(log or path)
        if self.content["verb"] != "record":
            has_record = old.get("verb") == "record" and (path.parent / "record.safetensors").is_file()
            return {"recorded": {key: value for key, value in old.items() if key != "before"}} if has_record else {}
        earlier = old.get("before") if old.get("verb") == "record" else old
        return {"before": earlier} if isinstance(earlier, dict) and earlier else {}


def _hash_of_names(data: Dataset) -> str:
    """A hash of the classes' names, which decide whose class a label is."""
    return hashlib.sha256(repr(data.classes).encode("utf-8", "surrogateescape")).hexdigest()


def _hash_of_images(images: Dataset | torch.Tensor | Iterable[Path]) -> str:
    """sha256 of a data set's images, of pixels with their shape and number format, or of files in their order."""
    if isinstance(images, torch.Tensor):
        pixels = images.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{pixels.dtype} {tuple(pixels.shape)} ".encode())
        digest.update(pixels.flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()
    if isinstance(images, Iterable):
        return _joined(map(sha256_file, images))
    return sha256(images)


def _joined(digests: Iterable[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def private_log(folder: str | Path) -> Path:
    """The publisher's log of an output folder, beside it."""
    place = Path(os.path.realpath(folder))
    return place.with_name(f"{place.name}.run.json")


def _redacted(earlier: dict[str, Any]) -> dict[str, Any]:
    """Logs that an earlier version wrote, in public form."""
    return {key: log if log.get("format") == FORMAT else _public(log) for key, log in earlier.items()}


def _public(old: dict[str, Any]) -> dict[str, Any]:
    public = {key: value for key, value in old.items() if key in ("verb", "versions", "seconds", "resumed", "result")}
    settings = old.get("settings")
    inputs = sorted(map(str, old["inputs"].values())) if isinstance(old.get("inputs"), dict) else []
    named = {f"input {index}": digest for index, digest in enumerate(inputs, 1)}
    return {**public, "settings": public_settings(settings if isinstance(settings, dict) else {}), "inputs": named}


def versions() -> dict[str, str]:
    """Versions of Python and the packages that decide the numbers."""
    import numpy

    return {
        "datafree": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        **_installed(),
    }


def _installed() -> dict[str, str]:
    """Versions of the installed packages that quantize and run quantized files; none is imported."""
    installed = {}
    for name in (*WANTED, *FURTHER):
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


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


def commit() -> str | None:
    """The commit of the library's own checkout, None where it is installed otherwise, in somebody's repository say."""
    return _commit_of(FOLDER)


@cache
def _commit_of(library: Path) -> str | None:
    """Asked of git once in a process, which has loaded the files of that commit."""
    top = _git(library, "rev-parse", "--show-toplevel")
    if top is None or Path(top, "src", "datafree").resolve() != library:
        return None
    project = Path(top, "pyproject.toml")
    if not project.is_file() or '\nname = "datafree"\n' not in project.read_text("utf-8", "replace"):
        return None
    if _git(library, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(library, "rev-parse", "--short", "HEAD")


def _git(folder: Path, *words: str) -> str | None:
    """What git prints; None where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
