"""The meta-learned generator: images near the stored statistics and of their class, the same for a seed and index."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import nn

import datafree as df
from datafree import similarity
from datafree._core.errors import UserError
from datafree.distillation.sources import soft_labelled
from datafree.models import hooks as tap_names
from datafree.models.network import frozen
from datafree.records.divergence import stored_statistics
from datafree.synthesis import methods
from datafree.synthesis.losses import View
from datafree.synthesis.losses.batchnorm import BatchNormDivergence
from datafree.synthesis.losses.classes import TargetClass
from datafree.synthesis.methods import meta_generator
from datafree.synthesis.methods.meta_generator import BoundMetaGenerator, MetaGenerator, initialise_layer
from papers.ours import rows
from papers.ours.run import Chain

SMALL = {"batch": 40, "discard": 2, "width": 8, "steps": 4, "jitter": 0, "flip": False}


@pytest.fixture
def few(monkeypatch):
    """As many images as a small set has show how the teacher was trained."""
    monkeypatch.setattr(meta_generator, "TRIAL", 48)


def chunk(network, index=0, seed=0, size=80, **settings):
    return MetaGenerator(**{**SMALL, **settings}).bind(network, None).chunk(index, seed, size)


def divergence(network, pixels) -> float:
    return similarity(network, {"images": pixels})[0].total


def test_images_are_nearer_to_the_stored_statistics_than_noise_and_of_their_class(normed):
    noise = methods.from_name("gaussian").bind(normed, None).chunk(0, 0, 80).pixels
    images = chunk(normed, discard=6, steps=10, classes=1.0)
    assert divergence(normed, images.pixels) < 0.3 * divergence(normed, noise)
    assert float((normed.predict(images.pixels).argmax(1) == images.labels).float().mean()) > 0.8
    assert images.labels.bincount().tolist() == [8] * 10


def test_more_batches_teach_the_generator_to_need_fewer_steps(normed):
    first, later = (chunk(normed, size=40, discard=discard, steps=3).pixels for discard in (0, 12))
    assert divergence(normed, later) < 0.8 * divergence(normed, first)


def test_a_chunk_depends_on_seed_and_index_and_not_on_torchs_random_state(normed):
    before = torch.get_rng_state()
    one = chunk(normed, 1, 7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    torch.rand(3)
    assert torch.equal(one.pixels, chunk(normed, 1, 7).pixels)
    assert not torch.equal(one.pixels, chunk(normed, 2, 7).pixels)
    assert not torch.equal(one.pixels, chunk(normed, 1, 8).pixels)


def test_the_last_batch_may_be_cut(normed):
    assert torch.equal(chunk(normed, size=50).pixels[:40], chunk(normed, size=80).pixels[:40])
    assert chunk(normed, size=50).pixels.shape == (50, *normed.spec.shape)


@pytest.mark.parametrize(
    ("images", "size"), [(1, 16), (10_000, 10_000), (10_240, 10_240), (20_480, 10_240), (30_001, 10_016)]
)
def test_chunks_are_whole_batches_and_as_few_as_possible(images, size):
    assert MetaGenerator().chunk_size(10, images) == size


@pytest.mark.parametrize("form", ["forward", "reverse", "l2"])
def test_a_running_mean_is_compared_with_the_whole_gradient_of_the_batch(form, normed):
    pixels = torch.rand(20, *normed.spec.shape, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    labels = torch.arange(20) % 10
    layers = stored_statistics(normed)
    with frozen(normed.module), tap_names.watch(normed, BatchNormDivergence(layers).taps) as activations:
        logits = normed.logits(pixels)
        view = View(pixels, labels, logits, activations)
        now = BatchNormDivergence(layers, form).running(view)
        same = BatchNormDivergence(layers, form, earlier=tuple(tuple(part.detach() for part in pair) for pair in now))
        fresh = BatchNormDivergence(layers, form)
        assert torch.allclose(same(view), fresh(view), rtol=1e-4)
        gradients = [torch.autograd.grad(term(view), pixels, retain_graph=True)[0] for term in (same, fresh)]
        assert torch.allclose(*gradients, rtol=1e-3, atol=1e-5)
        half = BatchNormDivergence(
            layers, form, earlier=tuple((torch.zeros_like(mean), layer.variance) for (mean, _), layer in zip(now, layers)),
            momentum=0.5,
        )  # fmt: skip
        for (mean, variance), (blended_mean, blended), layer in zip(now, half.running(view), layers):
            assert torch.allclose(blended_mean, mean / 2, atol=1e-6)
            assert torch.allclose(blended, (variance + layer.variance) / 2, atol=1e-6)


def test_a_layer_is_drawn_as_torch_draws_it():
    layer, rng = torch.nn.Conv2d(6, 5, 3), torch.Generator().manual_seed(0)
    initialise_layer(layer, rng)
    bound = (6 * 9) ** -0.5
    assert 0.9 * bound < float(layer.weight.detach().abs().max()) <= bound
    assert float(layer.bias.detach().abs().max()) <= bound


def test_what_it_cannot_use_is_refused_in_a_line(normed, teacher):
    with pytest.raises(UserError, match="has no batch norm"):
        MetaGenerator().bind(teacher, None)
    with pytest.raises(UserError, match="jitter: got 8, expected below 8, the images' smaller side; give less"):
        MetaGenerator(jitter=8).bind(normed, None)
    with pytest.raises(UserError, match="batch: got 1, expected at least 2"):
        MetaGenerator(batch=1)


def test_an_objective_that_is_not_finite_is_named_with_its_step(normed, monkeypatch):
    with pytest.raises(UserError, match=r"not finite at step 0, although its losses are \(.*\); lower their weights"):
        chunk(normed, classes=1e38)
    monkeypatch.setattr(TargetClass, "__call__", lambda _, view: view.logits.sum() * torch.nan)
    with pytest.raises(UserError, match="the loss TargetClass is nan at step 0, expected a finite number"):
        chunk(normed)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "meta-generator", "jitter": 2, "flip": True}, (2, True)),
        ({"expand": "mmd", "generator": {"method": "meta-generator", "jitter": 1, "flip": False}}, (1, False)),
        ({"method": "bns-inception", "jitter": 2, "flip": True}, (0, False)),  # rolled as a batch, without a border
        ({"expand": "mmd", "generator": None}, (0, False)),
        ({"method": "meta-generator", "jitter": "2", "flip": 1}, (0, False)),
        ("gaussian", (0, False)),
    ],
)
def test_the_augmentation_of_a_set_is_read_from_its_settings(settings, expected):
    assert meta_generator.augmentation_of(settings) == expected


@pytest.mark.usefixtures("few")
def test_a_teacher_that_keeps_its_class_is_shown_shifted_and_mirrored_images_and_another_one_is_not(normed):
    class Mean(nn.Module):
        """Classes by the mean of the centre: neither mirroring nor a small shift changes them much."""

        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(1)
            self.last = nn.Linear(1, 2)
            self.last.weight.data = torch.tensor([[9.0], [-9.0]])
            self.last.bias.data.zero_()

        def forward(self, x):
            return self.last(self.norm(x).mean((2, 3)))

    symmetric = df.Network(Mean().eval(), df.InputSpec(shape=(1, 16, 16), classes=("a", "b"), mean=(0.5,), std=(0.5,)))
    small = {"width": 8, "discard": 2, "steps": 3}
    kept = MetaGenerator(**small).bind(symmetric, None).settings
    assert (kept.jitter, kept.flip) == (2, True)
    digits_settings = MetaGenerator(**{**small, "discard": 12, "steps": 10}).bind(normed, None).settings
    assert (digits_settings.jitter, digits_settings.flip) == (0, False)
    chosen = MetaGenerator(jitter=1, flip=True, **small).bind(normed, None).settings
    assert (chosen.jitter, chosen.flip) == (1, True)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("best", "jitter", "border", "colour"), [
    ("black", 1, "black", (0.0,)), ("mean", 1, "mean", (0.3,)), (None, 0, None, None),
])  # fmt: skip
def test_the_border_with_which_the_statistics_are_matched_best_is_kept_with_the_images(
    best, jitter, border, colour, normed, tmp_path, monkeypatch
):
    trial = BoundMetaGenerator._trial

    def judged(bound):
        return trial(bound)._replace(divergence=float(bound.settings.border != best))

    monkeypatch.setattr(BoundMetaGenerator, "_trial", judged)
    monkeypatch.setattr(meta_generator, "WITHSTANDS", 0.0)
    method = {"method": "meta-generator", "width": 8, "batch": 40, "discard": 1, "steps": 2, "flip": False}
    images = df.synthesize(normed, None, method, tmp_path / "set", images=40, workers=1)
    assert (images.about["method"]["jitter"], images.about["method"].get("border")) == (jitter, border)
    assert images.spec.border == colour
    assert soft_labelled(normed, df.sample(normed, method, n=40)).spec.border == colour
    assert normed.spec.border is None


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "border"), [(rows.CIFAR10, "black"), (rows.CIFAR100, "mean")], ids=["black", "mean"])
def test_the_border_of_published_teachers_is_found_without_data(pair, border, real_data, tmp_path):
    teacher = Chain(pair, 0, tmp_path, str(real_data), "cpu", ()).teacher
    unknown = df.Network(teacher.module, teacher.spec.model_copy(update={"border": None}))
    found = MetaGenerator(precision="bfloat16", flip=True).bind(unknown, None).settings
    assert (found.jitter, found.border) == (4, border)


def test_a_border_that_is_chosen_or_known_is_not_looked_for(normed):
    chosen = MetaGenerator(**{**SMALL, "jitter": 1, "border": "mean"}).bind(normed, None)
    assert (chosen.settings.border, chosen.teacher.spec.border) == ("mean", (0.3,))
    known = df.Network(normed.module, normed.spec.model_copy(update={"border": (0.7,)}))
    bound = MetaGenerator(**{**SMALL, "jitter": 1}).bind(known, None)
    assert (bound.settings.border, bound.teacher.spec.border) == (None, (0.7,))
    assert known.fingerprint() == normed.fingerprint()


def test_the_search_for_the_augmentation_is_a_stage_of_the_progress(normed):
    stages, counts = [], []

    class Shown:
        def __call__(self, *_):
            raise AssertionError("the job itself has not begun")

        @contextmanager
        def stage(self, name):
            stages.append(name)
            yield lambda done, total: counts.append((done, total))

    methods.bind(MetaGenerator(**{**SMALL, "jitter": None}), normed, None, progress=Shown())
    assert stages == ["find shift, border and mirroring"] and counts[:2] == [(0, 1), (1, 1)]


@pytest.mark.usefixtures("few")
def test_a_set_states_the_augmentation_that_was_found(normed, tmp_path):
    method = {"method": "meta-generator", "width": 8, "discard": 8}
    images = df.synthesize(normed, None, method, tmp_path / "set", images=16, workers=1)
    assert (images.about["method"]["jitter"], images.about["method"]["flip"]) == (0, False)
    assert len(df.synthesize(normed, None, method, tmp_path / "set", images=32, workers=1)) == 32


def test_without_a_method_a_network_with_batch_norms_and_no_record_gets_this_one(normed, teacher, whole_record):
    assert methods.resolve_for(None, normed, None).method == "meta-generator"
    assert methods.resolve_for(None, teacher, whole_record).method == "distribution"
    assert methods.resolve_for(None, teacher, None).method == "distribution"  # which says what it needs
