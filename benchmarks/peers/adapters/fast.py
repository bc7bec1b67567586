"""Fast (Fang et al. 2022): the script datafree_kd.py with its method `fast_meta`."""

from __future__ import annotations

from benchmarks.peers.adapters import Job, Peer
from benchmarks.peers.adapters.datafree_kd import CHANGES, FILES, run_kd

PEER = Peer(
    title="Fast (Fang et al. 2022)",
    folder="Fast-Datafree",
    files=(*FILES, "datafree/synthesis/fast_meta.py"),
    url="https://github.com/zju-vipa/Fast-Datafree",
    commit="0dcecbc178b87048bedf730acb577045b3c0b57a",
    licence="none stated",
    data=("cifar10",),
    settings={
        "batch_size": 256, "lr": 0.2, "kd_steps": 40, "warmup": 5, "g_steps": 2, "lr_z": 0.015, "lr_g": 5e-3,
        "adv": 1.1, "bn": 10.0, "oh": 0.4, "T": 20.0, "bn_mmt": 0.9, "reset_l0": 1, "reset_bn": 0, "is_maml": 1,
    },
    changes=(
        *CHANGES,
        "`kd_steps` and `ep_steps` 40 instead of 400, `warmup` 5 instead of 20 epochs: with the defaults the limit is "
        "reached about five epochs after the warm-up",
        "the generator's first layer is never reset: the script does that in epoch 140, which is after the limit",
    ),
)  # fmt: skip


def run(job: Job) -> None:
    options = {"method": "fast_meta", "ep_steps": job.settings["kd_steps"], "epochs": 10**6, "act": 0, "balance": 0}
    run_kd(job, {**options, "save_dir": "images"})
