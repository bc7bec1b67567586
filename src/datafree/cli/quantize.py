"""datafree quantize"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from .._core.errors import UserError, unknown
from .._core.folder_kinds import CONDENSED
from ..data import names
from ..quantization.settings import FineTuning
from ..releases.bits import Bits, TargetCPU
from .arguments import Data, Model, Run, Whole
from .loading import (
    check_attribute,
    check_memory,
    identity_of,
    images_of,
    inputs_of,
    load_data,
    load_network,
    load_record,
    resumed,
    say_fit,
    say_size,
)
from .progress_bar import bar

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Dataset
    from ..models.network import Network
    from ..records.record import Record

__all__ = ["quantize"]

IMAGES = 256
STEPS = 40
"""Ranges need images less perfect than students do."""


def quantize(
    model: str,
    /,
    *,
    out: Path,
    bits: Annotated[Bits | None, Parameter(name="*")] = None,
    calibrate: str | None = None,
    images: Whole = IMAGES,
    equalise: bool = True,
    correct_bias: Literal["analytic", "empirical", "none"] = "analytic",
    target_cpu: TargetCPU = "any",
    finetune: str | None = None,
    executorch: Annotated[bool, Parameter(negative="")] = False,
    settings: Annotated[FineTuning | None, Parameter(name="*")] = None,
    data: Data | None = None,
    checkpoint: Path | None = None,
    code: str | None = None,
    record: Path | None = None,
    run: Run | None = None,
) -> None:
    """Round a network's weights and activations to a few bits, without its data, and write what runs: ONNX and torch.

    Example: datafree quantize teacher --out int8

    Example: datafree quantize teacher --calibrate set --data cifar10 --out int8

    Example: datafree quantize teacher --weights 4 --activations 4 --calibrate set --finetune set --out w4a4

    Parameters
    ----------
    model
        A release folder, or a model with --checkpoint.
    out
        The folder to write: model.onnx, model.pt2, config.json, run.json, README.md.
    calibrate
        What the ranges of activations are chosen on: a synthetic set, a data set by name, an image folder, `noise`;
        a synthesis method's name makes images for it, in 40 steps; `none` uses the batch norms alone. `bns` by default;
        `distribution` where there is no batch norm and a record of pixels alone. Images need no labels.
    images
        Number of images to calibrate on.
    equalise
        First make the ranges of neighbouring layers' weights alike (Nagel et al. 2019).
    correct_bias
        Take the mean error of the rounded weights out of the biases (Nagel et al. 2019): `analytic`, by what the batch norms
        say, which no image can spoil; `empirical`, by the images; `none`.
    target_cpu
        `any`: x86 processors with and without VNNI; 8-bit weights use 7 bits, so that no sum exceeds the 16 bits to which
        onnxruntime cuts sums without VNNI. `vnni`: all 8 bits, for x86 processors with VNNI alone. Others were not tried.
    finetune
        Then distill from the original into the rounded network, on a synthetic set, a data set or an image folder.
    executorch
        Also write model.pte for ExecuTorch, which needs the extra of that name; 8 bits only.
    data
        Measure accuracy on its test images; without, only agreement on images it was made with is known.
    checkpoint
        Weights as safetensors, where the model is not a release folder.
    code
        file.py:function that builds the network, for a release of somebody's own.
    record
        For a network without batch norm: its record; by default the one in the release folder.
    """
    from .._core.files import claim_folder
    from .._core.resume import check_state
    from ..data.dataset_checks import check_classes
    from ..evaluation.accuracy import evaluate
    from ..quantization import card, check_mobile, onnx_content, require, write_quantized
    from ..quantization.folder import put_in_place
    from ..releases.quantized import QUANTIZED_FOLDER
    from ..runs.output_folder import STAGED, STATE, output_folder
    from ..runs.run_log import RunLog, hash_of

    require()
    if settings is not None and finetune is None:
        flag = min(settings.model_fields_set, default="epochs").replace("_", "-")
        raise UserError(
            f"--{flag} without --finetune, wanted images to fine-tune on; name them with --finetune, or leave that out"
        )
    bits, settings, data, run = bits or Bits(), settings or FineTuning(), data or Data(), run or Run()
    if executorch:
        check_mobile(bits)
    if correct_bias == "empirical" and calibrate == "none":
        raise UserError(
            "--correct-bias: got empirical with --calibrate none, wanted images to correct on; give analytic"
        )
    if images < 1:
        raise UserError(f"--images: got {images}, wanted at least 1; give a positive count")
    check_attribute(data, calibrate, finetune)
    source = Model(code=code, weights=checkpoint, record=record)
    run = resumed(run, out / STATE)
    network = load_network(model, source, run)
    known = load_record(model, source, network)
    if calibrate is None:
        calibrate = default_method(network, known)
    test = load_data(data, "test") if data.data is not None else None
    options = {
        "model": model, **bits.model_dump(), "calibrate": calibrate, "images": images, "equalise": equalise,
        "correct_bias": correct_bias, "target_cpu": target_cpu,
        "finetune": finetune, **(settings.model_dump() if finetune else {}), "executorch": executorch,
        "checkpoint": checkpoint, "code": code, "record": record, **asdict(data), **asdict(run),
    }  # fmt: skip
    sets = [name for name in (calibrate, finetune) if name is not None and (Path(name) / "set.json").is_file()]
    given = {"calibrate": calibrate, "finetune": finetune}
    inputs = inputs_of(model, source, record=True) | {role: name for role, name in given.items() if name in sets}
    counts = {"calibrate": images, "finetune": None}
    read = {role: _read(network, name, counts[role], data, run) for role, name in given.items() if name is not None}
    read = {role: own for role, own in read.items() if own is not None}
    log = RunLog("quantize", options, inputs, test, images=read)
    identity = {
        **identity_of(log.content["settings"], network, log),
        "original": network.fingerprint(),
        "sets": [hash_of(s) for s in sets],
    }
    if test is not None:
        check_classes(network, test, part=True)
    with output_folder(out, QUANTIZED_FOLDER, log) as folder:
        if folder is None:
            return
        if (folder / STATE).exists():
            check_state(folder / STATE, "training-state", identity)
        shown = _calibration(network, calibrate, images, data, run, known, read.get("calibrate"))
        taught = None if finetune is None else _pixels(network, finetune, None, data, run, read.get("finetune"))
        original = onnx_content(network, network.spec.shape)  # what cannot be written is said before the work
        result, own = _make(
            network, shown, taught, bits, equalise, correct_bias, settings, target_cpu, folder, identity, run
        )
        result |= _sources(calibrate, shown, finetune, taught, images)
        made = claim_folder(folder / STAGED, kind="quantized")
        result |= _files(made, network, own, original, taught if taught is not None else shown, executorch, run)
        if test is not None:
            result["evaluation"] = asdict(evaluate(own.network, test, network))
            result["original"] = asdict(evaluate(network, test))
        text, fits = card(network, bits, result), result["target_cpu"]["fits_16_bits"]
        write_quantized(made, network, bits, text, fits_16_bits=fits)
        put_in_place(made, folder)
        log.write(folder, result)
    _say(folder, network, bits, result, data, test)


def default_method(network: Network, record: Record | None) -> str:
    """The synthesis method that makes the images where the user names none. Raises UserError where nothing serves one."""
    from ..models.missing_layers import is_program, no_batch_norm
    from ..records.divergence import known
    from ..synthesis import methods

    if known(network, record) or is_program(network):
        return "bns"
    with suppress(UserError):
        methods.from_name("distribution").check(network, record)
        return "distribution"
    held = "no record" if record is None else "a record that no images can be made from here"
    raise UserError(
        f"{no_batch_norm(network)}, and {held}; name what to choose ranges on with --calibrate: a folder of images (labels "
        "are not needed), a data set, inception, or noise"
    )


def _calibration(
    network: Network, name: str, images: int, data: Data, run: Run, record: Record | None, read: Dataset | None
) -> Tensor | None:
    """Images to choose ranges on; None where the batch norms are gone by."""
    from ..synthesis import methods

    if name == "none":
        return None
    if name not in methods.methods():
        return _pixels(network, name, images, data, run, read)
    import torch

    steps = {"steps": STEPS} if "steps" in methods.methods()[name].model_fields else {}
    check_memory(images, network.spec)
    maker, parts, unit = methods.from_name(name, **steps).bind(network, record), [], 128
    with bar(f"{name} images", run.quiet) as progress:
        for index in range(-(-images // unit)):
            parts.append(maker.chunk(index, run.seed, unit).pixels)
            progress(min((index + 1) * unit, images), images)
    return network.spec.clamp(torch.cat(parts)[:images])


def _read(network: Network, name: str, images: int | None, options: Data, run: Run) -> Dataset | None:
    """The data set, or the files, of that name; None for images that are made, and for a set of ours."""
    from ..data import Dataset
    from ..synthesis import methods

    words = ("none", "noise", *methods.methods())
    if name in words or (Path(name) / "set.json").is_file() or (Path(name) / CONDENSED).is_file():
        return None
    if not Path(name).exists() and get_close_matches(name, words, n=1):
        raise unknown("data set or method", name, (*words, *names()))
    found = images_of(name, network, "train", images, options, run.seed)
    return found if isinstance(found, Dataset) else None


def _pixels(network: Network, name: str, images: int | None, options: Data, run: Run, read: Dataset | None) -> Tensor:
    import torch

    from ..synthesis.synthetic_set import SyntheticSet

    if (Path(name) / "set.json").is_file():
        opened = SyntheticSet.open(name)
        if opened.about["teacher"] != network.fingerprint():
            print(f"  the set {name} was made from another network than this {network.name}")
    found = read if read is not None else images_of(name, network, "train", images, options, run.seed)
    if isinstance(found, torch.Tensor):
        data, pixels = None, found
    else:
        data, pixels = found, found.scaled_to(network.spec).pixels(range(len(found)), network.spec.shape[1:])
    network.spec.check(pixels)
    if data is not None:
        say_size(network, data)
    return network.spec.clamp(pixels) if name == "noise" else pixels


def _make(
    network: Network, shown: Tensor | None, taught: Tensor | None, bits: Bits, equalise: bool, correct_bias: Any,
    settings: FineTuning, target_cpu: TargetCPU, folder: Path, identity: dict[str, Any], run: Run,
) -> tuple[dict[str, Any], Any]:  # fmt: skip
    from ..quantization import finetune, quantize
    from ..runs.output_folder import STATE

    with bar(f"calibrate {bits.name}", run.quiet) as progress:
        own = quantize(
            network, shown, bits,
            equalise=equalise, correct_bias=correct_bias, target_cpu=target_cpu, progress=progress,
        )  # fmt: skip
    if taught is None:
        return {}, own
    state = folder / STATE
    with bar(f"fine-tune {bits.name}", run.quiet) as progress:
        curve = finetune(
            own, network, taught, settings, seed=run.seed, state=state, identity=identity, progress=progress
        )
    return {"curve": vars(curve)}, own


def _sources(
    calibrate: str, shown: Tensor | None, finetune: str | None, taught: Tensor | None, asked: int
) -> dict[str, Any]:
    """What the network was made with; `images` are those it learnt from, or else those its ranges were chosen on."""
    ranges = {"what": "what the batch norms say", "synthetic": True}
    found: dict[str, Any] = {"ranges": ranges if shown is None else _source(calibrate, shown)}
    if shown is not None and len(shown) < asked:
        found["ranges"]["what"] += ", all there are"
    if finetune is not None and taught is not None:
        found["fine-tuning"] = _source(finetune, taught)
    learnt = taught if taught is not None else shown
    return {"sources": found, **({} if learnt is None else {"images": len(learnt)})}


def _source(name: str, pixels: Tensor) -> dict[str, Any]:
    """In words, without a path; synthetic where no image of it was taken from the world."""
    from ..data.registry import names
    from ..runs.provenance import place, shown
    from ..synthesis import methods
    from ..synthesis.synthetic_set import SyntheticSet

    made = (Path(name) / "set.json").is_file()
    method = SyntheticSet.open(name).about["method"] if made else {"method": name}
    base, _, split = name.rpartition(":") if name.endswith((":train", ":test")) else (name, "", "train")
    if name == "noise":
        what = "images of noise"
    elif made or name in methods.methods():
        own = method.get("method") if isinstance(method, dict) else None
        what = f"synthetic images ({own})" if own in methods.methods() else "synthetic images"
    elif base in names():
        what = f"images of {base} ({split} split)"
    elif (Path(name) / CONDENSED).is_file():
        what = _condensed_source(Path(name))
    else:
        what = f"images of {shown(place(base))} ({split} split), of unknown origin"
    synthetic = name == "noise" or made or name in methods.methods()
    return {"what": f"{len(pixels):,} {what}", "images": len(pixels), "synthetic": synthetic}


def _condensed_source(folder: Path) -> str:
    """What a condensed set says of its images' origin."""
    from ..data.condensed import methods
    from ..data.condensed.condensed_set import Condensed
    from ..runs.provenance import is_known

    about = Condensed.open(folder).about
    made, data = (dict(about[key]) if isinstance(about.get(key), dict) else {} for key in ("made", "data"))
    method, name = made.get("method"), data.get("name")
    if method not in methods.methods():
        return "images of a condensed set, of unknown origin"
    known = (
        f"{name} ({data.get('split')} split)" if isinstance(name, str) and is_known(name) else "data of its publisher"
    )
    return f"images of a condensed set, made of {known} by {method}"


