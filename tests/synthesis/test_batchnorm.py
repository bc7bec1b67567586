"""Images from batch norms alone: nearer to the training data than noise, of the target class, the same for a seed."""

from __future__ import annotations

import re
from contextlib import nullcontext

import pytest
import torch

from datafree import similarity
from datafree._core.errors import UserError
from datafree.models import hooks as tap_names
from datafree.models.network import frozen
from datafree.synthesis import methods
from datafree.synthesis.losses import Objective, Term, View
from datafree.synthesis.losses.classes import ClassBalance, TargetClass, TargetLogit
from datafree.synthesis.losses.priors import PixelNorm, Smoothness, TotalVariation
from datafree.synthesis.methods.inversion import Inversion, invert

FORMS = ("forward", "reverse", "l2")


def made(network, name, known=None, *, unit=0, seed=0, size=40, **settings):
    return methods.from_name(name, **settings).bind(network, known).chunk(unit, seed, size)


def divergence_of(network, pixels, known=None, form="forward") -> float:
    return similarity(network, {"some": pixels}, known, form=form)[0].total


def loss_of(maker, batch) -> float:
    with torch.no_grad(), frozen(maker.teacher.module), tap_names.watch(maker.teacher, maker.objective.taps) as seen:
        logits = maker.teacher.logits(batch.pixels)
        return float(maker.objective(View(batch.pixels, batch.labels, logits, {**seen, "input": batch.pixels}))[0])


def agreement(network, batch) -> float:
    return float((network.predict(batch.pixels).argmax(1) == batch.labels).float().mean())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["bns", "bns-inception"])
def test_the_loss_falls_with_the_steps(name, form, normed):
    values = []
    for steps in (1, 10, 40):
        maker = methods.from_name(name, form=form, steps=steps).bind(normed, None)
        values.append(loss_of(maker, maker.chunk(0, 0, 40)))
    assert values == sorted(values, reverse=True)
    assert values[2] < 0.6 * values[0]


@pytest.mark.parametrize("form", FORMS)
def test_statistics_come_nearer_to_the_stored_ones_than_noise_and_than_those_of_fewer_steps(form, normed):
    values = [divergence_of(normed, made(normed, "gaussian").pixels, form=form)]
    values += [divergence_of(normed, made(normed, "bns", form=form, steps=n).pixels, form=form) for n in (10, 60)]
    assert values == sorted(values, reverse=True)
    assert values[2] < 0.2 * values[0]


def test_one_form_lowers_the_others_too(normed):
    noise = made(normed, "gaussian").pixels
    for form in FORMS:
        pixels = made(normed, "bns", form=form, steps=60).pixels
        assert all(
            divergence_of(normed, pixels, form=own) < 0.6 * divergence_of(normed, noise, form=own) for own in FORMS
        )


def test_wanted_classes_are_seen_where_they_are_asked_for_and_by_chance_elsewhere(normed):
    found = {name: agreement(normed, made(normed, name, steps=40)) for name in ("inception", "bns", "bns-inception")}
    found["without"] = agreement(normed, made(normed, "bns-inception", steps=40, classes=0.0))
    assert found["inception"] > 0.9 and found["bns-inception"] > 0.9
    assert found["bns"] < 0.5 and found["without"] < 0.5


def test_both_losses_together_are_nearer_to_the_data_than_logits_alone(normed):
    alone, both = (
        divergence_of(normed, made(normed, name, steps=60).pixels) for name in ("inception", "bns-inception")
    )
    assert both < 0.5 * alone


def test_a_network_without_batch_norm_is_matched_through_its_record(teacher, whole_record):
    values = [
        divergence_of(teacher, made(teacher, name, whole_record, **own).pixels, whole_record)
        for name, own in (("gaussian", {}), ("bns", {"steps": 10}), ("bns", {"steps": 60}))
    ]
    assert values == sorted(values, reverse=True)
    assert values[2] < 0.5 * values[0]


def test_an_empty_network_of_neither_is_one_line(teacher):
    for name in ("bns", "bns-inception"):
        with pytest.raises(UserError, match="hinton32 has no batch norm, and no record of moments of its layers"):
            methods.from_name(name).bind(teacher, None)


