"""Networks of timm from a folder of the Hugging Face hub."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from datafree import Network, UserError, load_model, new_model
from datafree.cli.main import run
from datafree.cli.pack import pack
from datafree.models.input_spec import InputSpec
from datafree.releases.libraries import import_torchvision
from datafree.releases.release import Release, write_release

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed"),
    pytest.mark.usefixtures("offline"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """`resnet`, with names of classes, and `vit`, whose size of images is fixed; timm itself writes them."""
    import_torchvision(needed=False)
    import timm
    from timm.models._hub import save_for_hf

    folder = tmp_path_factory.mktemp("folders")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        resnet = timm.create_model("resnet10t", num_classes=3)
        resnet.pretrained_cfg["input_size"] = (3, 32, 32)
        save_for_hf(resnet, folder / "resnet", model_config={"label_names": ["cat", "dog", "owl"]})
        vit = timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=32, depth=1)
        save_for_hf(vit, folder / "vit", model_args={"depth": 1})
    return folder


def changed(folders: Path, name: str, tmp_path: Path, entries: dict, published: dict) -> str:
    """A copy of a folder with entries of its config.json replaced."""
    shutil.copytree(folders / name, tmp_path / name)
    path = tmp_path / name / "config.json"
    config = json.loads(path.read_text())
    stated = config["pretrained_cfg"] | published
    path.write_text(json.dumps({**config, "pretrained_cfg": stated, **entries}))
    return f"timm:{tmp_path / name}"


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_logits_are_those_of_timm(folders, name, tmp_path):
    import timm

    network = load_model(f"timm:{folders / name}")
    theirs = timm.create_model(f"local-dir:{folders / name}", pretrained=True).eval()
    with torch.no_grad():
        logits = theirs(network.spec.normalize(network.probes()))
    torch.testing.assert_close(network.answers(), logits, rtol=1e-5, atol=1e-5)
    folder = network.save_pretrained(tmp_path / "release")
    assert Release.open(folder).config["architecture"] == f"custom:{name}"
    card = (folder / "README.md").read_text()
    assert "--code timm:./FOLDER" in card and "of the package timm" in card and str(folders) not in card
    opened = Network.from_pretrained(folder, code=f"timm:{folders / name}")
    assert opened.fingerprint() == network.fingerprint()


def test_input_and_classes_are_those_of_the_folder(folders):
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    spec = load_model(f"timm:{folders / 'resnet'}").spec
    assert spec == InputSpec(shape=(3, 32, 32), classes=("cat", "dog", "owl"), **imagenet)
    spec = load_model(f"timm:{folders / 'vit'}").spec
    assert spec == InputSpec(shape=(3, 32, 32), classes=tuple("0123"), mean=(0.5,) * 3, std=(0.5,) * 3)


def test_an_older_folder_states_everything_at_the_top(folders, tmp_path):
    name = changed(folders, "resnet", tmp_path, {}, {"mean": [0.1, 0.2, 0.3]})
    path = tmp_path / "resnet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({"architecture": "resnet10t", "num_features": 512, **config.pop("pretrained_cfg")}))
    spec = load_model(name).spec
    assert spec.mean == (0.1, 0.2, 0.3) and len(spec.classes) == 3


@pytest.mark.parametrize(
    ("entries", "published", "text"),
    [
        ({"architecture": "resnet10x"}, {}, "no network 'resnet10x' in the installed timm"),
        ({"architecture": None}, {}, "expected the name of a network of timm"),
        ({"num_classes": 0}, {}, "give a folder of a classifier"),
        ({"pretrained_cfg": 1}, {}, "expected a JSON object"),
        ({"model_args": {"checkpoint_path": "x.pth"}}, {}, "model_args: got checkpoint_path"),
        ({"model_args": {"layers": [1, 1, 1, 10**9]}}, {}, "layers: got 1,000,000,003 in all, expected at most 1,000"),
        ({"model_args": {"layers": [900, 900, 900, 900]}}, {}, "layers: got 3,600 in all, expected at most 1,000"),
        ({"model_args": {"widths": [8] * 10_001}}, {}, "widths: got 10,001 numbers, expected at most 10,000"),
        ({"model_args": {"stem_width": 10**7}}, {}, "of memory available"),
        ({"model_args": {"colour": 1}}, {}, "timm cannot build resnet10t"),
        ({"model_args": {"global_pool": 3}}, {}, "timm cannot build resnet10t as"),
        ({"num_classes": "3"}, {}, "num_classes: got '3', expected a whole number"),
        ({"num_classes": 10**12}, {}, "num_classes: got 1,000,000,000,000, expected at most 65,536"),
        ({}, {"input_size": [3, 32]}, "input_size: got"),
        ({}, {"mean": ["a"]}, "mean: got"),
        ({}, {"std": [0.0, 1.0, 1.0]}, "std: got 0, expected above 0"),
        ({"model_args": {"layers": [2, 1, 1, 1]}}, {}, "has no weight 'layer1.1."),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_in_one_line(folders, tmp_path, entries, published, text):
    name = changed(folders, "resnet", tmp_path, entries, published)
    with pytest.raises(UserError) as caught:
        load_model(name)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_a_config_that_was_not_fetched_is_called_a_pointer(folders, tmp_path):
    name = changed(folders, "resnet", tmp_path, {}, {})
    (tmp_path / "resnet" / "config.json").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    for model in (name, str(tmp_path / "resnet")):
        with pytest.raises(UserError, match="is a Git LFS pointer, expected the file itself"):
            load_model(model)


def test_a_folder_may_have_parentheses_in_its_name(folders, tmp_path):
    shutil.copytree(folders / "resnet", tmp_path / "resnet (1)")
    expected = load_model(f"timm:{folders / 'resnet'}").fingerprint()
    assert load_model(f"timm:{tmp_path / 'resnet (1)'}").fingerprint() == expected
    with pytest.raises(UserError, match="arg: got width, expected none, since config"):
        new_model(f"timm:{folders / 'resnet'}(width=8)", InputSpec(shape=(3, 32, 32), classes=("a", "b")), seed=0)


def test_a_folder_of_a_library_without_its_name_is_answered_with_the_name(folders, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is a folder of timm, expected a release; name it timm:"):
        load_model(str(folders / "resnet"))
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text(
        '{"model_type": "vit", "architectures": ["ViTForImageClassification"]}'
    )
    with pytest.raises(UserError, match="is a folder of transformers, expected a release; name it transformers:"):
        Network.from_pretrained(tmp_path / "vit")
    with pytest.raises(UserError, match="vit is a folder of transformers, expected its name; give transformers:"):
        new_model(str(tmp_path / "vit"), InputSpec(shape=(3, 32, 32), classes=("a", "b")), seed=0)
    with pytest.raises(UserError, match="resnet is a folder of timm, expected its name; give timm:"):
        pack(str(folders / "resnet"), out=tmp_path / "release")
    monkeypatch.chdir(folders)
    for weights in ("resnet/model.safetensors", None):
        with pytest.raises(UserError, match=r"give timm:\./resnet$"):
            load_model("timm:resnet", weights=weights)
    with pytest.raises(UserError, match=r"give timm:\./resnet$"):
        pack("timm:resnet", out=tmp_path / "release")
    monkeypatch.chdir(folders / "resnet")
    for name in ("timm:./" + 5000 * "a", "transformers:"):
        with pytest.raises(UserError, match=r"no config\.json in the folder"):
            load_model(name)


@pytest.mark.parametrize("name", ["timm:./teacher", "transformers:teacher"])
def test_from_pretrained_says_what_opens_folders_of_other_libraries(name):
    with pytest.raises(UserError, match=f"folder: got {name}, expected a release; load_model opens folders of "):
        Network.from_pretrained(name)


@pytest.mark.parametrize("name", ["me/teacher", "resnet20", ""])
def test_from_pretrained_takes_folders_alone(name):
    with pytest.raises(UserError, match="folder: got") as caught:
        Network.from_pretrained(name)
    assert "\n" not in str(caught.value)


def test_pack_prints_what_the_folder_states(folders, tmp_path, capsys):
    assert run(["pack", f"timm:{folders / 'resnet'}", "--out", str(tmp_path / "release")]) == 0
    printed = capsys.readouterr().out
    assert "its folder states 3 x 32 x 32 pixels, resized by bicubic interpolation" in printed
    log = json.loads((tmp_path / "release" / "run.json").read_text())
    assert {"weights", "code of model"} <= log["inputs"].keys()


def test_a_network_that_is_written_opens_again(tmp_path):
    network = Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), input_shape=(1, 2, 2), classes=2)
    folder = network.save_pretrained(tmp_path / "a", notes="two classes")
    assert write_release(tmp_path / "b", network, notes="two classes").is_dir()
    assert (tmp_path / "b" / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert Network.from_pretrained(str(folder), module=network.module).fingerprint() == network.fingerprint()
