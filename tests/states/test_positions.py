"""Whole numbers that a network uses as positions: out of a hostile file they end in one line, not in a crash."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from datafree._core.errors import UserError
from datafree._core.files import read_tensors, write_tensors
from datafree.distillation.sources import labelled
from datafree.distillation.training_loop import Schedule, fit
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.releases.load import load_model
from datafree.releases.release import write_release

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
SPEC = InputSpec(shape=(1, 4, 4), classes=tuple("abc"))


class Positions(nn.Module):
    """`kind` says how the 16 pixels are put into another order, or counted."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(16, 3)
        order = torch.arange(16).flip(0)
        self.register_buffer("order", torch.stack([order, order]) if kind == "sparse" else order)
        self.register_buffer("first", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if self.training:
            self.passes += 1
        x = x.flatten(1)
        if self.kind == "sparse":  # a product with a sparse matrix, as graphs have it
            x = torch.sparse.mm(torch.sparse_coo_tensor(self.order, torch.ones(16), (16, 16)), x.T).T
        elif self.kind == "gather":
            x = x.gather(1, self.order.expand(len(x), 16))
        elif self.kind == "embedding":
            x = nn.functional.embedding(self.order, x.T).T
        else:
            x = x[:, self.order]
        return self.layer(x) + x[:, self.first]


def network(kind: str) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(Positions(kind), SPEC, "positions")


def changed(path, name: str, value: int) -> None:
    tensors, header = read_tensors(path, kind="training-state")
    tensors[name].view(-1)[0] = value
    path.unlink()
    write_tensors(path, tensors, header, kind="training-state")


@pytest.mark.parametrize("kind", ["index", "gather", "embedding", "sparse"])
@pytest.mark.parametrize(("name", "value"), [("order", 1 << 31), ("order", -1), ("first", 1 << 40), ("first", -5)])
def test_a_resealed_state_with_a_position_beyond_is_refused(tmp_path, tiny, toy, kind, name, value):
    state, data = tmp_path / "state", labelled(tiny(), toy(12))
    run = lambda epochs: fit(network(kind), data, cross_entropy, Schedule(epochs=epochs, batch=6), seed=0, state=state)  # noqa: E731
    run(1)
    changed(state, f"weights/{name}", value)
    with pytest.raises(UserError, match=r"is no state of this run: .*; a stopped run left it: remove it to start over"):
        run(2)


def test_counts_of_a_network_go_on_as_they_were(tmp_path, tiny, toy):
    """`passes` is 2 after the first epoch, 4 in the end, whether the run was stopped between them or not."""
    data, counted = labelled(tiny(), toy(12)), []
    for name, epochs in (("whole", (2,)), ("stopped", (1, 2))):
        for count in epochs:
            own = network("index")
            fit(
                own,
                data,
                cross_entropy,
                Schedule(epochs=count, batch=6, decay="constant"),
                seed=0,
                state=tmp_path / name,
            )
        counted.append(int(own.module.passes))
    assert counted == [4, 4]


CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.arange(16).flip(0).repeat(2, 1))
        self.layer = nn.Linear(16, 3)

    def forward(self, x):
        matrix = torch.sparse_coo_tensor(self.order, torch.ones(16), (16, 16))
        return self.layer(torch.sparse.mm(matrix, x.flatten(1).T).T)
"""


def test_hostile_weights_for_code_of_ones_own_end_in_one_line(tmp_path):
    (tmp_path / "net.py").write_text(CODE)
    code = f"{tmp_path}/net.py:Net"
    state = {
        "order": torch.arange(16).flip(0).repeat(2, 1),
        "layer.weight": torch.zeros(3, 16),
        "layer.bias": torch.zeros(3),
    }
    write_tensors(tmp_path / "w", state, {}, kind="weights")
    write_release(tmp_path / "r", load_model(code, weights=tmp_path / "w", spec=SPEC))
    for value in (1 << 31, -(1 << 31), 16):
        state["order"][0, 0] = value
        write_tensors(tmp_path / "r" / "model.safetensors", state, {}, kind="weights")
        with pytest.raises(UserError) as caught:
            load_model(str(tmp_path / "r"), code=code)
        assert re.search("net.py:Net|Net does not take|positions|found index", str(caught.value))
    assert not torch.sparse.check_sparse_tensor_invariants.is_enabled()
