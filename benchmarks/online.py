"""Generated images learnt from by CPU-second, one thread: our loop, and one after DAFL's description, in turns in one run.

    python benchmarks/online.py            # needs no data: untrained LeNet-5 teacher, its half as the student

DAFL's step: 512 images of a generator of 128 channels, cross-entropy to the teacher's own answer and class balance for the
generator, KL divergence for the student, both on the same images. Ours: `distill --online generator` with a bank, as the
papers' rows run it, for one epoch of theirs; the images are drawings on black, and things on black.
"""

from __future__ import annotations

import time
from statistics import mean, stdev

import torch
from torch.nn.functional import cross_entropy

from datafree.distillation import replay
from datafree.distillation.kl import kl
from datafree.distillation.online.run import OnlineDistillation, train_online
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.releases.load import new_model
from datafree.synthesis.generator import new_generator

ROUNDS, BATCH = 5, 512
SPEC = InputSpec(shape=(1, 32, 32), classes=tuple("0123456789"))


def players() -> tuple[Network, Network]:
    teacher, student = new_model("lenet5", SPEC, seed=0), new_model("lenet5-half", SPEC, seed=1)
    teacher.module.eval().requires_grad_(False)
    return teacher, student


def dafl(steps: int = 4) -> float:
    teacher, student = players()
    generator = new_generator(teacher, seed=0, width=128)
    maker = torch.optim.Adam(generator.parameters(), lr=0.2)
    learner = torch.optim.SGD(student.module.parameters(), lr=0.1, momentum=0.9)
    began = time.process_time()
    for _ in range(steps):
        pixels = generator(torch.randn(BATCH, generator.latent))
        logits = teacher.logits(pixels)
        share = logits.softmax(1).mean(0)
        made = cross_entropy(logits, logits.argmax(1)) + 5 * (share * share.log()).sum()
        loss = made + kl(student.logits(pixels.detach()), logits.detach(), 1.0)
        maker.zero_grad()
        learner.zero_grad()
        loss.backward()
        maker.step()
        learner.step()
    return steps * BATCH / (time.process_time() - began)


def ours(scene: str, iterations: int = 50) -> float:
    teacher, student = players()
    settings = OnlineDistillation.model_validate(
        {"epochs": 1, "iterations": iterations, "scene": scene, "ground": "dark"}
    )
    began = time.process_time()
    history = train_online(teacher, student, settings, replay.from_name("bank", replay_bytes=1 << 20))
    return history.images / (time.process_time() - began)


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    found: dict[str, list[float]] = {"DAFL's loop": [], "ours, drawings": [], "ours, things": []}
    for _ in range(ROUNDS):
        found["DAFL's loop"].append(dafl())
        found["ours, drawings"].append(ours("drawings"))
        found["ours, things"].append(ours("things"))
    for name, speeds in found.items():
        ratios = [own / base for own, base in zip(speeds, found["DAFL's loop"], strict=True)]
        print(
            f"{name}: {mean(speeds):,.0f} +- {stdev(speeds):,.0f} images per CPU-second, {mean(ratios):.1f} times DAFL's"
        )


if __name__ == "__main__":
    main()
