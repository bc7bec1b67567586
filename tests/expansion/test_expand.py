"""Expansion by guided inversion: units that depend on seed and index alone, a teacher left as it was, anchors that guide."""

from __future__ import annotations

import copy

import pytest
import torch

from datafree._core.errors import UserError
from datafree._core.files import read_json
from datafree.models import hooks as taps
from datafree.models.network import Network, frozen
from datafree.records.presets import preset
from datafree.records.record import record
from datafree.records.statistics.moments import Moments
from datafree.synthesis.expansion import Expansion, GuidedGenerator, GuidedInversion, expand
from datafree.synthesis.losses import alignment
from datafree.synthesis.methods import Synthesizer
from datafree.synthesis.methods.meta_generator import MetaGenerator
from datafree.synthesis.synthetic_set import SyntheticSet

KINDS = sorted(alignment.kinds())


def anchors(digits, per=1):
    """The first `per` digits of each class."""
    rows = torch.cat([(digits.labels == c).nonzero()[:per, 0] for c in range(10)])
    return digits.pixels(rows.numpy()), torch.eye(10)[digits.labels[rows]]


def method(digits, kind="mmd", per=1, **settings):
    own = {"steps": 3, **settings}
    return GuidedInversion(*anchors(digits, per), Expansion(**own), alignment.from_name(kind))


def state(network):
    hooks = [len(p._forward_hooks) + len(p._forward_pre_hooks) for p in network.module.modules()]
    flags = [p.training for p in network.module.modules()], [p.requires_grad for p in network.module.parameters()]
    return network.fingerprint(), hooks, flags, [p.grad for p in network.module.parameters()]


@pytest.mark.parametrize("start", ["noise", "anchors"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_depends_on_seed_and_index_alone(kind, start, normed, digits):
    own = method(digits, kind, start=start)
    maker = own.bind(normed, None)
    before = torch.get_rng_state()
    first = maker.chunk(5, 7, 20)
    maker.chunk(2, 7, 20)
    again = method(digits, kind, start=start).bind(normed, None).chunk(5, 7, 20)
    assert torch.equal(first.pixels, again.pixels) and torch.equal(first.labels, again.labels)
    assert torch.equal(torch.get_rng_state(), before)
    for other in (maker.chunk(6, 7, 20), maker.chunk(5, 8, 20)):
        assert (first.pixels - other.pixels).abs().flatten(1).amax(1).min() > 1e-3
    assert first.labels.tolist() == [*range(10), *range(10)]
    assert first.pixels.min() >= 0 and first.pixels.max() <= 1


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_is_left_as_it_was(kind, failing, normed, digits, monkeypatch):
    module = copy.deepcopy(normed.module).train()
    module.fc.weight.requires_grad_(False)
    own = Network(module, normed.spec, "own")
    before, maker = state(own), method(digits, kind).bind(own, None)
    if failing:
        monkeypatch.setattr(alignment.kinds()[kind], "show", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            maker.chunk(0, 0, 10)
    else:
        maker.chunk(0, 0, 10)
    assert state(own) == before


def test_it_is_a_method_of_synthesis_whose_set_knows_its_anchors(digits):
    own = method(digits)
    assert isinstance(own, Synthesizer) and own.in_range
    about = own.model_dump(mode="json")
    assert about["method"] == "expand" and about["alignment"]["alignment"] == "mmd" and about["anchors"]["images"] == 10
    assert about != method(digits, per=2).model_dump(mode="json")


def test_workers_and_stops_change_no_byte(normed, digits, tmp_path):
    options = {"settings": Expansion(steps=2), "alignment": alignment.from_name("discriminator"), "chunk": 10}
    one = expand(normed, anchors(digits), tmp_path / "one", images=40, workers=1, **options)
    expand(normed, anchors(digits), tmp_path / "two", images=10, workers=2, **options)
    two = expand(normed, anchors(digits), tmp_path / "two", images=40, workers=2, **options)
    assert one.about["shards"] == two.about["shards"] and len(one) == 40
    assert torch.equal(SyntheticSet.open(tmp_path / "one", normed).load()[0], two.load()[0])
    with pytest.raises(UserError, match="holds a set with `anchors="):
        expand(normed, anchors(digits, 2), tmp_path / "one", images=40, **options)


SMALL = {"batch": 20, "discard": 1, "width": 8, "steps": 3, "jitter": 0, "flip": False}
LEARNING = MetaGenerator(**{**SMALL, "discard": 10, "steps": 10, "width": 16})


@pytest.fixture(scope="module")
def free(normed):
    """Images of a generator that no anchor guides."""
    return LEARNING.bind(normed, None).chunk(0, 3, 40)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in ("coral", "mmd"))) for kind in KINDS]
)
def test_a_generator_is_pulled_to_the_anchors_of_a_class(kind, free, normed, digits):
    few, settings = anchors(digits), MetaGenerator(**SMALL)

    def images(weight, settings=settings, size=20):
        bound = GuidedGenerator(*few, settings, alignment.from_name(kind, translate=0), weight).bind(normed, None)
        return bound.chunk(0, 3, size).pixels

    def distance(pixels):
        with frozen(normed.module), taps.watch(normed, (taps.FEATURES,)) as seen, torch.no_grad():
            normed.logits(pixels)
            made = seen[taps.FEATURES].clone()
            normed.logits(few[0])
            return float((made - seen[taps.FEATURES][free.labels]).square().mean())

    plain, guided = images(0.0), images(1.0)
    assert torch.equal(plain, settings.bind(normed, None).chunk(0, 3, 20).pixels)
    assert torch.equal(guided, images(1.0)) and not torch.equal(guided, plain)
    assert distance(images(1.0, LEARNING, len(free.pixels))) < 0.8 * distance(free.pixels)


