"""Promises of every synthesis method, over all that discovery finds."""

from __future__ import annotations

import copy
from contextlib import nullcontext, suppress

import pytest
import torch

from datafree._core.errors import UserError
from datafree.records.record import Record
from datafree.synthesis import methods
from datafree.synthesis.methods import Synthesizer, meta_generator
from datafree.synthesis.methods.inversion import InversionSettings
from datafree.synthesis.methods.matched import MomentMatching

NEEDED = {
    "gaussian": "nothing", "inception": "nothing", "bns": "batch norms", "bns-inception": "batch norms",
    "top": "a record", "all": "a record", "all-dropout": "a record", "distribution": "a record", "matched": "a record",
    "spectral-all": "a record", "spectral-pairs": "a record",
}  # fmt: skip
"""What the first eleven methods need; those that came later are asked."""
CLASSES = methods.methods()
NAMES = tuple(CLASSES)
BOXED = [
    (name, own)
    for name in NAMES
    for own in ({}, {"box": True}, {"box": False})
    if not own or "box" in CLASSES[name].model_fields
]


FEW = {"steps": 3, "discard": 1, "width": 8}
"""Three steps, one discarded batch and a narrow generator, for the methods that have those."""


@pytest.fixture(autouse=True)
def _few_trials(monkeypatch):
    monkeypatch.setattr(meta_generator, "TRIAL", 32)


def quick(name: str, **settings):
    few = {field: count for field, count in FEW.items() if field in CLASSES[name].model_fields}
    return methods.from_dict({"method": name, **few, **settings})


def hooks(network) -> int:
    return sum(
        len(p._forward_hooks) + len(p._forward_pre_hooks) + len(p._backward_hooks) for p in network.module.modules()
    )


def state(network):
    flags = [part.training for part in network.module.modules()], [p.requires_grad for p in network.module.parameters()]
    return network.fingerprint(), hooks(network), flags, [p.grad for p in network.module.parameters()]


def bare(known: Record) -> Record:
    return Record(known.spec, known.fingerprint, known.answers, {})


def empty_record(network) -> Record:
    return Record(network.spec, network.fingerprint(), network.answers(), {})


def binds(name: str, network) -> bool:
    """Whether the method needs no more than this network."""
    try:
        quick(name).bind(network, None)
    except UserError:
        return False
    return True


@pytest.fixture
def need(name, teacher, tiny) -> str:
    """What the method of the test needs beside a teacher: nothing, batch norms or a record."""
    if binds(name, teacher):
        return "nothing"
    return "batch norms" if binds(name, tiny("norm")) else "a record"


@pytest.fixture
def own_teacher(teacher):
    """A copy in training mode with one frozen weight, so that a flag not put back shows."""
    module = copy.deepcopy(teacher.module).train()
    module.fc1.weight.requires_grad_(False)
    return type(teacher)(module, teacher.spec, teacher.name)


def test_the_first_eleven_methods_are_found():
    assert set(NAMES) >= NEEDED.keys()


@pytest.mark.parametrize("name", NEEDED)
def test_the_first_eleven_methods_need_what_they_needed(name, need):
    assert need == NEEDED[name]


@pytest.mark.parametrize("name", [name for name, needed in NEEDED.items() if needed != "a record"])
def test_noise_and_images_from_batch_norms_are_in_range(name):
    assert quick(name).in_range


@pytest.mark.parametrize("name", NAMES)
def test_a_method_obeys_its_protocol_and_survives_its_dict(name):
    method = quick(name)
    assert isinstance(method, Synthesizer)
    assert methods.from_dict(method.model_dump(mode="json")) == method
    assert method.summary
    assert "\n" not in method.summary


