"""Image classifiers of transformers, from a folder."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from datafree import UserError, load_model, new_model, normalisations, write_release
from datafree._core.code_names import code_name
from datafree.models.input_spec import InputSpec
from datafree.releases.release import Release

INSTALLED = importlib.util.find_spec("transformers") is not None
pytestmark = pytest.mark.usefixtures("offline")
needs_it = pytest.mark.skipif(not INSTALLED, reason="transformers is not installed")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """`resnet`, with batch norm, and `vit`, whose file has other names of weights than the network."""
    from datafree.releases.transformers_folder import _transformers

    package, folder = _transformers(), tmp_path_factory.mktemp("folders")
    names = {0: "cat", 1: "dog", 2: "owl"}
    ids = {name: index for index, name in names.items()}
    resnet = package.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=names, label2id=ids
    )
    vit = package.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4,
        num_labels=4,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        package.ResNetForImageClassification(resnet).save_pretrained(folder / "resnet")
        package.ViTForImageClassification(vit).save_pretrained(folder / "vit")
    write(folder / "resnet" / "preprocessor_config.json", PROCESSOR)
    return folder


PROCESSOR = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "resample": 3, "size": {"shortest_edge": 32},
    "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 1 / 255,
}  # fmt: skip


def write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content))


def changed(folders: Path, name: str, tmp_path: Path, file: str, **entries: object) -> str:
    """A copy of a folder with entries of a JSON file replaced."""
    shutil.copytree(folders / name, tmp_path / name)
    path = tmp_path / name / file
    write(path, {**(json.loads(path.read_text()) if path.exists() else {}), **entries})
    return f"transformers:{tmp_path / name}"


@needs_it
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_logits_are_those_of_the_package(folders, name, tmp_path):
    from datafree.releases.transformers_folder import _transformers

    network = load_model(f"transformers:{folders / name}")
    package = _transformers()
    theirs = package.AutoModelForImageClassification.from_pretrained(folders / name, local_files_only=True).eval()
    with torch.no_grad():
        logits = theirs(network.spec.normalize(network.probes())).logits
    torch.testing.assert_close(network.answers(), logits, rtol=1e-5, atol=1e-5)
    folder = write_release(tmp_path / "release", network)
    assert Release.open(folder).config["architecture"] == f"custom:{name}"
    card = (folder / "README.md").read_text()
    assert "--code transformers:FOLDER" in card and str(folders) not in card + (folder / "config.json").read_text()
    opened = load_model(str(folder), code=f"transformers:{folders / name}")
    assert opened.fingerprint() == network.fingerprint()


@needs_it
def test_input_and_classes_are_those_of_the_folder(folders):
    spec = load_model(f"transformers:{folders / 'resnet'}").spec
    assert spec == InputSpec(
        shape=(3, 32, 32), classes=("cat", "dog", "owl"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)
    )
    spec = load_model(f"transformers:{folders / 'vit'}").spec
    assert spec == InputSpec(shape=(3, 16, 16), classes=tuple(f"LABEL_{index}" for index in range(4)))
    assert normalisations(load_model(f"transformers:{folders / 'resnet'}")) == ()  # its batch norms saw no images


@needs_it
@pytest.mark.parametrize(
    ("entries", "mean", "std"),
    [
        ({"do_normalize": False}, (0.0,), (1.0,)),
        ({"image_mean": 0.5, "image_std": 0.25}, (0.5,), (0.25,)),
        ({"do_rescale": False, "image_mean": [127.5], "image_std": [51.0]}, (0.5,), (0.2,)),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, (0.5,), (0.5,)),
        (
            {"rescale_factor": 1 / 127.5, "rescale_offset": True, "image_mean": [0.5], "image_std": [0.5]},
            (0.75,),
            (0.25,),
        ),
    ],
)
def test_pixels_are_rescaled_as_the_processor_does(folders, tmp_path, entries, mean, std):
    spec = load_model(changed(folders, "resnet", tmp_path, "preprocessor_config.json", **entries)).spec
    assert spec.mean == pytest.approx(mean) and spec.std == pytest.approx(std)


@needs_it
@pytest.mark.parametrize(
    ("file", "entries", "text"),
    [
        ("config.json", {"model_type": "bert"}, "expected an image classifier of transformers"),
        ("config.json", {"model_type": "nonsense"}, "nonsense"),
        ("config.json", {"model_type": "nonsense", "auto_map": {"AutoConfig": "code.py--Config"}}, "custom code"),
        ("config.json", {"hidden_act": "nonsense"}, "transformers cannot build the network as"),
        ("config.json", {"num_channels": "3"}, "Field 'num_channels' expected int, got str"),
        ("config.json", {"num_labels": 10**9}, "num_labels: got 1,000,000,000, expected at most 65,536"),
        ("config.json", {"num_channels": 1}, "got 3 numbers as image_mean and 3 as image_std, expected 1, or one for"),
        ("config.json", {"depths": [1, 10**9]}, "depths: got 1,000,000,001 in all, expected at most 1,000"),
        ("config.json", {"hidden_sizes": [8, 10**7]}, "of memory available"),
        ("config.json", {"hidden_sizes": [8, 24]}, "weight 'classifier.1.weight' in "),
        ("config.json", {"depths": [1, 2]}, "the weights have no 'resnet.encoder"),
        ("preprocessor_config.json", {"do_flip_channel_order": True}, "takes blue first"),
        ("preprocessor_config.json", {"size": "large"}, "states no size of the images"),
        ("preprocessor_config.json", {"size": True}, "states no size of the images"),
        ("preprocessor_config.json", {"image_std": [0.0]}, "expected numbers, the last two above 0"),
        ("preprocessor_config.json", {"image_mean": ["a"]}, "expected numbers, the last two above 0"),
        ("preprocessor_config.json", {"image_mean": True}, "expected numbers, the last two above 0"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_in_one_line(folders, tmp_path, file, entries, text):
    name = changed(folders, "resnet", tmp_path, file, **entries)
    with pytest.raises(UserError) as caught:
        load_model(name)
    assert text in str(caught.value) and "\n" not in str(caught.value)


@needs_it
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_a_folder_saved_in_half_precision_opens_in_float32(folders, tmp_path, name):
    expected = load_model(f"transformers:{folders / name}").fingerprint()
    network = load_model(changed(folders, name, tmp_path, "config.json", dtype="float16"))
    assert next(network.module.parameters()).dtype == torch.float32 and network.fingerprint() == expected


@needs_it
def test_weights_may_be_a_torch_file_or_given(folders, tmp_path):
    from safetensors.torch import load_file

    expected = load_model(f"transformers:{folders / 'vit'}").fingerprint()
    shutil.copytree(folders / "vit", tmp_path / "vit")
    state = load_file(tmp_path / "vit" / "model.safetensors")
    (tmp_path / "vit" / "model.safetensors").rename(tmp_path / "other.safetensors")
    name = f"transformers:{tmp_path / 'vit'}"
    with pytest.raises(UserError, match=r"has no model.safetensors, expected the weights"):
        load_model(name)
    assert load_model(name, weights=tmp_path / "other.safetensors").fingerprint() == expected
    torch.save(state, tmp_path / "vit" / "pytorch_model.bin")
    assert load_model(name).fingerprint() == expected
    (tmp_path / "vit" / "pytorch_model.bin").unlink()
    write(tmp_path / "vit" / "model.safetensors.index.json", {})
    with pytest.raises(UserError, match="has its weights in several files"):
        load_model(name)


def test_the_files_of_a_folder_are_inputs_of_a_run(tmp_path):
    from datafree.cli.loading import code_of

    for name in ("config.json", "preprocessor_config.json", "model.safetensors", "README.md"):
        (tmp_path / name).write_text("{}")
    assert code_of("model", f"transformers:{tmp_path}") == {
        "code of model": tmp_path / "config.json",
        "modules of model": [tmp_path / "preprocessor_config.json", tmp_path / "model.safetensors"],
    }


@needs_it
def test_a_student_may_be_one(folders):
    spec = InputSpec(shape=(3, 32, 32), classes=("a", "b"))
    assert new_model(f"transformers:{folders / 'resnet'}", spec, seed=0).answers().shape == (16, 2)
    with pytest.raises(UserError, match=r"arg: got width, expected none, since config.json has them"):
        new_model(f"transformers:{folders / 'resnet'}(width=3)", spec, seed=0)


def test_a_name_on_the_hub_is_not_downloaded():
    assert code_name("transformers:google/vit-base-patch16-224") is not None
    with pytest.raises(UserError, match=r"no config.json in the folder 'google/vit'|no package 'transformers'"):
        load_model("transformers:google/vit")
