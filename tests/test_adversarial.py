"""A generator against a student: phases without a trace, exact stops, collapse found and rolled back."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn.functional import conv2d, interpolate

from datafree._core.errors import UserError
from datafree.distillation import replay
from datafree.distillation.online import run as online
from datafree.distillation.online.run import (
    PRESETS,
    AnchorImages,
    GeneratorHealth,
    OnlineDistillation,
    online_preset,
    train_online,
)
from datafree.distillation.replay import vae
from datafree.evaluation.accuracy import evaluate
from datafree.models.hooks import INPUT, watch
from datafree.models.network import Network
from datafree.synthesis.generator import (
    WIDTHS,
    Generator,
    PhaseConv,
    PhaseNorm,
    UpsampledConv,
    new_generator,
    width_for,
)
from datafree.synthesis.losses import Objective, View, alignment
from datafree.synthesis.losses.alignment_loss import AlignmentLoss
from datafree.synthesis.scene import Scene

GUIDES = [
    pytest.param(kind, marks=[pytest.mark.slow] * (kind in ("coral", "mmd"))) for kind in sorted(alignment.kinds())
]
SHORT = {"epochs": 4, "iterations": 3, "student_steps": 2, "batch": 16, "latent": 8, "write_every": 1}


@pytest.fixture(scope="module")
def teacher(tiny):
    return tiny("norm")


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(vae, "WARM", 2)


def weights(module):
    return {name: own.clone() for name, own in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def memory(kind):
    own = {"none": {}, "ema": {"replay_bytes": 90_000}, "vae": {"replay_bytes": 40_000, "vae_code": 4}}
    return replay.from_name(kind, **own.get(kind, {"replay_bytes": 2000}))


def trainer(teacher, tiny, **changes):
    settings = OnlineDistillation(**{**SHORT, **changes})
    student = tiny("norm", seed=5)
    return online.OnlineTrainer(
        teacher, student, settings, memory("bank").bind(teacher, 0), settings.objective(teacher, None), 0
    )


def test_in_the_generators_phase_nothing_of_the_student_or_the_teacher_moves(teacher, tiny):
    own, rng = trainer(teacher, tiny, statistics=1.0, features=0.1), torch.Generator().manual_seed(0)
    own._student_step(rng, write=True)
    before, taught, made = weights(own.student.module), teacher.fingerprint(), weights(own.generator)
    grads = [parameter.grad.clone() for parameter in own.student.module.parameters()]
    own._generator_step(rng)
    assert same(weights(own.student.module), before) and teacher.fingerprint() == taught
    assert not same(weights(own.generator), made)
    now = [parameter.grad for parameter in own.student.module.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(grads, now, strict=True)) and any(bool(own.any()) for own in grads)


def test_in_the_students_phase_nothing_of_the_generator_or_the_teacher_moves(teacher, tiny):
    own, rng = trainer(teacher, tiny), torch.Generator().manual_seed(0)
    before, taught, learnt = weights(own.generator), teacher.fingerprint(), weights(own.student.module)
    own._student_step(rng, write=True)
    assert same(weights(own.generator), before) and teacher.fingerprint() == taught
    assert all(parameter.grad is None for parameter in own.generator.parameters())
    now = weights(own.student.module)
    assert all(not torch.equal(now[name], learnt[name]) for name in ("conv.weight", "bn.running_mean", "fc.bias"))


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.slow] * (k in ("none", "pool", "reservoir"))) for k in sorted(replay.kinds())],
)
def test_a_run_that_was_stopped_goes_on_to_the_same_student(teacher, tiny, tmp_path, kind):
    whole, cut = tiny("norm", seed=5), tiny("norm", seed=5)
    settings = OnlineDistillation(**SHORT)
    history = train_online(teacher, whole, settings, memory(kind), seed=3)

    class Stopped(Exception):
        pass

    def stop(_):
        if len(list(tmp_path.iterdir())) and stop.calls == 2:
            raise Stopped
        stop.calls += 1
        return 0.0

    stop.calls = 0
    options = {"seed": 3, "state": tmp_path / "state.safetensors", "identity": {"a": 1}}
    with pytest.raises(Stopped):
        train_online(teacher, cut, settings, memory(kind), score=stop, **options)
    again = tiny("norm", seed=9)
    found = train_online(teacher, again, settings, memory(kind), **options)
    assert same(weights(again.module), weights(whole.module))
    assert (found.loss, found.agreement, found.images) == (history.loss, history.agreement, history.images)
    with pytest.raises(UserError, match="of a run with other settings"):
        train_online(teacher, again, settings, memory(kind), **{**options, "identity": {"a": 2}})


def test_a_run_that_was_killed_in_its_last_word_says_it_again(teacher, tiny, tmp_path):
    options = {"seed": 3, "state": tmp_path / "state.safetensors", "identity": {}}

    def killed(*told):
        if max(told[2]) == SHORT["epochs"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_online(
            teacher, tiny("norm", seed=5), OnlineDistillation(**SHORT), memory("bank"), on_epoch=killed, **options
        )
    told = []
    again = train_online(
        teacher,
        tiny("norm", seed=5),
        OnlineDistillation(**SHORT),
        memory("bank"),
        on_epoch=lambda *own: told.append(own),
        **options,
    )
    assert len(told) == 1 and len(again.loss) == SHORT["epochs"] and max(told[0][2]) == SHORT["epochs"]


def test_what_a_run_tells_is_complete_and_the_students_last_state_is_kept(teacher, tiny):
    student = tiny("norm", seed=5)
    seen = []
    history = train_online(
        teacher,
        student,
        OnlineDistillation(**SHORT),
        memory("reservoir"),
        score=lambda own: seen.append(weights(own.module)) or 1.0,
    )
    assert len(history.loss) == len(history.generator) == len(history.agreement) == len(history.scores) == 4
    assert history.images == 4 * 3 * 2 * 16 and history.rollbacks == []
    assert all(0 <= own <= 100 for own in history.agreement)
    assert all(1 <= own["classes"] <= 3 and own["spread"] > 0 for own in history.health)
    assert same(seen[-1], weights(student.module)) and not student.module.training
    assert all(seconds > 0 for name, seconds in history.phases.items() if name != "memory")


def test_the_student_learns_its_teachers_answers_on_images_nobody_showed_it(normed, digits):
    student = Network(copy.deepcopy(normed.module), normed.spec, "student")
    torch.manual_seed(0)
    for part in student.module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    before = evaluate(student, digits, normed).agreement
    settings = OnlineDistillation(epochs=2, iterations=20, batch=32, student_rate=1e-2, statistics=1.0)
    history = train_online(normed, student, settings, replay.from_name("bank", replay_bytes=100_000))
    assert history.agreement[-1] > 75
    assert evaluate(student, digits, normed).agreement > before + 30


@pytest.mark.parametrize(
    ("health", "said"),
    [
        (GeneratorHealth(5.0, 0.2, 0.0), None), (GeneratorHealth(1.0, 0.2, 0.0), "a single class"),
        (GeneratorHealth(5.0, 0.001, 0.0), "identical images"),
        (GeneratorHealth(5.0, 0.2, 0.5), "duplicate images"),
        (GeneratorHealth(0.0, math.nan, 0.0), "non-finite images"),
    ],
)  # fmt: skip
def test_a_collapse_has_a_name(health, said):
    assert health.collapsed(3.0) == said
    assert said != "a single class" or health.collapsed(1.2) is None


@pytest.mark.parametrize("scene", [{"scene": "none"}, {"scene": "drawings", "ground": "dark"}, {"scene": "things"}])
def test_a_generator_that_makes_one_image_is_seen_whatever_the_scene_adds(teacher, tiny, scene):
    own = OnlineDistillation(**SHORT, **scene)
    trainer = online.OnlineTrainer(
        teacher, tiny("norm", seed=5), own, memory("none").bind(teacher, 0), own.objective(teacher, None), 0
    )
    assert trainer.check_health(0).collapsed(1.0) is None
    with torch.no_grad():
        trainer.generator.first.weight.zero_()
    assert trainer.check_health(1).collapsed(1.0) == "identical images"


def test_the_probes_are_drawn_once_and_stay(teacher, tiny):
    own = OnlineDistillation(**SHORT)
    trainer = online.OnlineTrainer(
        teacher, tiny("norm", seed=5), own, memory("none").bind(teacher, 0), own.objective(teacher, None), 0
    )
    trainer.check_health(0)
    probes = trainer.probes.clone()
    assert len(probes) == 2048 and len(probes.flatten(1).unique(dim=0)) > 2000
    trainer.check_health(1)
    assert torch.equal(trainer.probes, probes)


def test_the_average_moves_a_shared_weight_once(teacher):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Linear(16, 16)
            self.two, self.last = self.one, torch.nn.Linear(16, 3)

        def forward(self, x):
            return self.last(self.two(self.one(x.flatten(1)).relu()))

    student, own = Network(Tied(), teacher.spec, "tied"), OnlineDistillation(**SHORT, ema=0.5)
    trainer = online.OnlineTrainer(
        teacher, student, own, memory("none").bind(teacher, 0), own.objective(teacher, None), 0
    )
    before = student.module.one.weight.detach().clone()
    with torch.no_grad():
        student.module.one.weight += 1
    trainer._update_average()
    torch.testing.assert_close(trainer.average.module.one.weight, before + 0.5)


def test_a_generator_that_always_collapses_is_given_up_with_the_student_as_it_was(teacher, tiny, monkeypatch, tmp_path):
    student, states, told = tiny("norm", seed=5), [], []
    real = online.OnlineTrainer.check_health

    def watch(self, number):
        if number < 2:
            return real(self, number)
        return GeneratorHealth(5.0, 0.0, 1.0)

    monkeypatch.setattr(online.OnlineTrainer, "check_health", watch)
    with pytest.raises(UserError) as caught:
        train_online(
            teacher, student, OnlineDistillation(**SHORT), memory("bank"), state=tmp_path / "s", identity={},
            score=lambda own: states.append(weights(own.module)) or 0.0,
            on_epoch=lambda _, history, __: told.append((len(history.loss), list(history.rollbacks))),
        )  # fmt: skip
    assert str(caught.value).startswith(
        "epoch 3 ended with identical images 4 times; the student is as after epoch 2; lower"
    )
    assert told == [(1, []), (2, []), (2, ["epoch 3: identical images"] * 4)]
    assert same(weights(student.module), states[-1])
    monkeypatch.setattr(online.OnlineTrainer, "check_health", real)
    history = train_online(
        teacher, student, OnlineDistillation(**SHORT), memory("bank"), state=tmp_path / "s", identity={}
    )
    assert len(history.loss) == 4


def test_one_collapse_is_rolled_back_and_told(teacher, tiny, monkeypatch):
    student, bad = tiny("norm", seed=5), [True]
    real = online.OnlineTrainer.check_health
    monkeypatch.setattr(
        online.OnlineTrainer, "check_health",
        lambda self, number: GeneratorHealth(5.0, 0.0, 1.0) if number == 1 and bad and bad.pop() else real(self, number),
    )  # fmt: skip
    history = train_online(teacher, student, OnlineDistillation(**SHORT), memory("pool"))
    assert history.rollbacks == ["epoch 2: identical images"] and len(history.loss) == 4
    assert history.images == 4 * 3 * 2 * 16


def test_a_student_of_other_classes_and_an_objective_of_nothing_are_one_line(teacher, tiny):
    with pytest.raises(UserError, match=r"into 4 classes, teacher tiny .* into 3; give a student like its teacher"):
        train_online(teacher, tiny("norm", classes=4), OnlineDistillation(**SHORT))
    with pytest.raises(UserError, match="all weights of the generator's losses are 0"):
        train_online(teacher, tiny("norm"), OnlineDistillation(disagreement=0, confidence=0, balance=0))
    with pytest.raises(UserError, match="has no batch norm, and no record"):
        train_online(tiny("linear"), tiny("linear"), OnlineDistillation(statistics=1.0))


def test_a_teacher_whose_logits_are_not_finite_is_refused(tiny):
    broken = tiny("norm")
    with torch.no_grad():
        broken.module.fc.bias[0] = math.inf
    with pytest.raises(UserError, match="has NaN or infinity"):
        train_online(broken, tiny("norm"), OnlineDistillation(**SHORT))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_method_of_the_field_is_a_preset_that_runs(teacher, tiny, name):
    settings, kind = online_preset(name, **{**SHORT, "epochs": 1})
    history = train_online(teacher, tiny("norm", seed=5), settings, memory(kind))
    assert len(history.loss) == 1 and math.isfinite(history.loss[0])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 30, 22), (1, 5, 9)])
def test_a_generators_images_fit_any_shape_and_range(shape, tiny):
    network = tiny("linear", shape=shape, low=-1.0, high=3.0, mean=(0.0,) * shape[0], std=(1.0,) * shape[0])
    made = new_generator(network, seed=0, width=8)(torch.randn(6, 100))
    assert made.shape == (6, *shape) and made.min() >= -1 and made.max() <= 3
    assert isinstance(new_generator(network, seed=0), Generator)


def phases(maps):
    """Maps (N, C, 2 H, 2 W) as (N, 4 C, H, W), the first phase's first."""
    return torch.cat([maps[:, :, y::2, x::2] for y in (0, 1) for x in (0, 1)], 1)


