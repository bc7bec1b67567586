"""Data sets in every layout, and others' files: images, tables, torch files, condensed sets, Python."""

from __future__ import annotations

import gzip
import importlib.util
import io
import lzma
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datafree._core.files import convert_weights
from datafree.data import load
from datafree.data.condensed.importers import Options
from datafree.data.condensed.importers import read as read_condensed
from datafree.data.condensed.importers.meaning import LABELS, Pixels, decoded, fitted, labels_of
from datafree.releases.builder_names import builders

from .mutations import spoilt_bytes
from .packed import inside
from .subject import SPEC, Subject

__all__ = ["DATA"]


def _npz(folder: Path) -> None:
    images = np.arange(96, dtype=np.uint8).reshape(6, 4, 4)
    np.savez(folder / "d.npz", images=images, labels=np.arange(6) % 3, classes=np.array(["a", "b", "c"]))


def _split_npz(folder: Path) -> None:
    images = np.linspace(0, 1, 6 * 48, dtype=np.float32).reshape(6, 4, 4, 3)
    labels = (np.arange(6) % 3).astype(np.int32)[:, None]
    np.savez_compressed(folder / "d.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)


def _load(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        if name in ("mnist", "cifar10", "cifar100", "svhn", "celeba"):
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


def _packed_idx(folder: Path) -> None:
    _idx(folder)
    plain = folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
    plain.with_name(f"{plain.name}.xz").write_bytes(lzma.compress(plain.read_bytes()))
    plain.unlink()


def _rows(labels: int) -> bytes:
    rng = np.random.default_rng(0)
    heads = [bytes([label] * labels) for label in range(10)]
    return b"".join(head + rng.integers(0, 256, 3072).astype(np.uint8).tobytes() for head in heads)


def _cifar(folder: Path) -> None:
    place = folder / "cifar-10-batches-bin"
    place.mkdir()
    (place / "data_batch_1.bin").write_bytes(_rows(1))


def _cifar100(folder: Path) -> None:
    place = folder / "cifar-100-binary"
    place.mkdir()
    (place / "train.bin.xz").write_bytes(lzma.compress(_rows(2)))


def _svhn(compressed: bool) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import scipy.io

        (folder / "SVHN").mkdir()
        images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4)).astype(np.uint8)
        labels = np.array([[1], [2], [10], [3]], np.uint8)
        content = {"X": images, "y": labels}
        scipy.io.savemat(folder / "SVHN" / "train_32x32.mat", content, do_compression=compressed)

    return make


def _celeba(zipped: bool) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from PIL import Image

        place, rng = folder / "celeba", np.random.default_rng(0)
        (place / "img_align_celeba").mkdir(parents=True)
        names = [f"{index:06d}.jpg" for index in range(1, 6)]
        rows = [f"{name} {1 - 2 * (index % 2)} -1" for index, name in enumerate(names)]
        (place / "list_attr_celeba.txt").write_text("\n".join(["5", "Attractive Male", *rows]) + "\n")
        (place / "list_eval_partition.txt").write_text("".join(f"{name} {n // 4}\n" for n, name in enumerate(names)))
        for name in names:
            image = Image.fromarray(rng.integers(0, 256, (80, 60, 3)).astype(np.uint8))
            image.save(place / "img_align_celeba" / name)
        if zipped:
            with zipfile.ZipFile(place / "img_align_celeba.zip", "w") as archive:
                for name in names:
                    archive.write(place / "img_align_celeba" / name, f"img_align_celeba/{name}")
                    (place / "img_align_celeba" / name).unlink()
            (place / "img_align_celeba").rmdir()

    return make


WORDS = (
    "1",
    "-1",
    "0",
    "2",
    "x",
    "",
    "../../etc/passwd",
    "é",
    "\0",
    "9" * 5000,
    "1" + " 1" * 10_000,
    "000001.jpg",
    "nan",
)


def _lines(folder: Path, name: str, rng: random.Random) -> tuple[str, bool]:
    """A word or a line of a list changed; images inside of their zip."""
    path = folder / name
    if path.suffix != ".txt":
        return inside(folder, name, rng) if path.suffix == ".zip" else (_spoil(path, rng), False)
    lines = path.read_text().splitlines()
    at = rng.randrange(len(lines))
    kind = rng.choice(["word", "word", "word", "gone", "twice", "swap", "many"])
    if kind == "word":
        words = lines[at].split() or [""]
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        lines[at] = " ".join(words)
    elif kind == "gone":
        del lines[at]
    elif kind == "many":
        lines += [lines[at]] * 20_000
    else:
        lines.insert(rng.randrange(len(lines)), lines[at] if kind == "twice" else lines.pop(at))
    path.write_text(rng.choice(["\n", "\n", "\r\n", "\r"]).join(lines), newline="")
    return f"{kind} at line {at}", False


def _spoil(path: Path, rng: random.Random) -> str:
    words, data = spoilt_bytes(path.read_bytes(), rng)
    path.write_bytes(data)
    return words


def _torch(folder: Path) -> None:
    torch.save({"a.weight": torch.rand(3, 2), "a.bias": torch.zeros(3), "n": torch.tensor(3)}, folder / "w.pt")


def _convert(folder: Path) -> Any:
    out = folder / "out.safetensors"
    out.unlink(missing_ok=True)
    convert_weights(folder / "w.pt", out)
    return out.read_bytes()


def _script(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants other programs than these
        torch.jit.save(torch.jit.trace(torch.nn.Linear(3, 2), torch.zeros(1, 3)), folder / "w.pt")


def _program(folder: Path) -> None:
    content = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(1, 3),)), content)
    (folder / "w.pt").write_bytes(content.getvalue())


