"""A class-conditional discriminator of anchors and generated images (Binici et al. 2024; Miyato & Koyama 2018)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear, normalize

from ...._core.errors import UserError
from ...._core.resume import load_optimizer, optimizer_state
from ...._core.seeds import stream
from ...._core.slots import Slots, module_slots, optimizer_slots
from ....data.augmentation import Augmentation
from ....models.network import Network
from .anchors import Anchors

__all__ = ["Discriminator", "DiscriminatorGuide", "Projection"]


class Discriminator(Augmentation):
    """A GAN discriminator with hinge loss; the anchors are the real images."""

    alignment: Literal["discriminator"] = "discriminator"
    discriminator_width: int = Field(default=64, ge=1)
    """Number of units in each of the discriminator's two hidden layers."""
    discriminator_rate: float = Field(default=2e-3, gt=0, le=10)
    """Learning rate of the discriminator's Adam."""

    summary: ClassVar[str] = "a class-conditional discriminator of anchors and generated images (Binici et al. 2024)"
    guidance: ClassVar[float] = 1.0

    def bind(self, teacher: Network, pixels: Tensor, labels: Tensor, seed: int) -> DiscriminatorGuide:
        return DiscriminatorGuide(self, Anchors(teacher, pixels, labels, self, seed), seed)


class NormalisedMatrix(nn.Module):
    """A matrix (rows, columns) divided by its spectral norm, estimated by power iteration (Miyato et al. 2018).

    Replaces torch's version, which draws from torch's global random stream; threads would share that stream.
    """

    vector: Tensor

    def __init__(self, rows: int, columns: int, rng: torch.Generator):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, columns, generator=rng) / columns**0.5)
        self.register_buffer("vector", normalize(torch.randn(rows, generator=rng), dim=0))
        for _ in range(15):
            self.iterate()

    @torch.no_grad()
    def iterate(self) -> None:
        """One step of the power iteration."""
        self.vector = normalize(self.weight @ normalize(self.weight.T @ self.vector, dim=0), dim=0)

    def forward(self) -> Tensor:
        right_vector = normalize(self.weight.detach().T @ self.vector, dim=0)
        return self.weight / (self.vector @ self.weight @ right_vector)


class Projection(nn.Module):
    """D(f, y) = v . h(f) + e_y . h(f) with a two-layer h; all matrices have spectral norm 1 (Miyato & Koyama 2018)."""

    # Our choice: the paper's depth, width, normalisation and rate are not known.
    def __init__(self, features: int, classes: int, width: int, rng: torch.Generator):
        super().__init__()
        self.first, self.second = NormalisedMatrix(width, features, rng), NormalisedMatrix(width, width, rng)
        self.real, self.classes = NormalisedMatrix(1, width, rng), NormalisedMatrix(classes, width, rng)
        self.biases = nn.ParameterList(torch.zeros(size) for size in (width, width, 1))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Scores (N,), positive for anchors, of standardised features (N, F) and classes (N,)."""
        h = leaky_relu(linear(features, self.first(), self.biases[0]), 0.2)
        h = leaky_relu(linear(h, self.second(), self.biases[1]), 0.2)
        return linear(h, self.real(), self.biases[2])[:, 0] + (self.classes()[labels] * h).sum(1)

    def iterate(self) -> None:
        """Updates all spectral norms after a change of the weights."""
        for matrix in (self.first, self.second, self.real, self.classes):
            matrix.iterate()


class DiscriminatorGuide:
    """The discriminator with its optimizer and the anchors."""

    def __init__(self, settings: Discriminator, anchors: Anchors, seed: int):
        self.anchors = anchors
        net = Projection(
            len(anchors.centre), len(anchors.counts), settings.discriminator_width, stream(seed, "discriminator")
        )
        self.net = net.to(anchors.teacher.device)
        self.adam = torch.optim.Adam(self.net.parameters(), lr=settings.discriminator_rate, betas=(0.5, 0.999))

    def loss(self, features: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG002
        """-D summed over the generated images."""
        guided = self.anchors.has_anchor(labels)
        if not bool(guided.any()):
            return features.sum() * 0
        return -self.net(self.anchors.standardise(features[guided]), labels[guided]).sum()

    def learn(self, features: Tensor, labels: Tensor, rng: torch.Generator) -> float:
        """One step on the hinge loss of each generated image and an anchor of its class; 2 if they are
        indistinguishable.
        """
        guided = self.anchors.has_anchor(labels)
        if not bool(guided.any()):
            return 0.0
        generated, labels = self.anchors.standardise(features.detach().float()[guided]), labels[guided]
        real = self.anchors.features(labels, rng)
        with torch.enable_grad():
            scores = self.net(torch.cat([real, generated]), torch.cat([labels, labels]))
            loss = (1 - scores[: len(real)]).relu().mean() + (1 + scores[len(real) :]).relu().mean()
            self.adam.zero_grad(set_to_none=True)
            loss.backward()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.net.iterate()
        return float(loss.detach())

    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.state().values())

    def state(self) -> dict[str, Tensor]:
        weights = {f"net/{name}": tensor.detach().cpu().clone() for name, tensor in self.net.state_dict().items()}
        return {**self.anchors.state(), **weights, **optimizer_state(self.adam, "adam")}

    def slots(self, steps: int) -> Slots:
        slots = {**module_slots(self.net, "net"), **optimizer_slots(self.adam, "adam", steps)}
        return {**self.anchors.slots(steps), **slots}

    def load(self, state: dict[str, Tensor]) -> None:
        weights = {name.removeprefix("net/"): tensor for name, tensor in state.items() if name.startswith("net/")}
        expected = {name: tensor.shape for name, tensor in self.net.state_dict().items()}
        if {name: tensor.shape for name, tensor in weights.items()} != expected:
            raise UserError("the saved guide is another discriminator; repeat that run's command")
        self.anchors.load(state)
        self.net.load_state_dict(weights)
        load_optimizer(self.adam, state, "adam")