def same_with_gradients(made, wanted, of):
    torch.testing.assert_close(made, wanted)
    sought = torch.randn_like(wanted)
    torch.testing.assert_close(torch.autograd.grad(made, of, sought), torch.autograd.grad(wanted, of, sought))


SIZES = pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8)])


@SIZES
def test_a_convolution_of_doubled_maps_is_done_at_half_the_size(size):
    torch.manual_seed(0)
    for divided in (False, True):
        own, small = UpsampledConv(3, 5, phases=divided).double(), torch.randn(4, 3, *size, dtype=torch.double)
        plain = conv2d(interpolate(small, scale_factor=2), own.weight, own.bias, padding=1)
        same_with_gradients(own(small), phases(plain) if divided else plain, [*own.parameters()])


@SIZES
@pytest.mark.parametrize("last", [False, True])
def test_a_convolution_of_maps_given_as_phases_is_that_of_the_maps(size, last):
    torch.manual_seed(0)
    own, maps = (
        PhaseConv(3, 2).double(),
        torch.randn(4, 3, 2 * size[0], 2 * size[1], dtype=torch.double).requires_grad_(),
    )
    given = phases(maps).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    plain = conv2d(maps, own.weight, own.bias, padding=1)
    same_with_gradients(own(given), plain, [*own.parameters(), maps])