def _files(
    folder: Path, network: Network, own: Any, content: bytes, asked: Tensor | None, executorch: bool, run: Run
) -> dict[str, Any]:
    """Writes the files; what they are worth beside the simulation and beside the original, whose ONNX is `content`."""
    import torch

    from .._core.files import write_bytes
    from ..models.agreement import agreement
    from ..quantization import check, convert, integer_operators, session, speed, to_onnx, write_program
    from ..quantization import run as run_onnx
    from ..releases.processors import instruction_sets
    from ..synthesis.methods import from_name

    shape, bits = network.spec.shape, own.bits
    graph = convert(own)
    write_program(graph, folder / "model.pt2", shape)
    path = to_onnx(graph, folder / "model.onnx", shape)
    what = "images it was made with" if asked is not None else "images of noise"
    if asked is None:
        asked = network.spec.clamp(from_name("gaussian").bind(network, None).chunk(0, run.seed, 256).pixels)
    some = asked[:1024]
    simulated = own.network.predict(some)
    with torch.no_grad():
        converted = torch.cat([graph(part) for part in some.split(64)])
    threads = run.threads or torch.get_num_threads()
    found: dict[str, Any] = {
        "converted": asdict(check(simulated, converted)),
        "exported": asdict(check(simulated, run_onnx(session(path, threads=threads), some))),
        "integer_operators": integer_operators(path),
        "left_in_float": own.left_in_float(),
        "bits": bits.name,
        "target_cpu": {
            "asked": own.target_cpu,
            "reduced": own.reduced(),
            "integer": bits.integer,
            "fits_16_bits": own.fits_16_bits(),
            "checked_on": instruction_sets(),
        },
        "simulated": bits.simulated,
        "asked": what,
        "parameters": network.parameters,
        "packed_bytes": own.nbytes(),
        "agreement_on_its_own_images": asdict(agreement(network.predict(some), simulated, network.spec.classes)),
    }
    original = folder / "original.onnx"
    write_bytes(original, content)
    timed = speed(original, path, shape, threads=threads)
    original.unlink()
    found["speed"] = {**asdict(timed), "faster": round(timed.faster, 3), "smaller": round(timed.smaller, 4)}
    if executorch:
        found["mobile"] = _mobile(folder, network, graph, some, simulated, bits)
    return found


