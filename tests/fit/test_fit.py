"""The training loop: resumed bit by bit, its schedule, its errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from datafree._core.errors import UserError
from datafree._core.files import read_tensors, write_tensors
from datafree.distillation.sources import FreshImages, StoredImages, labelled, soft_labelled
from datafree.distillation.training_loop import Schedule, _rate, fit
from datafree.synthesis.methods.distribution import Distribution

SCHEDULE = Schedule(epochs=4, batch=16, warmup=0.1)


@pytest.fixture
def source(tiny, toy):
    return labelled(tiny("norm"), toy(70))


def weights(network):
    return {name: tensor.clone() for name, tensor in network.module.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Stop(Exception):
    pass


def stopping(after: int):
    def score(_):
        score.calls += 1
        if score.calls > after:
            raise Stop
        return float(score.calls)

    score.calls = 0
    return score


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize("kind", ["linear", "norm"])  # the second has dropout and batch norm
def test_a_run_stopped_after_any_epoch_goes_on_to_the_same_bits(kind, epochs, tiny, source, tmp_path):
    whole, state = tiny(kind), tmp_path / "state.safetensors"
    curve = fit(whole, source, cross_entropy, SCHEDULE, seed=3)
    with pytest.raises(Stop):  # in the epoch after, which is lost
        fit(tiny(kind), source, cross_entropy, SCHEDULE, seed=3, state=state, identity={"a": 1}, score=stopping(epochs))
    torch.manual_seed(99)
    resumed = tiny(kind, seed=5)
    again = fit(resumed, source, cross_entropy, SCHEDULE, seed=3, state=state, identity={"a": 1})
    assert same(weights(resumed), weights(whole))
    assert again.loss == curve.loss
    assert len(again.loss) == len(again.seconds) == 4
    assert again.scores == [float(epoch + 1) for epoch in range(epochs)]


def test_a_finished_run_is_left_as_it_is(tiny, source, tmp_path):
    network, state = tiny("norm"), tmp_path / "state.safetensors"
    first = fit(network, source, cross_entropy, SCHEDULE, seed=0, state=state)
    before, data = weights(network), state.read_bytes()
    assert fit(tiny("norm", seed=9), source, cross_entropy, SCHEDULE, seed=0, state=state).loss == first.loss
    assert state.read_bytes() == data
    assert same(before, weights(network))


def test_a_state_of_other_settings_or_damaged_is_refused(tiny, source, tmp_path):
    state = tmp_path / "state.safetensors"
    fit(tiny("norm"), source, cross_entropy, Schedule(epochs=1), seed=0, state=state, identity={"seed": 0})
    with pytest.raises(UserError) as caught:
        fit(tiny("norm"), source, cross_entropy, SCHEDULE, seed=0, state=state, identity={"seed": 1})
    assert str(caught.value) == (
        f"{state} is of a run with other settings; name another `state`, or repeat that run's command"
    )
    state.write_bytes(state.read_bytes()[:-3])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        fit(tiny("norm"), source, cross_entropy, SCHEDULE, seed=0, state=state, identity={"seed": 0})


def test_an_identity_with_tuples_is_the_same_after_the_file(tiny, source, tmp_path):
    state, identity = tmp_path / "state.safetensors", {"shape": (1, 4, 4), "nested": [{"std": (0.5,)}]}
    for _ in range(2):
        curve = fit(tiny("norm"), source, cross_entropy, Schedule(epochs=1), seed=0, state=state, identity=identity)
    assert len(curve.loss) == 1


def test_a_state_without_the_weights_of_the_network_is_one_line(tiny, source, tmp_path):
    state = tmp_path / "state.safetensors"
    fit(tiny("norm"), source, cross_entropy, Schedule(epochs=1), seed=0, state=state)
    tensors, header = read_tensors(state, kind="training-state")
    state.unlink()
    write_tensors(state, {n: t for n, t in tensors.items() if n != "weights/bn.weight"}, header, kind="training-state")
    with pytest.raises(UserError, match=r"no tensor 'weights/bn\.weight' in .*; a stopped run left it: remove it"):
        fit(tiny("norm"), source, cross_entropy, SCHEDULE, seed=0, state=state)


def test_training_leaves_torchs_global_stream_as_it_was(tiny, source):
    torch.manual_seed(4)
    before = torch.get_rng_state()
    fit(tiny("norm"), source, cross_entropy, Schedule(epochs=1), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_another_network_and_the_last_epoch_is_kept_in_eval_mode(tiny, source):
    made = [tiny("norm") for _ in range(3)]
    for network, seed in zip(made, (0, 0, 1)):
        fit(network, source, cross_entropy, SCHEDULE, seed=seed)
    assert same(weights(made[0]), weights(made[1]))
    assert not same(weights(made[0]), weights(made[2]))
    assert not any(part.training for network in made for part in network.module.modules())


@pytest.mark.parametrize("where", ["the loss", "a weight"])
def test_a_loss_that_is_not_finite_is_an_error_and_no_state_is_written(tiny, source, tmp_path, where):
    network, state = tiny("norm"), tmp_path / "state.safetensors"
    if where == "a weight":
        network.module.fc.weight.data[0, 0] = torch.nan

    def loss(logits, targets):
        return cross_entropy(logits, targets) * (torch.nan if where == "the loss" else 1)

    with pytest.raises(UserError) as caught:
        fit(network, source, loss, SCHEDULE, seed=0, state=state)
    assert str(caught.value) == "the loss is not finite in epoch 1; lower `learning_rate`"
    assert not state.exists()


def test_the_learning_rate_follows_its_schedule():
    constant, cosine = Schedule(decay="constant"), Schedule(decay="cosine")
    warm = Schedule(decay="cosine", warmup=0.2)
    assert [_rate(constant, step, 100) for step in (0, 50, 99)] == [1.0] * 3
    assert [_rate(cosine, step, 100) for step in (0, 50, 100)] == pytest.approx([1.0, 0.5, 0.0])
    assert _rate(cosine, 25, 100) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert [_rate(warm, step, 100) for step in (0, 9, 19, 20, 60)] == pytest.approx([0.05, 0.5, 1.0, 1.0, 0.5])


def test_the_optimiser_is_given_those_rates_in_order(tiny, source, monkeypatch):
    seen, step = [], torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *a: (seen.append(self.param_groups[0]["lr"]), step(self, *a))
    )
    fit(tiny("norm"), source, cross_entropy, Schedule(epochs=2, batch=16, learning_rate=0.01), seed=0)
    assert seen == [0.01 * 0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]


def test_progress_counts_steps(tiny, source):
    seen = []
    fit(tiny(), source, cross_entropy, Schedule(epochs=2, batch=32), seed=0, progress=lambda *own: seen.append(own))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_epoch_of_images_has_every_image_once_in_an_order_of_its_own(tiny, toy):
    data = toy(48)
    numbered = torch.arange(48, dtype=torch.float32).view(48, 1, 1, 1).expand(48, 1, 4, 4)
    source = StoredImages(tiny().spec, numbered, data.labels, in_range=False)
    epochs = [torch.cat([x[:, 0, 0, 0] for x, _ in source.epoch(0, epoch, 16)]).int().tolist() for epoch in (0, 1, 0)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(48))
    assert epochs[0] == epochs[2] != epochs[1]
    targets = torch.cat([y for _, y in source.epoch(0, 0, 16)])
    assert torch.equal(targets, data.labels[epochs[0]])
    assert [len(x) for x, _ in source.epoch(0, 0, 20)] == [20, 20]
    assert [len(x) for x, _ in source.epoch(0, 0, 100)] == [48]


@pytest.mark.parametrize(
    ("images", "unit", "batch"),
    [(100, 32, 48), (50, 64, 16), (20, 32, 64)]
    + [pytest.param(*own, marks=pytest.mark.slow) for own in [(64, 32, 16), (100, 32, 20)]],
)
def test_fresh_images_give_as_many_batches_as_they_say_whatever_the_unit(images, unit, batch, teacher, whole_record):
    source = FreshImages(teacher.spec, Distribution().bind(teacher, whole_record), images, unit)
    made = list(source.epoch(0, 0, batch))
    wanted = min(batch, images)
    assert [len(x) for x, _ in made] == [wanted] * (len(source) // wanted)
    pixels, logits = (torch.cat(parts) for parts in zip(*made))
    torch.testing.assert_close(teacher.predict(pixels), logits, rtol=1e-4, atol=1e-4)
    assert len(pixels.flatten(1).unique(dim=0)) == len(pixels)
    other = torch.cat([x for x, _ in source.epoch(0, 1, batch)])
    assert not (pixels[:, None] == other[None]).flatten(2).all(2).any(), "every epoch has images of its own"
    again = torch.cat([x for x, _ in source.epoch(0, 0, batch)])
    assert torch.equal(pixels, again)


def test_soft_labels_are_the_teachers_logits(teacher, digits):
    some = digits.subset(30)
    own = soft_labelled(teacher, some)
    assert torch.equal(own.targets, teacher.predict(some.pixels(range(30))))


def test_data_of_other_classes_or_shapes_is_refused(tiny, toy):
    with pytest.raises(UserError, match="toy has 4 classes, tiny 3"):
        labelled(tiny(), toy(classes=4))
    with pytest.raises(UserError, match=r"images of shape \(2, 4, 4\), expected \(1, 4, 4\)"):
        labelled(tiny(), toy(shape=(2, 4, 4)))