@SIZES
@pytest.mark.parametrize("channels", [1, 4, 9])
def test_a_batch_norm_of_phases_is_that_of_the_maps(size, channels):
    torch.manual_seed(0)
    own, plain = PhaseNorm(channels, track_running_stats=False).double(), torch.nn.BatchNorm2d(channels).double()
    plain.weight, plain.bias = own.weight, own.bias
    torch.nn.init.normal_(own.weight)
    torch.nn.init.normal_(own.bias)
    maps = (3 + torch.randn(4, channels, 2 * size[0], 2 * size[1], dtype=torch.double)).requires_grad_()
    same_with_gradients(own(phases(maps)), phases(plain(maps)), [*own.parameters(), maps])


def test_a_batch_norm_of_phases_stays_exact_in_half_precision_far_from_zero_and_of_one_number():
    own, maps = PhaseNorm(4, track_running_stats=False), 100 + torch.randn(64, 4, 4, 4)
    wanted = phases(torch.nn.BatchNorm2d(4)(maps.bfloat16().float()))
    with torch.autocast("cpu", torch.bfloat16):
        made = own(phases(maps).bfloat16()).float()
    torch.testing.assert_close(made, wanted, atol=1e-3, rtol=1e-3)
    assert own(torch.full((8, 16, 2, 2), 7.0)).abs().max() < 1e-3


