"""DFAD (Fang et al. 2019): its script DFAD_mnist.py, as it is."""

from __future__ import annotations

import importlib

from benchmarks.peers.adapters import Job, Peer
from benchmarks.peers.interface import OneBatch, PeerNetwork
from benchmarks.peers.stand_ins import import_from, keep_seed, no_files, on_cpu, run_script, stand_in

PEER = Peer(
    title="DFAD (Fang et al. 2019)",
    folder="DFAD",
    files=("DFAD_mnist.py", "network/lenet.py", "network/gan.py"),
    url="https://github.com/VainF/Data-Free-Adversarial-Distillation",
    commit="c161591aae4c13e53943dcb61c162876421aad7a",
    licence="none stated",
    data=("mnist",),
    settings={"batch_size": 512, "lr_S": 0.01, "lr_G": 1e-3, "nz": 100, "weight_decay": 1e-4, "epoch_itrs": 50},
    changes=("teacher and student are ours; no hyperparameter differs",),
)


def run(job: Job) -> None:
    import torch

    stand_in("torchvision", "dataloader", "network.segmentation")
    on_cpu()
    import_from(job.folder)
    teacher, student = (PeerNetwork(network.module, job.feature) for network in (job.teacher, job.student))
    no_files(teacher.state_dict())
    lenet = importlib.import_module("network").lenet
    lenet.LeNet5, lenet.LeNet5Half = lambda: teacher, lambda: student
    test = torch.utils.data.DataLoader(OneBatch(), batch_size=2)
    importlib.import_module("dataloader").get_dataloader = lambda _: (None, test)  # type: ignore[attr-defined]
    keep_seed(job.seed)
    with job.budget.limit():
        run_script(job.folder / "DFAD_mnist.py", {**job.settings, "epochs": 10**6})
