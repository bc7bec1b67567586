"""`Network`: a classifier with its input specification, as every function takes it. Its module is never changed."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from .._core.arguments import check_argument, check_count, check_fields, checked
from .._core.code_names import code_name
from .._core.device import check_device
from .._core.errors import UserError, cut
from .behaviour import check_answers, check_finite, check_state, say_probabilities
from .class_names import MOST_CLASSES
from .input_spec import InputSpec
from .modes import modes_kept
from .outputs import has_several, logits_of, output_name

if TYPE_CHECKING:
    from ..records.record import Record

__all__ = ["LARGE", "Network", "OpaqueModule", "copied", "frozen", "unwrapped"]

PROBES = 16
LARGE = 3 * 64 * 64
"""Numbers in an image from which on fewer are predicted at a time."""

Channels: TypeAlias = float | Sequence[float] | np.ndarray | Tensor
"""One number for all channels, or one for each."""


class OpaqueModule(nn.Module):
    """A module that runs a program from a file: none of its layers can be watched, and no gradient passes through it."""


@dataclass(frozen=True, init=False)
class Network:
    """Any module that maps normalised images (N, C, H, W) to logits (N, classes), with its InputSpec.

        Network(module, input_shape=(3, 32, 32), classes=10, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))
        Network(module, spec, "mine")

    The network takes pixels (N, C, H, W) from `low` to `high`; `module` gets them normalised, as ``(pixels - mean) / std``.
    A module that normalises its input itself needs no mean and std.

    - `input_shape`: channels, height, width.
    - `classes`: their number, or their names in the order of the logits.
    - `mean`, `std`: in pixel units; one number, or one for each channel.
    - `name`: a zoo name, the `file.py:function` that builds the module, or any other; by default the module's class.
    - `output`: for a module that returns several tensors, the position or name of the logits, with `/` between nested ones.
      By default they are the tensor that is named `logits`, else the only one of shape (images, classes).

    The module is neither copied nor changed: `network.module` is the given one, without the wrappers of `torch.compile` and
    of data-parallel training. Raises UserError for arguments that do not fit. `check` tests whether the module takes such
    images and returns that many logits; every function calls it before it uses a network.
    """

    module: nn.Module
    spec: InputSpec
    name: str
    """What builds it: a zoo name, or the user's `file.py:function`."""
    output: str | None
    """Which of several tensors that the module returns are the logits; None for the only one that fits."""
    reduced: bool
    """Whether it has fewer channels or blocks than its code builds, as the students `half` and `shallow` of a teacher that
    is not of the zoo. It has those that are in its weights."""

    def __init__(
        self,
        module: nn.Module,
        spec: InputSpec | None = None,
        name: str | None = None,
        *,
        output: str | int | None = None,
        input_shape: Sequence[int] | None = None,
        classes: int | Sequence[str] | None = None,
        mean: Channels = 0.0,
        std: Channels = 1.0,
        low: float = 0.0,
        high: float = 1.0,
        reduced: bool = False,
    ):
        if spec is None:
            spec = _spec(input_shape, classes, mean, std, low, high)
        else:
            check_argument("spec", spec, InputSpec)
            described = {"input_shape": input_shape, "classes": classes}
            changed = {"mean": (mean, 0.0), "std": (std, 1.0), "low": (low, 0.0), "high": (high, 1.0)}
            repeated = [key for key, value in described.items() if value is not None]
            repeated += [
                key for key, (value, usual) in changed.items() if not (isinstance(value, float) and value == usual)
            ]
            if repeated:
                raise UserError(
                    f"{repeated[0]}: got it beside spec, expected one of them, since a spec contains it; leave one out"
                )
        object.__setattr__(self, "module", module)
        object.__setattr__(self, "spec", spec)
        object.__setattr__(self, "name", type(module).__name__ if name is None else name)
        object.__setattr__(self, "output", output_name(output))
        object.__setattr__(self, "reduced", reduced)
        check_fields(self)
        object.__setattr__(self, "module", unwrapped(module))

    def __repr__(self) -> str:
        """Name, parameters, input and number of classes; the module's layers would fill pages."""
        size, classes = " x ".join(map(str, self.spec.shape)), len(self.spec.classes)
        return f"{type(self).__name__}({self.title}; {self.parameters:,} parameters, input {size}, {classes:,} classes)"

    @classmethod
    @checked
    def from_pretrained(
        cls, folder: str | Path, *, code: str | None = None, module: nn.Module | None = None, trust: bool = False
    ) -> Network:
        """The trained network in a local folder: a release, a snapshot of one from the hub, or a quantized folder.

        `load_model` under the name that users of the Hugging Face hub know, for folders alone: nothing is downloaded. For a
        custom network give `code`, `module` or `trust`, as there. Raises UserError for a name that is no folder.
        """
        from ..releases.load import load_model

        if (named := code_name(str(folder))) is not None and named.is_folder:
            raise UserError(f"folder: got {cut(folder)}, expected a release; load_model opens folders of {named.place}")
        if not Path(folder).is_dir():
            raise UserError(
                f"folder: got {cut(folder)}, expected a local folder, since nothing is downloaded here; get it first, with "
                f"`hf download {cut(folder)} --local-dir FOLDER` for example, and give FOLDER"
            )
        return load_model(str(folder), code=code, module=module, trust=trust)

    def save_pretrained(
        self, folder: str | Path, *, record: Record | None = None, notes: str = "", code: str | None = None
    ) -> Path:
        """Writes a release of this network into a local folder, and returns its path: `write_release` under the name that
        users of the Hugging Face hub know. Nothing is uploaded. `from_pretrained` opens it.
        """
        from ..releases.release import write_release

        return write_release(folder, self, record, notes=notes, code=code)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits (N, classes) of pixels (N, C, H, W) from the spec's low to its high: float32 on the CPU, in eval mode.

        Like `predict`, without gradients. For gradients call `logits`, which runs the module in its present mode.
        """
        return self.predict(pixels)

    def to(self, device: str | torch.device) -> Network:
        """The same network with a copy of the module on `device`. This network and its module stay where they are."""
        return self.with_module(copied(self.module).to(check_device(device)))

    def with_module(self, module: nn.Module) -> Network:
        """A network with this one's spec, name and output, and another module."""
        return Network(module, self.spec, self.name, output=self.output, reduced=self.reduced)

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits (N, classes) of pixels (N, C, H, W) in the spec's range. Raises UserError if the module returns no logits.

        Pixels in double precision, numpy's default, are converted to the precision of the weights; weights in double
        precision get pixels in double precision. If the module writes into its input, or later into its output, neither
        `pixels` nor logits that were returned before change.
        """
        weights = next(self.module.parameters(), None)
        if pixels.dtype == torch.float64:
            pixels = pixels.to(torch.float32 if weights is None else weights.dtype)
        elif pixels.dtype == torch.float32 and weights is not None and weights.dtype == torch.float64:
            pixels = pixels.double()
        inputs = self.spec.normalize(pixels)
        if not inputs.is_contiguous() and not self.channels_last:
            inputs = (
                inputs.contiguous()
            )  # a module that calls `view` on a convolution's output fails in any other order
        returned = self.run(inputs.clone() if inputs is pixels else inputs)
        logits = logits_of(returned, len(inputs), len(self.spec.classes), name=self.name, output=self.output)
        self._check_shape(tuple(logits.shape), len(inputs))
        return logits.clone()  # it may be a buffer of the module, which the next call overwrites

    @torch.no_grad()
    def outputs_on_probes(self, *, training: bool = False) -> Any:
        """What a copy of the module returns for the probe images, in training or eval mode; heads may be of one alone."""
        with torch.random.fork_rng():
            twin = self.with_module(copied(self.module).train(training))
            return twin.run(self.spec.normalize(self.probes().to(self.device)))

    def has_output(self) -> bool:
        """Whether the module returns several tensors, in eval or in training mode, one of them of the name `output`."""
        if self.output is None:
            return False
        for training in (False, True):
            with suppress(Exception):  # `check` reports what fails
                if has_several(self.outputs_on_probes(training=training), self.output):
                    return True
        return False

    def _check_shape(self, shape: tuple[int, ...], images: int) -> None:
        classes = len(self.spec.classes)
        if (len(shape) != 2 and (images != 1 or shape != (classes,))) or shape[-1] != classes:
            raise UserError(
                f"{self.name} returns outputs of shape {shape}, expected (images, {classes} classes); give a classifier for "
                "these classes"
            )
        if shape != (images, classes):
            raise UserError(
                f"{self.name} returns outputs of shape {shape} for {images} images, expected {(images, classes)}; keep the "
                "dimension of the batch"
            )

    def run(self, inputs: Tensor) -> Any:
        """What the module returns for normalised images (N, C, H, W), into which it may write. Compiled modules run
        uncompiled.

        Compiled code calls no hooks, so its layers could not be watched.
        """
        with torch.compiler.set_stance("force_eager") if self._compiled else nullcontext():
            return self.module(inputs)

    @property
    def channels_last(self) -> bool:
        """Whether its convolutions' weights are in channels-last format, so that images may be too."""
        weight = next((parameter for parameter in self.module.parameters() if parameter.ndim == 4), None)
        if weight is None or min(weight.shape[1:]) < 1 or weight.is_contiguous():
            return False
        return weight.is_contiguous(memory_format=torch.channels_last)

    @property
    def _compiled(self) -> bool:
        marks = ("_compiled_call_impl", "_orig_mod")
        return any(part.__dict__.get(mark) is not None for part in self.module.modules() for mark in marks) or any(
            "_orig_mod" in part._modules for part in self.module.modules()
        )

    @torch.no_grad()
    def predict(self, pixels: Tensor, batch: int | None = None, *, finite: bool = True) -> Tensor:
        """Logits in eval mode without gradients, `batch` images at a time, as float32 on the CPU.

        By default 128 on a CPU, whose caches hold that many (half the time of 512 for a ResNet-20), and 512 elsewhere; fewer
        images of more than 64 x 64 pixels, whose activations would need gigabytes.
        Raises UserError for images of another shape or number format, for NaN and infinity in them, and, if `finite`, in the
        logits, from which no class could be chosen. Pixels beyond the spec's range are accepted, since some methods make
        such images.
        """
        if batch is not None:
            check_count("batch", batch)
        self.spec.check_finite(pixels)
        device = self.device
        batch = batch or self._batch(device)
        with frozen(self.module):
            parts = [self._narrow(self.logits(part.to(device))).cpu() for part in pixels.split(batch)]
        logits = torch.cat(parts) if parts else torch.empty(0, len(self.spec.classes))
        if finite:
            check_finite(self.name, logits)
        return logits

    def _batch(self, device: torch.device) -> int:
        usual = 128 if device.type == "cpu" else 512
        return max(1, min(usual, usual * LARGE // self.spec.pixels))

    def _narrow(self, logits: Tensor) -> Tensor:
        """Logits as float32. Raises UserError if that changes the class of an image."""
        narrow = logits.float()
        if logits.dtype == torch.float64 and len(logits) and bool((narrow.argmax(1) != logits.argmax(1)).any()):
            raise UserError(
                f"logits of {self.name} from {float(logits.min()):.4g} to {float(logits.max()):.4g} in float64, whose "
                "differences float32 cannot hold; subtract each image's largest logit in its forward, or scale them"
            )
        return narrow

    @property
    def device(self) -> torch.device:
        """The device of its weights; the CPU for a network without weights."""
        tensor = next(iter(self.module.parameters()), None)
        return tensor.device if tensor is not None else torch.device("cpu")

    @property
    def title(self) -> str:
        """Its name, and whether it is reduced."""
        return f"{self.name}, reduced" if self.reduced else self.name

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    def nbytes(self) -> int:
        """Size of its weights and buffers in bytes."""
        return sum(t.numel() * t.element_size() for t in self.module.state_dict().values())

    def fingerprint(self) -> str:
        """sha256 of what the spec makes the network compute and of every weight and buffer: name, dtype, shape, bytes."""
        digest = hashlib.sha256(self.spec.model_dump_json(exclude=self.spec.descriptive).encode())
        if self.output is not None:
            digest.update(f"output {self.output}".encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            data = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {data.dtype} {tuple(data.shape)}".encode())
            digest.update(data.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def answers(self) -> Tensor:
        """Logits (16, classes) on 16 fixed probe images; with `fingerprint` they identify a teacher."""
        return self.predict(self.probes())

    def probes(self) -> Tensor:
        """16 fixed images (16, C, H, W) of noise, of low to full contrast."""
        rng = np.random.Generator(np.random.PCG64(2017))
        probes = torch.from_numpy(rng.random((PROBES, *self.spec.shape), dtype=np.float32))
        contrast = torch.linspace(0.1, 1.0, PROBES).view(-1, 1, 1, 1)
        return self.spec.low + (self.spec.high - self.spec.low) * probes * contrast

    def check(self) -> None:
        """Raises UserError for weights that are not finite, logits that do not fit the spec, and answers that depend on more
        than the image: on the call or on the rest of the batch; and for a forward pass that changes the network.

        Warns with a `Notice` if the outputs are probabilities.
        """
        check_state(self)
        try:
            answers = self.answers()
        except (RuntimeError, ValueError, IndexError) as error:
            raise UserError(self._why_not(error)) from None
        check_answers(self, self.probes(), answers)
        say_probabilities(self.name, answers)

    def _why_not(self, error: Exception) -> str:
        """Why the probes fail."""
        kinds = {parameter.dtype for parameter in self.module.parameters() if parameter.is_floating_point()}
        reason = str(error).splitlines()[0]
        if "type" in reason and kinds and kinds != {torch.float32}:
            names = ", ".join(sorted(str(kind) for kind in kinds))
            return (
                f"the weights of {self.name} are {names}, and images are torch.float32: {reason}; call .float() on it"
            )
        return f"{self.name} does not take images of shape {self.spec.shape}: {reason}; give the shape it was built for"


def _spec(
    input_shape: Sequence[int] | None,
    classes: int | Sequence[str] | None,
    mean: Channels,
    std: Channels,
    low: float,
    high: float,
) -> InputSpec:
    """The spec of these arguments. Raises UserError that names the argument that does not fit."""
    if input_shape is None:
        raise UserError(
            "input_shape: got None, expected channels, height and width; give input_shape=(3, 32, 32), for example, or "
            "an InputSpec"
        )
    shape = tuple(input_shape) if isinstance(input_shape, (tuple, list, torch.Size)) else None
    if shape is None or len(shape) != 3 or not all(_is_count(size) for size in shape):
        raise UserError(
            f"input_shape: got {cut(input_shape)}, expected 3 whole numbers of at least 1: channels, height and width; "
            "give (3, 32, 32), for example"
        )
    values = {
        "shape": tuple(map(int, shape)),
        "classes": _class_names(classes),
        "mean": _numbers("mean", mean),
        "std": _numbers("std", std),
        "low": low,
        "high": high,
    }
    for name in ("low", "high"):
        check_argument(name, values[name], float)
    for name in ("mean", "std"):
        if len(values[name]) not in (1, shape[0]):
            raise UserError(
                f"{name}: got {len(values[name])} numbers, expected 1, or one for each of {shape[0]} channels; give as many"
            )
    if min(values["std"]) <= 0:
        raise UserError(f"std: got {min(values['std']):g}, expected above 0; give what the pixels are divided by")
    if not low < high:
        raise UserError(f"high: got {high:g}, expected above low, {low:g}; give the smallest and largest pixel values")
    try:
        return InputSpec(**values)
    except UserError as error:
        raise UserError(str(error).replace("shape:", "input_shape:")) from None


def _class_names(classes: int | Sequence[str] | None) -> tuple[str, ...]:
    """The names of classes; numbers from 0 if only their count is given."""
    expected = "expected their number or their names in the order of the logits"
    if classes is None:
        raise UserError(f"classes: got None, {expected}; give classes=10, for example")
    if _is_count(classes):
        if not 2 <= int(classes) <= MOST_CLASSES:  # type: ignore[arg-type]
            raise UserError(f"classes: got {classes}, expected 2 to {MOST_CLASSES:,}; give the number of logits")
        return tuple(str(index) for index in range(int(classes)))  # type: ignore[arg-type]
    if not isinstance(classes, Sequence) or isinstance(classes, (str, bytes)):
        got = cut(repr(classes)) if isinstance(classes, (str, bytes, bool, int, float)) else type(classes).__name__
        raise UserError(f"classes: got {got}, {expected}; give a whole number or a list of text")
    for place, name in enumerate(classes):
        if not isinstance(name, str):
            raise UserError(
                f"classes[{place}]: got {cut(repr(name))}, expected text; give names, or their number alone"
            )
    if len(classes) < 2:
        raise UserError(f"classes: got {len(classes)} names, expected at least 2; give one for each logit")
    return tuple(classes)


def _is_count(value: Any) -> bool:
    """Whether the value is a whole number of at least 1."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= 1


def _numbers(name: str, values: Channels) -> tuple[float, ...]:
    """A number, or a sequence or array of numbers, as a tuple."""
    plain: Any = values.tolist() if isinstance(values, (np.ndarray, Tensor)) else values
    entries = tuple(plain) if isinstance(plain, (list, tuple)) else (plain,)
    if not all(isinstance(entry, (int, float, np.number)) and not isinstance(entry, bool) for entry in entries):
        got = cut(repr(plain)) if isinstance(plain, (str, list, tuple)) else type(plain).__name__
        raise UserError(f"{name}: got {got}, expected a number, or one for each channel; give such numbers")
    return tuple(map(float, entries))


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside the wrappers of `torch.compile` and data-parallel training, with the original names of its parts."""
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def copied(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy whose parameters are leaves with the gradient flags of the original's.

    With gradients on, the copy of a TorchScript module would have parameters that are results of operations.
    """
    memo = {} if memo is None else memo
    for part in module.modules():  # tensors computed with gradients, by weight_norm for example
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    for buffer in module.buffers():
        if torch.nn.parameter.is_lazy(buffer):  # torch copies lazy parameters alone
            kind = {"device": buffer.device, "dtype": buffer.dtype}
            memo[id(buffer)] = nn.UninitializedBuffer(**kind)  # pyright: ignore
    with torch.no_grad():
        twin = copy.deepcopy(module, memo)
    for parameter, original in zip(twin.parameters(), module.parameters(), strict=True):
        if parameter.requires_grad != original.requires_grad:  # lazy parameters cannot be told, and keep it
            parameter.requires_grad_(original.requires_grad)
    return twin


def _to_eval(module: nn.Module) -> None:
    try:
        module.eval()
    except NotImplementedError:
        raise UserError(
            f"{type(module).__name__} is an exported program, which cannot be put into eval mode; give the module that it "
            "was exported from"
        ) from None


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for parameters inside the block; all flags are restored afterwards."""
    grads = [(parameter, parameter.requires_grad) for module in modules for parameter in module.parameters()]
    with modes_kept(*modules):
        try:
            for module in modules:
                _to_eval(module)
            for parameter, _ in grads:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, learns in grads:
                parameter.requires_grad_(learns)
