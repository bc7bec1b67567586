"""The spectral records: activations compressed in a graph's Fourier basis."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from datafree._core.errors import UserError
from datafree.data.dataset import Dataset
from datafree.models import hooks
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.records import statistics
from datafree.records.forecast import forecast_auc
from datafree.records.record import Record, record
from datafree.records.statistics.spectral import SpectralAll, SpectralPairs

CLASSES = 3
SIGNALS = ("class-mean", "class-moments", "examples")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def net() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(27, 20),
        nn.ReLU(),
        nn.Linear(20, CLASSES),
    )
    return Network(module, InputSpec(shape=(1, 8, 8), classes=tuple("abc")), "net")


@pytest.fixture(scope="module")
def batch(net) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Activations of 120 images at all layers, with labels."""
    rng = torch.Generator().manual_seed(3)
    labels = torch.arange(120) % CLASSES
    pixels = torch.rand(120, 1, 8, 8, generator=rng) * (0.4 + 0.3 * labels[:, None, None, None])
    layers = hooks.layers(net)
    with hooks.watch(net, layers) as seen, torch.no_grad():
        net.logits(pixels)
    return [seen[t] for t in layers], labels


def meter_of(net: Network, **settings):
    return SpectralAll(**settings).bind(net, hooks.layers(net))


def measured(meter, batch, sizes=(120,)):
    activations, labels = batch
    state = None
    for parts in zip(*(a.split(list(sizes)) for a in (*activations, labels))):
        own = meter.reduce(parts[:-1], parts[-1])
        state = own if state is None else meter.merge(state, own)
    return meter.finish(state)


def flat(activations) -> torch.Tensor:
    return torch.cat([a.flatten(1) for a in activations], 1)


def shuffled(batch):
    turn = torch.randperm(120, generator=torch.Generator().manual_seed(9))
    return [a[turn] for a in batch[0]], batch[1][turn]


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# -- laws -------------------------------------------------------------------------------------------------------------


def test_both_kinds_are_discovered():
    assert {"spectral-all", "spectral-pairs"} <= set(statistics.kinds())


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("sizes", [(1, 119), (40, 40, 40), (0, 60, 60), tuple([1] * 120)])
def test_any_split_of_the_data_gives_the_same_record(net, batch, signal, sizes):
    meter = meter_of(net, signal=signal, rank=4, examples=5)
    want, got = measured(meter, batch), measured(meter, batch, sizes)
    assert torch.equal(got["index"], want["index"])
    if "factor" in want:  # a factor is unique up to the signs of its columns
        got["factor"], want["factor"] = (f @ f.transpose(1, 2) for f in (got["factor"], want["factor"]))
    for name, tensor in want.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-5, atol=1e-5, msg=name)


def test_the_examples_kept_do_not_depend_on_the_order_of_the_data(net, batch):
    meter = meter_of(net, signal="examples", examples=4)
    want, got = measured(meter, batch), measured(meter, shuffled(batch), (50, 70))
    torch.testing.assert_close(got, want)


def test_examples_are_a_fair_choice_and_not_the_extremes(net, batch):
    """A hash is uniform: the keys of 120 distinct signals fill [0, 1/2] evenly (Kolmogorov's test at 0.1 %)."""
    keys = meter_of(net, signal="examples")._keys(flat(batch[0]).double()).sort().values * 2
    assert float((keys - (torch.arange(120) + 0.5) / 120).abs().max()) < 1.95 / 120**0.5


@pytest.mark.parametrize("fraction", [1e-9, 0.1, 0.25, 1.0])
@pytest.mark.parametrize("signal", SIGNALS)
def test_that_fraction_of_the_coefficients_is_kept_the_largest_ones(net, batch, fraction, signal):
    meter = meter_of(net, fraction=fraction, signal=signal, examples=40)
    summary = measured(meter, batch)
    n = 108 + 20 + 3
    assert summary["index"].shape[-1] == max(1, round(fraction * n))
    coefficients = meter.basis.analyse(flat(batch[0]).double())[batch[1] == 1]
    size = {"class-mean": coefficients.mean(0).abs(), "class-moments": coefficients.square().mean(0)}
    if signal != "examples":
        index = summary["index"][1].long()
        left_out = size[signal].clone().index_fill_(0, index, 0)
        assert float(size[signal][index].min()) >= float(left_out.max()) * (1 - 1e-9)
        return
    value, index = summary["value"][1], summary["index"][1].long()
    own = (coefficients[:, index] - value).square().sum(2).argmin(0)
    assert sorted(own.tolist()) == list(range(40))
    torch.testing.assert_close(value, coefficients[own].gather(1, index).float())
    assert bool(
        (value.abs().amin(1) >= coefficients[own].scatter(1, index, 0).abs().amax(1).float() * (1 - 1e-6)).all()
    )


