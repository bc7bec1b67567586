"""KegNet (Yoo et al. 2019): its generators one after another, then its student on their images, in shares of the limit."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmarks.peers.adapters import Job, Peer
from benchmarks.peers.interface import PeerNetwork
from benchmarks.peers.stand_ins import import_from, keep_seed, on_cpu, stand_in

PEER = Peer(
    title="KegNet (Yoo et al. 2019)",
    folder="KegNet",
    files=("src/kegnet/generator/train.py", "src/kegnet/classifier/train.py"),
    url="https://github.com/snudatalab/KegNet",
    commit="5f4e4a172f81c6613b33db0a358a742934e2953e",
    licence="Apache-2.0 (LICENSE); the files' heads allow research evaluation only",
    data=("mnist",),
    settings={"generators": 5, "generator_share": 0.5, "generator_rate": 1e-3, "student_rate": 1e-3},
    changes=(
        "each of the 5 generators gets a tenth of the limit instead of 200 epochs, the student the other half instead of "
        "400 epochs",
        "the student's learning rate is 0.001 instead of 0.00001, which is for their student, a Tucker decomposition of "
        "the teacher that starts with its weights; ours starts at random",
        "no early stopping on real validation images",
    ),
)


def run(job: Job) -> None:
    import torch

    stand_in("torchvision", "pandas", "tensorly")
    on_cpu()
    import_from(job.folder / "src")
    names = ("generator.train", "generator.models", "generator.loss", "generator.utils", "classifier.train")
    train, models, losses, generators_of, classifier = (importlib.import_module(f"kegnet.{name}") for name in names)
    train.DEVICE = classifier.DEVICE = torch.device("cpu")
    teacher, student = (PeerNetwork(network.module, job.feature) for network in (job.teacher, job.student))
    teacher.eval()
    count, share = job.settings["generators"], job.settings["generator_share"]
    paths = []
    keep_seed(job.seed)
    with job.budget.limit():
        for index in range(count):
            generator = generators_of.init_generator("mnist")
            decoder = models.Decoder(1024, generator.num_noises, 1)
            parts = [*generator.parameters(), *decoder.parameters()]
            optimizer = torch.optim.Adam(parts, job.settings["generator_rate"])
            terms = (losses.ReconstructionLoss("kld"), losses.ReconstructionLoss("l2"), losses.DiversityLoss("l1"))
            with job.budget.stage((index + 1) * share / count):
                while True:
                    train.update((generator, teacher, decoder), terms, optimizer, 1, 0)
            paths.append(_saved(generator, Path.cwd() / f"generator-{index}.pth"))
        images = classifier.prepare_data(teacher, "kegnet", "mnist", 64, 100, paths)
        loss = importlib.import_module("kegnet.classifier.loss").KLDivLoss()
        optimizer = torch.optim.Adam(student.parameters(), job.settings["student_rate"])
        while True:
            classifier.update_classifier(student, images, loss, optimizer)


def _saved(generator: Any, path: Path) -> str:
    importlib.import_module("kegnet.utils.utils").save_checkpoints(generator, str(path))
    return str(path)
