"""Turns names on the command line into data, networks and records, and says what was done to make them fit."""

from __future__ import annotations

import math
import os
import re
import shlex
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.code_names import code_name
from .._core.device import check_device
from .._core.distributed import main_process
from .._core.errors import Notice, UserError, cut
from .._core.folder_kinds import CONDENSED, check_original, is_onnx, is_quantized, is_release
from .._core.unused import Use, check_used, unused
from .._core.user_code import class_file, code_files, file_imports
from ..models.class_names import class_positions
from .arguments import Data, Input, Model, Run

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Dataset
    from ..models.input_spec import InputSpec
    from ..models.network import Network
    from ..records.record import Record
    from ..releases.libraries import LibraryInput
    from ..releases.shipped_code import ShippedCode
    from ..runs.run_log import RunLog

__all__ = [
    "check_attribute",
    "check_code",
    "check_data",
    "check_normalisation",
    "check_record",
    "code_for_release",
    "code_for_student",
    "code_in",
    "code_of",
    "code_of_settings",
    "identity_of",
    "images_of",
    "inputs_of",
    "load_data",
    "load_network",
    "load_record",
    "load_teacher",
    "on_device",
    "resumed",
    "say_code",
    "say_fit",
    "say_size",
    "spec_of",
    "test_data",
    "use_threads",
]


MOST_THREADS = 4096
"""Above any processor's cores; a few times as many threads take minutes to start, or all memory."""
Inputs = dict[str, str | Path | list[Path] | None]


def load_data(
    options: Data, split: str, *, beside: Dataset | None = None, quiet: bool = False, labelled: bool = True
) -> Dataset:
    """The named data set; prints what its reader chose or left out, but for what was printed of the one `beside` it.

    Where labels do not count (not `labelled`) files of images may come without. Raises UserError where none was named.
    """
    from ..data import load, names

    if options.data is None:
        raise UserError("no data named, expected --data; give digits, mnist, a folder or an .npz file")
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit: got {options.limit}, expected at least 1; give a positive count")
    check_attribute(options)
    extra: dict[str, Any] = {"attribute": options.attribute} if options.data == "celeba" else {}
    if options.class_order is not None:
        extra["class_order"] = options.class_order
    if not labelled and options.data not in names():
        extra["labelled"] = False
    dataset = load(options.data, split, data_dir=options.data_dir, **extra)
    for note in dataset.notes if main_process() and not quiet else ():
        if beside is None or note not in beside.notes:
            print(f"  {note}")
    return dataset.subset(options.limit) if options.limit is not None else dataset


def check_attribute(options: Data, *others: str | None) -> None:
    """Raises UserError for an attribute where neither the data nor any of the `others` named in the command has one."""
    names = [str(name).removesuffix(":train").removesuffix(":test") for name in (options.data, *others) if name]
    if options.attribute != Data.attribute and "celeba" not in names:
        got = ", ".join(names) or "no data"
        raise UserError(
            f"--attribute: got {options.attribute} with {got}, expected celeba, whose attributes they are; leave it out"
        )


def check_data(data: Data, *others: str | None) -> None:
    """Raises UserError for options of data where none is read: the limit is of the named data alone, the rest is of the
    `others` named in the command too.
    """
    check_attribute(data, *others)
    named = data.data or next((name for name in others if name is not None), None)
    options = {name: value for name, value in asdict(data).items() if value is not None}
    check_used(options, [Use("limit", "data")], {"data": data.data})
    check_used(options, [Use("class_order", "data"), Use("data_dir", "data")], {"data": named})


def test_data(student: Network, data: Data, *, complete: bool) -> Dataset | None:
    """What the student is measured on, where data is named; found to fit before an epoch is spent.

    It is `complete` where the limit is that of the images the student learns from.
    """
    check_data(data)
    if data.data is None:
        return None
    from ..data.dataset_checks import as_input

    test = load_data(replace(data, limit=None) if complete else data, "test")
    student.spec.check(as_input(student, test, part=True).pixels([0], student.spec.shape[1:]))
    if main_process():
        say_fit(student, test)
    return test


