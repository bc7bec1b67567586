"""Generative pseudo replay: a VAE learns what was generated so far, and no image is kept (Binici et al. 2022)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..._core.errors import UserError
from ..._core.resume import load_optimizer, optimizer_state
from ..._core.seeds import seed_of
from ..._core.settings import Settings
from ..._core.slots import Slot, Slots, module_slots, optimizer_slots
from ...models.input_spec import InputSpec
from ...models.network import Network, frozen
from ..online.generator import Generator
from . import BYTES, Written

__all__ = ["Vae"]

WARM = 200
WIDTHS = (64, 48, 32, 24, 16, 12, 8, 4)


class Vae(Settings):
    """A variational autoencoder of the images; its replay teaches itself as well as the student."""

    replay: Literal["vae"] = "vae"
    replay_bytes: int = Field(default=BYTES, ge=1)
    """Number of bytes of the VAE's weights, in float32; the widest that fits is used. Adam takes twice as much again."""
    vae_code: int = Field(default=64, ge=1)
    """Number of latent values of the VAE."""
    vae_rate: float = Field(default=1e-3, gt=0, le=10)
    """Learning rate of the VAE's Adam."""
    kl_weight: float = Field(default=1e-5, ge=0)
    """Weight of the KL divergence of the code from a standard normal, beside L1 on pixels and on the teacher's logits."""
    latent_step: float = Field(default=0.02, ge=0)
    """Size of one Adam step of the codes towards confident, balanced predictions before a draw; 0 leaves it out."""

    summary: ClassVar[str] = (
        "a VAE of the images so far, which replays from itself; no image is kept (Binici et al. 2022)"
    )

    def bind(self, teacher: Network, seed: int) -> VaeMemory:
        return VaeMemory(self, teacher, seed)


class _Net(nn.Module):
    """Encoder and decoder of two convolutions each; an image does not depend on those beside it."""

    def __init__(self, spec: InputSpec, latent: int, width: int):
        super().__init__()
        channels, height, breadth = spec.shape
        self.spec, self.width, self.start = spec, width, (math.ceil(height / 4), math.ceil(breadth / 4))
        inner = 2 * width * self.start[0] * self.start[1]
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1), _norm(width), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), _norm(2 * width), nn.LeakyReLU(0.2, inplace=True),
            nn.Flatten(), nn.Linear(inner, 2 * latent),
        )  # fmt: skip
        self.first = nn.Linear(latent, inner)
        self.decoder = nn.Sequential(
            _norm(2 * width), nn.LeakyReLU(0.2, inplace=True), nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, width, 3, padding=1), _norm(width), nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(scale_factor=2), nn.Conv2d(width, channels, 3, padding=1),
        )  # fmt: skip

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (N, latent) of the codes."""
        mean, log_variance = self.encoder(self.spec.normalize(pixels)).chunk(2, 1)
        return mean, log_variance.clamp(-10, 10)

    def decode(self, codes: Tensor) -> Tensor:
        """Pixels (N, C, H, W) in the spec's range."""
        x = self.decoder(self.first(codes).view(len(codes), 2 * self.width, *self.start))
        x = x[:, :, : self.spec.shape[1], : self.spec.shape[2]]
        return self.spec.low + (self.spec.high - self.spec.low) * x.sigmoid()


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(1, channels)  # one image may be drawn alone


class VaeMemory:
    """The VAE with its optimiser. It replays only after 200 steps: an untrained decoder would teach noise."""

    def __init__(self, settings: Vae, teacher: Network, seed: int):
        self.settings, self.teacher, self.steps = settings, teacher, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "vae"))
            self.net = self._fitting().to(teacher.device)
        self.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.adam = torch.optim.Adam(self.net.parameters(), lr=settings.vae_rate)

    def _fitting(self) -> _Net:
        least = 0
        for width in WIDTHS:
            with torch.device("meta"):
                least = 4 * sum(
                    own.numel() for own in _Net(self.teacher.spec, self.settings.vae_code, width).parameters()
                )
            if least <= self.settings.replay_bytes:
                return _Net(self.teacher.spec, self.settings.vae_code, width)
        raise UserError(
            f"--replay-bytes: got {self.settings.replay_bytes:,}, wanted at least {least:,} for the smallest VAE; give "
            "more, a smaller --vae-code, or another --replay"
        )

    def begin(self, generator: Generator) -> None:
        pass

    def follow(self, generator: Generator) -> None:
        pass

    def write(self, pixels: Tensor, logits: Tensor, rng: torch.Generator) -> None:
        """One step on the new images and, once it replays, a quarter as many of its own (Binici et al. 2022)."""
        device = self.teacher.device
        pixels, logits = pixels.detach().to(device), logits.detach().to(device)
        own = self.sample(max(1, len(pixels) // 4), rng)
        if own is not None:
            own = own.to(device)
            pixels = torch.cat([pixels, own])
            logits = torch.cat([logits, self.teacher.predict(own).to(device)])
        mean, log_variance = self.net.encode(pixels)
        codes = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng).to(device)
        made = self.net.decode(codes)
        with frozen(self.teacher.module):
            said = self.teacher.logits(made)
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
        loss = (made - pixels).abs().mean() + (said - logits).abs().mean() + self.settings.kl_weight * kl
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        self.steps += 1

    def sample(self, count: int, rng: torch.Generator) -> Tensor | None:
        if self.steps < WARM:
            return None
        codes = torch.randn((count, self.settings.vae_code), generator=rng).to(self.teacher.device)
        if self.settings.latent_step:
            codes = self._steered(codes)
        with torch.no_grad():
            return self.net.decode(codes).cpu()

    def _steered(self, codes: Tensor) -> Tensor:
        """One step of Adam on the codes: its first step is the sign of the gradient."""
        codes = codes.clone().requires_grad_(True)
        with frozen(self.teacher.module):
            logits = self.teacher.logits(self.net.decode(codes))
        mean = logits.softmax(1).mean(0)
        loss = cross_entropy(logits, logits.argmax(1)) + (mean * mean.clamp(min=1e-12).log()).sum()
        (grad,) = torch.autograd.grad(loss, codes)
        return (codes - self.settings.latent_step * grad.sign()).detach()

    def nbytes(self) -> int:
        return sum(own.numel() * own.element_size() for own in self.net.state_dict().values())

    def state(self) -> dict[str, Tensor]:
        found = {f"net/{name}": tensor.detach().cpu().clone() for name, tensor in self.net.state_dict().items()}
        return {**found, **optimizer_state(self.adam, "adam"), "steps": torch.tensor(self.steps)}

    def slots(self, written: Written) -> Slots:
        steps = {"steps": Slot.count(written.writes, written.writes)}
        return {**module_slots(self.net, "net"), **optimizer_slots(self.adam, "adam", written.writes), **steps}

    def load(self, state: dict[str, Tensor]) -> None:
        weights = {name.removeprefix("net/"): own for name, own in state.items() if name.startswith("net/")}
        wanted = {name: own.shape for name, own in self.net.state_dict().items()}
        if {name: own.shape for name, own in weights.items()} != wanted:
            raise UserError("the memory of that run is another VAE; repeat that run's command")
        self.net.load_state_dict(weights)
        load_optimizer(self.adam, state, "adam")
        self.steps = int(state["steps"])