@pytest.mark.parametrize(("name", "settings"), BOXED)
def test_a_unit_is_finite_has_the_wanted_classes_and_stays_in_range_where_it_says_so(
    name, settings, teacher, whole_record
):
    method = quick(name, **settings)
    maker = method.bind(teacher, whole_record)
    batch = maker.chunk(3, 0, 20)
    assert batch.pixels.shape == (20, 1, 8, 8)
    assert batch.pixels.dtype == torch.float32
    assert batch.pixels.isfinite().all()
    assert not batch.pixels.requires_grad
    wanted = torch.cat([maker.chunk(index, 0, 20).labels for index in range(5)])
    assert wanted.bincount().tolist() == 10 * [10]  # a unit may hold a few classes only; five of 20 hold all alike
    inside = float(batch.pixels.min()) >= 0 and float(batch.pixels.max()) <= 1
    assert inside or not method.in_range
    assert method.in_range == getattr(method, "box", method.in_range)


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_depends_on_seed_and_index_alone(name, teacher, whole_record):
    maker = quick(name).bind(teacher, whole_record)
    torch.manual_seed(0)
    first = maker.chunk(5, 7, 20)
    maker.chunk(2, 7, 20)
    torch.manual_seed(1)
    again = quick(name).bind(teacher, whole_record).chunk(5, 7, 20)
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.labels, again.labels)
    others = [maker.chunk(6, 7, 20).pixels, maker.chunk(5, 8, 20).pixels]
    assert all((first.pixels - other).abs().flatten(1).amax(1).min() > 1e-3 for other in others)
    assert len(first.pixels.flatten(1).unique(dim=0)) == 20


@pytest.mark.parametrize("name", NAMES)
def test_torchs_global_stream_is_not_used(name, teacher, whole_record):
    before = torch.get_rng_state()
    quick(name).bind(teacher, whole_record).chunk(0, 0, 10)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("way", ["not at all", "in the forward pass", "in a layer", "in the optimizer"])
@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_is_left_as_it_was_however_it_fails(name, way, own_teacher, whole_record, monkeypatch):
    before = state(own_teacher)
    maker = quick(name).bind(own_teacher, whole_record)
    assert state(own_teacher) == before

    def failing(*_, **__):
        raise ZeroDivisionError

    if way == "in the forward pass":
        monkeypatch.setattr(type(own_teacher.module), "forward", failing)
    elif way == "in a layer":
        monkeypatch.setattr("torch.nn.functional.linear", failing)
    elif way == "in the optimizer":
        monkeypatch.setattr("torch.optim.Adam.step", failing)
    optimised = issubclass(CLASSES[name], (InversionSettings, MomentMatching))
    if way == "not at all":
        maker.chunk(0, 0, 10)
    else:  # a closed form neither asks the teacher nor optimises
        with pytest.raises(ZeroDivisionError) if optimised else suppress(ZeroDivisionError):
            maker.chunk(0, 0, 10)
    monkeypatch.undo()
    assert state(own_teacher) == before


@pytest.mark.parametrize("name", NAMES)
def test_without_a_record_a_method_makes_images_or_says_what_it_needs(name, need, teacher):
    if need == "nothing":
        made = quick(name).bind(teacher, None).chunk(0, 0, 20)
        assert made.pixels.isfinite().all()
        assert made.labels.bincount(minlength=10).tolist() == 10 * [2]
        return
    with pytest.raises(UserError) as caught:
        quick(name).bind(teacher, None)
    assert str(caught.value) == (
        f"method {name!r} needs a record, got none; ask the publisher for it, give a `record`, or use the method "
        "'inception', which needs none"
        if need == "a record"
        else "hinton32 has no batch norm, and no record of moments of its layers, position by position and "
        "with variances; use 'inception', which needs none, or name `record`; its publisher can add them: datafree "
        "record moments TEACHER --data DATA --add --conv units"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_record_without_what_a_method_needs_is_refused(name, need, teacher, whole_record):
    with nullcontext() if need == "nothing" else pytest.raises(UserError, match="publisher"):
        quick(name).bind(teacher, bare(whole_record))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_record_changes_nothing_for_a_method_that_needs_none(name, tiny):
    network = tiny("norm")
    if not binds(name, network):
        pytest.skip("needs a record")
    alone, beside = (quick(name).bind(network, known).chunk(0, 0, 12) for known in (None, empty_record(network)))
    assert alone.pixels.isfinite().all()
    assert torch.equal(alone.pixels, beside.pixels)


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(UserError, match="no synthesis method 'spectral'; nearest: 'spectral-"):
        methods.from_dict({"method": "spectral"})