# -- condensed sets as others publish them ------------------------------------------------------------------------


def _others(folder: Path) -> None:
    torch.save({"data": [[torch.rand(6, 1, 4, 4), torch.arange(6) % 3]]}, folder / "data.pt")


def _pair(folder: Path) -> None:
    torch.save([torch.rand(6, 1, 4, 4), torch.eye(3).repeat(2, 1)], folder / "data.pt")


def _best(folder: Path) -> None:
    (folder / "c").mkdir()
    torch.save(torch.rand(6, 1, 4, 4, requires_grad=True), folder / "c" / "images_best.pt")
    torch.save(torch.rand(6, 3), folder / "c" / "labels_best.pt")


def _arrays(folder: Path) -> None:
    images = np.random.default_rng(0).random((6, 4, 4, 1))
    np.savez_compressed(folder / "c.npz", image=images, label=np.eye(3)[np.arange(6) % 3])


def _folders(folder: Path) -> None:
    from PIL import Image

    for label in ("a", "b", "c"):
        (folder / "c" / label).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "c" / label / "0.png")


def _table(folder: Path) -> None:
    import pyarrow  # pyright: ignore[reportMissingImports]
    import pyarrow.parquet  # pyright: ignore[reportMissingImports]
    from PIL import Image

    images = []
    for value in range(6):
        stream = io.BytesIO()
        Image.fromarray(np.full((4, 4), 40 * value, np.uint8)).save(stream, "PNG")
        images.append({"bytes": stream.getvalue(), "path": None})
    rows = {"image": images, "label": [0, 1, 2, 0, 1, 2]}
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / "c.parquet")


def _imported(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        raw = read_condensed(folder / name, SPEC, Options(layout="NHWC", resize=True))
        rows = [labels_of(raw, SPEC, how) for how in LABELS[1:]]
        pixels = Pixels.parse("normalised:0.3/0.4").undo(raw.images, SPEC)
        images, _ = decoded(pixels, rows[0], 2, SPEC)
        return raw.images, rows, fitted(images, SPEC, True), raw.notes

    return read


IMPORTS = {
    "imported": Subject(_others, ("data.pt",), _imported("data.pt"), sealed=False, mutate=inside),
    "imported pair": Subject(_pair, ("data.pt",), _imported("data.pt"), sealed=False, mutate=inside),
    "imported best": Subject(
        _best, ("c/images_best.pt", "c/labels_best.pt"), _imported("c"), sealed=False, mutate=inside
    ),
    "imported npz": Subject(_arrays, ("c.npz",), _imported("c.npz"), sealed=False, mutate=inside),
    "imported folder": Subject(_folders, ("c/a/0.png", "c/c/0.png"), _imported("c"), sealed=False, mutate=inside),
}
if importlib.util.find_spec("pyarrow") is not None:  # an optional package
    IMPORTS["imported parquet"] = Subject(_table, ("c.parquet",), _imported("c.parquet"), sealed=False)

CODE = (
    "import torch\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return [x ** (1 + 2j), f'{x!r}']\n"
)


MAT = "SVHN/train_32x32.mat"
LISTS = ("celeba/list_attr_celeba.txt", "celeba/list_eval_partition.txt")
IDX = ("MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte.gz")
DATA: dict[str, Subject] = {
    "npz": Subject(_npz, ("d.npz",), _load("d.npz"), sealed=False, mutate=inside),
    "npz of splits": Subject(_split_npz, ("d.npz",), _load("d.npz"), sealed=False, mutate=inside),
    **{
        ending: Subject(
            _pictures(ending), (f"d/a/0.{ending}", f"d/b/1.{ending}"), _load("d"), sealed=False,
            mutate=inside if ending == "png" else None,
        )
        for ending in ("png", "jpg", "gif", "tif", "bmp", "webp")
    },
    "idx": Subject(_idx, IDX, _load("mnist"), sealed=False, mutate=inside),
    "idx.xz": Subject(_packed_idx, (f"{IDX[0]}.xz", IDX[1]), _load("mnist"), sealed=False, mutate=inside),
    "cifar": Subject(_cifar, ("cifar-10-batches-bin/data_batch_1.bin",), _load("cifar10"), sealed=False),
    "cifar.xz": Subject(
        _cifar100, ("cifar-100-binary/train.bin.xz",), _load("cifar100"), sealed=False, mutate=inside
    ),
    "svhn": Subject(_svhn(False), (MAT,), _load("svhn"), sealed=False, mutate=inside),
    "svhn, compressed": Subject(_svhn(True), (MAT,), _load("svhn"), sealed=False, mutate=inside),
    "celeba": Subject(
        _celeba(False), (*LISTS, "celeba/img_align_celeba/000001.jpg"), _load("celeba"), sealed=False, mutate=_lines
    ),
    "celeba.zip": Subject(
        _celeba(True), (*LISTS, "celeba/img_align_celeba.zip"), _load("celeba"), sealed=False, mutate=_lines
    ),
    "torch": Subject(_torch, ("w.pt",), _convert, sealed=False, mutate=inside),
    "torchscript": Subject(_script, ("w.pt",), _convert, sealed=False, mutate=inside, refused=True),
    "pt2": Subject(_program, ("w.pt",), _convert, sealed=False, mutate=inside, refused=True),
    "python": Subject(
        lambda f: (f / "net.py").write_text(CODE), ("net.py",), lambda f: builders(f / "net.py"), sealed=False
    ),
    **IMPORTS,
}  # fmt: skip
