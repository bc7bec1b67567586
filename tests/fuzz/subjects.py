"""Every kind of file that the project reads: how a sample is made, and how it is opened as the commands open it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # once, not in every child
from torch.nn.functional import cross_entropy

from datafree import alignment, condensing, records, replay
from datafree.adversarial import Anchored, Online, adversarial
from datafree.condensed import Condensed, one_hot
from datafree.condensing import Job, condense, matching
from datafree.data import load
from datafree.data.dataset import in_memory
from datafree.files import claim_folder, convert_weights
from datafree.finished import Finished
from datafree.fit import Schedule, fit
from datafree.images import labelled, stored
from datafree.imported import read as read_condensed
from datafree.models import load_model, new_model
from datafree.network import Network
from datafree.output_folder import logged
from datafree.records import Record, record
from datafree.release import Release, write_release
from datafree.spec import InputSpec
from datafree.stats.input import InputMoments
from datafree.stats.moments import Moments
from datafree.stats.spectral import SpectralPairs
from datafree.synthesis import named
from datafree.syntheticset import SyntheticSet, synthesize

__all__ = ["SUBJECTS", "Subject"]

SPEC = InputSpec(shape=(1, 4, 4), classes=tuple("abc"))


@dataclass(frozen=True)
class Subject:
    """One kind of file."""

    make: Callable[[Path], None]
    """Writes a sample into an empty folder."""
    files: tuple[str, ...]
    """Which of its files are changed."""
    open: Callable[[Path], Any]
    """Reads the folder as a command does; what it returns is the meaning."""
    sealed: bool = True
    """Whether a change must be refused or be without effect."""


@cache
def teacher() -> Network:
    return new_model("hinton8", SPEC, seed=0)


@cache
def toy(count: int = 30) -> Any:
    rng = np.random.default_rng(0)
    return in_memory(
        "toy", "train", "abc", np.arange(count) % 3, rng.integers(0, 256, (count, 1, 4, 4)).astype(np.uint8)
    )


def meaning(value: Any) -> str:
    """A digest of tensors, arrays, settings and plain values."""
    digest = hashlib.sha256()

    def add(own: Any) -> None:
        if isinstance(own, torch.Tensor):
            own = own.detach().cpu().contiguous()
            digest.update(f"{own.dtype}{tuple(own.shape)}".encode() + own.flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(own, np.ndarray):
            digest.update(f"{own.dtype}{own.shape}".encode() + own.tobytes())
        elif isinstance(own, dict):
            for key in sorted(own, key=str):
                add(key)
                add(own[key])
        elif isinstance(own, (list, tuple)):
            for part in own:
                add(part)
        else:
            digest.update(repr(own).encode())

    add(value)
    return digest.hexdigest()


# -- releases, records, sets --------------------------------------------------------------------------------------


def _release(folder: Path) -> None:
    kinds = [InputMoments(), (Moments(covariance="full"), ("input",)), Moments(), SpectralPairs()]
    write_release(folder / "r", teacher(), record(teacher(), toy(), kinds))
    (folder / "r" / "run.json").write_text(
        json.dumps({"format": 2, "verb": "distill", "settings": {"seed": 0}, "inputs": {}, "result": {
            "evaluation": {"accuracy": 50.0}, "curve": {"loss": [1.0, 0.5]}, "images": 3}})
    )  # fmt: skip


def _network(folder: Path) -> Any:
    network = load_model(str(folder / "r"))
    return network.module.state_dict(), network.spec.model_dump(), network.name


def _record(folder: Path) -> Any:
    opened = Record.load(folder / "r" / "record.safetensors", teacher())
    rng = torch.Generator().manual_seed(0)
    for name, entry in opened.entries.items():  # used, as a method uses it
        opened.meter(name, teacher()).sample(entry.summary, torch.arange(3), rng)
    return opened.digest(), opened.made, opened.released(teacher())


def _log(folder: Path) -> Any:
    return Finished.of(folder / "r").model_dump(), logged(folder / "r")


def _plain(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({key: own.clone() for key, own in teacher().module.state_dict().items()}, folder / "w.safetensors")


def _set(folder: Path) -> None:
    synthesize(teacher(), None, named("gaussian"), folder / "s", images=5, unit=3, workers=1)


def _open_set(folder: Path) -> Any:
    opened = SyntheticSet.open(folder / "s", teacher())
    material = stored(opened)
    return opened.load(), opened.about["method"]["method"], opened.spec.model_dump(), opened.warning(), len(material)


def _condensed(folder: Path) -> None:
    Condensed(torch.rand(6, 1, 4, 4), one_hot(torch.arange(6) % 3, 3), SPEC, {"gives_away": "all"}).save(folder / "c")


def _open_condensed(folder: Path) -> Any:
    own = Condensed.open(folder / "c", teacher())
    return own.pixels, own.labels, own.about, own.spec.model_dump(), own.accuracy(teacher())


# -- states -------------------------------------------------------------------------------------------------------


class Stopped(BaseException):
    pass


def _fit(folder: Path) -> Any:
    network = new_model("hinton8", SPEC, seed=1)
    curve = fit(network, labelled(teacher(), toy()), cross_entropy, Schedule(epochs=1), seed=0, state=folder / "state")
    return network.module.state_dict(), curve.loss


def _online(kind: str, guide: str | None = None) -> Callable[[Path], Any]:
    own = {"none": {}, "ema": {"replay_bytes": 90_000}, "vae": {"replay_bytes": 40_000, "vae_code": 4}}
    settings = Online(epochs=1, iterations=2, student_steps=2, batch=16, latent=8, write_every=1)

    def play(folder: Path) -> Any:
        student, anchored = new_model("hinton8", SPEC, seed=1), None
        if guide is not None:
            pixels = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
            anchored = Anchored(alignment.named(guide), pixels, torch.eye(3).repeat(2, 1))
        memory = replay.named(kind, **own.get(kind, {"replay_bytes": 600}))
        history = adversarial(teacher(), student, settings, memory, anchored=anchored, state=folder / "state")
        return student.module.state_dict(), history.loss, history.health

    return play


def _condense(folder: Path) -> Any:
    spec, pixels = (
        InputSpec(shape=(1, 8, 8), classes=tuple("abc")),
        np.random.default_rng(0).integers(0, 256, (12, 1, 8, 8)),
    )
    data = in_memory("toy", "train", "abc", np.arange(12) % 3, pixels.astype(np.uint8))
    before, matching.PAUSE = matching.PAUSE, -1
    first = not (folder / "state").exists()

    def stop(*_: int) -> None:
        if first and (folder / "state").exists():
            raise Stopped

    try:
        return condense(
            condensing.named("dm", iterations=2, real=2, width=4),
            Job(data, spec, 2).resumed(folder / "state", {}, stop),
        ).pixels
    finally:
        matching.PAUSE = before


def _sums(folder: Path) -> Any:
    before, records._chunk = records._chunk, lambda *_: 16
    first = not (folder / "state").exists()

    def stop(*_: int) -> None:
        if first:
            raise Stopped

    try:
        kinds = [InputMoments(), Moments(covariance="full"), SpectralPairs()]
        return record(teacher(), toy(), kinds, state=folder / "state", progress=stop).digest()
    finally:
        records._chunk = before


def _left(run: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Makes the state that a run leaves."""

    def make(folder: Path) -> None:
        with suppress(Stopped):
            run(folder)

    return make


