"""The synthetic set on disk: the same bytes however it was made, whole or refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datafree._core.errors import UserError
from datafree._core.files import read_json, read_tensors, sha256_file, write_sealed_json, write_tensors
from datafree.cli.arguments import Data
from datafree.cli.loading import images_of
from datafree.cli.main import run as run_line
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.models.pixel_bytes import to_bytes, to_pixels
from datafree.records.record import Record, record
from datafree.records.statistics.input import InputMoments
from datafree.records.statistics.moments import Moments
from datafree.releases.load import new_model
from datafree.releases.release import write_release
from datafree.synthesis.censored_gaussian import fit_censored
from datafree.synthesis.methods import distribution, from_name
from datafree.synthesis.methods.activations import AllLayers, TopLayer
from datafree.synthesis.methods.distribution import Distribution
from datafree.synthesis.synthetic_set import SyntheticSet, synthesize

QUICK = AllLayers(steps=2)


@pytest.fixture
def make(teacher, whole_record, tmp_path):
    """Synthesizes 50 images in chunks of 20 into tmp_path / name."""

    def made(name="set", method=QUICK, images=50, **options):
        options = {"chunk": 20, "workers": 1, **options}
        return synthesize(teacher, whole_record, method, tmp_path / name, images=images, **options)

    return made


@pytest.fixture(scope="module")
def distributed(teacher, whole_record, tmp_path_factory) -> Path:
    """The folder of 50 images by `distribution` in units of 20: not to be written to."""
    folder = tmp_path_factory.mktemp("distributed") / "set"
    return synthesize(teacher, whole_record, Distribution(), folder, images=50, chunk=20, workers=1).folder


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("unit-*"))}


def content(folder: Path) -> dict[str, bytes]:
    return {**shards(folder), "set.json": (folder / "set.json").read_bytes()}


def texts(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def small(tiny, toy) -> tuple[Network, Record]:
    """A teacher of 16 pixels and 3 classes, with the record that any method may ask for."""
    network, moments = tiny("linear"), Moments(covariance="full")
    return network, record(network, toy(), [InputMoments(), moments, (moments, ("input",))])


@pytest.mark.parametrize("method", [QUICK, Distribution(), AllLayers(steps=2, box=True)])
def test_any_number_of_workers_and_threads_makes_the_same_bytes(method, small, tmp_path, monkeypatch):
    monkeypatch.setattr(distribution, "fit_censored", fit_censored)  # anew each time, not as conftest.py has it

    def make(name, workers=1):
        return synthesize(*small, method, tmp_path / name, images=50, chunk=20, workers=workers)

    sets = [make("one"), make("three", workers=3)]
    try:
        torch.set_num_threads(2)
        sets.append(make("threads", workers=2))
        assert torch.get_num_threads() == 2, "the number of threads is put back"
    finally:
        torch.set_num_threads(1)
    one, three, threads = (content(made.folder) for made in sets)
    assert list(one) == ["unit-000000.safetensors", "unit-000001.safetensors", "unit-000002.safetensors", "set.json"]
    assert one == three == threads


def test_a_set_gives_back_its_images_labels_and_the_teachers_logits(make, teacher, whole_record):
    made = make(method=Distribution())
    pixels, labels, logits = made.load()
    assert (len(made), pixels.shape, pixels.dtype) == (50, (50, 1, 8, 8), torch.uint8)
    assert torch.equal(logits[:20], teacher.predict(to_pixels(pixels[:20], made.spec)))
    unit = Distribution().bind(teacher, whole_record).chunk(1, 0, 20)
    assert torch.equal(labels[20:40], unit.labels)
    assert torch.equal(pixels[20:40], to_bytes(unit.pixels, made.spec))
    assert float((to_pixels(pixels[20:40], made.spec) - unit.pixels).abs().max()) <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    "images", [3, pytest.param(10, marks=pytest.mark.slow), 27, pytest.param(50, marks=pytest.mark.slow), 60]
)
def test_a_cut_unit_leaves_all_classes_alike_and_whole_units_as_they_are(images, make, teacher, whole_record):
    own = make(method=Distribution(), images=images)
    pixels, labels, logits = own.load()
    counts = labels.bincount(minlength=10)
    assert len(pixels) == len(logits) == images and int(counts.max() - counts.min()) <= 1
    hits = (logits.argmax(1) == labels).double().mean()
    assert own.measured() == pytest.approx(float(hits), abs=1e-6)
    maker = Distribution().bind(teacher, whole_record)
    whole = torch.cat([maker.chunk(index, 0, 20).labels for index in range(images // 20)] or [labels[:0]])
    assert torch.equal(labels[: len(whole)], whole)
    counts = own.load(7)[1].bincount(minlength=10)
    assert int(counts.max() - counts.min()) <= 1


def test_methods_without_a_box_are_stored_as_they_are(make, teacher, whole_record):
    pixels = make().load()[0]
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels[:20], QUICK.bind(teacher, whole_record).chunk(0, 0, 20).pixels)
    assert make("in_range", AllLayers(steps=2, box=True)).load()[0].dtype == torch.uint8


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_bytes_and_pixels_are_inverse_for_any_range(bounds):
    spec = InputSpec(shape=(1, 16, 16), low=bounds[0], high=bounds[1], classes=("a", "b"))
    stored = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    pixels = to_pixels(stored, spec)
    assert torch.equal(to_bytes(pixels, spec), stored)
    assert (float(pixels.min()), float(pixels.max())) == pytest.approx(bounds, abs=1e-6)


def test_a_larger_count_appends_and_earlier_shards_keep_their_bytes_and_times(make, tmp_path):
    make("whole", images=90)
    first = make("grown", images=50)
    before, times = shards(first.folder), [path.stat().st_mtime_ns for path in sorted(first.folder.glob("unit-*"))]
    grown = make("grown", images=90)
    after = shards(grown.folder)
    assert {name: after[name] for name in before} == before
    assert [path.stat().st_mtime_ns for path in sorted(grown.folder.glob("unit-*"))][:3] == times
    assert content(grown.folder) == content(tmp_path / "whole")
    assert torch.equal(grown.load()[0][:50], SyntheticSet.open(grown.folder).load()[0][:50])
    assert len(SyntheticSet.open(grown.folder).load(10)[0]) == 10


def test_a_set_made_from_python_has_a_log_of_what_made_it(make, teacher, whole_record):
    folder = make(seed=3).folder
    log = read_json(folder / "run.json")
    assert (
        log["verb"] == "synthesize" and log["result"]["images"] == 50 and log["versions"]["torch"] == torch.__version__
    )
    assert log["settings"] == {
        **QUICK.model_dump(mode="json"), "images": 50, "chunk": 20, "seed": 3, "device": "cpu"
    }  # fmt: skip
    assert log["inputs"] == {"teacher_fingerprint": teacher.fingerprint(), "record_digest": whole_record.digest()}
    before = (folder / "run.json").stat().st_mtime_ns
    make(seed=3)
    assert (folder / "run.json").stat().st_mtime_ns == before
    make(seed=3, images=70)
    assert (
        read_json(folder / "run.json")["result"]["images"] == read_json(folder / "run.json")["settings"]["images"] == 70
    )


def test_other_settings_are_refused_by_name_and_nothing_is_touched(make, teacher, whole_record):
    made = make()
    before = content(made.folder)
    cases = {
        "method": lambda: make(method=TopLayer(steps=2)),
        "seed": lambda: make(seed=1),
        "chunk": lambda: make(chunk=10),
        "record": lambda: synthesize(teacher, type(whole_record)(
            whole_record.spec, whole_record.fingerprint, whole_record.answers,
            {name: entry for name, entry in whole_record.entries.items() if name != "graph"},
        ), QUICK, made.folder, images=50, chunk=20, workers=1),
    }  # fmt: skip
    for key, call in cases.items():
        text = texts(call)
        assert text.startswith(f"{made.folder} holds a set with `{key}=")
        assert text.endswith("name another `out`, or repeat the run that made it")
    assert content(made.folder) == before
    assert "images: got 0, expected at least 1" in texts(lambda: make("none", images=0))


def test_a_folder_with_other_things_is_left_alone(make, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("mine")
    assert "holds 'thesis.txt'" in texts(make)
    assert os.listdir(tmp_path / "set") == ["thesis.txt"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "swapped", "of another seed"])
def test_a_damaged_shard_is_made_again(make, damage):
    made = make()
    before = content(made.folder)
    path = made.folder / "unit-000001.safetensors"
    whole = path.read_bytes()
    if damage == "swapped":
        shutil.copy(made.folder / "unit-000002.safetensors", path)
    elif damage == "of another seed":
        shutil.copy(make("other", seed=1).folder / path.name, path)
    else:
        path.write_bytes(
            {"flipped": whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:], "cut": whole[:-5], "empty": b""}[damage]
        )
    assert texts(SyntheticSet.open(made.folder).load)
    assert content(make().folder) == before


def test_strays_are_swept_and_a_missing_shard_is_made(make):
    made = make()
    before = content(made.folder)
    stray = next(made.folder.glob("unit-000001*"))
    machine = __import__("datafree._core.files.atomic", fromlist=["machine"]).machine()
    temporary = made.folder / f".{stray.name}.tmp-4194305-{machine}00000000"
    stray.rename(temporary)
    assert content(make().folder) == before
    assert not temporary.exists()


def test_a_set_that_is_not_finished_or_of_another_teacher_is_refused(make, tiny, tmp_path):
    made = make()
    assert texts(lambda: SyntheticSet.open(made.folder, tiny())) == (
        f"the set in {made.folder} was made from another teacher than tiny; give the teacher that it was made from"
    )
    write_sealed_json(made.folder / "set.json", {**made.about, "shards": None})
    assert texts(lambda: SyntheticSet.open(made.folder)) == (
        f"the synthetic set in {made.folder} is not finished; run the same datafree synthesize again"
    )
    assert texts(lambda: SyntheticSet.open(tmp_path / "nowhere")).startswith("no synthetic set in ")


@pytest.mark.parametrize(
    "change",
    [
        {"shards": {"../unit-000000.safetensors": "0" * 64}},
        {"shards": {"sub/unit-000000.safetensors": "0" * 64}},
        {"shards": {"/etc/passwd": "0" * 64}},
        {"shards": {"unit-000000.safetensors/../../x": "0" * 64}},
        {"shards": ["unit-000000.safetensors"]},
        {"shards": {"unit-000000.safetensors": 7}},
        {"shards": {}},
        {"images": "50"},
        {"spec": 5},
    ],
)
def test_an_index_made_by_hand_is_refused_and_nothing_outside_is_read(make, change, tmp_path):
    made = make()
    shutil.copy(made.folder / "unit-000000.safetensors", tmp_path / "unit-000000.safetensors")
    digest = made.about["shards"]["unit-000000.safetensors"]
    if isinstance(change.get("shards"), dict):
        change = {"shards": {name: digest if value == "0" * 64 else value for name, value in change["shards"].items()}}
    write_sealed_json(made.folder / "set.json", {**made.about, **change})

    def use():
        opened = SyntheticSet.open(made.folder)
        assert opened.spec
        opened.load()

    text = texts(use)
    if isinstance(change.get("shards"), dict) and "/" in "".join(change["shards"]):
        assert "lists 1 shards, expected 3" in text


def test_a_shard_without_logits_is_refused(make):
    made = make()
    path = made.folder / "unit-000000.safetensors"
    tensors, header = read_tensors(path, kind="shard")
    del tensors["logits"]
    path.unlink()
    digest = write_tensors(path, tensors, header, kind="shard")
    about = {**made.about, "shards": {**made.about["shards"], path.name: digest}}
    assert "no tensor 'logits' in" in texts(SyntheticSet(made.folder, about).load)


def test_images_that_are_not_finite_are_never_written(make, monkeypatch, tmp_path):
    monkeypatch.setattr("datafree.synthesis.methods.inversion.invert", lambda *_: torch.full((20, 1, 8, 8), torch.nan))
    assert texts(make) == "chunk 0 has images that are not finite; lower the method's `learning_rate`"
    assert not (tmp_path / "set").exists()


def test_a_run_that_is_stopped_makes_nothing_more_and_puts_the_threads_back(make, tmp_path):
    def stop(done, _):
        if done:
            raise KeyboardInterrupt

    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            make(images=400, progress=stop)
        assert torch.get_num_threads() == 2
        count = len(shards(tmp_path / "set"))
        assert count < 20
        assert caught.traceback, "the exception is still held, and with it every frame"
        time.sleep(0.1)
        assert len(shards(tmp_path / "set")) == count
    finally:
        torch.set_num_threads(1)


def test_progress_counts_images_from_where_the_run_goes_on(make):
    make(images=20)
    seen = []
    make(images=50, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(20, 50), (40, 50), (50, 50)]


# -- as processes -------------------------------------------------------------------------------------------------


def command(release: Path, out: Path, *more: str) -> list[str]:
    own = ["-m", "datafree", "synthesize", str(release), "--out", str(out), "--method", "all", "--steps", "4"]
    return [*own, "--unit", "16", "--seed", "3", "--quiet", *more]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def run(*argv: str) -> None:
    done = subprocess.run([sys.executable, *argv], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def uninterrupted(release, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "set"
    run(*command(release, out, "--images", "600", "--workers", "1"))
    return content(out)


@pytest.mark.slow  # tests/parallel has the same from Python, and the command line of a run that is shared out
def test_processes_of_torchrun_make_the_bytes_of_one(release, uninterrupted, tmp_path):
    pytest.importorskip("torch.distributed.run")
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo, so torchrun cannot start")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run(*torchrun, *command(release, tmp_path / "set", "--images", "600", "--workers", "1"))
    assert content(tmp_path / "set") == uninterrupted


@pytest.mark.slow  # the other kinds of runs are stopped in `make test`, and `make crash` stops this one at every point
def test_a_run_killed_in_the_middle_goes_on_to_the_same_bytes(release, uninterrupted, tmp_path):
    out, argv = tmp_path / "set", command(release, tmp_path / "set", "--images", "600", "--workers", "2")
    process = subprocess.Popen(
        [sys.executable, *argv], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob("unit-*"))) < 5 and time.monotonic() < deadline and process.poll() is None:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = shards(out)
    assert 5 <= len(kept) < 38, "killed too late to mean anything"
    assert all(uninterrupted[name] == data for name, data in kept.items())
    assert read_json(out / "set.json")["shards"] is None
    run(*argv)
    assert content(out) == uninterrupted
    assert not [path for path in out.iterdir() if ".tmp-" in path.name]


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-1.0, 1.0), (0.0, 1.0)])
def test_a_network_of_another_range_is_shown_the_same_images_in_its_own(make, teacher, tmp_path, low, high, box):
    pixels, _, _ = make(method=AllLayers(steps=2, box=box), images=20).load()
    unit = to_pixels(pixels, teacher.spec).double()
    other = replace(teacher, spec=teacher.spec.model_copy(update={"low": low, "high": high}))
    got = images_of(str(tmp_path / "set"), other, "test", None, Data(), 0)
    assert isinstance(got, torch.Tensor) and got.dtype == torch.float32
    assert float((got.double() - (low + (high - low) * unit)).abs().max()) < 1e-6 * (high - low)
    if (low, high) == (0, 1):
        assert torch.equal(got, to_pixels(pixels, teacher.spec))


def test_a_set_does_not_shrink(make):
    before = content(make().folder)
    with pytest.raises(UserError, match=r"images: got 20, but the set in .* already has 50"):
        make(images=20)
    assert content(make().folder) == before


def resealed(made, change, **about):
    """The set with its shards changed by `change` and sealed again, as by somebody who knows the format."""
    shards = {}
    for name in made.about["shards"]:
        tensors, header = read_tensors(made.folder / name, kind="shard")
        change(tensors)
        write_tensors(made.folder / name, tensors, header, kind="shard")
        shards[name] = sha256_file(made.folder / name)
    write_sealed_json(made.folder / "set.json", {**made.about, "shards": shards, **about})


@pytest.mark.parametrize("kind", ["rolled", "rolled with labels", "huge", "zero", "pixels of others"])
def test_logits_that_are_not_the_teachers_are_refused(kind, distributed, teacher, tmp_path):
    made = SyntheticSet.open(shutil.copytree(distributed, tmp_path / "set"), teacher)

    def change(tensors):
        if kind == "pixels of others":
            tensors["pixels"] = tensors["pixels"].flip(0).contiguous()
        elif kind.startswith("rolled"):
            tensors["logits"] = tensors["logits"].roll(1, 1).contiguous()
        else:
            tensors["logits"] = tensors["logits"] * (1e30 if kind == "huge" else 0)
        if "labels" in kind:
            tensors["labels"] = (tensors["labels"] + 1) % 10

    resealed(made, change, hits=None)
    assert len(SyntheticSet.open(made.folder)) == 50, "the file is as it should be"
    with pytest.raises(UserError, match=r"logits in .* are not those of .*, expected at most .*; synthesize again"):
        SyntheticSet.open(made.folder, teacher)


def test_a_share_of_hits_that_the_shards_do_not_have_is_refused(distributed, teacher, tmp_path):
    made = SyntheticSet.open(shutil.copytree(distributed, tmp_path / "set"))
    made.check_hits()
    resealed(made, lambda _: None, hits=0.125)
    with pytest.raises(
        UserError, match=r"predicts the target class for 12\.5 % of the images, but for the labels .* this is"
    ):
        SyntheticSet.open(made.folder, teacher)
    with pytest.raises(UserError, match=r"predicts the target class for 12\.5 %"):
        SyntheticSet.open(made.folder).check_hits()


def test_a_set_of_an_earlier_version_that_was_cut_otherwise_opens(make, teacher):
    made = make(method=Distribution(), images=50)
    whole = [read_tensors(made.folder / name, kind="shard")[0] for name in sorted(made.about["shards"])]
    right = torch.cat([own["logits"].argmax(1) == own["labels"] for own in whole])[:50]  # the first 50 rows
    resealed(made, lambda _: None, hits=round(float(right.double().mean()), 6))
    assert len(SyntheticSet.open(made.folder, teacher)) == 50
    assert made.measured(balanced=False) == pytest.approx(float(right.double().mean()), abs=1e-6)


def test_numpy_scalars_are_settings_of_a_method():
    settings = from_name("inception", learning_rate=np.float64(0.05), steps=np.int64(5))
    assert (settings.learning_rate, settings.steps) == (0.05, 5)


def test_a_set_grows_from_python_and_from_the_command_line_in_turn(teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_release(tmp_path / "teacher", teacher)

    def command(images, code=0):
        line = f"synthesize gaussian teacher --out set --images {images} --chunk 20 --quiet"
        assert run_line(line.split()) == code
        return capsys.readouterr()

    def python(images):
        return synthesize(teacher, None, "gaussian", "set", images=images, chunk=20, workers=1)

    python(20)
    assert "already complete" in command(20).out
    command(40)
    argv = read_json(tmp_path / "set.run.json")["argv"]
    python(60)
    log = read_json(tmp_path / "set" / "run.json")
    assert log["result"]["images"] == log["settings"]["images"] == 60 and "model" in log["settings"]
    assert read_json(tmp_path / "set.run.json")["argv"] == argv and "40" in argv
    assert "already complete" in command(60).out
    command(80)
    whole = synthesize(teacher, None, "gaussian", "whole", images=80, chunk=20, workers=1)
    assert shards(tmp_path / "set") == shards(whole.folder)


def test_a_python_set_of_another_teacher_is_not_complete(teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_release(tmp_path / "other", new_model("hinton8", teacher.spec, seed=0))
    synthesize(teacher, None, "gaussian", "set", images=20, chunk=20, workers=1)
    assert (
        run_line(["synthesize", "gaussian", "other", "--out", "set", "--images", "20", "--chunk", "20", "--quiet"]) == 2
    )
    assert "set was made with other content of teacher_fingerprint: sha256 " in capsys.readouterr().err
