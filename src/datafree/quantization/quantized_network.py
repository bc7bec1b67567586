"""Quantizing a network in one call, and the result: a simulated network that writes itself as files that run."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .._core.arguments import check_argument, check_count, checked
from .._core.errors import Notice, UserError
from .._core.optional_packages import require
from .._core.progress import Progress, silent
from .._core.unused import check_used, given_in, unused
from ..distillation.schedule import USES
from ..distillation.training_loop import Curve
from ..models.agreement import Agreement, Evaluation, agreement
from ..models.network import Network, OpaqueModule
from ..records.record import Record
from ..releases.bits import Bits, TargetCPU, check_target_cpu
from ..releases.quantized import QUANTIZED_FOLDER
from ..releases.release import architecture_of
from ..runs.output_folder import output_folder, parameters_named
from ..runs.run_log import RunLog
from ..synthesis.sampling import Samples
from .executorch import check_mobile
from .export import onnx_content
from .fine_tuning import digest_of, finetune
from .image_sources import (
    NO_IMAGES,
    Images,
    ImageSource,
    Origin,
    default_images,
    default_method,
    load_images,
    reads_record,
)
from .post_training import Correction, Quantized, Rounding
from .post_training import calibrate as choose_grids
from .settings import FineTuning
from .writing import write_files

__all__ = ["QuantizedNetwork", "Stages", "quantize"]

UNUSED_RECORD = ("with images that are not made with it", "a method in `calibrate` that uses it")
"""Where a record has no effect, and what uses one."""

Stages = Callable[[str], AbstractContextManager[Progress]]
"""Called with the name of each stage, such as `calibrate w8a8`; the context yields the stage's progress."""


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """A quantized copy of a network with simulated rounding; `save` writes files that run in integers."""

    original: Network
    """The network that was quantized."""
    simulation: Quantized
    """The simulated graph and its grids, for `convert` and `to_onnx`."""
    sources: dict[str, Origin]
    """Origin of the images, by use: `ranges`, and `fine_tuning` if it was fine-tuned."""
    pixels: Tensor | None = field(repr=False)
    """Images of fine-tuning, or else those that ranges were chosen on, (N, C, H, W); None without images."""
    curve: Curve | None
    """Loss and seconds per epoch of fine-tuning; None without fine-tuning."""
    seed: int
    settings: dict[str, Any] = field(repr=False)
    """Settings for the run log."""
    images: dict[str, Images] = field(repr=False)
    hashes: dict[str, str] = field(repr=False)
    digest: str = field(repr=False)
    """sha256 of weights and grids as `quantize` returned them."""
    seconds: float
    """Duration of `quantize`."""

    def __repr__(self) -> str:
        sources = ", ".join(f"{use}: {origin.description}" for use, origin in self.sources.items())
        return f"QuantizedNetwork({self.original.name!r}, {self.bits.words}, {sources})"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits (N, classes), float32 on the CPU, of pixels (N, C, H, W) in the range of the network's InputSpec."""
        return self.network.predict(pixels)

    @property
    def network(self) -> Network:
        """The simulated network, for `evaluate`. Its weights and grids have gradients."""
        return self.simulation.network

    @property
    def bits(self) -> Bits:
        return self.simulation.bits

    @property
    def target_cpu(self) -> TargetCPU:
        return self.simulation.target_cpu

    def nbytes(self) -> int:
        """Bytes of the weights packed at their bits, with their steps and the biases in float32."""
        return self.simulation.nbytes()

    def agreement(self) -> Agreement:
        """Share of the images that it was made with on which it and the original predict the same class, with a warning if
        that is not informative. Raises UserError if it was made without images.
        """
        if self.pixels is None:
            raise UserError(
                "this network was quantized without images, so there are none to compare on; measure it with "
                "evaluate(quantized.network, data, teacher)"
            )
        pixels = self.pixels[:1024]
        return agreement(self.original.predict(pixels), self(pixels), self.network.spec.classes)

    @checked
    def save(
        self,
        folder: str | Path,
        *,
        mobile: bool = False,
        evaluation: Evaluation | None = None,
        original_evaluation: Evaluation | None = None,
    ) -> Path:
        """Writes the folder and returns it: model.onnx for onnxruntime, model.pt2 for torch, with `mobile` model.pte for
        ExecuTorch, config.json, a card and run.json.

        Each file is compared with the simulation on the images that the network was made with, or on noise, and the speed of
        model.onnx with that of the original as ONNX; card and run.json have the results. `evaluation`, the result of
        `evaluate` for `network`, and `original_evaluation`, for the original, are added to them. A folder that already has
        this same result stays as it is, with a `Notice`. Raises UserError for a folder with something else, for a network
        that cannot be written as ONNX, and if weights or grids were changed after `quantize`. Nothing is left half-written.
        """
        with parameters_named(out="folder", executorch="mobile"):
            return self._save(Path(folder), mobile, evaluation, original_evaluation)

    def _save(
        self, folder: Path, mobile: bool, evaluation: Evaluation | None, original_evaluation: Evaluation | None
    ) -> Path:
        require()
        if mobile:
            check_mobile(self.bits)
        if self.digest != digest_of(self.network.module.state_dict()):
            raise UserError(
                "the quantized network was changed after quantize returned it, so its card would be wrong; fine-tune with "
                "quantize(..., fine_tune=images), and save what it returns"
            )
        original, fingerprint = self.original.fingerprint(), self.network.fingerprint()
        if evaluation is not None:
            evaluation.check_of(
                "evaluation",
                fingerprint,
                original,
                "evaluate(quantized.network, data, network), of this quantized network",
            )
        if original_evaluation is not None:
            original_evaluation.check_of(
                "original_evaluation", original, None, "evaluate(network, data), of the network before quantization"
            )
        content = {role: images.content for role, images in self.images.items() if images.content is not None}
        folders = {role: images.folder for role, images in self.images.items() if images.folder is not None}
        settings = {**self.settings, "executorch": mobile, "seed": self.seed}
        log = RunLog("quantize", settings, folders, images=content, hashes=self.hashes)
        log.began -= self.seconds
        original_onnx = onnx_content(self.original, self.original.spec.shape)  # raises before a folder is made
        with output_folder(folder, QUANTIZED_FOLDER, log, say=_notice) as out:
            if out is not None:
                result = write_files(
                    out, self.original, self.simulation, self.sources, self.pixels,
                    original_onnx=original_onnx, mobile=mobile, evaluation=evaluation,
                    original_evaluation=original_evaluation, seed=self.seed,
                    curve=None if self.curve is None else vars(self.curve),
                )  # fmt: skip
                log.write(out, result)
        return folder


