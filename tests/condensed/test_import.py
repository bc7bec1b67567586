"""Promises of the import: every published format gives the same set, and a wrong reading is refused in one line."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from datafree._core.errors import UserError
from datafree.data.condensed.condensed_set import Condensed, one_hot
from datafree.data.condensed.importers.meaning import Pixels, by_name, decoded, labels_of
from datafree.data.condensed.importers.raw import Raw
from datafree.data.condensed.importers.trial import Trial
from datafree.models.input_spec import InputSpec

from .conftest import two_each

MEAN, STD = 0.3, 0.4
NORMALISED = f"normalised:{MEAN}/{STD}"
SPEC = InputSpec(shape=(3, 8, 8), classes=("a", "b", "c"))


def dc(path, images, labels):
    wrong = [torch.zeros_like(images), labels]
    torch.save({"data": [wrong, [images, labels]], "accs_all_exps": {"ConvNet": [np.float64(0.5)]}}, path / "x.pt")
    return "x.pt"


def idc(path, images, labels):
    torch.save([images, labels], path / "data.pt")
    return "data.pt"


def best(path, images, labels):
    (path / "run").mkdir()
    torch.save(images.clone().requires_grad_(), path / "run" / "images_best.pt")
    torch.save(labels, path / "run" / "labels_best.pt")
    return "run"


def npz(path, images, labels):
    np.savez(path / "x.npz", images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
    return "x.npz"


def folder(path, images, labels):
    for row, (image, label) in enumerate(zip(images, labels)):
        (path / "set" / str(int(label))).mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(path / "set" / str(int(label)) / f"{row}.png")
    return "set"


def parquet(path, images, labels):
    pyarrow, table = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder(path, images, labels)
    files = [path / "set" / str(int(label)) / f"{row}.png" for row, label in enumerate(labels)]
    rows = {"image": [{"bytes": file.read_bytes(), "path": None} for file in files], "label": labels.tolist()}
    table.write_table(pyarrow.table(rows), path / "x.parquet")
    return "x.parquet"


FILES = (folder, parquet)


@pytest.mark.parametrize("write", [dc, idc, best, npz, folder, parquet])
def test_every_format_gives_the_images_and_labels_that_were_stored(command, here, shots, write):
    pixels, labels = shots
    if write in FILES:
        name, flag = write(here, pixels, labels), ""
    else:
        name, flag = write(here, (pixels - MEAN) / STD, labels), f"--pixels {NORMALISED}"
    code, out, err = command(f"import-condensed {name} teacher {flag} --out got")
    assert (code, err) == (0, ""), err
    got = Condensed.open(here / "got")
    assert float((got.pixels - pixels).abs().max()) < (3e-3 if write in FILES else 1e-6)
    assert torch.equal(got.labels, one_hot(labels, 10))
    assert "the teacher predicts the labelled class for" in out and "20 images, 2 a class" in out
    assert got.about["made"]["format"] == {"idc": "pair"}.get(write.__name__, write.__name__)
    assert sorted(path.name for path in (here / "got").iterdir()) == [
        ".datafree.json",
        "README.md",
        "condensed.safetensors",
        "run.json",
    ]


def test_an_entry_can_be_chosen_and_0_255_is_a_convention(command, here, shots):
    images, labels = shots
    torch.save({"data": [[images * 255, labels], [images * 0, labels]]}, here / "x.pt")
    code, out, _ = command("import-condensed x.pt teacher --pixels 0-255 --entry 0 --out got")
    assert code == 0 and "x.pt holds 2 sets; number 0 was read" in out
    assert float((Condensed.open(here / "got").pixels - images).abs().max()) < 1e-6


def test_of_a_zca_set_the_unwhitened_file_is_read_and_said(command, here, shots):
    images, labels = shots
    best(here, torch.randn(images.shape), labels)
    for name, scale in (("images_zca_0", 0.0), ("images_zca_5000", 1.0)):
        torch.save(images * scale, here / "run" / f"{name}.pt")
    code, out, _ = command("import-condensed run teacher --pixels 0-1 --out got --zca")
    assert code == 0
    assert "images_best.pt is ZCA-whitened; the un-whitened images_zca_5000.pt was read instead" in out
    assert torch.equal(Condensed.open(here / "got").pixels, images)


def test_soft_labels_are_kept_and_logits_become_their_softmax(command, here, shots):
    images, labels = shots
    rows = (5 * one_hot(labels, 10)).softmax(1)
    best(here, images, rows)
    assert command("import-condensed run teacher --pixels 0-1 --out soft")[0] == 0
    assert float((Condensed.open(here / "soft").labels - rows).abs().max()) < 1e-6
    torch.save(5 * one_hot(labels, 10), here / "run" / "labels_best.pt")
    assert command("import-condensed run teacher --pixels 0-1 --labels logits --out logits")[0] == 0
    assert float((Condensed.open(here / "logits").labels - rows).abs().max()) < 1e-6
    assert command("import-condensed run teacher --pixels 0-1 --labels hard --out hard")[0] == 0
    assert torch.equal(Condensed.open(here / "hard").labels, one_hot(labels, 10))


def test_patches_become_images(command, here, shots):
    images, labels = shots
    wide = torch.cat([torch.cat([images[::2], images[1::2]], 3)] * 2, 2)  # 16 x 16: two images and the same two again
    torch.save([wide, labels[::2]], here / "data.pt")
    code, out, err = command("import-condensed data.pt teacher --pixels 0-1 --patches 2 --resize --out got")
    assert (code, err) == (0, ""), err
    assert "40 images, 4 a class" in out


@pytest.mark.parametrize(("patches", "side"), [(2, 8), (3, 9)])
def test_decoding_patches_of_constants_gives_those_constants(patches, side):
    values = torch.rand(2, 3, patches, patches, generator=torch.Generator().manual_seed(0))
    images = values.repeat_interleave(side // patches, 2).repeat_interleave(side // patches, 3)
    spec = InputSpec(shape=(3, side, side), classes=("a", "b"))
    pixels, labels = decoded(images, one_hot(torch.tensor([1, 0]), 2), patches, spec)
    assert pixels.shape == (2 * patches**2, 3, side, side)
    wanted = values.permute(0, 2, 3, 1).reshape(-1, 3, 1, 1)
    assert float((pixels - wanted).abs().max()) < 1e-6  # weights of thirds do not add up to 1 in floating point
    assert labels.argmax(1).tolist() == [1] * patches**2 + [0] * patches**2


def test_a_decoded_patch_is_the_bilinear_enlargement_of_the_patch():
    ramp = torch.arange(4.0).expand(1, 1, 4, 4) / 4
    spec = InputSpec(shape=(1, 4, 4), classes=("a", "b"))
    pixels, _ = decoded(ramp, one_hot(torch.tensor([1]), 2), 2, spec)
    assert pixels[0, 0, 0].tolist() == [0.0, 0.0625, 0.1875, 0.25]  # by hand: sample points 0, 1/4, 3/4, 1 of [0, 1/4]


def test_a_side_that_is_no_multiple_is_filled_up_with_mid_grey():
    spec = InputSpec(shape=(1, 8, 8), classes=("a", "b"))
    pixels, _ = decoded(torch.ones(1, 1, 8, 8), one_hot(torch.tensor([1]), 2), 3, spec)
    assert float(pixels[0].min()) == 1.0 and float(pixels[8, 0, -1, -1]) == 0.5


@pytest.mark.parametrize("text", ["normalised:0.1,0.2,0.3/0.4,0.5,0.6", "normalised:-1/2", "0-255", "0-1"])
def test_undoing_a_convention_is_its_inverse(text):
    convention, pixels = Pixels.parse(text), torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 - 1
    mean, std = (torch.tensor(own).view(1, -1, 1, 1) for own in (convention.mean, convention.std))
    assert float((convention.undo((pixels - mean) / std, SPEC) - pixels).abs().max()) < 1e-6


def test_a_spec_with_another_range_gets_its_own_units():
    spec = InputSpec(shape=(3, 8, 8), classes=("a", "b"), low=-1)
    assert Pixels.parse("0-255").undo(torch.full((1, 3, 8, 8), 255.0), spec).unique().tolist() == [1.0]
    assert Pixels.parse("0-255").undo(torch.zeros(1, 3, 8, 8), spec).unique().tolist() == [-1.0]


@pytest.mark.parametrize(
    ("labels", "how", "text"),
    [
        (torch.tensor([0, 3]), "auto", "label 3 of image 1, expected 0 to 2"),
        (torch.tensor([0, -1]), "auto", "label -1 of image 1"),
        (torch.tensor([0, 1.5]), "auto", "labels such as 1.5, expected class numbers"),
        (torch.tensor([0]), "auto", "1 labels for 2 images"),
        (torch.full((2, 4), 0.25), "auto", r"labels: got shape \(2, 4\), expected \(2,\) or \(2, 3\)"),
        (
            torch.tensor([[0.9, -0.1, -0.1]] * 2),
            "auto",
            "whose rows sum to 0.7 to 0.7, expected distributions; give `labels='logits'`",
        ),
        (torch.full((2, 3), float("inf")), "logits", "labels: got NaN or infinity"),
        (torch.tensor([0, 1]), "softly", "no reading of labels 'softly'"),
    ],
)
def test_labels_that_say_nothing_clear_are_refused(labels, how, text):
    with pytest.raises(UserError, match=text):
        labels_of(Raw(torch.zeros(2, 3, 8, 8), labels, "dc", ()), SPEC, how)


def folders(*names, classes=SPEC.classes):
    return by_name(Raw(torch.zeros(3, 3, 8, 8), torch.tensor([0, 1, 2]), "folder", (), classes=names), SPEC.model_copy(
        update={"classes": classes}))  # fmt: skip


def test_class_folders_are_matched_by_name_numbers_by_value_and_else_in_order():
    assert folders("a", "b", "c")[0].tolist() == [0, 1, 2]
    assert folders("b", "c", "d", classes=("d", "c", "b"))[0].tolist() == [2, 1, 0]
    ten = tuple(map(str, range(12)))
    assert folders("00010", "00002", "3", classes=ten)[0].tolist() == [10, 2, 3]
    labels, note = folders("10", "2", "3")  # as a listing of folders sorts them
    assert labels.tolist() == [2, 0, 1]
    assert note == "class folders were matched with the network's classes by order: 2 = a, 3 = b, 10 = c"
    with pytest.raises(
        UserError, match="class folder 'dog' is not a class of the network; expected one of 'a', 'b', 'c'; rename"
    ):
        folders("a", "b", "dog")
    with pytest.raises(UserError, match="class '3' of the folder is none of the network, which has '0' to '2'"):
        folders("1", "2", "3", classes=("0", "1", "2"))
    with pytest.raises(UserError, match="3 class folders, but the network has 12 classes"):
        folders("x", "y", "z", classes=ten)


@pytest.mark.parametrize(
    ("hits", "images", "chance", "passed"),
    [
        (4, 10, 0.1, False),  # 1 in 78 by chance
        (5, 10, 0.1, True),  # 1 in 611
        (1_500, 10_000, 0.1, False),  # beyond doubt, and still next to chance
        (1_900, 10_000, 0.1, True),
        (54, 100, 0.5, False),
        (70, 100, 0.5, True),  # of two classes twice chance would be all
        (1, 1, 1.0, False),  # one image of one class shows nothing
    ],
)
def test_near_chance_is_what_guessing_may_give_or_little_more(hits, images, chance, passed):
    assert Trial((True,) * hits + (False,) * (images - hits), chance).passed is passed


def test_another_reading_beats_this_one_by_ten_points_and_beyond_doubt():
    mine = Trial((True,) * 60 + (False,) * 40, 0.1)
    assert mine.beaten(Trial((True,) * 75 + (False,) * 25, 0.1))  # 15 won, none lost
    assert not mine.beaten(Trial((True,) * 69 + (False,) * 31, 0.1))  # 9 points
    assert not mine.beaten(Trial((False,) * 40 + (True,) * 60, 0.1))  # as many lost as won
    assert not Trial((False,), 0.1).beaten(Trial((True,), 0.1))  # one image may be chance


@pytest.fixture(scope="module")
def off(digits, tmp_path_factory):
    """Files that are off, each in one way: not to be written to."""
    images, labels = two_each(digits)
    here = tmp_path_factory.mktemp("off")
    rng = torch.Generator().manual_seed(0)  # of every hundred random sets one would be above chance
    torch.save([images, labels], here / "good.pt")
    torch.save([(images - MEAN) / 0.02, labels], here / "far.pt")
    torch.save([0.1 + 0.045 * images, labels], here / "grey.pt")
    torch.save([torch.rand(20, 1, 8, 8, generator=rng), labels], here / "noise.pt")
    torch.save([images.repeat(1, 3, 1, 1), labels], here / "colour.pt")
    torch.save([images[..., :6], labels], here / "narrow.pt")
    torch.save([images, labels + 5], here / "classes.pt")
    torch.save(images, here / "alone.pt")
    torch.save({"data": []}, here / "empty.pt")
    torch.save([images, labels.numpy()], here / "numpy.pt")
    torch.save([images.log(), labels], here / "infinite.pt")
    torch.save([images.new_zeros(1).expand(1 << 40), labels], here / "vast.pt")
    (here / "plain.pt").write_bytes(pickle.dumps(Touch()))
    with zipfile.ZipFile(here / "evil.pt", "w") as file:
        file.writestr("x/data.pkl", pickle.dumps([Touch(), Touch()], protocol=2))
        file.writestr("x/byteorder", "little")
    with zipfile.ZipFile(here / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", bytes(40 << 20))
    np.savez(here / "objects.npz", images=np.array([Touch()]), labels=np.array([1]))
    np.savez(here / "strange.npz", pictures=images.numpy(), labels=labels.numpy())
    np.savez(here / "shape.npz", images=np.zeros((20, 8, 8, 4)), labels=labels.numpy())
    (here / "text.csv").write_text("1,2")
    (here / "hollow").mkdir()
    (here / "white").mkdir()
    torch.save(torch.randn(images.shape, generator=rng), here / "white" / "images_best.pt")
    torch.save(labels, here / "white" / "labels_best.pt")
    (here / "bare").mkdir()
    torch.save(images, here / "bare" / "images_best.pt")
    for name in [*map(str, range(9)), "x"]:
        (here / "names" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(here / "names" / name / "0.png")
        (here / "large" / name.replace("x", "9")).mkdir(parents=True)
        Image.fromarray(np.zeros((9, 8), np.uint8)).save(here / "large" / name.replace("x", "9") / "0.png")
    return here


@pytest.fixture
def bad(here, off):
    """As `off`, in the working directory."""
    shutil.copytree(off, here, dirs_exist_ok=True)
    return here


class Touch:
    """A pickle that would write a file."""

    def __reduce__(self):
        return os.mkdir, ("pickle-was-run",)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("nosuch.pt teacher --pixels 0-1", "no file or folder 'nosuch.pt'"),
        ("text.csv teacher --pixels 0-1", "'text.csv' has an unknown format; expected a .pt dictionary"),
        ("hollow teacher --pixels 0-1", "no condensed set in 'hollow'"),
        ("good.pt nosuch --pixels 0-1", "no release folder 'nosuch'"),
        (
            "good.pt teacher",
            "pixels: got None, expected 0-1, 0-255 or normalised:MEAN/STD with the authors' numbers; the stored",
        ),
        ("good.pt teacher --pixels 0-2", "no pixel convention '0-2'; nearest: "),
        (
            "good.pt teacher --pixels normalised:0.1",
            "--pixels: got 'normalised:0.1', expected normalised:MEAN/STD, such as",
        ),
        ("good.pt teacher --pixels normalised:0.1/0", "expected normalised:MEAN/STD"),
        ("good.pt teacher --pixels normalised:0,0/1,1", "--pixels: got a mean of 2 numbers, expected 1 or 1"),
        ("good.pt teacher --pixels 0-1 --patches 9", "--patches: got 9, expected 1 to 8"),
        ("good.pt teacher --pixels 0-1 --labels softly", "softly"),
        (
            "empty.pt teacher --pixels 0-1",
            "'empty.pt' holds 'dict'; expected [images, labels], or a dictionary whose 'data'",
        ),
        (
            "alone.pt teacher --pixels 0-1",
            "'alone.pt' holds a single tensor; expected images_*.pt with labels_*.pt",
        ),
        ("numpy.pt teacher --pixels 0-1", "instead of a tensor; expected torch tensors"),
        ("infinite.pt teacher --pixels 0-1", "images with NaN or infinity"),
        ("vast.pt teacher --pixels 0-1", "declares shape (1099511627776,), but its storage holds 1 numbers"),
        ("plain.pt teacher --pixels 0-1", "'plain.pt' is no torch file"),
        ("evil.pt teacher --pixels 0-1", "'evil.pt' holds 'posix mkdir' instead of a tensor; expected torch tensors"),
        ("bomb.npz teacher --pixels 0-1", "unpacks to 41,943,040; expected at most"),
        ("objects.npz teacher --pixels 0-1", "holds Python objects (a pickle), which are never loaded"),
        ("strange.npz teacher --pixels 0-1", "no array 'images' in 'strange.npz', which holds 'pictures', 'labels'"),
        ("shape.npz teacher --pixels 0-1", "have the shape (20, 8, 8, 4); expected NHWC or NCHW with 1 channels"),
        ("colour.pt teacher --pixels 0-1", "images: got shape (3, 8, 8), expected (1, 8, 8)"),
        ("narrow.pt teacher --pixels 0-1", "images: got shape (1, 8, 6), expected (1, 8, 8)"),
        ("classes.pt teacher --pixels 0-1", "label 10 of image 10, expected 0 to 9: the network has 10 classes"),
        ("names teacher", "the teacher predicts the labelled class in 10.0 % (1 of 10; chance 10.0 %)"),
        ("large teacher", "is 9 x 8, expected 8 x 8; give --resize"),
        ("names teacher --pixels 0-1", "--pixels: got 0-1, but image files are 0-255; give no pixels"),
        ("bare teacher --pixels 0-1", "no labels for 'bare/images_best.pt'; expected labels_best.pt"),
        ("white teacher --pixels 0-1 --zca", "is whitened, expected an un-whitened images_zca_*.pt beside it"),
        (
            "good.pt teacher --pixels 0-1 --zca",
            "--zca: got True for good.pt, which is whitened, expected an un-whitened images_zca_*.pt",
        ),
        ("shape.npz teacher --pixels 0-1 --layout NHWC --zca", "(20, 8, 8, 4)"),
        ("white teacher --pixels 0-1", "or the images are whitened; give the authors' numbers, or --anyway"),
        ("noise.pt teacher --pixels 0-1", "expected above chance at 1 in 100 and at least 19.0 %"),
        ("good.pt teacher --pixels 0-255", "(with --pixels 0-1 it is "),
        (
            "far.pt teacher --pixels 0-1",
            "% of the pixels are out of range, the pixels are from -15 to 35, expected at most 50 %",
        ),
        (
            "grey.pt teacher --pixels 0-1",
            "the pixels are from 0.1 to 0.145, which is one grey, expected some of the range 0 to 1",
        ),
        ("good.pt teacher --pixels 0-1 --out teacher", "teacher"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(bad, refused, line, text):
    assert text in refused(f"import-condensed {line}" + ("" if "--out" in line else " --out got"))
    assert not (bad / "pickle-was-run").exists() and not (bad / "got").exists()


def test_a_set_near_chance_is_written_on_demand_with_its_accuracy(bad, command):
    code, out, _ = command("import-condensed noise.pt teacher --pixels 0-1 --anyway --out got")
    assert code == 0 and "the teacher predicts the labelled class for" in out
    assert Condensed.open(bad / "got").about["teacher"]["accuracy"] < 50


@pytest.mark.parametrize(("scale", "said"), [(1.0, False), (3.0, True)])
def test_pixels_mostly_out_of_range_are_said_though_the_teacher_knows_them(command, here, shots, scale, said):
    images, labels = shots
    torch.save([(images - MEAN) / STD, labels], here / "x.pt")
    mean, std = (1 - scale) / 2 + scale * MEAN, scale * STD  # about mid-grey
    code, out, _ = command(f"import-condensed x.pt teacher --pixels normalised:{mean}/{std} --anyway --out got")
    assert code == 0
    assert ("of the pixels are out of range: check the authors' convention of pixels" in out) is said


def test_without_pyarrow_parquet_is_one_line(here, refused, monkeypatch):
    (here / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "parquet needs the package pyarrow, which is not installed; do: pip install pyarrow" in refused(
        "import-condensed x.parquet teacher --out got"
    )


def test_a_damaged_parquet_file_is_one_line(here, refused):
    pytest.importorskip("pyarrow")
    (here / "x.parquet").write_bytes(b"PAR1 and then nothing PAR1")
    assert "'x.parquet' is no readable parquet file" in refused("import-condensed x.parquet teacher --out got")
