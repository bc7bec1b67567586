"""A classifier and what it takes: the noun that every verb passes around. No module is ever edited."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._core.arguments import check_fields
from .._core.errors import UserError
from .behaviour import check_answers, check_finite, check_state, say_probabilities
from .input_spec import InputSpec
from .modes import modes_kept

__all__ = ["Network", "OpaqueModule", "copied", "frozen", "unwrapped"]

PROBES = 16


class OpaqueModule(nn.Module):
    """A module that runs a program from a file: it answers, but no layer in it can be watched and no gradient passes."""


@dataclass(frozen=True)
class Network:
    """Any module that maps normalised images (N, C, H, W) to logits (N, classes), with its InputSpec."""

    module: nn.Module
    spec: InputSpec
    name: str
    """What builds it: a zoo name, or the `file.py:function` the user gave."""

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "module", unwrapped(self.module))

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits (N, classes) of pixels (N, C, H, W) in the spec's range. Raises UserError for another kind of output.

        Pixels in double precision, which numpy makes by default, are taken in that of the weights; weights in double
        precision get pixels in theirs. What the module does to
        its input or to its output later changes neither `pixels` nor logits that were returned before.
        """
        weights = next(self.module.parameters(), None)
        if pixels.dtype == torch.float64:
            pixels = pixels.to(torch.float32 if weights is None else weights.dtype)
        elif pixels.dtype == torch.float32 and weights is not None and weights.dtype == torch.float64:
            pixels = pixels.double()
        inputs = self.spec.normalize(pixels)
        if not inputs.is_contiguous() and not self.channels_last:
            inputs = inputs.contiguous()  # one that calls `view` on a convolution's output fails in any other order
        logits = self.run(inputs.clone() if inputs is pixels else inputs)
        if not isinstance(logits, Tensor):
            raise UserError(
                f"{self.name} gives a {type(logits).__name__}, wanted a tensor of logits; return them alone"
            )
        self._check_shape(tuple(logits.shape), len(inputs))
        return logits.clone()  # it may be a part of the module that the next call writes into

    def _check_shape(self, shape: tuple[int, ...], images: int) -> None:
        classes = len(self.spec.classes)
        if (len(shape) != 2 and (images != 1 or shape != (classes,))) or shape[-1] != classes:
            raise UserError(
                f"{self.name} gives outputs of shape {shape}, wanted (images, {classes} classes); give a classifier for "
                "these classes"
            )
        if shape != (images, classes):
            raise UserError(
                f"{self.name} gives outputs of shape {shape} for {images} images, wanted {(images, classes)}; keep the "
                "dimension of the batch"
            )

    def run(self, inputs: Tensor) -> Any:
        """What the module returns for normalised images (N, C, H, W), into which it may write; compiled ones run uncompiled.

        Compiled code calls no hooks, so that nothing inside could be watched.
        """
        with torch.compiler.set_stance("force_eager") if self._compiled else nullcontext():
            return self.module(inputs)

    @property
    def channels_last(self) -> bool:
        """Whether its convolutions' weights lie channels last, so that images may too."""
        weight = next((own for own in self.module.parameters() if own.ndim == 4), None)
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

        By default 128 on a CPU, whose caches hold that many (half the time of 512 for a ResNet-20), and 512 elsewhere.
        Raises UserError for images of another shape or number format, for NaN and infinity in them, and, unless told that
        they need not be `finite`, in the logits, of which no class can be told. Pixels beyond the spec's range are not
        refused, since some methods make such images.
        """
        self.spec.check_finite(pixels)
        device = self.device
        batch = batch or (128 if device.type == "cpu" else 512)
        with frozen(self.module):
            parts = [self._narrow(self.logits(part.to(device))).cpu() for part in pixels.split(batch)]
        logits = torch.cat(parts) if parts else torch.empty(0, len(self.spec.classes))
        if finite:
            check_finite(self.name, logits)
        return logits

    def _narrow(self, logits: Tensor) -> Tensor:
        """Logits as float32. Raises UserError where that changes the class of an image."""
        narrow = logits.float()
        if logits.dtype == torch.float64 and len(logits) and bool((narrow.argmax(1) != logits.argmax(1)).any()):
            raise UserError(
                f"logits of {self.name} from {float(logits.min()):.4g} to {float(logits.max()):.4g} in float64, whose "
                "differences float32 cannot hold; subtract each image's largest logit in its forward, or scale them"
            )
        return narrow

    @property
    def device(self) -> torch.device:
        tensor = next(iter(self.module.parameters()), None)
        return tensor.device if tensor is not None else torch.device("cpu")

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    def nbytes(self) -> int:
        """Bytes of its weights and buffers."""
        return sum(t.numel() * t.element_size() for t in self.module.state_dict().values())

    def fingerprint(self) -> str:
        """sha256 of the spec and of every weight and buffer: name, dtype, shape, bytes."""
        digest = hashlib.sha256(self.spec.model_dump_json(exclude={"classes"}).encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            data = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {data.dtype} {tuple(data.shape)}".encode())
            digest.update(data.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def answers(self) -> Tensor:
        """Logits (16, classes) on 16 fixed probe images; with `fingerprint` they tell one teacher from another."""
        return self.predict(self.probes())

    def probes(self) -> Tensor:
        """16 fixed images (16, C, H, W) of noise, of low to full contrast."""
        rng = np.random.Generator(np.random.PCG64(2017))
        probes = torch.from_numpy(rng.random((PROBES, *self.spec.shape), dtype=np.float32))
        contrast = torch.linspace(0.1, 1.0, PROBES).view(-1, 1, 1, 1)
        return self.spec.low + (self.spec.high - self.spec.low) * probes * contrast

    def check(self) -> None:
        """Raises UserError for weights that are no finite numbers, logits that do not fit the spec, and answers that are not
        an image's own: that change from call to call or with the images beside it, or change the network.

        Warns with a `Notice` of a network whose outputs are probabilities.
        """
        check_state(self)
        try:
            answers = self.answers()
        except (RuntimeError, ValueError, IndexError) as error:
            raise UserError(self._why_not(error)) from None
        check_answers(self, self.probes(), answers)
        say_probabilities(self.name, answers)

    def _why_not(self, error: Exception) -> str:
        """What is wrong where the probes fail."""
        kinds = {own.dtype for own in self.module.parameters() if own.is_floating_point()}
        reason = str(error).splitlines()[0]
        if "type" in reason and kinds and kinds != {torch.float32}:
            names = ", ".join(sorted(str(kind) for kind in kinds))
            return (
                f"the weights of {self.name} are {names}, and images are torch.float32: {reason}; call .float() on it"
            )
        return f"{self.name} does not take images of shape {self.spec.shape}: {reason}; give the shape it was built for"


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside `torch.compile` and data-parallel wrappers: the same function, with the names of its own parts."""
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
    for part in module.modules():  # what weight_norm, say, has computed with gradients
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    with torch.no_grad():
        twin = copy.deepcopy(module, memo)
    for parameter, original in zip(twin.parameters(), module.parameters(), strict=True):
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
    """Eval mode and no gradients for parameters inside; every flag is put back as it was."""
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