def by_the_book(own, latents):
    """A generator's images by torch's own layers at full size, of the same weights."""
    x = own.first(latents[:, : own.latent]).view(len(latents), own.width, *own.start)
    first, _, conv, second, leaky, doubled, third, _, last, normed = own.body
    x = leaky(batch_norm(interpolate(batch_norm(x, first), scale_factor=2), conv, second))
    x = leaky(batch_norm(conv2d(interpolate(x, scale_factor=2), doubled.weight, doubled.bias, padding=1), third))
    x = normed(conv2d(x, last.weight, last.bias, padding=1))[:, :, : own.size[0], : own.size[1]]
    if own.scene is not None:
        return own.scene.compose(x, latents[:, own.latent :], own.spec)
    return own.spec.low + (own.spec.high - own.spec.low) * torch.sigmoid(2 * x)


def batch_norm(x, *layers):
    *before, norm = layers
    for layer in before:
        x = layer(x)
    return torch.nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True)


@pytest.mark.parametrize("last", [False, True], ids=["plain", "channels last"])
@pytest.mark.parametrize("scene", [None, Scene("things")])
@pytest.mark.parametrize(
    ("width", "shape"), [(8, (1, 28, 28)), (8, (3, 5, 7)), (8, (1, 1, 1)), (16, (3, 9, 4)), (32, (1, 8, 8))]
)
def test_a_generators_images_are_those_of_plain_layers_at_full_size(width, shape, scene, last, tiny):
    spec = tiny("linear", shape=shape, low=0.0, high=1.0, mean=(0.0,) * shape[0], std=(1.0,) * shape[0]).spec
    torch.manual_seed(0)
    own = (
        Generator(spec, 6, width, scene=scene)
        .double()
        .to(memory_format=torch.channels_last if last else torch.preserve_format)
    )
    latents = torch.randn(5, own.latents_per_image, dtype=torch.double)
    same_with_gradients(own(latents), by_the_book(own, latents), [*own.parameters()])