def images_of(
    name: str, network: Network, split: str, images: int | None, options: Data, seed: int
) -> Dataset | Tensor:
    """What a name on the command line stands for: `noise`, a synthetic or condensed set, a data set (`cifar10:train`),
    files.

    A data set is loaded with `options`, but for its name and the limit; its labels do not count, and files need none.
    Pixels come as float32 (N, C, H, W) in the network's range, whatever that of a set is; some of a condensed set are of
    its classes alike. Raises UserError for a set or data that does not fit.
    """
    if name == "noise":
        from ..synthesis.cost import check_images
        from ..synthesis.methods import from_name

        check_images(images or 1000, network.spec)
        return from_name("gaussian").bind(network, None).chunk(0, seed, images or 1000).pixels
    if (Path(name) / "set.json").is_file():
        from ..models.pixel_bytes import pixels_for
        from ..synthesis.synthetic_set import SyntheticSet

        opened = SyntheticSet.open(name)
        if opened.spec.shape != network.spec.shape:
            raise UserError(
                f"the set {name} has images of shape {opened.spec.shape}, expected {network.spec.shape}; give another"
            )
        return pixels_for(network.spec, opened.load(images)[0], opened.spec)
    if (Path(name) / CONDENSED).is_file():
        from ..data.condensed.condensed_set import Condensed

        return Condensed.open(name, network).chosen(images)
    base, _, part = name.rpartition(":")
    if part not in ("train", "test"):
        base, part = name, split
    attribute = options.attribute if base == "celeba" else Data.attribute  # of another data set in the same command
    dataset = load_data(replace(options, data=base, limit=None, attribute=attribute), part, labelled=False)
    return dataset if images is None else dataset.subset(min(images, len(dataset)))


def load_network(name: str, options: Model, run: Run, spec: InputSpec | None = None) -> Network:
    """A trained network on its device; its record is not looked at."""
    from ..releases.load import load_model, published_input

    _check_device(run.device)
    if options.arg:
        raise UserError(
            f"--arg: got {cut(options.arg[0])} without --code, expected the code that builds the network; give it, or leave "
            "--arg out"
        )
    network = load_model(
        name,
        code=options.code,
        weights=options.weights,
        key=options.key,
        spec=spec,
        output=options.output,
        trust=options.trust,
    )
    if spec is None and main_process() and (published := published_input(name)) is not None:
        print(in_words(name, published))
    if spec is None and main_process() and is_onnx(name):
        print(_onnx_in_words(name, network.spec))
    return on_device(network, run)


def in_words(name: str, published: LibraryInput) -> str:
    """What a library says of the input of a network that it names."""
    size = " x ".join(map(str, published.shape))
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (published.mean, published.std))
    code = code_name(name)
    takes = "its folder states" if code is not None and code.is_folder else "its published weights take"
    return (
        f"{name.partition('(')[0]}: {takes} {size} pixels, resized by {published.interpolation} interpolation, "
        f"mean {mean}, std {std}; the --shape, --mean and --std of datafree pack state others"
    )


def _onnx_in_words(name: str, spec: InputSpec) -> str:
    """What a network in an ONNX file is taken to be shown."""
    size = " x ".join(map(str, spec.shape))
    return (
        f"{name}: takes {size} pixels from {spec.low:g} to {spec.high:g}, not normalised; if it was trained on normalised "
        "ones, state them with the --mean and --std of datafree pack"
    )


def check_code(name: str, options: Model, network: Network) -> None:
    """Raises UserError where code given for a release makes another function of its recorded weights.

    For commands that do not read the record otherwise.
    """
    if (options.code is not None or options.trust) and options.weights is None and options.record is None:
        load_record(name, options, network)


def load_teacher(name: str, options: Model, run: Run) -> Network:
    """`load_network` of one that images are made for, so gradients have to come through it."""
    check_original(name)
    return load_network(name, options, run)


def load_record(name: str, options: Model, network: Network) -> Record | None:
    """The record of a trained network: --record, else the one in its release, else None."""
    from ..records.record import Record
    from ..releases.release import Release, is_release

    if is_release(name):
        return Release.open(name).record(network, options.record)
    return Record.load(options.record, network) if options.record is not None else None


def check_record(method: Any, network: Network, options: Model, record: Record | None) -> None:
    """Raises UserError for --record where the method uses nothing of that record."""
    from ..synthesis.methods import reads_record

    if options.record is not None and record is not None and not reads_record(method, network, record):
        unused(
            "record", options.record, f"with {method.method}, which uses nothing that it holds", "a method that does"
        )


def identity_of(settings: dict[str, Any], network: Network, log: RunLog, *hashes: str) -> dict[str, Any]:
    """What must be the same for a stopped run to be gone on with: settings, and data and input files by content.

    `hashes` are of what the log does not list.
    """
    from ..runs.difference import CONTENT, IGNORED, LATER

    compared_settings = {key: str(value) for key, value in settings.items() if key not in IGNORED}
    compared = {
        role: digest
        for role, digest in log.content["inputs"].items()
        if not role.startswith(LATER) or role.startswith(f"{CONTENT}modules")
    }
    content = sorted({*compared.values(), *hashes})  # as in the states of earlier versions
    return {**compared_settings, "spec": network.spec.model_dump(mode="json"), "content": content}