def test_a_set_of_a_generator_grows_and_knows_its_anchors_and_its_weight(normed, digits, tmp_path):
    options = {"settings": {"method": "meta-generator", **SMALL}, "guidance": 3.0, "chunk": 40, "workers": 1}
    few = anchors(digits)
    expand(normed, few, tmp_path / "set", images=40, **options)
    grown = expand(normed, few, tmp_path / "set", images=80, **options)
    whole = expand(normed, few, tmp_path / "whole", images=80, **options)
    assert grown.about["shards"] == whole.about["shards"] and len(grown) == 80
    about = grown.about["method"]
    assert (about["method"], about["guidance"], about["generator"]["batch"]) == ("expand", 3.0, 20)
    assert about["anchors"]["images"] == 10
    with pytest.raises(UserError, match=r"holds a set with `guidance=3.0`"):
        expand(normed, few, tmp_path / "set", images=80, **{**options, "guidance": 4.0})


def test_the_weight_of_the_alignment_may_be_given_for_pixels_too(normed, digits, tmp_path):
    images = expand(normed, anchors(digits), tmp_path / "set", {"steps": 1}, guidance=2.0, images=20, workers=1)
    assert images.about["method"]["guidance"] == 2.0


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("settings", [{"steps": 1}, {"method": "meta-generator", **SMALL}], ids=["pixels", "generator"])
def test_what_is_no_weight_of_the_alignment_is_refused_before_the_work_starts(
    weight, settings, normed, digits, tmp_path
):
    with pytest.raises(UserError, match=r"^guidance: got (-1.0|nan|inf), expected (at least 0|a finite number)"):
        expand(normed, anchors(digits), tmp_path / "set", settings, guidance=weight, images=20)
    assert not (tmp_path / "set").exists()


def test_a_record_without_moments_by_channel_is_left_out_unless_its_statistics_are_asked_for(tiny, digits):
    teacher, few = tiny("linear", shape=(1, 8, 8), classes=10), anchors(digits)
    kept = record(teacher, digits, preset("safe", teacher, digits))
    assert len(GuidedInversion(*few, Expansion()).bind(teacher, kept).objective.parts) == 2
    with pytest.raises(UserError, match="no record of moments of its layers"):
        GuidedInversion(*few, Expansion(statistics=1.0)).bind(teacher, kept)
    with pytest.raises(UserError, match="no record of moments of its layers"):
        GuidedInversion(*few, Expansion(statistics=1.0)).bind(teacher, None)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "discriminator"])
