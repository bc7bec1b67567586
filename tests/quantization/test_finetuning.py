"""Distillation into the rounded network: the loss falls, an interrupted run goes on to the same bits, augmentation."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch

from datafree._core.errors import Notice, UserError
from datafree._core.files import read_tensors, write_tensors
from datafree._core.optional_packages import quiet
from datafree.models.pixel_bytes import to_bytes
from datafree.synthesis.sampling import Samples

with quiet():
    pytest.importorskip("torchao")
    from datafree.quantization import Bits, FineTuning, calibrate, finetune
    from datafree.quantization.fine_tuning import Augmented
    from datafree.quantization.image_sources import load_images

FEW = Bits(weights=2, activations=3)
PLAIN = FineTuning(shift=0, flip=False, mixup=0.0)


class Stop(Exception):
    pass


def weights(own):
    return {name: tensor.clone() for name, tensor in own.network.module.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def apart(network, other, x) -> float:
    z = network.predict(x)
    return float((other.predict(x) - z).norm() / z.norm())


@pytest.fixture(scope="module")
def fresh(normed, shown):
    """Copies of the same network at few bits, quantized once."""
    quantized = cache(lambda bits: calibrate(normed, shown, bits, equalise=False, correct_bias="none"))

    def copied(bits=FEW):
        with quiet():  # torch's own graphs warn of themselves when they are copied
            return copy.deepcopy(quantized(bits))

    return copied


def test_the_loss_falls_and_the_answers_come_nearer_on_images_that_were_not_shown(fresh, normed, shown, digits):
    own, unseen = fresh(), digits.pixels(range(300, 700))
    before, fingerprint = apart(normed, own.network, unseen), normed.fingerprint()
    flags = [part.training for part in normed.module.modules()]
    gradients = [None if own.grad is None else own.grad.clone() for own in normed.module.parameters()]
    curve = finetune(own, normed, shown, PLAIN.model_copy(update={"epochs": 5, "batch": 30, "learning_rate": 2e-3}))
    assert curve.loss[-1] < 0.5 * curve.loss[0]
    assert apart(normed, own.network, unseen) < 0.8 * before
    assert normed.fingerprint() == fingerprint
    assert [part.training for part in normed.module.modules()] == flags
    for parameter, gradient in zip(normed.module.parameters(), gradients, strict=True):
        assert parameter.grad is gradient is None or torch.equal(parameter.grad, gradient)


def test_weights_and_grids_are_learnt_and_biases_are_whole_numbers_of_steps_afterwards(fresh, normed, shown):
    own = fresh()
    before = weights(own)
    finetune(own, normed, shown, PLAIN.model_copy(update={"epochs": 1}))
    after = weights(own)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert {name for name in after if name.endswith(("learnt", "conv1.weight", "conv2.weight", "fc.weight"))} <= moved
    assert not {name for name in moved if name.endswith(("begin", "zero_point"))}
    for node, data, weight in own.layers():
        units = own.graph.get_parameter(str(node.args[2].target)).detach() / (data.step * weight.step).detach()
        torch.testing.assert_close(units, units.round(), rtol=1e-6, atol=1e-3)


def test_what_was_fine_tuned_is_converted_as_it_was_simulated(fresh, normed, shown):
    from datafree.quantization import convert

    own = fresh()
    finetune(own, normed, shown, FineTuning(epochs=1, batch=50, learning_rate=5e-3))
    with torch.no_grad():
        assert torch.equal(convert(own)(shown), own.network.predict(shown))


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_stopped_after_any_epoch_goes_on_to_the_same_bits(epochs, fresh, normed, shown, tmp_path):
    settings = FineTuning(epochs=3, batch=60)
    state, whole = tmp_path / "state.safetensors", fresh()
    curve = finetune(whole, normed, shown, settings, seed=3)

    def stop(done: int, _: int) -> None:
        if done == 5 * epochs + 1:
            raise Stop

    with pytest.raises(Stop):  # in the epoch after, which is lost
        finetune(fresh(), normed, shown, settings, seed=3, state=state, identity={"a": 1}, progress=stop)
    torch.manual_seed(99)
    resumed = fresh()
    again = finetune(resumed, normed, shown, settings, seed=3, state=state, identity={"a": 1})
    assert same(weights(resumed), weights(whole))
    assert again.loss == curve.loss and len(again.loss) == 3


def test_a_finished_run_is_left_as_it_is_and_another_is_refused(fresh, normed, shown, tmp_path):
    settings, state = FineTuning(epochs=1, batch=60), tmp_path / "state.safetensors"
    one, other = fresh(), fresh()
    first = finetune(one, normed, shown, settings, state=state, identity={"seed": 0})
    content = state.read_bytes()
    assert finetune(other, normed, shown, settings, state=state, identity={"seed": 0}).loss == first.loss
    assert same(weights(one), weights(other)) and state.read_bytes() == content
    with pytest.raises(UserError, match="is of a run with other settings; name another `state`"):
        finetune(fresh(), normed, shown, settings, state=state, identity={"seed": 1})


def test_a_run_goes_on_where_another_processor_rounded_the_calibrated_weights_otherwise(fresh, normed, shown, tmp_path):
    settings, state = FineTuning(epochs=2, batch=60), tmp_path / "state.safetensors"
    curve = finetune(fresh(), normed, shown, settings, state=state)
    tensors, header = read_tensors(state, kind="training-state")
    header["identity"]["sha256_of_start"] = "0" * 64
    write_tensors(state, tensors, header, kind="training-state")
    with pytest.raises(UserError, match="is of a run with other settings"):
        finetune(fresh(), normed, shown, settings, state=state)
    header["environment"]["processor"] = "another"
    write_tensors(state, tensors, header, kind="training-state")
    with pytest.warns(Notice, match="processor 'another' then"):
        assert finetune(fresh(), normed, shown, settings, state=state).loss == curve.loss
    header["identity"]["sha256_of_images"] = "0" * 64
    write_tensors(state, tensors, header, kind="training-state")
    with pytest.raises(UserError, match="is of a run with other settings"):
        finetune(fresh(), normed, shown, settings, state=state)


def test_the_seed_decides_and_torchs_global_stream_is_left_as_it_was(fresh, normed, shown):
    settings, made = FineTuning(epochs=1, batch=60), []
    torch.manual_seed(4)
    before = torch.get_rng_state()
    for seed in (0, 0, 1):
        own = fresh()
        finetune(own, normed, shown, settings, seed=seed)
        made.append(weights(own))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(made[0], made[1]) and not same(made[0], made[2])


def epochs_of(normed, pixels, settings, *, epoch: int = 0, batch: int = 20, seed: int = 0):
    return list(Augmented(normed, pixels, settings).epoch(seed, epoch, batch))


def order_of(shown: torch.Tensor, pixels: torch.Tensor) -> list[int]:
    """Which image each one is."""
    return [int((pixels - own).abs().flatten(1).amax(1).argmin()) for own in shown]


def test_without_shift_flip_and_mixup_every_image_is_shown_once_an_epoch_as_it_is_with_the_teachers_logits(
    normed, shown
):
    orders = []
    for epoch in (0, 1, 0):
        parts = epochs_of(normed, shown[:60], PLAIN, epoch=epoch)
        pixels, logits = (torch.cat(own) for own in zip(*parts))
        assert [len(own) for own, _ in parts] == [20, 20, 20]
        orders.append(order_of(pixels, shown[:60]))
        assert torch.equal(pixels, shown[:60][orders[-1]])
        torch.testing.assert_close(logits, normed.predict(pixels), rtol=1e-5, atol=1e-5)
    assert sorted(orders[0]) == list(range(60))
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize(("repeats", "batch"), [(2, 20), (4, 20), (5, 10)])
def test_repeats_show_each_image_so_many_times_in_a_batch_and_no_image_in_two_batches(repeats, batch, normed, shown):
    parts = epochs_of(normed, shown[:60], PLAIN.model_copy(update={"repeats": repeats}), batch=batch)
    counts = [torch.tensor(order_of(own, shown[:60])).bincount(minlength=60) for own, _ in parts]
    assert len(parts) == 60 // batch
    for own in counts:
        assert set(own.tolist()) == {0, repeats}
        assert int((own > 0).sum()) == batch // repeats
    assert int(torch.stack(counts).gt(0).sum(0).max()) == 1


def test_repeats_of_an_image_are_augmented_each_for_itself(normed, shown):
    settings = FineTuning(repeats=4, shift=2, flip=True, mixup=0.0)
    ((own, _), *_) = epochs_of(normed, shown[:8], settings, batch=8)
    assert len(own.flatten(1).unique(dim=0)) > 4


def test_shifts_move_an_image_by_at_most_so_many_pixels_on_a_ground_of_zeros(normed, shown):
    wide = torch.nn.functional.pad(shown[:1], (2,) * 4)
    wanted = torch.stack([wide[0, :, r : r + 8, c : c + 8] for r in range(5) for c in range(5)])
    settings = PLAIN.model_copy(update={"shift": 2})
    made = torch.cat([epochs_of(normed, shown[:1], settings, epoch=epoch)[0][0] for epoch in range(200)])
    equal = (made[:, None] == wanted[None]).flatten(2).all(2)
    assert equal.any(1).all()
    assert equal.any(0).all()


def test_flips_mirror_about_half_of_the_images(normed, shown):
    settings = PLAIN.model_copy(update={"flip": True})
    ((own, _),) = epochs_of(normed, shown, settings, batch=300)
    straight = [bool((shown == one).flatten(1).all(1).any()) for one in own]
    mirrored = [bool((shown.flip(3) == one).flatten(1).all(1).any()) for one in own]
    assert all(a or b for a, b in zip(straight, mirrored))
    assert 100 < sum(mirrored) < 200


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_mixup_blends_its_share_of_the_images_with_others_within_the_range(share, normed, shown):
    settings = PLAIN.model_copy(update={"mixup": share})
    ((own, logits),) = epochs_of(normed, shown, settings, batch=300)
    kept = [bool((shown == one).flatten(1).all(1).any()) for one in own]
    assert abs(1 - sum(kept) / 300 - share) < 0.12
    normed.spec.check(own)
    torch.testing.assert_close(logits, normed.predict(own), rtol=1e-5, atol=1e-5)


def test_images_stored_as_bytes_are_shown_as_pixels(normed, shown):
    ((own, _),) = epochs_of(normed, to_bytes(shown[:10], normed.spec), PLAIN, batch=10)
    torch.testing.assert_close(own, shown[:10][order_of(own, shown[:10])], rtol=0, atol=1 / 500)


def test_what_is_left_at_the_end_is_not_shown_in_that_epoch_but_in_others(normed, shown):
    seen = set()
    for epoch in range(20):
        parts = epochs_of(normed, shown[:50], PLAIN, epoch=epoch)
        assert [len(own) for own, _ in parts] == [20, 20]
        seen |= {index for own, _ in parts for index in order_of(own, shown[:50])}
    assert len(seen) == 50


@pytest.mark.parametrize("repeats", [3, 8])
def test_a_batch_has_no_more_images_than_was_asked_for_copies_counted(repeats, normed, shown):
    settings = FineTuning(repeats=repeats, batch=8)
    parts = epochs_of(normed, shown[:24], settings, batch=settings.batch)
    assert len(parts) == 3 and all(len(own) <= 8 for own, _ in parts)


def test_fewer_images_than_a_batch_are_one_batch(normed, shown):
    assert [len(own) for own, _ in epochs_of(normed, shown[:7], PLAIN, batch=64)] == [7]


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (torch.rand(0, 1, 8, 8), "pixels: got no image, expected at least 1 to fine-tune on; give some"),
        (torch.rand(4, 3, 8, 8), "images of shape (3, 8, 8), expected (1, 8, 8)"),
        (torch.rand(4, 1, 8, 8) + 3, "expected 0 to 1; scale the images first"),
    ],
)
def test_images_that_do_not_fit_are_one_line(pixels, text, normed, fresh):
    with pytest.raises(UserError) as caught:
        finetune(fresh(), normed, pixels)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_an_image_that_does_not_fit_is_found_wherever_it_is(normed, fresh, shown):
    pixels = torch.cat([shown, torch.full((1, 1, 8, 8), torch.nan)])
    with pytest.raises(UserError):
        finetune(fresh(), normed, pixels, FineTuning(epochs=1))


def test_a_loss_that_is_not_finite_is_one_line_and_leaves_no_state(fresh, normed, shown, tmp_path):
    settings = FineTuning(epochs=1, learning_rate=1e30)
    with pytest.raises(UserError, match="the loss is not finite in epoch 1; lower `learning_rate`"):
        finetune(fresh(), normed, shown, settings, state=tmp_path / "state.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_at_16_bits_there_is_next_to_nothing_to_learn(loss, fresh, normed, shown):
    settings = PLAIN.model_copy(update={"epochs": 1, "loss": loss, "learning_rate": 1e-9})
    assert finetune(fresh(Bits(weights=16, activations=16)), normed, shown, settings).loss[0] < 1e-4


def test_images_are_shifted_on_their_own_border(normed, shown):
    samples = Samples(shown, normed.predict(shown), torch.zeros(len(shown), dtype=torch.long), (0.25,))
    images = load_images(normed, samples, None, role="calibrate")
    assert images.border == (0.25,) and load_images(normed, shown, None, role="calibrate").border is None
    settings = FineTuning(shift=2, flip=False, mixup=0.0)
    for border, colour in ((images.border, 0.25), (None, normed.spec.black)):
        (pixels, _), *_ = Augmented(normed, torch.ones_like(shown), settings, border).epoch(0, 0, len(shown))
        assert set(pixels.unique().tolist()) == {1.0, colour}