@checked
def quantize(
    network: Network,
    bits: Bits | str | int | None = None,
    *,
    calibrate: ImageSource | None = None,
    images: int | None = None,
    equalise: bool = True,
    correct_bias: Correction = "analytic",
    target_cpu: TargetCPU = "any",
    rounding: Rounding | None = None,
    fine_tune: ImageSource | FineTuning | Mapping[str, Any] | None = None,
    record: Record | None = None,
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    progress: Progress = silent,
    stages: Stages | None = None,
) -> QuantizedNetwork:
    """A quantized copy of `network`, the same as `datafree quantize` makes, without files. `network` is not changed.

    `bits`: a `Bits`, `"w4a8"` (weights and activations), or one number for both; 8 by default.

    `calibrate`: the images that ranges of activations are chosen on. A synthesis method by name (with 40 steps) or its
    settings; `"noise"`; a data set by name; the path of a folder of images, an .npz file, a synthetic or condensed set;
    such a set, open; what `sample` returned; a torch Dataset or DataLoader; pixels (N, C, H, W) in the network's range,
    as a tensor or array; or `"none"` to use the batch norms only. By default `"bns"`, or `"distribution"` for a network
    without batch norm if the `record` has pixels only. Labels are ignored. `images` is the number of images, by default
    256, or fewer, but at least 64, if they are made and larger than 64 x 64; tensors, arrays and samples are used whole.

    `fine_tune`: images for distilling the original into the rounded network, as for `calibrate`; a `FineTuning`, to use the
    images for ranges; or both, ``{"images": ..., "epochs": 10}``.

    `equalise`, `correct_bias`, `target_cpu` and `rounding` are those of `quantization.calibrate`. By default, weights are
    rounded by SQuant, or to the nearest level if they are fine-tuned afterwards (3 bits, ResNet-20: 91.3 instead of 85.7 %).

    With a `state` path, a stopped fine-tuning continues when the same call is repeated with the same `identity`. `progress`
    is called with (done, total) for one stage after another; `stages` gets their names.

    Raises UserError for bits and images that do not fit, for a network that torch.export cannot capture or without a layer
    to round, and if there are no images to choose ranges on.
    """
    began = time.perf_counter()
    require("torchao")
    bits = _bits(bits)
    if images is not None:
        check_count("images", images)
    check_target_cpu(target_cpu, bits)
    tuning, tuning_source = _fine_tuning(fine_tune)
    if correct_bias == "empirical" and _is_no_images(calibrate):
        raise UserError(
            "correct_bias: got 'empirical' with calibrate 'none', expected images to correct on; give 'analytic'"
        )
    if tuning is not None and tuning_source is None and _is_no_images(calibrate):
        raise UserError(
            "fine_tune: got settings with calibrate 'none', expected images to fine-tune on; give "
            '{"images": ..., **settings}'
        )
    if isinstance(network.module, OpaqueModule):
        raise UserError(
            f"network: got {network.name}, whose layers are not accessible, expected a network whose layers can be rounded; "
            "give the network that it was made from"
        )
    if record is not None:
        record.check_teacher(network)
        image_sources = [calibrate] if tuning_source is None else [calibrate, tuning_source]
        if not any(reads_record(network, record, entry) for entry in image_sources):
            unused("record", "one", *UNUSED_RECORD)
    stages = stages or (lambda _: nullcontext(progress))
    source = default_method(network, record) if calibrate is None else calibrate
    images = default_images(network, source) if images is None else images
    with stages(f"{source} images" if isinstance(source, str) else "images") as report:
        ranges = load_images(network, source, images, role="calibrate", record=record, seed=seed, progress=report)
    tuning_images = ranges if tuning is not None else None
    if tuning_source is not None:
        with stages("images to fine-tune on") as report:
            tuning_images = load_images(
                network, tuning_source, None, role="fine_tune", record=record, seed=seed, progress=report
            )
    with stages(f"calibrate {bits.name}") as report:
        simulation = choose_grids(
            network, ranges.pixels, bits,
            equalise=equalise, correct_bias=correct_bias, target_cpu=target_cpu,
            rounding=rounding or ("squant" if tuning is None else "nearest"), progress=report,
        )  # fmt: skip
    curve = None
    if tuning is not None and tuning_images is not None and tuning_images.pixels is not None:
        with stages(f"fine-tune {bits.name}") as report:
            curve = finetune(
                simulation, network, tuning_images.pixels, tuning,
                border=tuning_images.border, seed=seed, state=state, identity=identity, progress=report,
            )  # fmt: skip
    images_by_role = {"calibrate": ranges, **({} if tuning_images is None else {"finetune": tuning_images})}
    settings = {
        "model": architecture_of(network), **bits.model_dump(), "calibrate": ranges.setting, "images": images,
        "equalise": equalise, "correct_bias": correct_bias, "target_cpu": target_cpu,
        **({} if rounding is None else {"rounding": rounding}),
        "finetune": None if tuning_images is None else tuning_images.setting,
        **({} if tuning is None else tuning.model_dump()),
    }  # fmt: skip
    sources = {"ranges": _noting_fewer_images(ranges.origin, source, images)}
    sources |= {} if tuning_images is None else {"fine_tuning": tuning_images.origin}
    hashes = {"model_fingerprint": network.fingerprint()}
    hashes |= {} if record is None else {"record_digest": record.digest()}
    pixels = ranges.pixels if tuning_images is None else tuning_images.pixels
    return QuantizedNetwork(
        network, simulation, sources, pixels, curve, seed, settings, images_by_role, hashes,
        digest_of(simulation.network.module.state_dict()), time.perf_counter() - began,
    )  # fmt: skip


