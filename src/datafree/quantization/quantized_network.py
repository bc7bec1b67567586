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
from ..distillation.training_loop import Curve
from ..models.agreement import Agreement, Evaluation, agreement
from ..models.network import Network, OpaqueModule
from ..records.record import Record
from ..releases.bits import Bits, TargetCPU
from ..releases.quantized import QUANTIZED_FOLDER
from ..releases.release import architecture_of
from ..runs.output_folder import output_folder, parameters_named
from ..runs.run_log import RunLog
from .executorch import check_mobile
from .export import onnx_content
from .fine_tuning import digest_of, finetune
from .image_sources import NO_IMAGES, Images, ImageSource, Origin, default_method, load_images
from .post_training import Correction, Quantized
from .post_training import calibrate as choose_grids
from .settings import FineTuning
from .writing import write_files

__all__ = ["IMAGES", "QuantizedNetwork", "Stages", "quantize"]

IMAGES = 256
"""Default number of images that ranges are chosen on."""

Stages = Callable[[str], AbstractContextManager[Progress]]
"""Called with the name of each stage, such as `calibrate w8a8`; the context yields the stage's progress."""


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """A quantized copy of a network, whose rounding is simulated until `save` writes what runs in integers."""

    original: Network
    """The network that it was made from."""
    simulation: Quantized
    """The simulated graph and its grids, as `convert` and `to_onnx` take it."""
    sources: dict[str, Origin]
    """Where the images came from, by use: `ranges`, and `fine_tuning` where it was fine-tuned."""
    pixels: Tensor | None = field(repr=False)
    """The images that it learned from, or else those that its ranges were chosen on, (N, C, H, W); None without images."""
    curve: Curve | None
    """Loss and seconds per epoch of fine-tuning; None without."""
    seed: int
    settings: dict[str, Any] = field(repr=False)
    """What a run log says of how it was made."""
    images: dict[str, Images] = field(repr=False)
    hashes: dict[str, str] = field(repr=False)
    digest: str = field(repr=False)
    """sha256 of weights and grids as `quantize` left them."""
    seconds: float
    """What making it took."""

    def __repr__(self) -> str:
        sources = ", ".join(f"{use}: {origin.description}" for use, origin in self.sources.items())
        return f"QuantizedNetwork({self.original.name!r}, {self.bits.words}, {sources})"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits (N, classes), float32 on the CPU, of pixels (N, C, H, W) in the range of the network's InputSpec."""
        return self.network.predict(pixels)

    @property
    def network(self) -> Network:
        """The simulated network, as `evaluate` takes it. Its weights and grids have gradients."""
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
        """How often it and the original choose the same class on the images that it was made with, with a warning where
        that says little. Raises UserError where it was made without images.
        """
        if self.pixels is None:
            raise UserError(
                "this network was quantized without images, so there are none to compare on; measure it with "
                "evaluate(quantized.network, data, teacher)"
            )
        pixels = self.pixels[:1024]
        return agreement(self.original.predict(pixels), self(pixels), self.network.spec.classes)

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

        Each file is compared with the simulation on the images that the network was made with, or on noise, and model.onnx
        is timed beside the original as ONNX; the card and run.json hold the numbers. `evaluation`, what `evaluate` returned
        for `network`, and `original_evaluation`, for the original, are written beside them. A folder that holds this very
        result already stays as it is, which a `Notice` says. Raises UserError for a folder of something else, for a network
        that ONNX cannot hold, and where weights or grids were changed since `quantize`; nothing is left half-written.
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
                "the quantized network was changed after quantize made it, so its card would be wrong; give quantize the "
                "images to fine-tune on, as fine_tune, and save what it returns"
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
    images: int = IMAGES,
    equalise: bool = True,
    correct_bias: Correction = "analytic",
    target_cpu: TargetCPU = "any",
    fine_tune: ImageSource | FineTuning | Mapping[str, Any] | None = None,
    record: Record | None = None,
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    progress: Progress = silent,
    stages: Stages | None = None,
) -> QuantizedNetwork:
    """A quantized copy of `network`, which is left as it is; the same as `datafree quantize` makes, without the files.

    `bits`: a `Bits`, `"w4a8"` (weights and activations), or one number for both; 8 by default.

    `calibrate`: what the ranges of activations are chosen on. A synthesis method by name (in 40 steps) or with its
    settings; `"noise"`; a data set by name; the path of a folder of images, an .npz file, a synthetic or condensed set; one
    of those opened; a torch Dataset or DataLoader; pixels (N, C, H, W) in the network's range, as a tensor or array; or
    `"none"`, for the batch norms alone. By default `"bns"`, or `"distribution"` for a network without batch norm whose
    `record` holds pixels alone. Labels do not count. `images` is the number of images that are made or taken; a tensor or
    array is taken whole.

    `fine_tune`: images to distill from the original into the rounded network on, as for `calibrate`; a `FineTuning`, which
    takes the images for ranges; or both, ``{"images": ..., "epochs": 10}``.

    `equalise`, `correct_bias` and `target_cpu` are those of `quantization.calibrate`. A stopped fine-tuning goes on from the
    file `state` where the same call is made again with the same `identity`. `progress` is called with (done, total) of one
    stage after another; `stages` names them.

    Raises UserError for bits and images that do not fit, for a network that torch.export cannot capture or that has no layer
    to round, and where nothing says which images to choose ranges on.
    """
    began = time.perf_counter()
    require("torchao")
    bits = _bits(bits)
    check_count("images", images)
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
            f"network: got {network.name}, which gives answers alone, expected a network whose layers can be rounded; give "
            "the one that it was made from"
        )
    if record is not None:
        record.check_teacher(network)
    stages = stages or (lambda _: nullcontext(progress))
    source = default_method(network, record) if calibrate is None else calibrate
    with stages(f"{source} images" if isinstance(source, str) else "images") as report:
        ranges = load_images(network, source, images, role="calibrate", record=record, seed=seed, progress=report)
    learnt = ranges if tuning is not None else None
    if tuning_source is not None:
        with stages("images to fine-tune on") as report:
            learnt = load_images(
                network, tuning_source, None, role="fine_tune", record=record, seed=seed, progress=report
            )
    with stages(f"calibrate {bits.name}") as report:
        simulation = choose_grids(
            network, ranges.pixels, bits,
            equalise=equalise, correct_bias=correct_bias, target_cpu=target_cpu, progress=report,
        )  # fmt: skip
    curve = None
    if tuning is not None and learnt is not None and learnt.pixels is not None:
        with stages(f"fine-tune {bits.name}") as report:
            curve = finetune(
                simulation, network, learnt.pixels, tuning, seed=seed, state=state, identity=identity, progress=report
            )
    used = {"calibrate": ranges} if learnt is None else {"calibrate": ranges, "finetune": learnt}
    settings = {
        "model": architecture_of(network), **bits.model_dump(), "calibrate": ranges.setting, "images": images,
        "equalise": equalise, "correct_bias": correct_bias, "target_cpu": target_cpu,
        "finetune": None if learnt is None else learnt.setting, **({} if tuning is None else tuning.model_dump()),
    }  # fmt: skip
    sources = {"ranges": _of_all(ranges.origin, source, images)}
    sources |= {} if learnt is None else {"fine_tuning": learnt.origin}
    hashes = {"model_fingerprint": network.fingerprint()}
    hashes |= {} if record is None else {"record_digest": record.digest()}
    pixels = ranges.pixels if learnt is None else learnt.pixels
    return QuantizedNetwork(
        network, simulation, sources, pixels, curve, seed, settings, used, hashes,
        digest_of(simulation.network.module.state_dict()), time.perf_counter() - began,
    )  # fmt: skip


