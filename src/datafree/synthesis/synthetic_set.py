"""A synthetic set on disk: images and the teacher's soft labels, in checksummed shards of a fixed number of images.

Shard `unit-000012.safetensors` holds chunk 12: `pixels` (uint8 if the method keeps them in range, else float32), `labels`
(target classes), `logits` (the teacher's). `set.json` holds the settings. A shard is written once, atomically; a killed run
continues from the complete shards, and a larger count appends.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from .._core.arguments import check_count, checked
from .._core.distributed import first, gathered, together, world
from .._core.errors import UserError
from .._core.files import (
    canonical,
    claim_folder,
    is_format,
    locked,
    read_json,
    read_sealed_json,
    read_tensors,
    sha256_file,
    sweep,
    write_json,
    write_sealed_json,
    write_tensors,
)
from .._core.files.header import check_expected
from .._core.files.paths import MARKER
from .._core.files.unfinished import check_finished
from .._core.memory import check_cost
from .._core.progress import Progress, hear_share, silent
from .._core.seeds import seed_of
from .._core.settings import first_problem, modern, with_paths
from .._core.slots import Slot, expected, fault
from .._core.threads import one_thread
from .._core.user_code import code_entry
from ..models.class_names import check_order
from ..models.input_spec import InputSpec
from ..models.network import Network, copied
from ..models.pixel_bytes import pixels_for, to_bytes, to_pixels
from ..records.record import Record
from ..runs.output_folder import Kind
from ..runs.provenance import public_paths
from ..runs.resumable import holds_state
from ..runs.run_log import RunLog
from . import methods
from .cost import affordable_chunk, check_chunk, fitting_workers, step_cost
from .made_chunk import made_chunk
from .methods import BoundMethod, Synthesizer
from .methods.inversion import InversionSettings

__all__ = [
    "CHUNK", "IMAGES", "SET_FOLDER", "SyntheticSet", "balanced_cut", "check_grows", "chunk_size", "images_made",
    "in_order", "is_optimised", "judged", "make_set", "memory_hashes", "near_chance", "prepare", "read_about",
    "renamed_chunk", "set_result", "shards_in", "stored_chunk", "synthesize", "worker_count", "write_log",
]  # fmt: skip

T = TypeVar("T")
CHUNK = 256
"""Default number of images in a chunk, for methods without their own."""
LOOK = 0.5
"""Number of seconds between two reports while a chunk is made."""
IMAGES = 10_000
"""Default number of images in a set."""
CHANCE = 0.1
"""Share of the way from chance to 100 % up to which a share of hits is called near chance."""
COMPARED = 32
"""Number of images per shard whose logits are compared with the teacher's."""
ROUNDING = 0.05
"""Difference that another machine, number format or batch size may cause, as a share of the logits' spread."""
TARGETED = "targeted"
"""Attribute of a method, and key in set.json."""
SHARDS = 200_000
"""Maximum number of shards: more do not fit into set.json."""


def near_chance(hits: float, images: int, classes: int, name: str) -> str | None:
    """A warning if the share `hits` of `images` with the teacher's prediction on target is near chance, else None."""
    chance = 1 / classes
    noise = 3 * math.sqrt(chance * (1 - chance) / max(1, images))
    if hits > chance + max(noise, CHANCE * (1 - chance)):
        return None
    return (
        f"the teacher predicts the target class for {100 * hits:.1f} % of {name}, near chance ({100 * chance:.1f} %): its "
        "images do not show their classes"
    )


def judged(method: Any, bound: BoundMethod, teacher: Network, *, seed: int, images: int = 512) -> str | None:
    """`near_chance` of new images of a method; None for a method without target classes."""
    if not getattr(type(method), "targeted", True):
        return None
    batch = made_chunk(bound, 0, seed_of(seed, "judged"), images)
    hits = float((teacher.predict(batch.pixels).argmax(1) == batch.labels).double().mean())
    return near_chance(hits, images, len(teacher.spec.classes), f"{images} images of {method.method}")