# -- data and others' files ---------------------------------------------------------------------------------------


def _npz(folder: Path) -> None:
    np.savez(folder / "d.npz", images=np.arange(96, dtype=np.uint8).reshape(6, 4, 4), labels=np.arange(6) % 3)


def _load(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        if name in ("mnist", "cifar10"):
            data = load(name, "train", data_dir=folder)
        else:
            data = load(str(folder / name), "train")
        return np.asarray(data.pixels(range(len(data)), data.shape[1:])), np.asarray(data.labels), data.classes

    return read


def _pictures(ending: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from PIL import Image

        rng = np.random.default_rng(0)
        for label in ("a", "b"):
            (folder / "d" / label).mkdir(parents=True)
            for index in range(5):
                image = Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
                image.save(folder / "d" / label / f"{index}.{ending}")

    return make


def _idx(folder: Path) -> None:
    place = folder / "MNIST" / "raw"
    place.mkdir(parents=True)
    images = b"\0\0\x08\x03" + np.array([12, 28, 28], ">u4").tobytes() + bytes(12 * 784)
    labels = b"\0\0\x08\x01" + np.array([12], ">u4").tobytes() + bytes(index % 10 for index in range(12))
    (place / "train-images-idx3-ubyte").write_bytes(images)
    (place / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def _cifar(folder: Path) -> None:
    place = folder / "cifar-10-batches-bin"
    place.mkdir()
    rng = np.random.default_rng(0)
    rows = [bytes([label]) + rng.integers(0, 256, 3072).astype(np.uint8).tobytes() for label in range(10)]
    (place / "data_batch_1.bin").write_bytes(b"".join(rows))


def _torch(folder: Path) -> None:
    torch.save({"a.weight": torch.rand(3, 2), "a.bias": torch.zeros(3), "n": torch.tensor(3)}, folder / "w.pt")


def _convert(folder: Path) -> Any:
    out = folder / "out.safetensors"
    out.unlink(missing_ok=True)
    convert_weights(folder / "w.pt", out)
    return out.read_bytes()


def _others(folder: Path) -> None:
    torch.save({"data": [[torch.rand(6, 1, 4, 4), torch.arange(6) % 3]]}, folder / "data.pt")


def _claim(folder: Path) -> Any:
    return claim_folder(folder / "m", kind="release").name


STATES = {
    "state of a training": _fit,
    **{f"state of a game, {kind}": _online(kind) for kind in ("bank", "balanced", "vae", "ema")},
    "state of a guided game": _online("none", "discriminator"),
    "state of condensing": _condense,
    "sums of a recording": _sums,
}
SUBJECTS: dict[str, Subject] = {
    "record": Subject(_release, ("r/record.safetensors",), _record),
    "weights": Subject(_release, ("r/model.safetensors",), _network),
    "config.json": Subject(_release, ("r/config.json",), lambda f: (Release.open(f / "r").config, _network(f))),
    "run.json": Subject(_release, ("r/run.json",), _log, sealed=False),
    "plain safetensors": Subject(
        _plain,
        ("w.safetensors",),
        lambda f: load_model("hinton8", weights=f / "w.safetensors", spec=SPEC).fingerprint(),
        sealed=False,
    ),
    "set.json": Subject(_set, ("s/set.json",), _open_set),
    "shard": Subject(_set, ("s/unit-000000.safetensors",), _open_set),
    "condensed": Subject(_condensed, ("c/condensed.safetensors",), _open_condensed),
    **{name: Subject(_left(run), ("state",), run) for name, run in STATES.items()},
    "npz": Subject(_npz, ("d.npz",), _load("d.npz"), sealed=False),
    **{
        ending: Subject(_pictures(ending), (f"d/a/0.{ending}", f"d/b/1.{ending}"), _load("d"), sealed=False)
        for ending in ("png", "jpg", "gif")
    },
    "idx": Subject(
        _idx,
        ("MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte.gz"),
        _load("mnist"),
        sealed=False,
    ),
    "cifar": Subject(_cifar, ("cifar-10-batches-bin/data_batch_1.bin",), _load("cifar10"), sealed=False),
    "torch": Subject(_torch, ("w.pt",), _convert, sealed=False),
    "imported": Subject(_others, ("data.pt",), lambda f: vars(read_condensed(f / "data.pt", SPEC)), sealed=False),
    "marker": Subject(lambda f: _claim(f) and None, ("m/.datafree.json",), _claim, sealed=False),
}