def _bits(bits: Bits | str | int | None) -> Bits:
    """Raises UserError for text that names no bits."""
    if bits is None or isinstance(bits, Bits):
        return bits or Bits()
    if isinstance(bits, str):
        words = re.fullmatch(r"w(\d{1,3})a(\d{1,3})", bits)
        if words is None:
            raise UserError(f"bits: got {bits[:80]!r}, expected text such as 'w4a8'; give that, or a Bits(...)")
        return Bits(weights=int(words[1]), activations=int(words[2]))
    return Bits(weights=int(bits), activations=int(bits))


def _fine_tuning(
    fine_tune: ImageSource | FineTuning | Mapping[str, Any] | None,
) -> tuple[FineTuning | None, ImageSource | None]:
    """Settings, and the images to fine-tune on where they are others than those for ranges; (None, None) for neither."""
    if fine_tune is None:
        return None, None
    if isinstance(fine_tune, FineTuning):
        return fine_tune, None
    if isinstance(fine_tune, Mapping):
        settings = dict(fine_tune)
        source = settings.pop("images", None)
        check_argument("fine_tune['images']", source, ImageSource | None)
        return FineTuning(**settings), source
    if isinstance(fine_tune, (str, Path)) and str(fine_tune) == NO_IMAGES:
        raise UserError("fine_tune: got 'none', expected images to fine-tune on; give some, or None to leave it out")
    return FineTuning(), fine_tune


def _is_no_images(source: object) -> bool:
    return isinstance(source, (str, Path)) and str(source) == NO_IMAGES


def _of_all(origin: Origin, source: object, asked: int) -> Origin:
    """Says of fewer images than were asked for that there are no more."""
    if origin.images is None or origin.images >= asked or isinstance(source, (Tensor, np.ndarray)):
        return origin
    return Origin(f"{origin.description}, all there are", origin.synthetic, origin.images)


def _notice(line: str) -> None:
    warnings.warn(Notice(line), stacklevel=7)
