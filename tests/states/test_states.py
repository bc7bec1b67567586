"""A state file of every kind of run, sealed anew with hostile content: refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from datafree._core.errors import Notice, UserError
from datafree._core.files import read_tensors, write_tensors
from datafree._core.resume import Environment
from datafree.data.condensed import methods
from datafree.data.condensed.methods import Job, condense, distribution_matching
from datafree.distillation import replay
from datafree.distillation.online.run import AnchorImages, OnlineDistillation, train_online
from datafree.distillation.replay import vae
from datafree.distillation.sources import labelled
from datafree.distillation.training_loop import Schedule, fit
from datafree.models.input_spec import InputSpec
from datafree.records import record as records
from datafree.records.record import record
from datafree.records.statistics.input import InputMoments
from datafree.records.statistics.moments import Moments
from datafree.records.statistics.spectral import SpectralPairs
from datafree.synthesis.losses import alignment

SHORT = {"epochs": 1, "iterations": 3, "student_steps": 2, "batch": 16, "latent": 8, "write_every": 2}
MEMORIES = {"none": {}, "ema": {"replay_bytes": 90_000}, "vae": {"replay_bytes": 40_000, "vae_code": 4}}
ONLINE = [f"online {kind}" for kind in replay.kinds()] + [f"guided {kind}" for kind in alignment.kinds()]
MIDDLE = tuple(f"adam/{index}/" for index in range(1, 5))
"""Moments like those of the first and the last weight."""
KINDS = ["training", *ONLINE, "condensing", "recording"]


class Stopped(BaseException):
    pass


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(vae, "WARM", 2)
    monkeypatch.setattr(distribution_matching, "PAUSE", -1)
    monkeypatch.setattr(records, "_chunk", lambda *_: 16)


@pytest.fixture
def run(tiny, toy, tmp_path) -> Callable[[str], Callable[[], object]]:
    """A run of each kind that leaves its state, and the run that goes on from it."""
    path, teacher = tmp_path / "state.safetensors", tiny("norm")

    def stop(*_: int) -> None:
        if path.exists():
            raise Stopped

    def one(kind: str) -> Callable[[], object]:
        how, _, name = kind.partition(" ")
        if how == "training":
            return lambda: fit(
                tiny("norm", seed=5),
                labelled(teacher, toy()),
                cross_entropy,
                Schedule(epochs=1, batch=30),
                seed=0,
                state=path,
            )
        if how == "condensing":
            method = methods.from_name("dm", iterations=3, real=2, width=4)
            job = Job(toy(shape=(1, 8, 8)), InputSpec(shape=(1, 8, 8), classes=tuple("abc")), 2)
            return lambda: condense(method, job.resumed(path, {"seed": 0}, stop))
        if how == "recording":
            kinds = [InputMoments(), Moments(covariance="full"), SpectralPairs()]

            def interrupted(done: int, _: int) -> None:
                if done == 32 and not path.exists():
                    raise Stopped

            return lambda: record(teacher, toy(), kinds, state=path, progress=interrupted)
        pixels = torch.rand(6, *teacher.spec.shape, generator=torch.Generator().manual_seed(1))
        guide = AnchorImages(alignment.from_name(name), pixels, torch.eye(3).repeat(2, 1)) if how == "guided" else None
        memory = replay.from_name(
            name if how == "online" else "none", **MEMORIES.get(name, {"replay_bytes": 600} if how == "online" else {})
        )
        return lambda: train_online(
            teacher,
            tiny("norm", seed=5),
            OnlineDistillation(**SHORT),
            memory,
            anchors=guide,
            state=path,
            score=lambda _: 1.0,
        )

    return one


def left(go: Callable[[], object], path: Path) -> tuple[dict, dict, str]:
    """Tensors, header and kind of the state that a first run leaves."""
    with suppress(Stopped):
        go()
    size = int.from_bytes(path.read_bytes()[:8], "little")
    kind = json.loads(json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]["datafree"])["kind"]
    return *read_tensors(path, kind=kind), kind


def hostile(tensors: dict, header: dict) -> dict[str, tuple[dict, dict]]:
    """Each with one thing that no run writes."""
    made: dict[str, tuple[dict, dict]] = {}
    for name, tensor in tensors.items():
        rest = {key: own for key, own in tensors.items() if key != name}
        made[f"{name} missing"] = (rest, header)
        made[f"{name} renamed"] = ({**rest, f"{name}x": tensor}, header)
        other = torch.float64 if tensor.dtype != torch.float64 else torch.float32
        made[f"{name} as {other}"] = ({**tensors, name: tensor.to(other)}, header)
        made[f"{name} longer"] = ({**tensors, name: torch.cat([tensor.flatten(), tensor.new_zeros(1)])}, header)
        if tensor.numel() and tensor.ndim:
            if tensor.ndim > 1 and len(tensor) > 1:
                made[f"{name} flat"] = ({**tensors, name: tensor.flatten()[None]}, header)
            made[f"{name} short"] = ({**tensors, name: tensor.flatten()[: max(0, tensor.numel() - 1)]}, header)
        if name.endswith(
            ("exp_avg_sq", "square", "running_var", "step", "steps", "seen", "classes", "count")
        ) or name.endswith("seconds"):
            made[f"{name} negative"] = ({**tensors, name: torch.full_like(tensor, -1)}, header)
        if name.endswith("/step"):
            made[f"{name} of half a step"] = ({**tensors, name: tensor - 0.5}, header)
        if name.endswith(("/step", "steps", "seen", "classes", "images", "count", "num_batches_tracked")):
            made[f"{name} huge"] = ({**tensors, name: torch.full_like(tensor, 1 << 60)}, header)
    made["a tensor more"] = ({**tensors, "more": torch.zeros(3)}, header)
    for key, value in header.items():
        rest = {name: own for name, own in header.items() if name != key}
        made[f"no {key}"] = (tensors, rest)
        for wrong in (None, "1", -1, 1 << 70, 1.5, True, [], {}):
            if wrong != value:
                made[f"{key} {wrong!r}"] = (tensors, {**header, key: wrong})
    for key in header["environment"]:
        for wrong in (None, -1, 0, 1 << 40, [1]):
            made[f"{key} {wrong!r}"] = (tensors, {**header, "environment": {**header["environment"], key: wrong}})
    made["a field more"] = (tensors, {**header, "more": 1})
    return made


QUICK = ("training", "online bank", "online vae", "guided means", "guided discriminator", "condensing", "recording")
"""The others are slow tests: their states differ from one of these in a memory or in what guides."""


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in QUICK)) for kind in KINDS])
def test_no_state_that_this_run_would_not_have_written_is_taken(kind, run, tmp_path):
    go, path = run(kind), tmp_path / "state.safetensors"
    tensors, header, own = left(go, path)
    before = path.read_bytes()
    assert (
        all(f"adam/{index}/{key}" in tensors for index in range(6) for key in ("step", "exp_avg", "exp_avg_sq"))
        or kind != "training"
    )
    cases = hostile(tensors, header)
    assert len(cases) > 60
    cases = {name: case for name, case in cases.items() if not name.startswith(MIDDLE)}
    most = 12 if kind in ONLINE else 100
    cases = {name: cases[name] for name in list(cases)[:: -(-len(cases) // most)]}  # a spread of them
    taken = []
    for name, (other, head) in cases.items():
        path.unlink(missing_ok=True)
        write_tensors(path, other, head, kind=own)
        written = path.read_bytes()
        try:
            go()
        except UserError as error:
            refused = str(error)
        else:
            taken.append(name)
            continue
        assert "\n" not in refused and len(refused) < 700
        assert path.read_bytes() == written, name
    assert taken == []
    path.write_bytes(before)
    with suppress(Stopped):
        go()


def test_a_short_moment_of_adam_is_named(run, tmp_path):
    go, path = run("training"), tmp_path / "state.safetensors"
    tensors, header, kind = left(go, path)
    write_tensors(path, {**tensors, "adam/0/exp_avg": torch.zeros(1)}, header, kind=kind)
    with pytest.raises(
        UserError,
        match=r"tensor 'adam/0/exp_avg' in .* has shape \(1,\); expected \(3, 1, 3, 3\); a stopped run left it",
    ):
        go()


@pytest.mark.parametrize("kind", ["training", "online bank", "condensing", "recording"])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("threads", "on 3 threads, this one has {threads}"),
        ("processes", "of 3 processes, this one has 1"),
    ],
)
def test_a_run_goes_on_with_as_many_threads_and_processes_alone(kind, what, words, run, tmp_path):
    go, path = run(kind), tmp_path / "state.safetensors"
    tensors, header, own = left(go, path)
    write_tensors(path, tensors, {**header, "environment": {**header["environment"], what: 3}}, kind=own)
    with pytest.raises(UserError, match=words.format(threads=torch.get_num_threads())):
        go()


def test_another_processor_or_torch_is_reported_and_the_run_goes_on(run, tmp_path):
    go, path = run("training"), tmp_path / "state.safetensors"
    tensors, header, own = left(go, path)
    other = {**header["environment"], "processor": "another", "torch": "2.0"}
    write_tensors(path, tensors, {**header, "environment": other}, kind=own)
    with pytest.warns(Notice, match="started elsewhere .*'another' then.*; torch '2.0' then.*last bits"):
        go()


def test_a_parameter_without_a_gradient_is_no_reason_to_refuse_a_state(tiny, toy, tmp_path):
    def network():
        own = tiny("norm")
        own.module.register_parameter("unused", torch.nn.Parameter(torch.zeros(2)))
        return own

    for _ in range(2):
        fit(
            network(),
            labelled(tiny("norm"), toy()),
            cross_entropy,
            Schedule(epochs=1),
            seed=0,
            state=tmp_path / "state",
        )
    tensors = read_tensors(tmp_path / "state", kind="training-state")[0]
    index = next(i for i, (name, _) in enumerate(network().module.named_parameters()) if name == "unused")
    assert torch.equal(tensors[f"adam/{index}/exp_avg"], torch.zeros(2)) and tensors[f"adam/{index}/step"] == 0


def test_a_state_of_an_earlier_version_is_refused_in_one_line(run, tmp_path):
    go, path = run("training"), tmp_path / "state.safetensors"
    tensors, _, own = left(go, path)
    write_tensors(path, tensors, {"identity": {}, "epoch": 1, "curve": {"loss": [1.0]}}, kind=own)
    with pytest.raises(UserError, match="was written by an earlier version, which did not store its number of threads"):
        go()


def test_what_no_state_file_could_hold_is_refused_before_the_first_epoch(tiny, toy, tmp_path):
    network, seen = tiny("norm"), []
    network.module.register_buffer("odd", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(UserError, match=r"tensor 'weights/odd' is torch\.complex64; expected one of"):
        fit(
            network,
            toy(),
            cross_entropy,
            Schedule(epochs=1),
            seed=0,
            state=tmp_path / "s",
            progress=lambda *a: seen.append(a),
        )
    assert seen == [] and not (tmp_path / "s").exists()


def test_names_of_any_state_dict_fit_a_state(tiny, toy, tmp_path):
    network = tiny("norm")
    network.module.register_buffer("odd name, 2", torch.zeros(2))
    for _ in range(2):
        fit(network, labelled(tiny("norm"), toy()), cross_entropy, Schedule(epochs=1), seed=0, state=tmp_path / "s")


def test_the_environment_is_that_of_this_process():
    here = Environment.here()
    assert (here.threads, here.processes, here.torch) == (torch.get_num_threads(), 1, torch.__version__)
