"""datafree quantize: its options; what it does is in quantize.py."""

# Annotations are evaluated: the options are classes that are made from settings.

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from .._core.errors import UserError
from .._core.unused import check_used
from .arguments import Arguments, Data, Run, Trust, Whole
from .flags import flag_of
from .method_options import of_settings, values
from .settings_source import read

__all__ = ["quantize"]

TUNING = Group("With --finetune", sort_key=1)
BitOptions = of_settings(read("datafree.releases.bits", "Bits"))
TuningOptions = of_settings(read("datafree.quantization.settings", "FineTuning"), group=TUNING)


def quantize(
    teacher: str,
    /,
    *,
    out: Path,
    bits: Annotated[BitOptions | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
    calibrate: str | None = None,
    images: Whole | None = None,
    equalise: bool = True,
    correct_bias: Literal["analytic", "empirical", "none"] = "analytic",
    target_cpu: Literal["any", "vnni"] = "any",
    rounding: Literal["squant", "nearest"] | None = None,
    finetune: str | None = None,
    executorch: Annotated[bool, Parameter(negative="")] = False,
    settings: Annotated[TuningOptions | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
    data: Data | None = None,
    weights: Path | None = None,
    key: str | None = None,
    output: str | None = None,
    code: str | None = None,
    arg: Arguments = (),
    trust: Trust = False,
    record: Path | None = None,
    run: Run | None = None,
) -> None:
    """Round a network's weights and activations to a few bits, without its data, and write files that run: ONNX and torch.

    Example: datafree quantize teacher --out int8

    Example: datafree quantize teacher --calibrate set --data cifar10 --out int8

    Example: datafree quantize teacher --weight-bits 4 --activation-bits 4 --calibrate set --finetune set --out w4a4

    Parameters
    ----------
    teacher
        Release folder, or a network by name with --weights.
    out
        The folder to write: model.onnx, model.pt2, config.json, run.json, README.md.
    calibrate
        What the ranges of activations are chosen on: a synthetic set, a data set by name, an image folder, `noise`;
        the name of a built-in synthesis method makes images for it, in 40 steps; `none` uses the batch norms alone. `bns` by
        default; `distribution` where there is no batch norm and a record of pixels alone. Images need no labels.
    images
        Number of images to calibrate on: by default 256, or fewer, but at least 64, if they are made and larger than 64 x
        64.
    equalise
        First make the ranges of neighbouring layers' weights alike (Nagel et al. 2019).
    correct_bias
        Correct the biases for the mean error of the rounded weights (Nagel et al. 2019). `analytic`: from batch-norm
        statistics, independent of images; `empirical`: by the images; `none`.
    target_cpu
        `any`: x86 processors with and without VNNI; 8-bit weights use 7 bits, so that no sum exceeds the 16 bits to which
        onnxruntime cuts sums without VNNI. `vnni`: all 8 bits, for x86 processors with VNNI alone. Others were not tried.
    rounding
        How weights are rounded. `squant`: so that their errors cancel in every kernel and output channel (Guo et al. 2022);
        `nearest`: each to its nearest level, the default with --finetune.
    finetune
        Afterwards fine-tune the rounded network on the original's outputs, with a synthetic set, a data set or an image
        folder.
    executorch
        Also write model.pte for ExecuTorch, which needs the extra of that name; 8 bits only.
    data
        Measure accuracy on its test images; without, only agreement on images it was made with is known.
    weights
        File of weights, where the model is not a release folder: safetensors, or a .pt or .pth file, of which no code is
        run.
    key
        Which weights of a file of several networks, with / between nested keys, such as `ema/module`.
    output
        Which of several tensors that a network given by name returns are the logits: position or name, with / between
        nested ones; by default the one named `logits`, or the only one of that shape.
    code
        file.py:function that builds the network, for a release of a custom network.
    arg
        Argument of the function that builds the network, NAME=VALUE; repeat it for more.
    trust
        Run the code that a release holds; read it first. Without it, none of it runs.
    record
        For a network without batch norm: its record; by default the one in the release folder.
    """
    from ..distillation.schedule import USES
    from ..quantization.settings import FineTuning
    from ..releases.bits import Bits
    from .quantize import quantize as make

    if values(settings) and finetune is None:
        flag = flag_of("FineTuning", min(values(settings)))
        raise UserError(
            f"{flag}: got it without --finetune, expected images to fine-tune on; name them with --finetune, or leave it out"
        )
    tuning = None if finetune is None else FineTuning(**values(settings))
    if tuning is not None:
        check_used(values(settings), USES, tuning.model_dump())
    make(
        teacher, out=out, bits=Bits(**values(bits)), calibrate=calibrate, images=images, equalise=equalise,
        correct_bias=correct_bias, target_cpu=target_cpu, rounding=rounding, finetune=finetune, executorch=executorch,
        settings=tuning, data=data, checkpoint=weights, key=key, output=output, code=code, arg=arg, trust=trust,
        record=record, run=run,
    )  # fmt: skip
