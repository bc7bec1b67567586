"""run.json: settings, input hashes, versions, time and result of a run; and the private log that repeats it."""

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
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .._core.code_names import LIBRARIES
from .._core.errors import UserError
from .._core.files import canonical, read_json, sha256_file, sweep, write_json
from .._core.files.atomic import check_name_length
from .._core.files.paths import MARKER
from .._core.optional_packages import SUPPORTED, SUPPORTED_EXTRA, SUPPORTED_ONNX, installed_version
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
"""Files by which a folder of datafree is recognised."""
FORMAT = 2
"""Format of a public log. Format 1 held the command line and paths, and is still read."""


class RunLog:
    """The log of a run, created when the run starts: a public part and a private one.

    The public part is `run.json` in the output folder: data sets, hashes, settings, seeds and versions. The private part is
    FOLDER.run.json beside the folder, with the command line and paths as typed, which `rerun` needs; for a run from Python
    the command line is empty. Do not share the private part. ::

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
        """`settings` are JSON values; the other arguments are what the run reads, by role.

        `inputs` are files, folders and lists of files; `data` are labelled data sets. `images` are data whose labels are not
        used, pixels in memory, or the files of a folder. `hashes` are of inputs without a file, as in a run from Python:
        `{"model_fingerprint": network.fingerprint()}`.
        """
        self.began = time.perf_counter()
        self.resumed = False
        """Whether an earlier run made part of the result, so that this run's time is not the total."""
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
            "settings": {key: _as_typed(value) for key, value in settings.items()},
            "inputs": {
                **{str(present[role]): digest for role, digest in digests.items()},
                **{file: digest for by_file in files.values() for file, digest in by_file.items()},
                **sets,
            },
            "device": device_name(device),
        }
        canonical(self.content, "the settings of the run")  # raises before the work if the log could not be written

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies the run: verb, settings and inputs."""
        return json.loads(json.dumps({key: self.content[key] for key in ("format", "verb", "settings", "inputs")}))

    def difference(self, old: dict[str, Any], *, ignored: str | None = None) -> str | None:
        """The first difference between this run and that of the log `old`, in words; None for the same run.

        The setting `ignored` is not compared. Inputs are compared by content; a log of an earlier version has only settings,
        with paths as typed.
        """
        old = modern(old)
        if old.get("format") == FORMAT:
            return difference(self.identity, old, ignored=ignored)
        new = self.private if "argv" in old else self.identity
        return difference({"verb": new["verb"], "settings": new["settings"]}, old, ignored=ignored)

    def write(self, folder: str | Path, result: dict[str, Any]) -> Path:
        """Writes the private log beside `folder` and then, as the last file, run.json in it."""
        path, private_path = Path(folder) / "run.json", private_log(folder)
        seconds = round(time.perf_counter() - self.began, 3)
        content = {**self.content, **_redacted(self._earlier_logs(path)), "seconds": seconds, "result": result}
        if self.resumed:
            content["resumed"] = True
        is_complete = path.is_file() and private_path.is_file()  # otherwise the private log may be of a deleted folder
        self._write_private(private_path, self._earlier_logs(path, private_path if is_complete else path))
        write_json(path, content)
        return path

    def write_to(self, path: Path, result: dict[str, Any]) -> Path:
        """Writes the private log and the result to one file."""
        seconds = round(time.perf_counter() - self.began, 3)
        write_json(path, {**self.private, "seconds": seconds, "result": result})
        return path

    def read_folders(self) -> list[Path]:
        """The folders of the user's images that the settings name, without folders of datafree."""
        values = [self.private["settings"].get(key) for key in IMAGE_SETTINGS]
        names = [name for value in values for name in (value if isinstance(value, (list, tuple)) else [value])]
        folders = [Path(name) for name in names if isinstance(name, str) and not is_known(name) and os.path.isdir(name)]
        return [folder for folder in folders if not any((folder / name).exists() for name in OURS)]

    def check(self, folder: str | Path) -> None:
        """Raises UserError if a log that must be kept is damaged, or the private log's name is taken by another file."""
        self._earlier_logs(Path(folder) / "run.json")
        private_path = private_log(folder)
        check_name_length(private_path)
        if os.access(private_path.parent, os.W_OK):
            sweep(private_path.parent, name=private_path.name)  # files that a killed run left beside the folder
        if not os.path.lexists(private_path):
            return
        if not stat.S_ISREG(os.lstat(private_path).st_mode):
            raise UserError(f"{private_path} exists and is not a file, and would be lost; name another `out`")
        old = read_json(private_path)
        if not isinstance(old.get("verb"), str) or not isinstance(old.get("settings"), dict):
            raise UserError(
                f"{private_path} exists and is not a log of datafree, and would be lost; name another `out`"
            )
        if old["verb"] == "report" != self.content["verb"]:
            raise UserError(f"{private_path} is the log of a report and would be lost; name another `out`")

    def _write_private(self, path: Path, earlier: dict[str, Any]) -> None:
        """Prints a line if the folder is not writable; a full disk is an error, as for any other file."""
        content = json.loads(json.dumps({**self.private, **earlier}))
        if not os.access(path.parent, os.W_OK):
            print(
                f"datafree: the command line is not stored for rerun: {str(path.parent)!r} is not writable",
                file=sys.stderr,
            )
        elif not path.is_file() or read_json(path) != content:
            write_json(path, content)

    def _earlier_logs(self, path: Path, log: Path | None = None) -> dict[str, Any]:
        """Earlier logs to keep: when a record is added to a release, the log of the run that made it, as "before"; when the
        release is made again, the log of its recording, as "recorded".

        Raises UserError if the existing log is damaged.
        """
        if not path.is_file():
            return {}
        old = read_json(log or path)
        if self.content["verb"] != "record":
            has_record = old.get("verb") == "record" and (path.parent / "record.safetensors").is_file()
            return {"recorded": {key: value for key, value in old.items() if key != "before"}} if has_record else {}
        earlier = old.get("before") if old.get("verb") == "record" else old
        return {"before": earlier} if isinstance(earlier, dict) and earlier else {}