def test_gaussian_noise_is_standard_normal_to_the_network_and_boxed_where_it_says_so(normed):
    free, in_range = (made(normed, "gaussian", size=500, box=box).pixels for box in (False, True))
    seen = normed.spec.normalize(free)
    assert float(seen.mean()) == pytest.approx(0, abs=0.02)
    assert float(seen.std()) == pytest.approx(1, abs=0.02)
    assert float(free.min()) < 0 and float(free.max()) > 1
    assert torch.equal(in_range, free.clamp(0, 1))
    settings = [methods.from_name("gaussian"), methods.from_name("gaussian", box=False)]
    assert [own.in_range for own in settings] == [True, False]


def test_gaussian_noise_takes_the_inputs_moments_from_a_record(teacher, whole_record):
    entry = whole_record.entries["input-moments"].summary
    pixels = made(teacher, "gaussian", whole_record, size=4000, box=False).pixels
    torch.testing.assert_close(pixels.mean(0), entry["mean"], rtol=0, atol=0.04)
    torch.testing.assert_close(pixels.std(0), entry["std"], rtol=0.1, atol=1e-6)


@pytest.mark.parametrize("moves", [{"jitter": 2}, {"flip": True}, {"jitter": 1, "flip": True}], ids=str)
@pytest.mark.parametrize("name", ["inception", "bns", "bns-inception"])
def test_shifts_and_flips_are_drawn_from_the_seed_and_change_the_images(name, moves, normed):
    torch.manual_seed(0)
    first = made(normed, name, steps=6, size=10, **moves).pixels
    torch.manual_seed(1)
    assert torch.equal(made(normed, name, steps=6, size=10, **moves).pixels, first)
    assert not torch.equal(made(normed, name, steps=6, size=10).pixels, first)
    assert not torch.equal(made(normed, name, seed=1, steps=6, size=10, **moves).pixels, first)


class Seen(Term):
    """Keeps what a step shows; costs nothing."""

    def __init__(self):
        self.shown = []

    def __call__(self, view):
        self.shown.append(view.pixels.detach().clone())
        return 0 * view.pixels.sum()


def shown(network, start, steps, rng, **moves):
    term = Seen()
    how = Inversion(steps, 0.1, False, **moves)
    kept = invert(network, Objective(((1.0, term),)), start, torch.zeros(len(start)).long(), how, rng)
    assert torch.equal(kept, start), "the image that is kept is not the moved one"
    return term.shown


def test_every_step_shows_the_batch_moved_around_the_edges_by_at_most_so_many_pixels_or_mirrored(tiny):
    start = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    shifts = {(d, r): start.roll((d, r), (2, 3)) for d in (-1, 0, 1) for r in (-1, 0, 1)}
    rng = torch.Generator().manual_seed(0)
    met = set()
    for own in shown(tiny(), start, 60, rng, jitter=1):
        (name,) = [name for name, wanted in shifts.items() if torch.equal(own, wanted)]
        met.add(name)
    assert met == set(shifts)
    flips = [torch.equal(own, start.flip(3)) for own in shown(tiny(), start, 60, rng, flip=True)]
    straight = [torch.equal(own, start) for own in shown(tiny(), start, 60, rng, jitter=0, flip=False)]
    assert 15 < sum(flips) < 45 and all(straight)


def test_a_prior_takes_part_where_its_weight_is_not_zero(normed):
    own = {"smooth": 1.0, "total_variation": 2.0, "pixel_norm": 3.0, "balance": 4.0}
    objective = methods.from_name("bns", **own).bind(normed, None).objective
    kinds = {type(term): weight for weight, term in objective.parts}
    assert (kinds[Smoothness], kinds[TotalVariation], kinds[PixelNorm], kinds[ClassBalance]) == (1.0, 2.0, 3.0, 4.0)
    assert len(methods.from_name("bns").bind(normed, None).objective.parts) == 1
    assert [type(term) for _, term in methods.from_name("inception").bind(normed, None).objective.parts] == [
        TargetLogit, Smoothness
    ]  # fmt: skip
    both = methods.from_name("bns-inception", classes=0.5).bind(normed, None).objective
    assert {type(term): weight for weight, term in both.parts}[TargetClass] == 0.5