def _mobile(folder: Path, network: Network, graph: Any, some: Tensor, simulated: Tensor, bits: Bits) -> dict[str, Any]:
    """Writes model.pte; how it answers and how fast, beside the original as another such file."""
    from ..quantization import check, mobile_speed, run_mobile, to_mobile

    shape = network.spec.shape
    path = to_mobile(graph, folder / "model.pte", shape, bits)
    original = to_mobile(network, folder / "original.pte", shape)
    timed = mobile_speed(original, path, shape)
    original.unlink()
    own = asdict(check(simulated, run_mobile(path, some)))
    return {**own, **asdict(timed), "faster": round(timed.faster, 3), "smaller": round(timed.smaller, 4)}


def _say(folder: Path, network: Network, bits: Bits, result: dict[str, Any], data: Data, test: Dataset | None) -> None:
    from ..models.agreement import NO_ACCURACY
    from ..quantization.folder import chosen_on, exported_difference, simulation
    from ..releases.processors import processor_lines

    speed, operators = result["speed"], dict(result["integer_operators"])
    other = operators.pop("other")
    print(f"{network.name} at {bits.words} in {folder}: model.onnx for onnxruntime, model.pt2 for torch")
    print(chosen_on(result["sources"]))
    print(
        f"size: {speed['quantized_bytes']:,} bytes, {100 * speed['smaller']:.1f} % of the original's "
        f"{speed['original_bytes']:,} as ONNX"
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in operators.items()) or "none"
    print(
        f"speed: {speed['original_ms']:.1f} ms -> {speed['quantized_ms']:.1f} ms for {speed['batch']} images on "
        f"{speed['threads']} thread{'s' * (speed['threads'] != 1)} of onnxruntime, {speed['faster']:.2f} times as fast; "
        f"integer operators: {kinds}; "
        f"others: {other}"
    )
    for line in processor_lines(result):
        print(line)
    if result["left_in_float"]:
        print(
            f"left in floating point, for no quantized form of it is known here: {', '.join(result['left_in_float'])}"
        )
    if "mobile" in result:
        mobile = result["mobile"]
        print(
            f"ExecuTorch: model.pte of {mobile['quantized_bytes']:,} bytes, {100 * mobile['smaller']:.1f} % of the "
            f"original's; {mobile['original_ms']:.1f} ms -> {mobile['quantized_ms']:.1f} ms for {mobile['batch']} images, "
            f"{mobile['faster']:.2f} times as fast; argmax equal to the simulation's on {mobile['equal']:.2f} % of "
            f"{mobile['images']:,} images"
        )
    if bits.simulated:
        print(f"  {simulation(result)}")
    for form in ("converted", "exported"):
        found = result[form]
        print(
            f"{form} against simulated: largest logit difference {found['largest']:.2g}, "
            f"argmax equal on {found['equal']:.2f} % of {found['images']:,} images"
        )
    if exported_difference(result) is not None:
        print(f"  {exported_difference(result)}")
    if "evaluation" in result:
        found, original = result["evaluation"], result["original"]
        if test is not None:
            say_fit(network, test)
        print(
            f"accuracy {found['accuracy']:.2f} % (original {original['accuracy']:.2f} %) on {found['images']:,} test "
            f"images of {data.data}; agreement with the original {found['agreement']:.2f} %"
        )
    else:
        found = result["agreement_on_its_own_images"]
        print(f"agreement with the original on {found['images']:,} {result['asked']}: {found['equal']:.2f} %")
        if found["warning"] is not None:
            print(f"  warning: {found['warning']}")
        print(f"  {NO_ACCURACY}")
