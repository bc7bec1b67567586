"""A classifier and what it takes: the noun that every verb passes around. No module is ever edited."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .errors import UserError
from .spec import InputSpec

__all__ = ["Network", "frozen"]

PROBES = 16


@dataclass(frozen=True)
class Network:
    """Any module that maps normalised images (N, C, H, W) to logits (N, classes), with its InputSpec."""

    module: nn.Module
    spec: InputSpec
    name: str
    """What builds it: a zoo name, or the `file.py:function` the user gave."""

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits (N, classes) of pixels (N, C, H, W) in the spec's range. Raises UserError for another kind of output.

        Pixels in double precision, which numpy makes by default, are taken in that of the weights.
        """
        if pixels.dtype == torch.float64:
            weights = next(self.module.parameters(), None)
            pixels = pixels.to(torch.float32 if weights is None else weights.dtype)
        found = self.module(self.spec.normalize(pixels))
        if not isinstance(found, Tensor):
            raise UserError(f"{self.name} gives a {type(found).__name__}, wanted a tensor of logits; return them alone")
        return found

    @torch.no_grad()
    def predict(self, pixels: Tensor, batch: int | None = None) -> Tensor:
        """Logits in eval mode without gradients, `batch` images at a time, as float32 on the CPU.

        By default 128 on a CPU, whose caches hold that many (half the time of 512 for a ResNet-20), and 512 elsewhere.
        """
        device = self.device
        batch = batch or (128 if device.type == "cpu" else 512)
        with frozen(self.module):
            parts = [self.logits(part.to(device)).float().cpu() for part in pixels.split(batch)]
        return torch.cat(parts) if parts else torch.empty(0, len(self.spec.classes))

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
        rng = np.random.Generator(np.random.PCG64(2017))
        probes = torch.from_numpy(rng.random((PROBES, *self.spec.shape), dtype=np.float32))
        contrast = torch.linspace(0.1, 1.0, PROBES).view(-1, 1, 1, 1)
        return self.predict(self.spec.low + (self.spec.high - self.spec.low) * probes * contrast)

    def check(self) -> None:
        """Raises UserError for non-finite weights, or for logits that do not fit the spec."""
        for name, tensor in self.module.state_dict().items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise UserError(f"weight {name!r} of {self.name} has NaN or infinity; use weights that are finite")
        try:
            answers = self.answers()
        except RuntimeError as error:
            raise UserError(
                f"{self.name} does not take images of shape {self.spec.shape}: {str(error).splitlines()[0]}; "
                "give the shape it was built for"
            ) from None
        if answers.ndim != 2 or answers.shape[1] != len(self.spec.classes):
            raise UserError(
                f"{self.name} gives outputs of shape {tuple(answers.shape)}, wanted (images, "
                f"{len(self.spec.classes)} classes); give a classifier for these classes"
            )
        if not bool(answers.isfinite().all()):
            raise UserError(f"the logits of {self.name} are not finite; use weights that give finite logits")


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for parameters inside; every flag is put back as it was."""
    flags = [(part, part.training) for module in modules for part in module.modules()]
    grads = [(parameter, parameter.requires_grad) for module in modules for parameter in module.parameters()]
    try:
        for module in modules:
            module.eval()
        for parameter, _ in grads:
            parameter.requires_grad_(False)
        yield
    finally:
        for part, training in flags:
            part.training = training
        for parameter, wanted in grads:
            parameter.requires_grad_(wanted)