@pytest.mark.parametrize("prior", ["smooth", "total_variation", "pixel_norm"])
def test_a_prior_lowers_what_it_is_named_for(prior, normed):
    term = {"smooth": Smoothness(), "total_variation": TotalVariation(), "pixel_norm": PixelNorm()}[prior]
    values = []
    for weight in (0.0, 100.0):
        batch = made(normed, "bns", steps=20, **{prior: weight})
        values.append(float(term(View(batch.pixels, batch.labels, torch.zeros(40, 10)))))
    assert values[1] < 0.7 * values[0]


def test_the_balance_brings_classes_to_equal_shares(normed):
    values = []
    for weight in (0.0, 20.0):
        batch = made(normed, "bns", steps=30, balance=weight)
        logits = normed.predict(batch.pixels)
        values.append(float(ClassBalance()(View(batch.pixels, batch.labels, logits))))
    assert values[1] < values[0]


def test_deepinversion_is_a_recipe_of_them(normed):
    own = {"form": "l2", "jitter": 1, "flip": True, "total_variation": 0.1, "pixel_norm": 0.01, "steps": 60}
    batch = made(normed, "bns-inception", **own)
    assert agreement(normed, batch) > 0.5
    assert divergence_of(normed, batch.pixels) < 0.5 * divergence_of(normed, made(normed, "gaussian").pixels)


def test_the_batch_is_matched_as_a_whole_and_not_image_by_image(normed):
    """One image cannot have the statistics of all classes; forty together can."""
    batch = made(normed, "bns", steps=60).pixels
    whole = divergence_of(normed, batch)
    halves = [divergence_of(normed, batch[index : index + 2]) for index in range(0, 40, 2)]
    assert whole < 0.5 * min(halves)


@pytest.mark.parametrize("name", ["bns", "bns-inception", "inception"])
def test_a_unit_is_made_channels_last_and_is_the_plain_one_but_for_rounding(name, normed, monkeypatch):
    lain = []
    conv, plain = torch.nn.functional.conv2d, nullcontext()

    def looked(x, weight, *rest):
        lain.append(weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous())
        return conv(x, weight, *rest)

    monkeypatch.setattr("torch.nn.functional.conv2d", looked)
    last = made(normed, name, steps=4, size=12).pixels
    assert any(lain)
    assert all(part.is_contiguous() for part in normed.module.parameters())
    monkeypatch.setattr("datafree.synthesis.methods.inversion.channels_last", lambda _: plain)
    lain.clear()
    torch.testing.assert_close(made(normed, name, steps=4, size=12).pixels, last, rtol=0, atol=1e-4)
    assert not any(lain)


class FrozenNorm(torch.nn.Module):
    """As torchvision's FrozenBatchNorm2d, it has statistics and is no batch norm of torch's."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("running_var", torch.ones(3))

    def forward(self, x):
        return (x - self.running_mean.view(1, 3, 1, 1)) / self.running_var.view(1, 3, 1, 1).sqrt()


@pytest.mark.parametrize("norm", ["batch", "frozen", "instance", "rounded"])
def test_the_method_that_is_named_where_there_is_no_record_makes_images(norm, tiny):
    network = tiny("norm")
    if norm == "frozen":
        network.module.bn = FrozenNorm()
    elif norm == "instance":
        network.module.bn = torch.nn.InstanceNorm2d(3, track_running_stats=True).eval()
    elif norm == "rounded":
        network.module.fc.register_forward_hook(lambda *own: own[2].detach())
    with pytest.raises(UserError) as caught:
        methods.from_name("distribution").bind(network, None)
    name = re.search("use the method '([a-z-]+)', which needs none", str(caught.value)).group(1)
    assert name == {"batch": "bns-inception", "rounded": "gaussian"}.get(norm, "inception")
    steps = {} if name == "gaussian" else {"steps": 1}
    assert methods.from_name(name, **steps).bind(network, None).chunk(0, 0, 2).pixels.shape == (2, 1, 4, 4)