def test_a_generator_is_sized_to_its_teacher_and_its_seed_decides_it(tiny):
    from datafree.models.input_spec import InputSpec
    from datafree.releases.load import new_model

    spec = InputSpec(shape=(3, 32, 32), classes=tuple("abc"))
    widths = [width_for(new_model(name, spec, seed=0)) for name in ("lenet5", "resnet20")]
    assert widths[0] < widths[1] and set(widths) <= set(WIDTHS)
    one, other = (new_generator(tiny("norm"), seed=seed) for seed in (0, 1))
    assert same(weights(one), weights(new_generator(tiny("norm"), seed=0))) and not same(weights(one), weights(other))


@pytest.mark.parametrize(
    ("scene", "low", "high"),
    [
        (None, 0.48, 0.52), (Scene("things", "dark"), 0.05, 0.4), (Scene("things", "bright"), 0.6, 0.95),
        (Scene(), 0.3, 0.7), (Scene("drawings", "dark"), 0.05, 0.4), (Scene("drawings", "bright"), 0.6, 0.95),
        (Scene("drawings"), 0.4, 0.6),
    ],
)  # fmt: skip
def test_a_scene_is_how_dark_the_images_are(tiny, scene, low, high):
    network = tiny("linear", shape=(1, 16, 16))
    made = new_generator(network, seed=0, scene=scene)
    latents = torch.randn(512, made.latents_per_image, generator=torch.Generator().manual_seed(0))
    pixels = made(latents).detach()
    assert low < float(pixels.mean()) < high
    assert made.latents_per_image == 100 + (0 if scene is None else scene.numbers(network.spec))
    assert torch.equal(pixels, made(latents))
    assert float(pixels.mean((1, 2, 3)).std()) > 0.1 or scene is None


def test_the_average_is_kept_unless_the_last_is_asked_for(teacher, tiny):
    found = {}
    for keep in ("last", "average"):
        student, seen = tiny("norm", seed=5), []
        train_online(
            teacher, student, OnlineDistillation(**SHORT, keep=keep), memory("none"),
            score=lambda own, seen=seen: seen.append(weights(own.module)) or 1.0,
        )  # fmt: skip
        found[keep], last, average = weights(student.module), *seen[-2:]
        assert same(found[keep], last if keep == "last" else average)
    assert not same(found["last"], found["average"])


def test_the_average_is_the_exponential_one_of_every_step(teacher, tiny):
    own, rng = trainer(teacher, tiny, ema=0.5), torch.Generator().manual_seed(0)
    wanted = weights(own.student.module)["fc.weight"]
    for _ in range(3):
        own._student_step(rng, write=False)
        wanted = 0.5 * wanted + 0.5 * own.student.module.fc.weight.detach()
    torch.testing.assert_close(own.average.module.fc.weight, wanted)


