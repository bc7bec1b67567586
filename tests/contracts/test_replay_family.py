"""Promises of every kind of replay, over all that discovery finds."""

from __future__ import annotations

import pytest
import torch

from datafree._core.errors import UserError
from datafree.distillation import replay
from datafree.distillation.replay import Memory, Replay, vae
from datafree.synthesis.generator import new_generator

KINDS = tuple(replay.kinds())
STORED = ("bank", "reservoir", "balanced", "pool")


def test_there_are_seven_kinds():
    assert set(KINDS) >= {"none", "bank", "reservoir", "balanced", "pool", "vae", "ema"}


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(vae, "WARM", 3)


@pytest.fixture(scope="module")
def teacher(tiny):
    return tiny("norm")


def small(kind: str, room: int = 12):
    """A memory of about 12 images of 16 bytes, or the smallest VAE."""
    own = {"vae": {"replay_bytes": 40_000, "vae_code": 4}, "ema": {"replay_bytes": 20_000}, "none": {}}
    return replay.from_name(kind, **own.get(kind, {"replay_bytes": room * 17}))


def followed(memory, teacher, step):
    """Shown what a generator would be at that step."""
    if step == 0:
        memory.on_new_generator(new_generator(teacher, seed=0, latent=4, width=8))
    memory.on_generator_step(new_generator(teacher, seed=step + 1, latent=4, width=8))


def filled(kind, teacher, count=6, size=9, seed=0):
    memory, rng = small(kind).bind(teacher, seed), torch.Generator().manual_seed(seed)
    for step in range(count):
        followed(memory, teacher, step)
        pixels = torch.rand(size, *teacher.spec.shape, generator=rng)
        memory.write(pixels, teacher.predict(pixels), rng)
    return memory


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_it_obeys_its_protocol_and_its_settings_go_through_a_file(kind, teacher):
    own = small(kind)
    assert isinstance(own, Replay)
    assert isinstance(own.bind(teacher, 0), Memory)
    assert replay.from_dict(own.model_dump(mode="json")) == own


def test_an_empty_memory_replays_nothing_and_a_full_one_keeps_to_its_budget(kind, teacher):
    assert small(kind).bind(teacher, 0).sample(4, torch.Generator()) is None
    memory, own = filled(kind, teacher), small(kind)
    if kind == "none":
        assert memory.sample(4, torch.Generator()) is None and memory.nbytes() == 0
        return
    assert 0 < memory.nbytes() <= own.replay_bytes
    for count in (1, 4, 50):
        found = memory.sample(count, torch.Generator().manual_seed(1))
        assert found.shape == (count, *teacher.spec.shape) and found.dtype == torch.float32
        assert found.min() >= teacher.spec.low and found.max() <= teacher.spec.high


def test_its_bytes_are_those_of_what_it_replays_from(kind, teacher):
    """What a stopped run keeps is that, counters of a few bytes, and of a VAE its optimizer's moments, two a weight."""
    memory = filled(kind, teacher)
    kept = {
        name: own.numel() * own.element_size() for name, own in memory.state().items() if not name.startswith("adam")
    }
    counters = sum(size for name, size in kept.items() if name in ("seen", "steps", "classes"))
    assert memory.nbytes() == sum(kept.values()) - counters and counters <= 64


def test_a_memory_that_was_stopped_goes_on_to_the_same_bits(kind, teacher):
    whole, own = filled(kind, teacher), small(kind).bind(teacher, 0)
    rng = torch.Generator().manual_seed(0)
    for step in range(6):
        if step == 4:
            again = small(kind).bind(teacher, 99)
            again.on_new_generator(new_generator(teacher, seed=77, latent=4, width=8))
            again.load({name: tensor.clone() for name, tensor in own.state().items()})
            own = again
        followed(own, teacher, step)
        pixels = torch.rand(9, *teacher.spec.shape, generator=rng)
        own.write(pixels, teacher.predict(pixels), rng)
    a, b = whole.state(), own.state()
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert whole.nbytes() == own.nbytes()
    drawn = [memory.sample(5, torch.Generator().manual_seed(3)) for memory in (whole, own)]
    assert drawn[0] is drawn[1] is None or torch.equal(*drawn)


