"""An online run of two processes, whole and stopped in between; what each found, as JSON in the folder it is given:
a part of in_turn.py.
"""

from __future__ import annotations

import json
from pathlib import Path

from datafree._core.distributed import together, world
from datafree._core.errors import UserError
from datafree.distillation.online.run import OnlineDistillation, train_online
from datafree.distillation.replay import from_name
from datafree.models.input_spec import InputSpec
from datafree.releases.load import new_model

SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("abcdefghij"))
OWN = OnlineDistillation(epochs=2, iterations=4, batch=63, student_steps=2, replay_fraction=0.25, write_every=1)


class Once:
    """A score that stops the run in its second epoch."""

    def __init__(self):
        self.calls = 0

    def __call__(self, _) -> float:
        self.calls += 1
        if self.calls == 3:  # twice an epoch, of the student and of its average
            raise UserError("stopped")
        return 1.0


def main(folder: Path) -> None:
    with together() as own:
        teacher, replay = new_model("hinton32", SPEC, seed=0), from_name("bank", replay_bytes=64 * 40)
        one, other = (new_model("hinton16", SPEC, seed=own.rank) for _ in range(2))  # the first process's is taken
        whole = train_online(teacher, one, OWN, replay, state=folder / "whole.safetensors", score=lambda _: 1.0)
        stopped = ""
        try:
            train_online(teacher, other, OWN, replay, state=folder / "stopped.safetensors", score=Once())
        except UserError as error:
            stopped = str(error)
        again = train_online(teacher, other, OWN, replay, state=folder / "stopped.safetensors", score=lambda _: 1.0)
        found = {
            "size": world().size, "stopped": stopped, "students": [one.fingerprint(), other.fingerprint()],
            "losses": [whole.loss, again.loss], "agreements": [whole.agreement, again.agreement], "images": whole.images,
        }  # fmt: skip
        (folder / f"{own.rank}.json").write_text(json.dumps(found))
