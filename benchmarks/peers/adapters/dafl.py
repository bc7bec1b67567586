"""DAFL (Chen et al. 2019): its script DAFL-train.py, as it is."""

from __future__ import annotations

import importlib

from benchmarks.peers.adapters import Job, Peer
from benchmarks.peers.interface import OneBatch, PeerNetwork
from benchmarks.peers.stand_ins import import_from, keep_seed, no_files, on_cpu, run_script, stand_in

PEER = Peer(
    title="DAFL (Chen et al. 2019)",
    folder="DAFL",
    files=("DAFL-train.py", "lenet.py", "resnet.py"),
    url="https://github.com/autogyro/DAFL",
    commit="48c2ade7f029df50009f8ca0afcd9cd9d694c2de",
    licence="BSD-3-Clause (License.txt)",
    data=("mnist",),
    settings={"batch_size": 512, "lr_G": 0.2, "lr_S": 2e-3, "latent_dim": 100, "oh": 1.0, "ie": 5.0, "a": 0.1},
    changes=("teacher and student are ours; no hyperparameter differs",),
)


def run(job: Job) -> None:
    stand_in("torchvision")
    on_cpu()
    import_from(job.folder)
    no_files(PeerNetwork(job.teacher.module, job.feature))
    student = PeerNetwork(job.student.module, job.feature)
    importlib.import_module("lenet").LeNet5Half = lambda: student
    importlib.import_module("torchvision.datasets.mnist").MNIST = OneBatch
    keep_seed(job.seed)
    with job.budget.limit():
        run_script(job.folder / "DAFL-train.py", {**job.settings, "n_epochs": 10**6})