# -- rebuilding -------------------------------------------------------------------------------------------------------


def test_all_coefficients_of_the_class_mean_give_it_back_exactly(net, batch):
    meter = meter_of(net, fraction=1.0, signal="class-mean")
    got = meter.sample(measured(meter, batch), torch.arange(CLASSES), rng())
    assert [t.shape for t in got] == [(3, 108), (3, 20), (3, 3)]
    want = torch.stack([flat(batch[0])[batch[1] == c].double().mean(0) for c in range(CLASSES)])
    torch.testing.assert_close(torch.cat(got, 1), want.float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(meter.basis.synthesise(meter.basis.analyse(want)), want, rtol=0, atol=1e-10)


def test_all_coefficients_of_examples_are_examples(net, batch):
    meter = meter_of(net, fraction=1.0, signal="examples", examples=6)
    labels = torch.tensor([0, 1, 2, 2, 1] * 20)
    got = torch.cat(meter.sample(measured(meter, batch), labels, rng()), 1)
    real = flat(batch[0])
    apart = torch.cdist(got.double(), real.double())
    assert float(apart.amin(1).max()) < 1e-4
    assert torch.equal(batch[1][apart.argmin(1)], labels)
    assert len(apart.argmin(1)[labels == 1].unique()) > 3


def test_draws_have_the_recorded_mean_and_covariance(net, batch):
    """All directions kept: the sample covariance of 20,000 draws is the class's own."""
    meter = meter_of(net, fraction=1.0, signal="class-moments", rank=64)
    labels = torch.full((20000,), 2)
    got = torch.cat(meter.sample(measured(meter, batch), labels, rng()), 1)
    own = flat(batch[0])[batch[1] == 2]
    scale = own.var(0).max()
    torch.testing.assert_close(got.mean(0), own.mean(0), rtol=0, atol=4 * float(scale) ** 0.5 / 20000**0.5)
    torch.testing.assert_close(got.T.cov(), own.T.cov(), rtol=0, atol=5 * float(scale) / 20000**0.5)


@pytest.mark.parametrize("rank", [1, 3, 32])
def test_every_kept_coefficient_has_its_right_variance_at_any_rank(net, batch, rank):
    meter = meter_of(net, fraction=0.3, rank=rank)
    summary = measured(meter, batch)
    total = summary["variance"] + summary["factor"].square().sum(2)
    coefficients = meter.basis.analyse(flat(batch[0]).double())
    for c in range(CLASSES):
        want = coefficients[batch[1] == c].var(0)[summary["index"][c].long()].float()
        torch.testing.assert_close(total[c], want, rtol=1e-4, atol=1e-5 * float(want.max()))


def test_the_same_stream_draws_the_same(net, batch):
    meter = meter_of(net)
    summary, labels = measured(meter, batch), torch.tensor([2, 0])
    torch.testing.assert_close(
        meter.sample(summary, labels, rng()), meter.sample(summary, labels, rng()), rtol=0, atol=0
    )


# -- distance and leakage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_recorded_data_are_at_distance_0_and_others_are_not(net, batch, signal):
    meter = meter_of(net, signal=signal, examples=64)
    summary = measured(meter, batch)
    assert float(meter.distance(summary, *batch)) < 1e-8
    moved = [(a + 0.3).requires_grad_() for a in batch[0]]
    distance = meter.distance(summary, moved, batch[1])
    distance.backward()
    assert distance.item() > 1e-3
    assert all(float(a.grad.abs().max()) > 0 for a in moved)


def test_a_batch_of_zeros_is_at_distance_1(net, batch):
    for signal in SIGNALS:
        meter = meter_of(net, signal=signal)
        zeros = [torch.zeros_like(a) for a in batch[0]]
        torch.testing.assert_close(meter.distance(measured(meter, batch), zeros, batch[1]), torch.tensor(1.0))


def test_leakage_counts_numbers_by_samples_and_examples_count_as_seen(net, batch):
    n = 131
    released = {
        s: (m := meter_of(net, signal=s, fraction=1.0, rank=2)).released_statistics(measured(m, batch)) for s in SIGNALS
    }
    assert released["class-mean"] == n / 40
    assert released["class-moments"] == (n + n * 2 - 1 + n) / 40
    few = meter_of(net, signal="examples", fraction=1e-9, examples=1)
    assert forecast_auc(few.released_statistics(measured(few, batch))) > 0.999


# -- channels, pairs and files ----------------------------------------------------------------------------------------


def test_a_channel_graph_takes_spatial_means(net, batch):
    meter = meter_of(net, graph="channels", fraction=1.0, signal="class-mean")
    live = meter.observe(batch[0])
    assert [t.shape for t in live] == [(120, 3), (120, 20), (120, 3)]
    torch.testing.assert_close(live[0], batch[0][0].mean((2, 3)))
    got = meter.sample(measured(meter, batch), torch.tensor([1]), rng())
    want = [t[batch[1] == 1].mean(0, keepdim=True) for t in live]
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_pairs_are_named_after_their_layers_and_take_two_taps(net):
    assert {name: own for name, (_, own) in SpectralPairs().plan(net, hooks.layers(net)).items()} == {
        "0--4": ("0", "4"),
        "4--6": ("4", "6"),
    }
    assert list(SpectralAll().plan(net, hooks.layers(net))) == ["graph"]


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_record_of_both_kinds_survives_its_file(net, tmp_path, signal):
    images = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=rng()).numpy()
    data = Dataset("made", "train", ("a", "b", "c"), torch.arange(60) % 3, (1, 8, 8), lambda indices: images[indices])
    made = record(net, data, [SpectralAll(signal=signal, examples=3), SpectralPairs(signal=signal, examples=30)])
    assert list(made.entries) == ["graph", "0--4", "4--6"]
    made.save(tmp_path / "record.safetensors")
    back = Record.load(tmp_path / "record.safetensors", net)
    for name, entry in made.entries.items():
        torch.testing.assert_close(back.entries[name].summary, entry.summary, rtol=0, atol=0)
        assert back.entries[name].statistic == entry.statistic
    assert back.released_statistics(net) == made.released_statistics(net)


