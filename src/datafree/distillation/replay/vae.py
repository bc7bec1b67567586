"""Generative replay: a VAE is trained on the generated images, and no images are stored (Binici et al. 2022)."""

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
from ...synthesis.generator import Generator
from . import BYTES, Written

__all__ = ["Vae"]

WARM = 200
WIDTHS = (64, 48, 32, 24, 16, 12, 8, 4)


class Vae(Settings):
    """A variational autoencoder of the images; it replays to itself as well as to the student."""

    replay: Literal["vae"] = "vae"
    replay_bytes: int = Field(default=BYTES, ge=1)
    """Maximum size of the VAE's weights in bytes; the widest VAE that fits is used. Adam needs twice as much more."""
    vae_code: int = Field(default=64, ge=1)
    """Number of latent values of the VAE."""
    vae_rate: float = Field(default=1e-3, gt=0, le=10)
    """Learning rate of the VAE's Adam."""
    kl_weight: float = Field(default=1e-5, ge=0)
    """Weight of the codes' KL divergence, relative to the L1 losses on pixels and on the teacher's logits."""
    latent_step: float = Field(default=0.02, ge=0)
    """Size of one Adam step on the codes, before decoding, towards confident and balanced predictions; 0: no step."""

    summary: ClassVar[str] = "a VAE of the generated images; no images are stored (Binici et al. 2022)"

    def bind(self, teacher: Network, seed: int) -> VaeMemory:
        return VaeMemory(self, teacher, seed)


class _Net(nn.Module):
    """Encoder and decoder with two convolutions each; the images of a batch do not affect each other."""

    def __init__(self, spec: InputSpec, latent: int, width: int):
        super().__init__()
        channels, height, columns = spec.shape
        self.spec, self.width, self.start = spec, width, (math.ceil(height / 4), math.ceil(columns / 4))
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
    return nn.GroupNorm(1, channels)  # a batch may have a single image


class VaeMemory:
    """The VAE with its optimizer. It replays only after 200 steps, because an untrained decoder produces noise."""

    def __init__(self, settings: Vae, teacher: Network, seed: int):
        self.settings, self.teacher, self.steps = settings, teacher, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "vae"))
            self.net = self._widest_net().to(teacher.device)
        self.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.adam = torch.optim.Adam(self.net.parameters(), lr=settings.vae_rate)

    def _widest_net(self) -> _Net:
        size = 0
        for width in WIDTHS:
            with torch.device("meta"):
                net = _Net(self.teacher.spec, self.settings.vae_code, width)
            size = 4 * sum(parameter.numel() for parameter in net.parameters())
            if size <= self.settings.replay_bytes:
                return _Net(self.teacher.spec, self.settings.vae_code, width)
        raise UserError(
            f"replay_bytes: got {self.settings.replay_bytes:,}, expected at least {size:,} for the smallest VAE; give more, "
            "a smaller `vae_code`, or another kind of `replay`"
        )

    def on_new_generator(self, generator: Generator) -> None:
        pass

    def on_generator_step(self, generator: Generator) -> None:
        pass

    def write(self, pixels: Tensor, logits: Tensor, rng: torch.Generator) -> None:
        """One training step on the new images and, after 200 steps, a quarter as many replayed ones (Binici et al.
        2022).
        """
        device = self.teacher.device
        pixels, logits = pixels.detach().to(device), logits.detach().to(device)
        replayed = self.sample(max(1, len(pixels) // 4), rng)
        if replayed is not None:
            replayed = replayed.to(device)
            pixels = torch.cat([pixels, replayed])
            logits = torch.cat([logits, self.teacher.predict(replayed).to(device)])
        mean, log_variance = self.net.encode(pixels)
        codes = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng).to(device)
        decoded = self.net.decode(codes)
        with frozen(self.teacher.module):
            decoded_logits = self.teacher.logits(decoded)
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
        loss = (decoded - pixels).abs().mean() + (decoded_logits - logits).abs().mean() + self.settings.kl_weight * kl
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        self.steps += 1

    def sample(self, count: int, rng: torch.Generator) -> Tensor | None:
        if self.steps < WARM:
            return None
        codes = torch.randn((count, self.settings.vae_code), generator=rng).to(self.teacher.device)
        if self.settings.latent_step:
            codes = self._confident(codes)
        with torch.no_grad():
            return self.net.decode(codes).cpu()

    def _confident(self, codes: Tensor) -> Tensor:
        """The codes after one Adam step; Adam's first step is the sign of the gradient."""
        codes = codes.clone().requires_grad_(True)
        with frozen(self.teacher.module):
            logits = self.teacher.logits(self.net.decode(codes))
        mean = logits.softmax(1).mean(0)
        loss = cross_entropy(logits, logits.argmax(1)) + (mean * mean.clamp(min=1e-12).log()).sum()
        (grad,) = torch.autograd.grad(loss, codes)
        return (codes - self.settings.latent_step * grad.sign()).detach()

    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.net.state_dict().values())

    def state(self) -> dict[str, Tensor]:
        weights = {f"net/{name}": tensor.detach().cpu().clone() for name, tensor in self.net.state_dict().items()}
        return {**weights, **optimizer_state(self.adam, "adam"), "steps": torch.tensor(self.steps)}

    def slots(self, written: Written) -> Slots:
        steps = {"steps": Slot.count(written.writes, written.writes)}
        return {**module_slots(self.net, "net"), **optimizer_slots(self.adam, "adam", written.writes), **steps}

    def load(self, state: dict[str, Tensor]) -> None:
        weights = {name.removeprefix("net/"): tensor for name, tensor in state.items() if name.startswith("net/")}
        expected = {name: tensor.shape for name, tensor in self.net.state_dict().items()}
        if {name: tensor.shape for name, tensor in weights.items()} != expected:
            raise UserError("the saved memory is another VAE; repeat that run's command")
        self.net.load_state_dict(weights)
        load_optimizer(self.adam, state, "adam")
        self.steps = int(state["steps"])