def resumed(run: Run, state: Path) -> Run:
    """The run with the threads of the stopped one that left `state`, since another count gives other numbers.

    Raises UserError where `--threads` is another.
    """
    from .._core.distributed import first
    from .._core.resume import threads_of

    begun = first(lambda: threads_of(state))
    if begun is None or run.threads == begun:
        return run
    if run.threads is not None:
        raise UserError(
            f"--threads: got {run.threads}, expected {begun}, the threads of the stopped run that left {state}: another "
            "count ends in other numbers; leave --threads out, or name another `out`"
        )
    return replace(run, threads=begun)


def inputs_of(name: str, options: Model, *, role: str = "model", record: bool = False) -> Inputs:
    """By role, the files that a model was read from, and its record where that is read too, for run.json."""
    from ..releases.release import is_release, is_zoo

    built = code_name(name) is not None or is_zoo(name) or is_onnx(name)  # even where a folder is called hinton8
    folder = name if is_release(name) or not built else None
    record_path = Path(folder) / "record.safetensors" if record and folder is not None else None
    code = options.code if options.code is not None else name if folder is None else None
    return {
        role: folder,
        "weights": options.weights,
        "record": options.record or record_path,
        **(code_in(role, folder) if options.trust and code is None else code_of(role, code)),
    }


def code_in(role: str, release: str | None) -> Inputs:
    """The Python files that a release holds and that build its network; none for other networks."""
    from ..releases.release import Release

    listed = None if release is None or is_quantized(release) else Release.open(release).listed_code
    if listed is None:
        return {}
    main, *others = listed.paths(Path(str(release)))
    return {f"code of {role}": main, f"modules of {role}": others or None}


def code_of(role: str, name: str | None) -> Inputs:
    """The files that build a network of this name, once it is loaded: Python, ONNX, or the folder of a library."""
    if name is not None and is_onnx(name):
        from ..releases.onnx_import import onnx_files

        return {f"code of {role}": name, f"modules of {role}": onnx_files(name) or None}
    code = None if name is None else code_name(name)
    if code is None:
        return {}
    if code.is_folder:
        from ..releases.library_folders import files_of

        main, *others = files_of(code.attribute)
        return {f"code of {role}": main, f"modules of {role}": others or None}
    return {f"code of {role}": code.place if code.is_file else None, f"modules of {role}": code_files(code) or None}


def code_of_settings(role: str, settings: Any) -> Inputs:
    """The Python files of a method of the user's own, and of its extra loss, and those that these import."""
    inputs: Inputs = {}
    if (path := class_file(settings)) is not None:
        inputs = {f"code of {role}": path, f"modules of {role}": sorted(file_imports(path)) or None}
    name = getattr(settings, "extra_loss", None)
    loss = None if name is None else code_name(name)
    if loss is None:
        return inputs
    modules = sorted(file_imports(Path(loss.place))) if loss.is_file else code_files(loss)
    return inputs | {
        "code of extra loss": loss.place if loss.is_file else None,
        "modules of extra loss": modules or None,
    }


def listed_files(files: list[Path]) -> str:
    """`own.py, blocks.py`, seen from the folder of the first, a few of them."""
    if not files:
        return ""
    folder = files[0].absolute().parent
    names = [os.path.relpath(file.absolute(), folder) for file in files]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more files" if len(names) > 8 else "")