# -- wrong inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [SpectralAll, SpectralPairs])
def test_the_directed_graph_is_refused_with_the_reason(cls):
    text = "strictly block-triangular, hence nilpotent: all its eigenvalues are 0 and it is not diagonalisable"
    with pytest.raises(UserError, match=text):
        cls(directed=True)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(UserError, match=r"fraction: got .*"):
        SpectralAll(fraction=fraction)


def test_a_class_without_samples_is_named(net, batch):
    for signal in SIGNALS:
        meter = meter_of(net, signal=signal)
        state = meter.reduce(batch[0], batch[1].clamp(max=1))
        with pytest.raises(UserError, match="no samples of class 2"):
            meter.finish(state)


def damage(summary, name, change):
    return {**summary, name: change(summary[name].clone())}


@pytest.mark.parametrize("signal", SIGNALS)
def test_damaged_entries_are_refused(net, batch, signal):
    meter = meter_of(net, signal=signal, examples=3, rank=2)
    good = measured(meter, batch)
    meter.check(good)
    values = "value" if signal == "examples" else "mean"
    bad = [
        (damage(good, values, lambda t: t[..., 1:]), "expected"),
        (damage(good, values, lambda t: t.double()), "expected"),
        ({name: t for name, t in good.items() if name != "check"}, "expected"),
        ({**good, "more": good["count"]}, "expected"),
        (damage(good, "count", lambda t: t.fill_(0)), "counts from 0 to 0, expected 1 to"),
        (damage(good, values, lambda t: t.fill_(float("nan"))), "of nan, expected"),
        (damage(good, "index", lambda t: t.fill_(5)), "twice"),
        (damage(good, "index", lambda t: t.add_(131)), "beyond its 131"),
        (damage(good, "index", lambda t: t.neg_()), "beyond its 131"),
    ]
    if signal == "class-moments":
        bad.append((damage(good, "variance", lambda t: t.sub_(1e6)), "variance below 0"))
    for summary, text in bad:
        with pytest.raises(UserError, match=text):
            meter.check(summary)
    meter.ready(good)
    with pytest.raises(UserError, match="is not the same on this machine as where it was recorded"):
        meter.ready(damage(good, "check", lambda t: t.neg_()))


def test_a_class_with_fewer_samples_than_examples_gives_only_its_own(net, batch):
    meter = meter_of(net, signal="examples", examples=64, fraction=1.0)
    summary = measured(meter, batch)
    meter.check(summary)
    got = torch.cat(meter.sample(summary, torch.zeros(200, dtype=torch.long), rng()), 1)
    apart = torch.cdist(got.double(), flat(batch[0]).double())
    assert float(apart.amin(1).max()) < 1e-4
    assert set(batch[1][apart.argmin(1)].tolist()) == {0}