def test_guided_images_are_nearer_to_the_anchors_than_plain_ones(kind, normed, digits):
    """By class mean of the penultimate features, which a discriminator circles more than it nears in a few steps."""
    pixels, labels = anchors(digits, 3)
    still = {"translate": 0.0, "bend": 0.0, "exposure": 0.0}

    def features(x):
        with torch.no_grad(), frozen(normed.module), taps.watch(normed, (taps.FEATURES,)) as seen:
            normed.logits(x)
            return seen[taps.FEATURES]

    def apart(weight):
        settings = Expansion(steps=60, learning_rate=0.05, guidance=weight)
        made = (
            GuidedInversion(pixels, labels, settings, alignment.from_name(kind, **still))
            .bind(normed, None)
            .chunk(0, 0, 60)
        )
        means = [(features(x).view(len(x), -1), y) for x, y in ((made.pixels, made.labels), (pixels, labels.argmax(1)))]
        centres = [torch.stack([x[y == c].mean(0) for c in range(10)]) for x, y in means]
        return float((centres[0] - centres[1]).norm())

    assert apart(10.0) < 0.8 * apart(0.0)


def test_a_weight_of_0_never_asks_the_guide(normed, digits, monkeypatch):
    monkeypatch.setattr(alignment.kinds()["mmd"], "bind", lambda *_: 1 / 0)
    method(digits, guidance=0.0).bind(normed, None).chunk(0, 0, 10)
    with pytest.raises(ZeroDivisionError):
        method(digits).bind(normed, None).chunk(0, 0, 10)


def test_the_weight_is_the_kinds_own_where_none_is_given(normed, digits):
    made = [
        method(digits, "discriminator", guidance=weight).bind(normed, None).chunk(0, 0, 10).pixels
        for weight in (None, alignment.from_name("discriminator").guidance, 50.0)
    ]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_without_batch_norm_statistics_come_from_a_record_or_are_left_out(teacher, normed, digits):
    names = lambda network, known: [type(term).__name__ for _, term in Expansion().objective(network, known).parts]  # noqa: E731
    assert names(teacher, None) == ["TargetClass", "ClassBalance"]
    assert names(teacher, record(teacher, digits, [Moments(covariance="diagonal")])) == [
        "TargetClass", "ClassBalance", "BatchNormDivergence",
    ]  # fmt: skip
    assert names(normed, None) == ["TargetClass", "ClassBalance", "BatchNormDivergence"]


def test_a_class_without_an_anchor_starts_as_noise_and_is_made_all_the_same(normed, digits):
    pixels, labels = anchors(digits)
    own = GuidedInversion(pixels[:9], labels[:9], Expansion(steps=3, start="anchors", guidance=0.0, learning_rate=1e-9))
    made = own.bind(normed, None).chunk(0, 0, 20)
    near = (made.pixels[:, None] - pixels).flatten(2).norm(dim=2)
    assert made.labels[9] == 9 and made.pixels.isfinite().all()
    assert float(near[0].min()) < float(near[9].min())


def test_anchors_that_do_not_fit_are_refused_before_the_work_starts(normed, digits, tmp_path):
    pixels, labels = anchors(digits)
    with pytest.raises(UserError, match="images of shape"):
        expand(normed, (pixels[..., :5], labels), tmp_path / "set", images=10)
    with pytest.raises(UserError, match="got no anchor image"):
        expand(normed, (pixels[:0], labels[:0]), tmp_path / "set", images=10)
    assert not (tmp_path / "set").exists()


class Rounding(torch.nn.Module):
    """A network through which no gradient comes to the images."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images.detach())


def test_a_network_that_lets_no_gradient_through_is_refused_before_an_image_is_made(digits, normed):
    teacher = Network(Rounding(copy.deepcopy(normed.module)), normed.spec, "rounding")
    with pytest.raises(UserError, match=r"no gradient reaches the images of rounding, and expand needs one"):
        method(digits).bind(teacher, None)


def test_an_expansion_made_from_python_has_a_log_with_the_hash_of_its_anchors(normed, digits, tmp_path):
    pixels, labels = anchors(digits)
    made = expand(normed, (pixels, labels), tmp_path / "set", Expansion(steps=1), images=20, chunk=20, workers=1)
    log = read_json(made.folder / "run.json")
    assert (log["verb"], log["settings"]["steps"], log["settings"]["images"]) == ("expand", 1, 20)
    assert log["inputs"] == {
        "teacher_fingerprint": normed.fingerprint(),
        "condensed": method(digits).model_dump()["anchors"]["sha256"],
    }
