"""PRE-DFKD (Binici et al. 2022): its script main.py, as it is."""

from __future__ import annotations

import importlib

from benchmarks.peers.adapters import Job, Peer
from benchmarks.peers.interface import PeerNetwork
from benchmarks.peers.stand_ins import import_from, keep_seed, no_files, on_cpu, run_script, stand_in

PEER = Peer(
    title="PRE-DFKD (Binici et al. 2022)",
    folder="PRE-DFKD",
    files=("main.py", "distillation.py", "networks/generator.py", "utils/model_utils.py"),
    url="https://github.com/kuluhan/PRE-DFKD",
    commit="604010dd126ef09103305513ffe1547ec80d53bc",
    licence="CC BY 4.0, says its README; the file is absent",
    data=("mnist",),
    settings={
        "batch_size": 256, "lr_G": 0.02, "lr_S": 2e-3, "latent_dim": 1000, "kd_iter": 10, "gen_iter": 1,
        "oh": 1.0, "ie": 5.0, "a": 0.1,
    },
    changes=(
        "`batch_size` 256 instead of 1024, with which the limit is reached after about ten student steps",
        "`lr_S` 0.002 instead of 0.1: the default is for CIFAR's SGD, and on MNIST the script passes it to Adam; 0.002 is "
        "that of DAFL, from which the script comes",
    ),
)  # fmt: skip


def run(job: Job) -> None:
    stand_in("torchvision")
    on_cpu()
    import_from(job.folder)
    no_files(PeerNetwork(job.teacher.module, job.feature, listed=True))
    student = PeerNetwork(job.student.module, job.feature)
    model_utils = importlib.import_module("utils.model_utils")
    model_utils.init_model = lambda _: student
    model_utils.eval_model = lambda *_: 0.0
    importlib.import_module("utils.data_utils").load_val_dataset = lambda _: (None, None)
    keep_seed(job.seed)
    with job.budget.limit():
        run_script(job.folder / "main.py", {**job.settings, "dataset": "MNIST", "student": "lenet", "n_epochs": 10**6})