def test_each_epoch_is_told_with_the_student_to_keep_and_what_the_generator_makes_of_the_same_latents(teacher, tiny):
    told = []
    student = tiny("norm", seed=5)
    train_online(
        teacher, student, OnlineDistillation(**SHORT), memory("bank"),
        on_epoch=lambda own, history, shown: told.append((weights(own.module), len(history.loss), dict(shown))),
    )  # fmt: skip
    assert [count for _, count, _ in told] == [1, 2, 3, 4] and same(told[-1][0], weights(student.module))
    shown = told[-1][2]
    assert list(shown) == [1, 2, 3, 4]
    assert all(own.dtype == torch.uint8 and own.shape == (10, *teacher.spec.shape) for own in shown.values())
    assert not torch.equal(shown[1], shown[4])


def anchored(teacher, kind, count=6):
    rng = torch.Generator().manual_seed(1)
    return AnchorImages(
        alignment.from_name(kind), torch.rand(count, *teacher.spec.shape, generator=rng), torch.eye(3).repeat(2, 1)
    )


@pytest.mark.parametrize("kind", GUIDES)
def test_a_guided_run_that_was_stopped_goes_on_to_the_same_student(teacher, tiny, tmp_path, kind):
    whole, cut, again = (tiny("norm", seed=5) for _ in range(3))
    own, path = anchored(teacher, kind), tmp_path / "state"
    history = train_online(teacher, whole, OnlineDistillation(**SHORT), memory("none"), anchors=own)

    def stop(_, told, __):
        if len(told.loss) == 2:
            raise KeyboardInterrupt

    before = teacher.fingerprint()
    with pytest.raises(KeyboardInterrupt):
        train_online(teacher, cut, OnlineDistillation(**SHORT), memory("none"), anchors=own, state=path, on_epoch=stop)
    found = train_online(teacher, again, OnlineDistillation(**SHORT), memory("none"), anchors=own, state=path)
    assert same(weights(again.module), weights(whole.module)) and found.generator == history.generator
    assert teacher.fingerprint() == before
    plain = tiny("norm", seed=5)
    train_online(teacher, plain, OnlineDistillation(**SHORT), memory("none"))
    assert not same(weights(plain.module), weights(whole.module))


@pytest.mark.parametrize("kind", GUIDES)
def test_guidance_draws_the_generator_to_the_anchors(teacher, tiny, kind):
    """On images drawn anew, the alignment's own loss is lower after 40 steps with guidance than without."""
    pixels = 0.9 + 0.1 * torch.rand(6, *teacher.spec.shape, generator=torch.Generator().manual_seed(1))
    bright = AnchorImages(alignment.from_name(kind), pixels, torch.eye(3).repeat(2, 1))
    losses = {}
    for guidance in (0.0, None):
        settings = OnlineDistillation(**{**SHORT, "disagreement": 0.0, "confidence": 0.01, "guidance": guidance})
        objective, memoryless = settings.objective(teacher, None), memory("none").bind(teacher, 0)
        run = online.OnlineTrainer(teacher, tiny("norm", seed=5), settings, memoryless, objective, 0, bright)
        rng = torch.Generator().manual_seed(0)
        for _ in range(40):
            run._generator_step(rng)
        losses[guidance] = alignment_loss(run, bright, torch.Generator().manual_seed(3))
    assert losses[None] < 0.92 * losses[0.0]


def alignment_loss(run, anchors, rng, count=256):
    """Of `count` images that the generator has not made before, shown as in training."""
    objective = Objective(((1.0, AlignmentLoss(run.guide, "predicted")),)).bind(
        run.teacher, torch.empty(0, dtype=torch.long), rng
    )
    with torch.no_grad(), watch(run.teacher, objective.taps) as seen:
        shown = anchors.alignment.show(run._generate(rng, count), run.teacher.spec, rng)
        logits, seen[INPUT] = run.teacher.logits(shown), shown
        labels = torch.zeros(count, dtype=torch.long)
        return float(objective(View(shown, labels, logits, seen, student=logits))[0]) / count
