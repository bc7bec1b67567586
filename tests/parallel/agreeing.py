"""What each of two processes finds, as JSON in the folder it is given: a part of in_turn.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from datafree._core.distributed import agree, average_gradients, broadcast, first, gathered, together, world
from datafree._core.errors import UserError
from datafree.distillation.sources import StoredImages
from datafree.distillation.training_loop import Schedule, fit
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network


def gradients(found: dict) -> None:
    """Of five images, two here and three there: as of all five."""
    rank = world().rank
    rng = torch.Generator().manual_seed(1)
    x, y = torch.randn(5, 4, generator=rng), torch.tensor([0, 1, 2, 0, 1])
    layer, alone = nn.Linear(4, 3), nn.Linear(4, 3)
    alone.load_state_dict(layer.state_dict())
    broadcast(layer)
    broadcast(alone)
    part = world().part(5)
    nobodys, ones = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(()))
    cross_entropy(layer(x[part]), y[part]).backward()
    if rank == 1:
        ones.grad = torch.ones(())
    average_gradients([nobodys, *layer.parameters(), ones], part.stop - part.start)
    cross_entropy(alone(x), y).backward()
    found["part"] = list(range(5))[part]
    found["gradient"] = torch.cat([p.grad.flatten() for p in layer.parameters()]).tolist()
    found["gradient of one process"] = torch.cat([p.grad.flatten() for p in alone.parameters()]).tolist()
    found["nobody's"], found["one's"] = nobodys.grad, float(ones.grad)


def statistics(found: dict) -> None:
    rank, norm = world().rank, nn.BatchNorm2d(1)
    norm.running_mean.fill_(rank)
    norm.num_batches_tracked.fill_(7 + rank)
    agree(norm)
    found["running mean"], found["number of batches"] = norm.running_mean.tolist(), int(norm.num_batches_tracked)
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, rank)
    nn.init.constant_(layer.bias, rank)
    broadcast(layer)
    found["broadcast"] = [float(layer.weight), float(layer.bias)]


def errors(found: dict) -> None:
    found["gathered"] = gathered({"rank": world().rank})
    found["first"] = first(lambda: f"from {world().rank}")

    def refuse() -> None:
        raise UserError(f"no luck in {world().rank}")

    try:
        first(refuse)
    except UserError as error:
        found["refused"] = str(error)


def training(found: dict, folder: Path) -> None:
    """With batch norm and dropout, stopped after two of three epochs; all processes end with the same network."""
    spec = InputSpec(shape=(1, 6, 6), classes=("a", "b", "c"))
    pixels = torch.from_numpy(np.random.default_rng(0).random((48, 1, 6, 6), dtype=np.float32))
    source = StoredImages(spec, pixels, torch.arange(48) % 3)
    masks: list[float] = []

    def new() -> Network:
        layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)]
        return Network(nn.Sequential(*layers), spec, "tiny")  # of other weights in every process

    def score(_: Network) -> float:
        assert world().rank == 0
        score.calls += 1  # type: ignore[attr-defined]
        return float(score.calls)  # type: ignore[attr-defined]

    score.calls = 0  # type: ignore[attr-defined]
    state = folder / "state.safetensors" if world().rank == 0 else folder / "of another machine" / "state.safetensors"
    first_part, rest = Schedule(epochs=2, batch=16, decay="constant"), Schedule(epochs=3, batch=16, decay="constant")
    network = new()
    network.module[4].register_forward_hook(lambda _, __, out: masks.append(float((out == 0).float().mean())))
    fit(network, source, cross_entropy, first_part, seed=0, state=state, score=score)
    again, calls = new(), []
    curve = fit(
        again,
        source,
        cross_entropy,
        rest,
        seed=0,
        state=state,
        score=score,
        progress=lambda done, _: calls.append(done),
    )
    found["epochs gone on"] = len(curve.scores) - len(calls) // 3
    found["scores"], found["loss"] = curve.scores, curve.loss
    found["network"], found["dropout"] = again.fingerprint(), masks


def main(folder: Path) -> None:
    found: dict = {"groups": []}
    with together() as own:
        found |= {"rank": own.rank, "size": own.size}
        found["groups"].append(own.size)
        torch.manual_seed(own.rank)
        gradients(found)
        statistics(found)
        errors(found)
        training(found, folder)
    found["groups"].append(world().size)
    with together() as own:
        found["groups"].append(own.size)
    (folder / f"{found['rank']}.json").write_text(json.dumps(found))
