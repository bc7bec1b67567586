"""datafree quantize"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .._core.code_names import with_arguments
from .._core.errors import UserError
from .._core.unused import unused
from ..quantization.settings import FineTuning
from ..releases.bits import Bits, TargetCPU, check_target_cpu
from .arguments import Data, Model, Run
from .loading import (
    check_data,
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
from .synthesize import estimate

if TYPE_CHECKING:
    from ..data import Dataset
    from ..models.network import Network

__all__ = ["quantize"]


def quantize(
    model: str,
    /,
    *,
    out: Path,
    bits: Bits,
    calibrate: str | None,
    images: int | None,
    equalise: bool,
    correct_bias: Literal["analytic", "empirical", "none"],
    target_cpu: TargetCPU,
    rounding: Literal["squant", "nearest"] | None,
    finetune: str | None,
    executorch: bool,
    settings: FineTuning | None,
    data: Data | None,
    checkpoint: Path | None,
    key: str | None,
    output: str | None,
    code: str | None,
    arg: tuple[str, ...],
    trust: bool,
    record: Path | None,
    run: Run | None,
) -> None:
    """Does what `quantize_command.quantize` has the options of."""
    from .. import quantization
    from .._core.resume import check_state
    from ..data.dataset_checks import check_classes
    from ..evaluation.accuracy import evaluate
    from ..quantization import check_mobile, onnx_content, require
    from ..quantization.image_sources import (
        chunk_of,
        default_images,
        default_method,
        method_of,
        reads_data,
        reads_record,
    )
    from ..quantization.quantized_network import UNUSED_RECORD
    from ..quantization.writing import write_files
    from ..releases.quantized import QUANTIZED_FOLDER
    from ..runs.output_folder import STATE, output_folder
    from ..runs.run_log import RunLog, hash_of
    from ..synthesis import methods

    require()
    settings, data, run = settings or FineTuning(), data or Data(), run or Run()
    check_target_cpu(target_cpu, bits)
    if executorch:
        check_mobile(bits)
    if correct_bias == "empirical" and calibrate == "none":
        raise UserError(
            "--correct-bias: got empirical with --calibrate none, expected images to correct on; give analytic"
        )
    if images is not None and images < 1:
        raise UserError(f"--images: got {images}, expected at least 1; give a positive count")
    check_data(data, *(name for name in (calibrate, finetune) if name is not None and reads_data(name)))
    if code is None:
        model, arg = with_arguments(model, arg), ()
    source = Model(code=code, arg=arg, weights=checkpoint, key=key, output=output, trust=trust, record=record)
    code = source.code
    run = resumed(run, out / STATE)
    network = load_network(model, source, run)
    stored_record = load_record(model, source, network)
    is_default = calibrate is None
    if calibrate is None:
        calibrate = default_method(network, stored_record)
    images = default_images(network, calibrate) if images is None else images
    opening = None
    if calibrate in methods.methods():
        method = method_of(calibrate)
        opening = estimate(network, method, images, chunk_of(method, network, images), all_threads=True)
    named = [calibrate] if finetune is None else [calibrate, finetune]
    if stored_record is not None and not any(reads_record(network, stored_record, name) for name in named):
        if record is not None and not is_default:
            unused("record", record, *UNUSED_RECORD)
        stored_record = None
    test = load_data(data, "test") if data.data is not None else None
    options = {
        "model": model, **bits.model_dump(), "calibrate": calibrate, "images": images, "equalise": equalise,
        "correct_bias": correct_bias, "target_cpu": target_cpu,
        **({} if rounding is None else {"rounding": rounding}),
        "finetune": finetune, **(settings.model_dump() if finetune else {}), "executorch": executorch,
        "checkpoint": checkpoint, **({} if key is None else {"key": key}),
        **({} if output is None else {"output": output}), "code": code, "record": record,
        **asdict(data), **asdict(run), **({"trust": True} if trust else {}),
    }  # fmt: skip
    names = {"calibrate": calibrate} | ({} if finetune is None else {"finetune": finetune})
    sets = {role: name for role, name in names.items() if (Path(name) / "set.json").is_file()}
    files = {"calibrate": _read(network, calibrate, images, data, run)}
    files |= {} if finetune is None else {"finetune": _read(network, finetune, None, data, run)}
    datasets = {role: images_read for role, images_read in files.items() if images_read is not None}
    log = RunLog("quantize", options, inputs_of(model, source, record=True) | sets, test, images=datasets)
    identity = {
        **identity_of(log.content["settings"], network, log),
        "original": network.fingerprint(),
        "sets": [hash_of(name) for name in sets.values()],
    }
    if test is not None:
        check_classes(network, test, part=True)
    with output_folder(out, QUANTIZED_FOLDER, log) as folder:
        if folder is None:
            return
        if (folder / STATE).exists():
            check_state(folder / STATE, "training-state", identity)
        original_onnx = onnx_content(network, network.spec.shape)  # raises before the work
        quantized = quantization.quantize(
            network, bits,
            calibrate=datasets.get("calibrate", calibrate), images=images, equalise=equalise,
            correct_bias=correct_bias, target_cpu=target_cpu, rounding=rounding,
            fine_tune=finetune and {"images": datasets.get("finetune", finetune), **settings.model_dump()},
            record=stored_record, seed=run.seed, state=folder / STATE, identity=identity,
            stages=lambda stage: bar(stage, run.quiet, opening if stage == f"{calibrate} images" else None),
        )  # fmt: skip
        for dataset in datasets.values():
            say_size(network, dataset)
        result = write_files(
            folder, network, quantized.simulation, quantized.sources, quantized.pixels,
            original_onnx=original_onnx, mobile=executorch, seed=run.seed, threads=run.threads,
            evaluation=None if test is None else evaluate(quantized.network, test, network),
            original_evaluation=None if test is None else evaluate(network, test),
            curve=None if quantized.curve is None else vars(quantized.curve),
        )  # fmt: skip
        log.write(folder, result)
    _say(folder, network, bits, result, data, test)


def _read(network: Network, name: str, images: int | None, options: Data, run: Run) -> Dataset | None:
    """The data set, or the files, of that name; None for images that are made, and for a set of ours."""
    from ..data import Dataset
    from ..quantization.image_sources import reads_data

    if not reads_data(name):
        return None
    images_read = images_of(name, network, "train", images, options, run.seed)
    return images_read if isinstance(images_read, Dataset) else None


def _say(folder: Path, network: Network, bits: Bits, result: dict[str, Any], data: Data, test: Dataset | None) -> None:
    from ..models.agreement import NO_ACCURACY, interval_in_words
    from ..quantization.folder import exported_difference, images_used, of_range, simulation
    from ..releases.processors import processor_lines

    speed, operators = result["speed"], dict(result["integer_operators"])
    other = operators.pop("other")
    print(f"{network.name} at {bits.words} in {folder}: model.onnx for onnxruntime, model.pt2 for torch")
    print(images_used(result["sources"]))
    print(
        f"size: {speed['quantized_bytes']:,} bytes, {100 * speed['smaller']:.1f} % of the original's "
        f"{speed['original_bytes']:,} as ONNX"
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in operators.items()) or "none"
    print(
        f"speed: {milliseconds(speed['original_ms'])} -> {milliseconds(speed['quantized_ms'])} for {speed['batch']} images "
        f"on {speed['threads']} thread{'s' * (speed['threads'] != 1)} of onnxruntime, {speed['faster']:.2f} times as fast; "
        f"operators: {kinds} in integers, {other} others"
    )
    if speed["faster"] < 1 and result["simulated"]:
        print(
            "  warning: it is slower than the original and no smaller than a file of 8 bits, since processors compute no "
            "other number of bits: it measures accuracy; run a file of 8 bits, or keep the original"
        )
    elif speed["faster"] < 1:
        print("  warning: it is slower than the original on this processor; use it for its size, or keep the original")
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
            f"original's; {milliseconds(mobile['original_ms'])} -> {milliseconds(mobile['quantized_ms'])} "
            f"for {mobile['batch']} images, {mobile['faster']:.2f} times as fast; argmax equal to the "
            f"simulation's on {mobile['equal']:.2f} % of {mobile['images']:,} images"
        )
    if bits.simulated:
        print(f"  {simulation(result)}")
    for form in ("converted", "exported"):
        entry = result[form]
        print(
            f"{form} and simulated network: largest logit difference {entry['largest']:.2g}{of_range(entry)}, "
            f"argmax equal on {entry['equal']:.2f} % of {entry['images']:,} images"
        )
    if exported_difference(result) is not None:
        print(f"  {exported_difference(result)}")
    if "evaluation" in result:
        entry, original = result["evaluation"], result["original"]
        if test is not None:
            say_fit(network, test)
        print(
            f"accuracy {entry['accuracy']:.2f} % (original {original['accuracy']:.2f} %) on {entry['images']:,} test "
            f"images of {data.data}, {interval_in_words(entry['accuracy'], entry['images'])}; agreement with the original "
            f"{entry['agreement']:.2f} %, {interval_in_words(entry['agreement'], entry['images'])}"
        )
    else:
        entry = result["agreement_on_its_own_images"]
        print(f"agreement with the original on {entry['images']:,} {result['asked']}: {entry['equal']:.2f} %")
        if entry["warning"] is not None:
            print(f"  warning: {entry['warning']}")
        print(f"  {NO_ACCURACY}")


def milliseconds(value: float) -> str:
    """One decimal from 1 ms on, and at least two significant digits below: `12.3 ms`, `0.042 ms`."""
    decimals = 1 if value >= 1 else 2 if value >= 0.1 else 3
    return f"{value:.{decimals}f} ms"
