"""What each condensing method promises of its own, and the command."""

from __future__ import annotations

import json
import math

import pytest
import torch

from datafree._core.errors import UserError
from datafree.data.condensed import methods
from datafree.data.condensed.condensed_set import Condensed
from datafree.data.condensed.methods import Job, condense, distribution_matching, siamese_augmentation
from datafree.data.condensed.methods.siamese_augmentation import KINDS, draw
from datafree.data.dataset import in_memory
from datafree.models.input_spec import InputSpec

SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("abc"))


def test_random_shots_are_images_of_the_data_each_once(toy):
    data = toy(shape=(1, 8, 8))
    made, every = condense(methods.from_name("random"), Job(data, SPEC, 20)), data.pixels(torch.arange(60))
    for label in range(3):
        own = made.pixels[made.classes == label].flatten(1)
        assert sorted(own.tolist()) == sorted(every[data.labels == label].flatten(1).tolist())


def test_one_centre_is_the_class_mean_and_every_centre_a_mean(toy):
    data = toy(shape=(1, 8, 8))
    every = data.pixels(torch.arange(60))
    made = condense(methods.from_name("kmeans"), Job(data, SPEC, 1)).pixels
    wanted = torch.stack([every[data.labels == label].mean(0) for label in range(3)])
    assert float((made - wanted).abs().max()) < 1e-6