def test_writing_and_sampling_leave_the_teacher_as_it_was(kind, teacher):
    before = teacher.fingerprint(), teacher.module.training
    filled(kind, teacher).sample(8, torch.Generator())
    assert (teacher.fingerprint(), teacher.module.training) == before
    assert all(own.grad is None and own.requires_grad for own in teacher.module.parameters())


@pytest.mark.parametrize("name", [*STORED, "vae", "ema"])
def test_a_budget_too_small_for_one_image_is_one_line(name, teacher):
    with pytest.raises(UserError) as caught:
        replay.from_name(name, replay_bytes=3).bind(teacher, 0)
    assert str(caught.value).startswith("replay_bytes: got") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", STORED)
def test_a_state_of_other_images_is_refused(name, teacher, tiny):
    other = tiny("norm", shape=(1, 5, 5))
    with pytest.raises(UserError, match="other images"):
        small(name).bind(other, 0).load(filled(name, teacher).state())


def written(name, teacher, count, room=12):
    """A memory that was shown `count` images, image k all of byte k."""
    memory = replay.from_name(name, replay_bytes=room * 16).bind(teacher, 0)
    rng = torch.Generator().manual_seed(0)
    for start in range(0, count, 7):
        numbers = torch.arange(start, min(start + 7, count))
        pixels = (numbers / 255).view(-1, 1, 1, 1).expand(-1, *teacher.spec.shape)
        memory.write(pixels, torch.eye(3)[numbers % 3], rng)
    return sorted(memory.state()["pixels"][:, 0, 0, 0].tolist())


def test_the_bank_holds_the_last_and_the_pool_the_first(teacher):
    assert written("bank", teacher, 40) == list(range(28, 40))
    assert written("pool", teacher, 40) == list(range(12))
    assert written("bank", teacher, 5) == written("reservoir", teacher, 5) == [0, 1, 2, 3, 4]


def test_a_reservoir_keeps_every_image_with_the_same_chance(teacher):
    counts = torch.zeros(60)
    for seed in range(400):
        memory, rng = (
            replay.from_name("reservoir", replay_bytes=12 * 16).bind(teacher, 0),
            torch.Generator().manual_seed(seed),
        )
        for start in range(0, 60, 20):
            numbers = torch.arange(start, start + 20)
            memory.write((numbers / 255).view(-1, 1, 1, 1).expand(-1, 1, 4, 4), torch.eye(3)[numbers % 3], rng)
        counts[memory.state()["pixels"][:, 0, 0, 0].long()] += 1
    assert float(counts.sum()) == 400 * 12
    assert abs(float(counts[:20].mean()) - 80) < 5 and abs(float(counts[40:].mean()) - 80) < 5


def test_the_balanced_one_has_as_many_of_each_class_however_many_were_written(teacher):
    memory, rng = replay.from_name("balanced", replay_bytes=12 * 16).bind(teacher, 0), torch.Generator().manual_seed(0)
    for label, count in ((0, 90), (1, 5), (2, 2)):
        pixels = torch.full((count, 1, 4, 4), label / 255)
        memory.write(pixels, torch.eye(3)[torch.full((count,), label)], rng)
    assert memory.state()["pixels"][:, 0, 0, 0].bincount().tolist() == [4, 4, 2]
    drawn = memory.sample(3000, rng)[:, 0, 0, 0].mul(255).round().long().bincount().tolist()
    assert all(abs(own - 1000) < 120 for own in drawn)


def test_the_moving_average_is_the_exponential_one_of_the_generators_weights(teacher):
    memory = replay.from_name("ema", replay_bytes=20_000, decay=0.5).bind(teacher, 0)
    made = [new_generator(teacher, seed=seed, latent=4, width=8) for seed in range(4)]
    memory.on_new_generator(made[0])
    wanted = made[0].first.weight.detach()
    assert memory.sample(3, torch.Generator()) is None  # what the generator itself makes now is nothing to replay
    for own in made[1:]:
        memory.on_generator_step(own)
        wanted = 0.5 * wanted + 0.5 * own.first.weight.detach()
    torch.testing.assert_close(memory.average.first.weight, wanted)
    assert memory.nbytes() == 4 * sum(own.numel() for own in made[0].parameters())
    with pytest.raises(UserError, match=r"got 2,000, expected at least [\d,]+, the size of the generator's weights"):
        replay.from_name("ema", replay_bytes=2_000).bind(teacher, 0).on_new_generator(made[0])