def _as_typed(value: Any) -> Any:
    """A setting with its paths as text."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _as_typed(entry) for key, entry in value.items()}
    return [_as_typed(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _hash_of_names(data: Dataset) -> str:
    """A hash of the class names, which decide the meaning of the labels."""
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
    """The path of an output folder's private log, beside the folder."""
    place = Path(os.path.realpath(folder))
    return place.with_name(f"{place.name}.run.json")


def _redacted(earlier: dict[str, Any]) -> dict[str, Any]:
    """The logs in public form; those of earlier versions hold paths."""
    return {key: log if log.get("format") == FORMAT else _public(log) for key, log in earlier.items()}


def _public(old: dict[str, Any]) -> dict[str, Any]:
    public = {key: value for key, value in old.items() if key in ("verb", "versions", "seconds", "resumed", "result")}
    settings = old.get("settings")
    inputs = sorted(map(str, old["inputs"].values())) if isinstance(old.get("inputs"), dict) else []
    numbered = {f"input {index}": digest for index, digest in enumerate(inputs, 1)}
    return {**public, "settings": public_settings(settings if isinstance(settings, dict) else {}), "inputs": numbered}


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
    """Versions of the installed packages that build, quantize and run networks; none is imported."""
    packages = {*SUPPORTED, *SUPPORTED_EXTRA, *SUPPORTED_ONNX, *LIBRARIES}
    versions = {name: installed_version(name) for name in sorted(packages)}
    return {name: version for name, version in versions.items() if version is not None}


def device_name(device: str) -> str:
    """In words: the processor or accelerator and the number of threads."""
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU {_processor()}, {os.cpu_count()} cores, {threads} thread{'' if threads == 1 else 's'}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the library's own checkout; None if it is installed in another way."""
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
    """The output of git; None if it fails."""
    try:
        process = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None if process.returncode == 0 else None
