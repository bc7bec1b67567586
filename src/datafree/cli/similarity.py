"""datafree similarity"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .._core.errors import UserError
from .._core.files import write_text
from .._core.folder_kinds import CONDENSED
from .._core.unused import unused
from ..runs.run_reader import SOURCES
from .arguments import Data, RecordedModel, Run, Whole, settings_of
from .json_output import result
from .loading import check_attribute, images_of, inputs_of, load_network, load_record
from .progress_bar import bar

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Dataset
    from ..evaluation.similarity import Similarity
    from ..models.network import Network

__all__ = ["similarity"]

SPLIT = "test"
SETS = ("set.json", CONDENSED)
"""What a folder of our own images holds."""


def similarity(
    model: str,
    /,
    *data: str,
    split: Literal["train", "test"] = SPLIT,
    images: Whole | None = None,
    form: Literal["forward", "reverse", "l2"] = "forward",
    layers: bool = False,
    shift: Whole = 0,
    flip: bool = False,
    border: Literal["black", "mean"] | None = None,
    data_dir: Path | None = None,
    attribute: str = Data.attribute,
    out: Path | None = None,
    source: RecordedModel | None = None,
    run: Run | None = None,
) -> None:
    """Rank data sets by similarity to a network's training data: the divergence of its batch-norm statistics.

    Example: datafree similarity teacher cifar10:train cifar10 cifar100 set noise --images 1000

    Parameters
    ----------
    model
        A release folder. Without batch norm its record is used: moments of layers, or else of the pixels.
    data
        Data sets by name (`cifar10`, or `cifar10:train` for another split), image folders, .npz files, synthetic sets,
        and `noise`.
    split
        Split of the data sets that name none.
    images
        Number of images of each; the same number makes the figures comparable.
    form
        `forward`: KL of the stored from the measured Gaussian, in nats; `reverse`: the other way; `l2`: squared distances.
    layers
        Show every layer.
    shift
        Move every image by up to this many pixels, as the network's training did: 4 for most on CIFAR.
    flip
        Mirror half of the images, as the network's training did.
    border
        Colour that shifted images lie on: `black`, or `mean` if training shifted normalised images; by default the
        release's.
    data_dir
        The folder with the standard layouts; else the environment's DATAFREE_DATA.
    attribute
        CelebA's attribute, whose two classes are shown in the same shares.
    out
        A folder for run.json and similarity.svg.
    """
    from ..data import Dataset
    from ..evaluation.similarity import check_shift
    from ..evaluation.similarity import similarity as measure
    from ..models.hooks import INPUT
    from ..runs.output_folder import SIMILARITY_FOLDER, output_folder
    from ..runs.provenance import place
    from ..runs.run_log import RunLog

    if not data:
        raise UserError("no data named, expected at least one data set, synthetic set or `noise`; name some")
    if images is not None and images < 2:
        raise UserError(f"--images: got {images}, expected at least 2; give more")
    twice = [name for index, name in enumerate(data) if name in data[:index]]
    if twice:
        raise UserError(f"the data {twice[0]!r} was named twice, expected every one once; name it once")
    if out is not None and len(data) > SOURCES:
        raise UserError(
            f"got {len(data):,} data sets with --out, expected at most {SOURCES}; compare them in several runs"
        )
    source, run = source or RecordedModel(), run or Run()
    read = Data(data_dir=data_dir, attribute=attribute)
    check_attribute(read, *data)
    _check_unused(data, split, data_dir)
    network = load_network(model, source, run)
    check_shift(network, shift, border)
    record = load_record(model, source, network)
    options = {
        "model": model, "data": list(data), "split": split, "images": images, "form": form, "shift": shift,
        "flip": flip, "border": border, "data_dir": data_dir, "attribute": attribute,
    }  # fmt: skip
    sources = {name: _images(name, network, split, images, read, run.seed) for name in data}
    logged_images = {
        f"data {index}": entry
        for index, entry in enumerate(sources.values(), 1)
        if isinstance(entry, Dataset) and out is not None
    }
    inputs = inputs_of(model, source, record=True)
    log = RunLog("similarity", {**options, **settings_of(source), **asdict(run)}, inputs, images=logged_images)
    with nullcontext(None) if out is None else output_folder(out, SIMILARITY_FOLDER, log) as folder:
        if out is not None and folder is None:
            return
        with bar(f"similarity {model}", run.quiet) as progress:
            ranking = measure(
                network,
                sources,
                record,
                form=form,
                shift=shift,
                flip=flip,
                border=border,
                seed=run.seed,
                progress=progress,
            )
        if folder is not None:
            from ..evaluation.report.similarity import similarity_svg
            from ..records.divergence import UNITS

            public = [replace(entry, name=place(entry.name)) for entry in ranking]
            write_text(folder / "similarity.svg", similarity_svg(public, UNITS[form]))
            log.write(folder, {"similarity": [asdict(entry) for entry in public]})
    result({"similarity": [asdict(entry) for entry in ranking], "form": form})
    _say(ranking, layers)
    if all(list(entry.by_layer) == [INPUT] for entry in ranking):
        print(
            f"  {network.name} has no batch norm and its record holds no layer: pixels alone were compared, which says "
            "less than activations would"
        )
    if not shift and not flip and any(name != "noise" and not (Path(name) / "set.json").is_file() for name in data):
        print(
            "  Images were not augmented. If training used shifts or mirroring, add --shift 4 --flip; otherwise that "
            "difference can dominate these numbers."
        )
    _say_few(ranking, len(network.spec.classes))
    for name, entry in sources.items():
        _say_size(name, entry, network)


def _check_unused(data: tuple[str, ...], split: str, data_dir: Path | None) -> None:
    """Raises UserError for a split, or a folder of data sets, where no name is of data that it is for."""
    read = [name for name in data if name != "noise" and not any((Path(name) / file).is_file() for file in SETS)]
    if split != SPLIT and all(name.endswith((":train", ":test")) for name in read):
        unused("split", split, "with nothing that it is for", "a data set that names no split")
    if data_dir is not None and not read:
        unused("data_dir", data_dir, "with noise and sets alone", "a data set")


def _images(name: str, network: Network, split: str, images: int | None, options: Data, seed: int) -> Dataset | Tensor:
    """As `images_of`; its errors name the source."""
    try:
        return images_of(name, network, split, images, options, seed)
    except UserError as error:
        raise (error if name in str(error) else UserError(f"{name}: {error}")) from None


def _say_few(ranking: list[Similarity], classes: int) -> None:
    """That diversities cannot be compared, where sources have few images, and not as many as each other."""
    from ..evaluation.diversity import FEWEST, PER_CLASS

    counts = {min(row.images, PER_CLASS * classes) for row in ranking}
    if len(counts) > 1:
        equal = f"such as --images {min(counts)}, or " if min(counts) >= FEWEST * classes else ""
        print(
            f"  diversity grows with the number of images up to {PER_CLASS} per class, and is - for very few: to compare "
            f"it, give every source the same number, {equal}at least {PER_CLASS * classes:,}"
        )


def _say_size(name: str, source: Dataset | Tensor, network: Network) -> None:
    """That images were resized, where they were: another size is another spread."""
    size, expected = tuple(source.shape[-2:]), network.spec.shape[1:]
    if size != expected:
        print(
            f"  {name}: images of {size[0]} x {size[1]} were resized to the {expected[0]} x {expected[1]} of {network.name}"
        )


def _say(ranking: list[Similarity], layers: bool) -> None:
    width = max(len(row.name) for row in ranking)
    print(f"{'':{width}}  {'images':>7}  {'diversity':>9}  divergence, most similar first")
    for row in ranking:
        directions = "-" if row.diversity is None else f"{row.diversity:.1f}"
        print(f"{row.name:{width}}  {row.images:>7,}  {directions:>9}  {row.total:.4g}")
        for tap, value in row.by_layer.items() if layers else ():
            print(f"{'':{width}}  {tap:>20}  {value:.4g}")