def _bits(bits: Bits | str | int | None) -> Bits:
    """Raises UserError for text that is not like `w4a8`."""
    if bits is None or isinstance(bits, Bits):
        return bits or Bits()
    if isinstance(bits, str):
        match = re.fullmatch(r"w(\d{1,3})a(\d{1,3})", bits)
        if match is None:
            raise UserError(f"bits: got {bits[:80]!r}, expected text such as 'w4a8'; give that, or a Bits(...)")
        return Bits(weights=int(match[1]), activations=int(match[2]))
    return Bits(weights=int(bits), activations=int(bits))


def _fine_tuning(
    fine_tune: ImageSource | FineTuning | Mapping[str, Any] | None,
) -> tuple[FineTuning | None, ImageSource | None]:
    """Settings, and the images to fine-tune on if they differ from those for ranges; (None, None) without fine-tuning."""
    if fine_tune is None:
        return None, None
    if isinstance(fine_tune, FineTuning):
        return fine_tune, None
    if isinstance(fine_tune, Mapping):
        settings = dict(fine_tune)
        source = settings.pop("images", None)
        check_argument("fine_tune['images']", source, ImageSource | None)
        tuning = FineTuning(**settings)
        check_used(given_in(tuning, {}), USES, tuning.model_dump())
        return tuning, source
    if isinstance(fine_tune, (str, Path)) and str(fine_tune) == NO_IMAGES:
        raise UserError("fine_tune: got 'none', expected images to fine-tune on; give some, or None to leave it out")
    return FineTuning(), fine_tune


def _is_no_images(source: object) -> bool:
    return isinstance(source, (str, Path)) and str(source) == NO_IMAGES


def _noting_fewer_images(origin: Origin, source: object, requested: int) -> Origin:
    """The origin, with a note if there were fewer images than requested."""
    if origin.images is None or origin.images >= requested or isinstance(source, (Tensor, np.ndarray, Samples)):
        return origin
    return Origin(f"{origin.description}, all there are", origin.synthetic, origin.images)


def _notice(line: str) -> None:
    warnings.warn(Notice(line), stacklevel=7)