@dataclass(frozen=True)
class SyntheticSet:
    """A folder of shards. `about` is the content of its set.json."""

    folder: Path
    about: dict[str, Any]

    @classmethod
    @checked
    def open(cls, folder: str | Path, network: Network | None = None) -> SyntheticSet:
        """The finished set in `folder`. Raises UserError if it is incomplete, was made from another teacher than `network`,
        or holds logits of another network.
        """
        folder = Path(folder)
        if not (folder / "set.json").is_file():
            check_finished(folder)
            raise UserError(
                f"no synthetic set in {folder}, expected a folder with set.json; run datafree synthesize first"
            )
        about = read_about(folder)
        if about["shards"] is None:
            check_finished(folder)
            raise UserError(f"the synthetic set in {folder} is not finished; run the same datafree synthesize again")
        if network is not None and about["teacher"] != network.fingerprint():
            raise UserError(
                f"the set in {folder} was made from another teacher than {network.name}; give the teacher that it was made "
                "from"
            )
        synthetic = cls(folder, about)
        if network is not None:
            check_order(
                synthetic.spec.classes, network.spec.classes, f"the set in {folder}", network.name, renamed=True
            )
            synthetic.check_logits(network)
        return synthetic

    @property
    def spec(self) -> InputSpec:
        return InputSpec.stored(self.about["spec"], self.folder / "set.json")

    def __len__(self) -> int:
        return int(self.about["images"])

    @property
    def targeted(self) -> bool:
        """Whether its images have target classes, according to set.json or to the method's name."""
        settings = self.about["method"] if isinstance(self.about["method"], dict) else {}
        return settings.get(TARGETED, getattr(methods.FAMILY.known(str(settings.get("method"))), TARGETED, True))

    def warning(self) -> str | None:
        """A warning if the teacher predicts the target classes about as often as by chance, else None."""
        hits = self.about.get("hits")
        if not self.targeted or not isinstance(hits, (int, float)):
            return None
        return near_chance(hits, len(self), len(self.spec.classes), self.folder.name)

    def check_hits(self) -> None:
        """Raises UserError if the share of hits in set.json is not that of the labels and logits in the shards."""
        hits = self.about.get("hits")
        if not isinstance(hits, (int, float)) or abs((measured := self.measured()) - hits) <= 2e-6:
            return
        if abs(self.measured(balanced=False) - hits) > 2e-6:  # as earlier versions cut the last shard
            raise UserError(
                f"{self.folder / 'set.json'} states that the teacher predicts the target class for {100 * hits:.4g} % of "
                f"the images, but for the labels and logits beside it this is {100 * measured:.4g} %; synthesize again, or "
                "get the whole set"
            )

    def check_logits(self, network: Network) -> None:
        """Raises UserError if the stored logits of images of the first and the last shard are not the network's, and if
        `check_hits` does.
        """
        self.check_hits()
        items = sorted(self.about["shards"].items())
        shards = [self._shard(index, *items[index]) for index in sorted({0, len(items) - 1})]
        pixels, logits = (torch.cat([shard[part][:COMPARED] for shard in shards]) for part in (0, 2))
        predicted = network.predict(pixels_for(network.spec, pixels, self.spec))
        spread = float((predicted - predicted.mean()).abs().max())
        difference = float((predicted - logits).abs().amax(1).median())
        if not difference <= ROUNDING * spread + 1e-3 * float(predicted.abs().max()):
            raise UserError(
                f"the logits in {self.folder} are not those of {network.name}: on {len(pixels)} of its images they differ "
                f"by {difference:.2g} in the median, expected at most {ROUNDING * spread:.2g}; synthesize again, or get the "
                "whole set"
            )

    @checked
    def load(self, count: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels (N, C, H, W; as stored: uint8 or float32), target classes (N,) and logits (N, classes) of the first `count`
        images; of all by default. A chunk that is cut keeps its classes balanced. Every shard that is read is checked.
        Raises UserError if the images do not fit in memory.
        """
        check_count("count", 0 if count is None else count, 0)
        count, chunk = min(len(self), len(self) if count is None else count), self.about["unit"]
        items = sorted(self.about["shards"].items())[: max(1, -(-count // chunk))]
        size = sum((self.folder / name).stat().st_size for name, _ in items if (self.folder / name).is_file())
        check_cost(2 * size, f"the images of {self.folder}", otherwise="use a smaller set, or fewer images of it")
        shards = [self._shard(index, *item) for index, item in enumerate(items)]
        rows = self._rows_among(count, shards[-1][1], len(shards) - 1)
        shards[-1] = shards[-1][0][rows], shards[-1][1][rows], shards[-1][2][rows]
        pixels, labels, logits = (torch.cat(parts) for parts in zip(*shards, strict=True))
        return pixels, labels, logits

    def measured(self, *, balanced: bool = True) -> float:
        """The share of the images for which the teacher predicts the target class. Of a cut last chunk, the images that
        `load` returns count; its first ones if not `balanced`.
        """
        hits, items = [], sorted(self.about["shards"].items())
        for index, item in enumerate(items):
            _, labels, logits = self._shard(index, *item)
            rows: slice | Tensor = slice(None)
            if index + 1 == len(items):
                first_rows = slice(len(self) - index * self.about["unit"])
                rows = self._rows_among(len(self), labels, index) if balanced else first_rows
            hits.append(logits.argmax(1)[rows] == labels[rows])
        return round(float(torch.cat(hits).double().mean()), 6)

    def _rows_among(self, count: int, labels: Tensor, index: int) -> Tensor:
        """Rows of the last chunk, number `index`, that are among the first `count` images."""
        return balanced_cut(labels, index, self.about["unit"], count, len(self.spec.classes))

    def _shard(self, index: int, name: str, digest: str) -> tuple[Tensor, Tensor, Tensor]:
        path, spec, chunk = self.folder / name, self.spec, self.about["unit"]
        if not path.is_file():
            raise UserError(f"{path} is missing; run the same datafree synthesize again, or get the whole set")
        tensors, header = read_tensors(path, kind="shard")
        if sha256_file(path) != digest or header != {"unit": index, "made": _key(self.about)}:
            raise UserError(f"{path} is not the shard that the index names; run the same datafree synthesize again")
        pixels = tensors.get("pixels")
        pixel_type = torch.uint8 if pixels is not None and pixels.dtype == torch.uint8 else torch.float32
        classes = len(spec.classes)
        layout = {
            "pixels": Slot(pixel_type, (chunk, *spec.shape)),
            "labels": Slot(torch.int64, (chunk,), 0, classes - 1, integral=True),
            "logits": Slot(torch.float32, (chunk, classes)),
        }
        try:
            check_expected(
                {key: (t.dtype, tuple(t.shape)) for key, t in tensors.items()}, expected(layout, {}), repr(str(path))
            )
        except UserError as error:
            raise UserError(f"{str(error).rpartition(';')[0]}; synthesize again, or get the whole set") from None
        if reason := fault(layout, tensors):
            raise UserError(f"{path} is no shard of this set: {reason}; synthesize again, or get the whole set")
        return tensors["pixels"], tensors["labels"], tensors["logits"]


class _About(BaseModel):
    """What a set.json holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal[1]
    method: dict[str, Any]
    seed: int
    unit: int = Field(ge=1)
    teacher: str = Field(pattern=r"^[0-9a-f]{64}$")
    record: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    spec: dict[str, Any]
    images: int = Field(ge=1)
    shards: dict[str, str] | None
    hits: float | None = Field(default=None, ge=0, le=1)
    """The share of images for which the teacher predicts the target class."""


SETTINGS = ("format", "method", "seed", "unit", "teacher", "record", "spec")
"""Keys of set.json that determine the images."""


def read_about(folder: Path) -> dict[str, Any]:
    """The checked content of a set.json; its `shards` are None for an unfinished set."""
    path = folder / "set.json"
    about = read_sealed_json(path, (*SETTINGS, "images", "shards", "hits"))
    try:
        parsed = _About.model_validate(about)
        if not is_format(about["format"], 1):  # to pydantic true is 1
            raise UserError(
                f"{path} has format {about['format']!r}, expected 1; synthesize again, or get the whole set"
            )
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; synthesize again, or get the whole set") from None
    InputSpec.stored(parsed.spec, path)
    name = parsed.method.get("method")
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 80:
        raise UserError(f"{path}: method: got {str(name)[:40]!r}, expected the name of a method; get the set again")
    if parsed.shards is not None:
        count, shards = -(-parsed.images // parsed.unit), parsed.shards
        if count > SHARDS or len(shards) != count or any(_shard_name(index) not in shards for index in range(count)):
            raise UserError(
                f"{path} lists {len(shards):,} shards, expected {count:,} for {parsed.images:,} images in chunks of "
                f"{parsed.unit:,}; synthesize again, or get the whole set"
            )
    return about


def _key(about: dict[str, Any]) -> str:
    """sha256 of the settings that determine a shard."""
    return hashlib.sha256(canonical({key: about[key] for key in SETTINGS}, "the set's settings")).hexdigest()


def chunk_size(method: Any, teacher: Network, images: int, out: Path | None = None) -> int:
    """Default number of images in a chunk: 256, or fewer large ones, or the method's own for that many images, or that of
    the set in `out`.
    """
    if out is not None and (out / "set.json").is_file():
        return int(read_about(out)["unit"])
    size_of = getattr(method, "chunk_size", None)
    chunk = CHUNK if size_of is None or images < 1 else size_of(len(teacher.spec.classes), images)
    return affordable_chunk(teacher, chunk) if is_optimised(method) else chunk


def shards_in(out: Path, chunks: int) -> int:
    """How many of the first `chunks` chunks have a shard in the folder `out`; whether these are whole is not checked."""
    if not (out / "set.json").is_file():
        return 0
    last = _shard_name(chunks - 1)
    return sum(path.name <= last for path in out.glob("unit-*.safetensors"))


def is_optimised(method: Any) -> bool:
    """Whether the method optimises the pixels of a chunk together."""
    return isinstance(getattr(method, "settings", method), InversionSettings)


def worker_count(
    method: Any, teacher: Network, images: int, chunk: int, workers: int | None, out: Path | None = None
) -> int:
    """Number of chunks that are made at a time, besides those that the set in `out` has; see `fitting_workers`."""
    chunks = -(-images // chunk)
    missing = chunks - (0 if out is None else shards_in(out, chunks))
    if missing and is_optimised(method) and teacher.device.type == "cpu":
        return fitting_workers(step_cost(teacher), chunk, missing, workers, started=missing < chunks)
    return workers or os.cpu_count() or 1


def balanced_cut(labels: Tensor, index: int, chunk: int, count: int, classes: int) -> Tensor:
    """Rows of the last chunk, number `index` with target classes `labels`, that are among the first `count` images: those
    that keep the classes balanced.
    """
    expected_labels, remaining = methods.chunk_labels(index, chunk, classes), count - index * chunk
    if not torch.equal(labels.sort().values, expected_labels.sort().values):  # the method assigns classes differently
        return torch.arange(remaining)
    counts = expected_labels[:remaining].bincount(minlength=classes)
    rank = torch.zeros(chunk, dtype=torch.int64)  # of each image among those of its class
    for label in range(classes):
        rows = labels == label
        rank[rows] = torch.arange(int(rows.sum()))
    return (rank < counts[labels]).nonzero()[:, 0]


def check_grows(out: Path, images: int) -> None:
    """Raises UserError for fewer images than the set in `out` already has, or was started with."""
    about = read_about(out) if (out / "set.json").is_file() else {"images": 0, "shards": None}
    if (existing := about["images"]) > images:
        state = "was started for" if about["shards"] is None else "already has"
        raise UserError(
            f"images: got {images}, but the set in {out} {state} {existing:,}, expected at least as many; name another `out`"
        )


@checked
def synthesize(
    teacher: Network,
    record: Record | None = None,
    method: str | Mapping[str, Any] | Synthesizer | None = None,
    out: str | Path | None = None,
    *,
    images: int = IMAGES,
    seed: int = 0,
    chunk: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    unit: int | None = None,
) -> SyntheticSet:
    """Makes `images` images with `method` and writes them to the folder `out`, or continues a stopped run.

    `method` is a name, a mapping with `method`, or settings; by default `distribution`, or `meta-generator` for a network
    with batch norms and without a record. The same seed gives the same bytes for any number of `workers`
    (threads here, processes under torchrun): a chunk is made on one thread and depends on its index only. `chunk` is the
    number of images that are made together, by default chosen by the method; `unit` is its earlier name. `sample` makes
    images in memory, without a folder. The folder's run.json states settings, versions, time and hashes of teacher and
    record. Raises UserError, before anything is written, for settings that do not fit the teacher or its record, and if the
    folder holds something else or another set.
    """
    chunk = renamed_chunk(chunk, unit)
    if out is None:
        raise UserError(
            "out: got None, expected the folder of the set; give one, or use sample(...) for images in memory"
        )
    began = time.perf_counter()
    options: dict[str, Any] = {"images": images, "seed": seed, "chunk": chunk, "workers": workers, "progress": progress}
    settings = methods.resolve_for(method, teacher, record)
    synthetic_set = make_set(teacher, record, settings, out, **options)
    write_log("synthesize", synthetic_set, teacher, record, began)
    return synthetic_set


def make_set(
    teacher: Network,
    record: Record | None,
    method: Synthesizer,
    out: str | Path,
    *,
    images: int,
    seed: int,
    chunk: int | None,
    workers: int | None,
    progress: Progress,
) -> SyntheticSet:
    """`synthesize` without run.json, which a command writes itself."""
    with together():
        method, bound, chunk, workers = prepare(
            teacher, record, method, images, chunk, workers, out=Path(out), progress=progress
        )
        check_grows(Path(out), images)
        names_before = {path.name for path in Path(out).iterdir()} if Path(out).is_dir() else set()
        folder = claim_folder(out, kind="synthetic-set")
        about = _about(bound.teacher, record, getattr(bound, "settings", method), seed, chunk)
        try:
            with locked(folder) if world().rank == 0 else nullcontext():
                _fill(folder, bound, about, images, method.in_range, workers, progress)
        except Exception:
            _undo(folder, names_before)
            raise
    return SyntheticSet.open(folder)


def write_log(
    verb: str, synthetic_set: SyntheticSet, teacher: Network, record: Record | None, began: float, **hashes: str
) -> None:
    """Writes run.json of a set made from Python since `began`, in the first process, unless one of these images is there.

    `hashes` are of inputs besides teacher and record.
    """
    path, result = synthetic_set.folder / "run.json", set_result(synthetic_set)
    old = read_json(path) if path.is_file() else {}
    if world().rank != 0 or old.get("result") == result:
        return
    if old.get("verb") == verb and isinstance(old.get("settings"), dict):  # it grew: what made it first is still true
        settings = {**old["settings"], "images": len(synthetic_set)}
        write_json(path, {**old, "settings": settings, "result": result})
        return
    about = synthetic_set.about
    common = {
        "images": len(synthetic_set),
        "chunk": about["unit"],
        "seed": about["seed"],
        "device": str(teacher.device),
    }
    log = RunLog(verb, {**about["method"], **common}, {}, hashes={**memory_hashes(teacher, record), **hashes})
    log.began = began
    log.write(synthetic_set.folder, result)


def memory_hashes(teacher: Network, record: Record | None) -> dict[str, str]:
    """What identifies teacher and record in a log, wherever they were read from."""
    hashes = {"teacher_fingerprint": teacher.fingerprint()}
    return hashes if record is None else {**hashes, "record_digest": record.digest()}


def set_result(synthetic_set: SyntheticSet) -> dict[str, Any]:
    """What run.json states of a set: number of images, share in % that the teacher assigns to their class, a warning."""
    consistent = 100 * synthetic_set.about["hits"]
    return {"images": len(synthetic_set), "consistent": consistent, "warning": synthetic_set.warning()}


def renamed_chunk(chunk: int | None, unit: int | None) -> int | None:
    """`chunk`, or `unit`, its earlier name, with a DeprecationWarning. Raises UserError for both."""
    if unit is None:
        return chunk
    if chunk is not None:
        raise UserError("unit: got it with chunk, expected only one; unit is the earlier name of chunk, leave it out")
    warnings.warn("unit is now called chunk", DeprecationWarning, stacklevel=4)
    return unit


def prepare(
    teacher: Network,
    record: Record | None,
    method: Any,
    images: int,
    chunk: int | None,
    workers: int | None,
    *,
    out: Path | None,
    progress: Progress = silent,
) -> tuple[Synthesizer, BoundMethod, int, int]:
    """The method's settings, the method bound to the teacher and its record, the number of images in a chunk, and that of
    chunks made at a time. A long preparation of the method is a stage of `progress`.

    Raises UserError for counts below 1, and if method, record and teacher do not fit each other. Writes nothing.
    """
    method = methods.resolve(method)
    for name, count in (("images", images), ("chunk", chunk), ("workers", workers)):
        if count is not None:
            check_count(name, count)
    chunk = chunk_size(method, teacher, images, out) if chunk is None else chunk
    if (chunks := -(-images // chunk)) > SHARDS:
        raise UserError(
            f"chunk: got {chunk:,} for {images:,} images, which makes {chunks:,} shards, expected at most {SHARDS:,}; give "
            f"`chunk={-(-images // SHARDS)}` or more"
        )
    check_chunk(chunk, teacher.spec)
    teacher.check()
    if record is not None:
        record.check_teacher(teacher)
    with one_thread():  # an eigenbasis must not depend on the number of cores either
        bound = methods.bind(method, teacher, record, workers=workers or os.cpu_count() or 1, progress=progress)
    return method, bound, chunk, worker_count(method, teacher, images, chunk, workers, out)


def _fill(
    folder: Path,
    bound: BoundMethod,
    about: dict[str, Any],
    images: int,
    in_range: bool,
    workers: int,
    progress: Progress,
) -> None:
    """Makes the missing chunks. A finished set stays as it is until all new images are there."""
    about = _with_stored_spelling(folder, about)
    seed, chunk = about["seed"], about["unit"]
    sweep(folder)
    chunks = -(-images // chunk)
    rank, size = world().rank, world().size
    if rank == 0 and not _is_finished(folder):
        write_sealed_json(folder / "set.json", {**about, "images": images, "shards": None})
    mine = [index for index in range(chunks) if index % size == rank]
    key = _key(about)
    todo = [index for index in mine if not _is_complete(folder / _shard_name(index), {"unit": index, "made": key})]
    done = len(mine) - len(todo)
    total = min(images, len(mine) * chunk)
    progress(min(done * chunk, total), total)

    def write(index: int, thread_method: BoundMethod) -> None:
        pixels, labels, logits = stored_chunk(thread_method, index, seed, chunk, in_range)
        tensors = {"pixels": pixels, "labels": labels, "logits": logits}
        write_tensors(folder / _shard_name(index), tensors, {"unit": index, "made": key}, kind="shard")

    def on_share(finished: int, share: float) -> None:
        progress(images_made(done + finished, share, chunk, total), total)

    with closing(in_order(bound, todo, write, workers, on_share)) as written:
        for _ in written:
            pass
    gathered(None)  # every process has written its chunks

    def finish() -> None:
        names = [_shard_name(index) for index in range(chunks)]
        shards = {name: sha256_file(folder / name) for name in names}
        synthetic = SyntheticSet(folder, {**about, "images": images, "shards": shards})
        write_sealed_json(folder / "set.json", {**synthetic.about, "hits": synthetic.measured()})

    first(finish)


def _undo(folder: Path, names_before: set[str]) -> None:
    """Removes what a failed run began in the folder, unless a later run can continue from a shard."""
    if world().rank != 0 or holds_state(folder):
        return
    with suppress(OSError):
        for name in {"set.json", MARKER} - names_before:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()  # fails where it holds something


def _is_finished(folder: Path) -> bool:
    path = folder / "set.json"
    return path.exists() and read_about(folder)["shards"] is not None


def _about(teacher: Network, record: Record | None, method: Any, seed: int, chunk: int) -> dict[str, Any]:
    return {
        "format": 1,
        "method": _public(method) | code_entry(method) | _untargeted(method),
        "seed": seed,
        "unit": chunk,
        "teacher": teacher.fingerprint(),
        "record": None if record is None else record.digest(),
        "spec": teacher.spec.model_dump(mode="json"),
    }


def _public(method: Any) -> dict[str, Any]:
    """The settings that a set stores: of a class of the user's own, each path as the kind and hash of what is there."""
    is_ours = type(method).__module__.startswith("datafree.")
    return method.model_dump(mode="json") if is_ours else public_paths(with_paths(method))


def _untargeted(method: Any) -> dict[str, bool]:
    """`targeted`: False for a class of the user's own whose images have no target class, which its name does not say."""
    is_built_in = getattr(method, "method", None) in methods.FAMILY.built_in()
    return {TARGETED: False} if not is_built_in and getattr(type(method), TARGETED, True) is False else {}


def _with_stored_spelling(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """`about` with the method's settings as spelled in the folder's set.json, whose hash is in the shards.

    Raises UserError if that set has other settings.
    """
    if not (folder / "set.json").exists():
        return about
    folder_about = read_about(folder)
    folder_settings = modern(folder_about)
    for key, value in modern(about).items():
        folder_value = folder_settings.get(key)
        if isinstance(value, dict) and isinstance(folder_value, dict) and TARGETED not in folder_value:
            value = {
                name: entry for name, entry in value.items() if name != TARGETED
            }  # earlier versions did not store it
        if folder_value != value:
            if isinstance(folder_value, dict) and isinstance(value, dict):
                key = next((k for k in (*value, *folder_value) if folder_value.get(k) != value.get(k)), key)
                folder_value, value = folder_value.get(key), value.get(key)
            if key == "code":  # of a class of the user's own; no parameter
                raise UserError(
                    f"{folder} holds a set of other code of its method (sha256 {str(folder_value)[:12]}), this run has "
                    f"{str(value)[:12]}; name another `out`, or repeat the run that made it"
                )
            raise UserError(
                f"{folder} holds a set with `{key}={_short(folder_value)}`, this run has {_short(value)}; "
                "name another `out`, or repeat the run that made it"
            )
    return {**about, "method": folder_about["method"]}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _shard_name(index: int) -> str:
    return f"unit-{index:06d}.safetensors"


def _is_complete(path: Path, header: dict[str, int | str]) -> bool:
    """Whether the shard exists and its checksum is right. Removes a damaged shard, and one of another set."""
    if not path.exists():
        return False
    try:
        is_complete = read_tensors(path, kind="shard")[1] == header
    except UserError:
        is_complete = False
    if not is_complete:
        path.unlink()
    return is_complete


def images_made(finished: int, share: float, chunk: int, total: int) -> int:
    """Number of images in `finished` chunks and a `share` of others; `total` only when all chunks are finished."""
    return min(int((finished + share) * chunk), total if finished * chunk >= total else total - 1)


def in_order(
    bound: BoundMethod,
    indices: Sequence[int],
    call: Callable[[int, BoundMethod], T],
    workers: int,
    on_share: Callable[[int, float], None] = lambda finished, share: None,  # noqa: ARG005
) -> Generator[T, None, None]:
    """The results of `call` for each index, in order, from a pool of threads.

    Each thread has its own copy of the teacher, and each call runs on one thread. `on_share` is called with the number of
    finished chunks and the sum of the shares of those in work, whenever they have changed when it looks: while it waits for
    a result, and before it gives one.
    """
    if not indices:
        return
    on_gpu = bound.teacher.device.type != "cpu"
    count = 1 if on_gpu else max(1, min(workers, len(indices)))
    copies: SimpleQueue[BoundMethod] = SimpleQueue()
    for _ in range(count):
        teacher = replace(bound.teacher, module=copied(bound.teacher.module))
        copies.put(replace(bound, teacher=teacher))  # type: ignore[type-var]

    shares: dict[int, float] = {}
    finished: set[int] = set()
    reported = (0, 0.0)

    def report() -> None:
        nonlocal reported
        complete = set(finished)
        now = (len(complete), sum(share for index, share in list(shares.items()) if index not in complete))
        if now != reported:
            reported = now
            on_share(*now)

    def call_with_copy(index: int) -> T:
        copy = copies.get()
        try:
            with hear_share(partial(shares.__setitem__, index)):
                result = call(index, copy)
            finished.add(index)
            return result
        finally:
            copies.put(copy)

    with one_thread(), ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(call_with_copy, index) for index in indices]
        try:
            for future in futures:
                while not wait([future], timeout=LOOK).done:
                    report()
                result = future.result()
                report()
                yield result
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def stored_chunk(
    bound: BoundMethod, index: int, seed: int, chunk: int, in_range: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels (N, C, H, W) as a set stores them, uint8 if `in_range`, else float32; target classes (N,); the teacher's logits
    (N, classes) on these pixels. Raises UserError for a chunk that does not fit.
    """
    batch, teacher = made_chunk(bound, index, seed, chunk, in_range=in_range), bound.teacher
    pixels = to_bytes(batch.pixels, teacher.spec) if in_range else batch.pixels.float()
    return pixels, batch.labels, teacher.predict(to_pixels(pixels, teacher.spec))


def _check_set(folder: Path) -> None:
    SyntheticSet.open(folder).load()


SET_FOLDER = Kind("synthetic-set", "synthetic set", ("set.json",), _check_set, grows="images")
"""The folder of a synthetic set, for `runs.output_folder`."""
