"""Samples in memory are the images that a set of the same seed and chunk holds; nothing is written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import datafree as df
from datafree._core.errors import UserError
from datafree._core.progress import hear_share, report_share, share_of
from datafree.models.pixel_bytes import to_pixels
from datafree.synthesis import synthetic_set


@pytest.mark.parametrize(
    ("name", "n"),
    [("distribution", 27), *((name, n) for name in ("gaussian", "all") for n in (40, 27, 20, 7))]
    + [pytest.param("distribution", n, marks=pytest.mark.slow) for n in (40, 20, 7)],
)
def test_a_sample_is_what_a_set_holds(teacher, whole_record, tmp_path, name, n):
    method = df.method(name, steps=2) if name == "all" else df.method(name)
    samples = df.sample(teacher, method, n=n, record=whole_record, seed=3, chunk=20, workers=2)
    made = df.synthesize(teacher, whole_record, method, tmp_path / "set", images=n, seed=3, chunk=20, workers=1)
    pixels, labels, logits = made.load()
    assert torch.equal(samples.pixels, to_pixels(pixels, teacher.spec)) and torch.equal(samples.labels, labels)
    assert torch.equal(samples.logits, logits)


def test_two_names_unpack_and_the_logits_are_the_teachers(teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels, logits = df.sample(teacher, {"method": "inception", "steps": 2}, n=5)
    assert pixels.shape == (5, 1, 8, 8) and torch.equal(logits, teacher.predict(pixels))
    assert list(tmp_path.iterdir()) == []


def test_a_name_a_mapping_and_settings_give_the_same(teacher):
    forms = ["gaussian", {"method": "gaussian"}, df.method("gaussian")]
    samples = [df.sample(teacher, form, n=np.int64(6)).pixels for form in forms]
    assert torch.equal(samples[0], samples[1]) and torch.equal(samples[0], samples[2])
    assert not torch.equal(samples[0], df.sample(teacher, "gaussian", n=6, seed=1).pixels)


def test_progress_goes_to_the_end_and_the_threads_are_put_back(teacher):
    seen, threads = [], torch.get_num_threads()
    df.sample(teacher, "gaussian", n=25, chunk=10, progress=lambda *both: seen.append(both))
    assert seen[0] == (0, 25) and seen == sorted(seen) and seen[-1] == (25, 25)
    assert torch.get_num_threads() == threads


def test_a_long_chunk_shows_how_far_it_is(teacher, monkeypatch):
    monkeypatch.setattr(synthetic_set, "LOOK", 0.001)
    seen = []
    df.sample(teacher, {"method": "inception", "steps": 50}, n=64, chunk=64, progress=lambda *both: seen.append(both))
    assert seen == sorted(seen) and len({images for images, _ in seen}) > 5 and seen[-1] == (64, 64)


def test_the_last_count_comes_once_and_only_after_the_last_chunk(teacher, monkeypatch):
    monkeypatch.setattr(synthetic_set, "LOOK", 0.001)
    for workers in (1, 3):
        seen = []
        method = {"method": "inception", "steps": 20}
        df.sample(teacher, method, n=25, chunk=10, workers=workers, progress=lambda *both, seen=seen: seen.append(both))
        assert seen.count((25, 25)) == 1 and seen == sorted(seen)
    assert [synthetic_set.images_made(*made, 10, 25) for made in ((2, 1.0), (3, 0.0), (1, 0.5))] == [24, 25, 15]


def test_shares_of_parts_add_up_to_those_of_the_chunk():
    seen = []
    with hear_share(seen.append):
        for number in range(2):
            with share_of(number, 2):
                report_share(0.5)
        report_share(1.0)
    report_share(0.1)  # nobody listens
    assert seen == [0.25, 0.75, 1.0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"n": 0}, "n: got 0, expected at least 1"),
        ({"n": 2.5}, "n: got 2.5, expected a whole number"),
        ({"n": 1 << 50}, "images in memory needs about"),
        ({"chunk": 0}, "chunk: got 0, expected at least 1"),
        ({"workers": -1}, "workers: got -1, expected at least 1"),
        ({"method": "bns"}, "batch norm"),
        ({"method": "distribution"}, "method 'distribution' needs a record, got none"),
        ({"method": "x"}, "no synthesis method 'x'"),
        ({"method": 3}, "method: got 3, expected text or a dict or a Synthesizer or None"),
        ({"method": {"method": "gaussian", "steps": 3}}, "no setting 'steps' in Gaussian"),
        ({"record": {}}, "record: got dict, expected a Record or None"),
    ],
)
def test_what_does_not_fit_is_one_line(teacher, arguments, text):
    with pytest.raises(UserError) as caught:
        df.sample(teacher, **{"method": "gaussian", "n": 4, **arguments})
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_the_earlier_name_of_chunk_is_accepted_with_a_warning(teacher, tmp_path):
    with pytest.warns(DeprecationWarning, match="unit is now called chunk"):
        made = df.synthesize(teacher, None, "gaussian", tmp_path / "set", images=4, unit=2, workers=1)
    assert made.about["unit"] == 2
    with pytest.raises(UserError, match="unit: got it with chunk"):
        df.synthesize(teacher, None, "gaussian", tmp_path / "other", images=4, unit=2, chunk=2)
    with pytest.raises(UserError, match=r"out: got None, expected the folder of the set; give one, or use sample"):
        df.synthesize(teacher, None, "gaussian")
    assert not (tmp_path / "other").exists()


def test_samples_are_taken_where_images_are_and_train_the_student_that_their_set_does(teacher, tmp_path):
    samples = df.sample(teacher, "gaussian", n=40, chunk=20)
    made = df.synthesize(teacher, None, "gaussian", tmp_path / "set", images=40, chunk=20)
    of_samples, of_set = (df.distill(teacher, "hinton8", images=images, epochs=1) for images in (samples, made))
    assert of_samples.fingerprint() == of_set.fingerprint()
    source = df.soft_labelled(teacher, samples)
    assert torch.equal(source.pixels, samples.pixels) and torch.equal(source.targets, samples.logits)
    by_pixels = df.similarity(
        teacher, {"a": samples.pixels}, df.record(teacher, (samples.pixels, samples.labels), "paper")
    )
    by_samples = df.similarity(teacher, {"a": samples}, df.record(teacher, (samples.pixels, samples.labels), "paper"))
    assert by_pixels == by_samples
    mixed = df.distill(
        teacher, "hinton8", images=samples, condensed=df.condense(
            "random", data=(samples.pixels, torch.arange(40) % 10), per_class=1, teacher=teacher
        ), epochs=1
    )  # fmt: skip
    assert mixed.training.images == 40


def test_samples_of_another_network_get_the_logits_of_the_teacher(teacher):
    other = df.new_model("hinton8", teacher.spec, seed=3)
    samples = df.sample(other, "gaussian", n=16)
    source = df.soft_labelled(teacher, samples)
    assert torch.equal(source.targets, teacher.predict(samples.pixels)) and not torch.equal(
        source.targets, samples.logits
    )
    source = df.soft_labelled(teacher, replace(samples, logits=samples.logits.flip(0)))
    assert torch.equal(source.targets, teacher.predict(samples.pixels))


def test_samples_beyond_the_range_are_taken_from_this_teacher_alone(teacher):
    pixels = torch.linspace(-1, 2, 8 * 64).view(8, 1, 8, 8)
    own = df.Samples(pixels, teacher.predict(pixels), torch.arange(8))
    assert torch.equal(df.soft_labelled(teacher, own).pixels, pixels)
    df.distill(teacher, "hinton8", images=own, epochs=1)
    other = replace(own, logits=own.logits + 5)
    for call in (
        lambda: df.distill(teacher, "hinton8", images=other, epochs=1),
        lambda: df.quantize(teacher, calibrate=other),
    ):
        with pytest.raises(
            UserError, match=r"^(images|calibrate): pixels from -1 to 2, expected 0 to 1; scale the images"
        ):
            call()


@pytest.mark.parametrize("use", ["calibrate", "fine_tune", "both"])
def test_samples_calibrate_and_fine_tune_as_their_pixels_do(teacher, use):
    pytest.importorskip("torchao")
    samples = df.sample(teacher, "gaussian", n=40)

    def made(images):
        if use == "calibrate":
            return df.quantize(teacher, calibrate=images)
        fine_tune = {"images": images, "epochs": 1} if use == "both" else images
        return df.quantize(teacher, calibrate="noise", images=40, fine_tune=fine_tune)

    ours, theirs = made(samples), made(samples.pixels)
    assert ours.digest == theirs.digest and ours.sources == theirs.sources


def test_samples_that_do_not_fit_are_refused_by_the_name_of_the_parameter(teacher):
    samples = df.Samples(torch.rand(4, 3, 8, 8), torch.rand(4, 10), torch.arange(4))
    empty = df.Samples(torch.rand(0, 1, 8, 8), torch.rand(0, 10), torch.arange(0))
    for wrong, text in ((samples, "images of shape"), (empty, "got no image, expected at least one")):
        for name, call in (
            ("images", lambda wrong=wrong: df.distill(teacher, "hinton8", images=wrong)),
            ("calibrate", lambda wrong=wrong: df.quantize(teacher, calibrate=wrong)),
            ("fine_tune", lambda wrong=wrong: df.quantize(teacher, calibrate="noise", images=40, fine_tune=wrong)),
            ("data", lambda wrong=wrong: df.soft_labelled(teacher, wrong)),
        ):
            with pytest.raises(UserError, match=f"^{name}: {text}"):
                call()
