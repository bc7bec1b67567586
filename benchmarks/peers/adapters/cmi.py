"""CMI (Fang et al. 2021): the script datafree_kd.py with its method `cmi`, from scratch, without its pre-inverted images."""

from __future__ import annotations

from benchmarks.peers.adapters import Job, Peer
from benchmarks.peers.adapters.datafree_kd import CHANGES, FILES, run_kd

PEER = Peer(
    title="CMI (Fang et al. 2021)",
    folder="CMI",
    files=FILES,
    url="https://github.com/zju-vipa/CMI",
    commit="9e79fa9e2328205f26dbdb226878f3a28f3bf4cc",
    licence="none stated",
    data=("cifar10",),
    settings={
        "batch_size": 128, "synthesis_batch_size": 256, "lr": 0.1, "kd_steps": 100, "g_steps": 10, "lr_g": 1e-3,
        "adv": 0.5, "bn": 1.0, "oh": 1.0, "cr": 0.8, "cr_T": 0.1, "T": 20.0,
    },
    changes=(
        *CHANGES,
        "`kd_steps` and `ep_steps` 100 instead of 400, `g_steps` 10 instead of 200: with the defaults the limit is reached "
        "in the second epoch",
    ),
)  # fmt: skip


def run(job: Job) -> None:
    options = {"method": "cmi", "ep_steps": job.settings["kd_steps"], "epochs": 10**6, "act": 0, "balance": 0}
    run_kd(job, {**options, "save_dir": "images"})
