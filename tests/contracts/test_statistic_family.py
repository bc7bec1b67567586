"""Promises of every statistic, over all that discovery finds."""

from __future__ import annotations

import pytest
import torch

from datafree._core.errors import UserError
from datafree.models import hooks
from datafree.records import statistics
from datafree.records.record import record
from datafree.records.statistics import Accumulator, Statistic

KINDS = tuple(statistics.kinds())
CASES = [(kind, {}) for kind in KINDS] + [
    ("moments", {"covariance": how, "pooled": pooled, "rank": 2})
    for how in ("none", "lowrank", "shrunk", "full")
    for pooled in (False, True)
] + [("spectral-all", {"signal": signal}) for signal in ("class-mean", "examples")]  # fmt: skip


def test_there_are_five_statistics():
    assert set(KINDS) >= {"batch-norm", "input", "moments", "spectral-all", "spectral-pairs"}


@pytest.fixture(scope="module")
def network(tiny):
    return tiny("norm")


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, (case[0], *case[1].values()))))
def bound(request, network):
    """Of the first entry that the statistic plans: itself, its taps, its meter, and activations with labels."""
    statistic = statistics.from_dict({"kind": request.param[0], **request.param[1]})
    own, names = next(iter(statistic.plan(network, hooks.layers(network)).values()))
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(48) % 3
    x = torch.rand(48, 1, 4, 4, generator=rng) + 0.3 * labels[:, None, None, None]
    with hooks.watch(network, names) as seen, torch.no_grad():
        network.logits(x)
    seen["input"] = x
    return own, names, own.bind(network, names), [seen[name] for name in names], labels


def finished(bound):
    _, _, meter, activations, labels = bound
    return meter.finish(meter.reduce(activations, labels))


def test_a_statistic_and_its_meter_obey_their_protocols(bound):
    statistic, names, meter, activations, labels = bound
    assert isinstance(statistic, Statistic)
    assert isinstance(meter, Accumulator)
    assert statistics.from_dict(statistic.model_dump(mode="json")) == statistic
    summary = finished(bound)
    assert all(isinstance(tensor, torch.Tensor) and tensor.isfinite().all() for tensor in summary.values())
    live = meter.observe(activations)
    drawn = meter.sample(summary, labels, torch.Generator().manual_seed(0))
    assert len(live) == len(drawn) == len(names)
    for a, b in zip(live, drawn):
        assert a.shape[1:] == b.shape[1:]
        assert len(b) == len(labels)
    assert meter.released_statistics(summary) >= 0


def test_merging_is_associative_and_commutative(bound):
    _, _, meter, activations, labels = bound
    pieces = (slice(0, 7), slice(7, 12), slice(12, 48))
    a, b, c = (meter.reduce([own[piece] for own in activations], labels[piece]) for piece in pieces)
    copies = [{name: tensor.clone() for name, tensor in state.items()} for state in (a, b, c)]
    orders = [meter.merge(meter.merge(a, b), c), meter.merge(a, meter.merge(b, c)), meter.merge(meter.merge(c, a), b)]
    whole = meter.reduce(activations, labels)
    for state in orders:
        for name in whole.keys() - {"rest"}:
            scale = float(whole[name][whole[name].isfinite()].abs().max())
            torch.testing.assert_close(state[name], whole[name], rtol=1e-12, atol=1e-13 * scale)
    for before, after in zip(copies, (a, b, c)):
        assert all(torch.equal(before[name], after[name]) for name in before), "merge must not write to its arguments"


def test_a_summary_of_its_own_is_taken_and_any_other_is_refused(bound):
    meter, summary = bound[2], finished(bound)
    meter.check(summary)
    wrong = []
    for name, tensor in summary.items():
        wrong += [
            {**summary, name: tensor[..., :-1] if tensor.ndim else tensor},
            {**summary, name: tensor[None]},
            {**summary, name: tensor.double() if tensor.dtype != torch.float64 else tensor.float()},
            {key: value for key, value in summary.items() if key != name},
        ]
        if name in ("count", "variance", "std"):
            wrong.append({**summary, name: torch.full_like(tensor, -1)})
    wrong.append({**summary, "stranger": torch.zeros(1)})
    rank = summary["factor"].shape[-1] if "factor" in summary else 0
    for number, other in enumerate(wrong):
        if rank and "factor" in other and other["factor"].shape[-1] == rank - 1 and other["factor"].ndim == 3:
            continue  # a factor may have fewer columns
        with pytest.raises(UserError) as caught:
            meter.check(other)
        assert "again" in str(caught.value), number
        assert "\n" not in str(caught.value)


def test_samples_depend_on_the_stream_alone(bound):
    meter, labels, summary = bound[2], bound[4], finished(bound)
    torch.manual_seed(0)
    a, b = (meter.sample(summary, labels, torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b))


def test_the_distance_has_a_finite_gradient_at_equality_and_beside_it(bound):
    _, _, meter, activations, labels = bound
    summary = finished(bound)
    for shift in (0.0, 0.3):
        own = [(a + shift * torch.randn_like(a)).requires_grad_() for a in activations]
        value = meter.distance(summary, own, labels)
        assert value.shape == ()
        assert float(value.detach()) >= 0
        for gradient in torch.autograd.grad(value, own, allow_unused=True, materialize_grads=True):
            assert gradient.isfinite().all()


def test_two_passes_over_the_data_give_the_same_record(bound, network, toy):
    statistic, names, *_ = bound
    made = [record(network, toy(48), [(statistic, names)]).digest() for _ in range(2)]
    assert made[0] == made[1]