def test_more_centres_than_different_images_are_refused():
    data = in_memory("same", "train", "abc", torch.arange(9).numpy() % 3, torch.zeros(9, 1, 8, 8).byte().numpy())
    with pytest.raises(UserError, match="per_class: got 2, but class 'a' of same has fewer distinct images"):
        condense(methods.from_name("kmeans"), Job(data, SPEC, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_an_augmentation_is_the_same_for_every_image_and_has_a_gradient(kind):
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    bend = draw((kind,), torch.Generator().manual_seed(3))
    parts = torch.cat([bend(images[:1]), bend(images[1:])])
    assert float((bend(images) - parts).detach().abs().max()) < 1e-6
    bend(images).sum().backward()
    assert images.grad is not None and float(images.grad.abs().sum()) > 0
    assert images.shape == parts.shape


def test_no_augmentation_leaves_images():
    images = torch.rand(2, 1, 8, 8)
    assert draw((), torch.Generator())(images) is images


def test_a_rotation_is_one_on_images_that_are_not_square():
    images = torch.zeros(1, 1, 16, 64)
    images[..., 7:9, 24:40] = 1  # a bar along the middle
    matrix = siamese_augmentation._matrix("rotate", 1, 0, 16 / 64)
    bent = siamese_augmentation._warped(images, matrix)[0, 0]
    rows, columns = torch.meshgrid(torch.arange(16).double(), torch.arange(64).double(), indexing="ij")
    spread = torch.cov(torch.stack([columns, rows]).flatten(1), aweights=bent.double().flatten())
    x, y = torch.linalg.eigh(spread).eigenvectors[:, 1].tolist()
    assert abs(math.degrees(math.atan(y / x))) == pytest.approx(15, abs=1)


def test_a_hole_takes_a_quarter_of_the_pixels_at_most_and_the_rest_stays():
    for seed in range(20):
        bent = draw(("cutout",), torch.Generator().manual_seed(seed))(torch.ones(1, 1, 8, 8))
        assert set(bent.unique().tolist()) <= {0.0, 1.0} and 4 <= int((bent == 0).sum()) <= 25


def embedding_distance(made, data, seeds=range(100, 110)) -> float:
    """Squared distance of class means, summed over networks that were not trained on."""
    total, every = 0.0, data.pixels(torch.arange(len(data)))
    for seed in seeds:
        network = distribution_matching._network(made.spec, 8, 3, seed)
        for label in range(len(made.spec.classes)):
            wanted = network(every[data.labels == label]).mean(0)
            total += float((wanted - network(made.pixels[made.classes == label]).mean(0)).square().sum())
    return total


@pytest.mark.parametrize("start", ["real", "noise"])
def test_matching_brings_the_class_means_together_in_networks_it_never_saw(digits, start):
    spec, data = InputSpec(shape=digits.shape, classes=digits.classes), digits.subset(400)
    first, last = (
        embedding_distance(
            condense(methods.from_name("dm", iterations=steps, start=start, width=8), Job(data, spec, 1)), data
        )
        for steps in (1, 80)
    )
    assert last < 0.7 * first


def test_a_stopped_run_goes_on_to_the_same_images(toy, tmp_path, monkeypatch):
    data, method = toy(shape=(1, 8, 8)), methods.from_name("dm", iterations=8, real=4, width=4)
    wanted = condense(method, Job(data, SPEC, 2)).pixels
    monkeypatch.setattr(distribution_matching, "PAUSE", -1)

    def stop(done, _):
        if done == 5:
            raise KeyboardInterrupt

    job = Job(data, SPEC, 2).resumed(tmp_path / "training.safetensors", {"seed": 0}, stop)
    with pytest.raises(KeyboardInterrupt):
        condense(method, job)
    seen = []
    again = job.resumed(tmp_path / "training.safetensors", {"seed": 0}, lambda done, _: seen.append(done))
    assert torch.equal(condense(method, again).pixels, wanted)
    assert seen[0] == 5
    with pytest.raises(UserError, match="is of a run with other settings"):
        condense(method, job.resumed(tmp_path / "training.safetensors", {"seed": 1}, stop))


LINES = [
    "random --per-class 2",
    "kmeans --per-class 2",
    "dm --per-class 1 --iterations 3 --width 4",
]


@pytest.mark.parametrize("line", LINES)
def test_the_command_says_how_many_how_good_and_what_is_given_away(command, here, line):
    code, out, err = command(f"condense {line} --data digits --teacher teacher --out got --quiet")
    assert (code, err) == (0, ""), err
    got, count = Condensed.open(here / "got"), 1 if "dm" in line else 2
    assert got.by_class() == [count] * 10
    assert f"{10 * count} images of 10 classes of digits in" in out and "what they reveal: " in out
    assert f"the teacher predicts the labelled class for {got.about['teacher']['accuracy']:.1f} % of them" in out
    assert got.about["leakage"] in (here / "got" / "README.md").read_text()
    log = json.loads((here / "got" / "run.json").read_text())
    assert (log["verb"], log["settings"]["per_class"]) == ("condense", count)
    assert sorted(path.name for path in (here / "got").iterdir()) == [
        ".datafree.json",
        "README.md",
        "condensed.safetensors",
        "run.json",
    ]


def test_without_a_teacher_size_mean_and_std_are_the_users(command, here):
    line = "condense random --data digits --per-class 1 --size 10 --mean 0.3 --std 0.4 --out got --quiet"
    assert command(line)[0] == 0
    assert Condensed.open(here / "got").spec.model_dump(include={"shape", "mean", "std"}) == {
        "shape": (1, 10, 10),
        "mean": (0.3,),
        "std": (0.4,),
    }


def test_inspect_says_what_is_in_it(command, here):  # noqa: ARG001
    command("condense random --data digits --per-class 1 --out got --quiet")
    code, out, _ = command("inspect got")
    assert (
        code == 0
        and "got: condensed set of 10 images 1 x 8 x 8, 10 classes" in out
        and "  leakage: Contains original training images" in out
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("dmx --data digits --per-class 1 --out got", "no method or kind of datafree condense 'dmx'; nearest: 'dm'"),
        ("random --data digits --per-class 0 --out got", "class: got 0, expected at least 1"),
        ("random --data digits --per-class 500 --out got", "class: got 500, but digits has"),
        ("dm --data digits --per-class 1 --iterations 0 --out got", "--iterations: got 0, expected at least 1"),
        ("dm --data digits --per-class 1 --learning-rate 0 --out got", "--learning-rate: got 0, expected above 0"),
        (
            "dm --data digits --per-class 1 --learning-rate 1e38 --out got",
            "--learning-rate: got 1e38, expected at most 10",
        ),
        ("random --per-class 1 --out got", "no data named, expected --data"),
        ("random --data digits --per-class 1", "needs --out, which was not given"),
        ("random --data digits --per-class 1 --teacher nosuch --out got", "no release folder 'nosuch'"),
        (
            "random --data digits --per-class 1 --teacher teacher --size 9 --out got",
            "teacher says them itself",
        ),
        ("random --data digits --per-class 1 --device cuda:7 --out got", "--device: got 'cuda:7', expected one"),
        ("random --data digits --per-class 1 --out teacher", "teacher"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(refused, line, text):
    assert text in refused(f"condense {line}")


def test_a_finished_set_is_not_replaced_by_another(command, refused, here):  # noqa: ARG001
    line = "condense random --data digits --per-class 1 --out got --quiet"
    assert command(line)[0] == 0
    assert "got was made with --seed 0, not 1: name" in refused(f"{line} --seed 1")
    assert command(line)[0] == 0