def code_for_release(name: str, network: Network, with_code: bool) -> ShippedCode | None:
    """The code of `file.py:function` for a release of this network, checked before the work; None without --with-code.

    Raises UserError for a network that no such file builds, and for code that no release may hold.
    """
    if not with_code:
        return None
    from ..releases.release import check_sources
    from ..releases.shipped_code import check_shippable, shipped

    check_shippable(name, "with_code")
    code = shipped(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # said when the network was made
        check_sources(code, network)
    return code


def code_for_student(
    name: str, student: Network, with_code: bool, *, teacher: str, source: Model
) -> ShippedCode | None:
    """`code_for_release` for a student; one with fewer of its teacher's channels is built by the teacher's code."""
    from ..releases.release import Release, check_sources

    if not with_code or not student.reduced:
        return code_for_release(name, student, with_code)
    if not source.trust or source.code is not None or not is_release(teacher):
        return code_for_release(student.name, student, with_code)
    code = Release.open(teacher).code()
    check_sources(code, student)
    return code


def say_code(model: str, shipped: ShippedCode | None = None) -> None:
    """How to open a release of a custom network: with the code that it holds, or with a file that has to come with it."""
    code = None if is_onnx(model) else code_name(model)
    if shipped is not None:
        names = listed_files([Path(name) for name in shipped.contents])
        print(f"  the release holds the network's code, {names}: who has read it opens the release with --trust")
    elif is_onnx(model):
        from ..releases.onnx_import import onnx_files

        names = listed_files([Path(model), *onnx_files(model)])
        print(f"  the release does not hold the network's operators: hand over {names} with it, for --code")
    elif code is not None and code.is_library:
        print(f"  {code.place} builds the network: open the release with --code {shlex.quote(model)}")
    elif code is not None:
        from ..releases.load import all_files

        names = listed_files(all_files(code)) or f"the module {code.place}"
        print(f"  the release does not hold the network's code: hand over {names} with it, for --code")


def spec_of(data: Dataset, model: str, options: Input) -> InputSpec:
    """The spec for a fresh `model` on `data`."""
    from ..models.input_spec import MOST_PIXELS, InputSpec

    side = options.size if options.size is not None else 32 if model.startswith("lenet5") else None
    if side is not None and side < 1:
        raise UserError(f"--size: got {side}, expected at least 1; give a positive size")
    check_normalisation(options.mean, options.std, data.shape[0])
    if len(data.classes) == 1:
        raise UserError(
            f"data set {data.name!r} has images of one class alone, {data.classes[0]!r}, expected 2 classes at least "
            "to tell apart; name data with images of another class too"
        )
    shape = data.shape if side is None else (data.shape[0], side, side)
    if math.prod(shape) > MOST_PIXELS:
        got = " x ".join(map(str, shape))
        raise UserError(
            f"images of {got} in data set {data.name!r}, expected at most {MOST_PIXELS:,} values an image; give a smaller "
            "--size, or smaller images"
        )
    return InputSpec(shape=shape, mean=options.mean, std=options.std, classes=data.classes)


def check_normalisation(mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
    """Raises UserError for --mean and --std that do not fit that many channels."""
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise UserError(
                f"--{name}: got {len(values)} numbers, expected 1 or one for each of {channels} channels; give as many"
            )
    if min(std) <= 0:
        raise UserError(f"--std: got {min(std)}, expected above 0; give the deviations that the pixels are divided by")


def use_threads(run: Run) -> None:
    """Sets torch's threads. Raises UserError for a device or a count of threads that cannot be."""
    import torch

    _check_device(run.device)
    if run.threads is not None:
        if run.threads < 1:
            raise UserError(f"--threads: got {run.threads}, expected at least 1; give a positive count")
        if run.threads > MOST_THREADS:
            raise UserError(f"--threads: got {run.threads:,}, expected at most {MOST_THREADS:,}; give a smaller count")
        torch.set_num_threads(run.threads)
    check_device(run.device)


def on_device(network: Network, run: Run) -> Network:
    """Moves the network in place, sets torch's threads, and returns it."""
    use_threads(run)
    network.module.to(run.device)
    return network


def say_size(network: Network, data: Dataset, images: str = "images") -> None:
    """What was done to the images so that they fit the network; nothing where they fit as they are."""
    size, expected = data.shape[1:], network.spec.shape[1:]
    if size != expected:
        print(
            f"  {images} of {size[0]} x {size[1]} were resized to the {expected[0]} x {expected[1]} that "
            f"{network.name} takes"
        )
    if network.spec.shape[0] != data.shape[0]:
        kind = {1: "grey", 3: "colour"}.get(network.spec.shape[0], f"{network.spec.shape[0]} channels")
        print(f"  grey and colour images were all taken as {kind}, which {network.name} takes")


def say_fit(network: Network, data: Dataset) -> None:
    """What was done to the data so that it fits the network; nothing where it fits as it is."""
    say_size(network, data)
    if len(data.classes) < len(network.spec.classes):
        names = ", ".join(data.classes[:8]) + (", ..." if len(data.classes) > 8 else "")
        print(
            f"  {data.name} has {len(data.classes)} of the {len(network.spec.classes)} classes of {network.name}, and the "
            f"numbers are of those alone: {names}"
        )
    elif data.classes != network.spec.classes:
        places = class_positions(data.classes, network.spec.classes, data.name, network.name)
        words = "in their order" if places == tuple(range(len(places))) else "by name, which are in another order"
        pairs = ", ".join(
            f"{name} = {network.spec.classes[place]}" for name, place in list(zip(data.classes, places))[:3]
        )
        more = ", ..." if len(data.classes) > 3 else ""
        print(f"  classes of {data.name} were taken for those of {network.name} {words}: {pairs}{more}")


def _check_device(device: str) -> None:
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise UserError(f"--device: got {device!r}, expected cpu, mps, cuda or cuda:1; give one of them")
