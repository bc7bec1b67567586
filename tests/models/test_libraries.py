"""Networks of timm and torchvision by name: the library's own, for the spec, without a download."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from datafree._core.code_names import LIBRARIES, CodeName, code_name
from datafree._core.errors import UserError
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.releases.libraries import LibraryInput, build, input_of
from datafree.releases.load import classes_in, load_model, new_model
from datafree.releases.release import Release, write_release

INSTALLED = [name for name in LIBRARIES if importlib.util.find_spec(name) is not None]
SPEC = InputSpec(shape=(3, 32, 32), classes=tuple("abcdefg"))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PUBLISHED = {
    "timm:mobilenetv3_small_050": LibraryInput((3, 224, 224), *IMAGENET, "bicubic", 1000),
    "timm:vit_tiny_patch16_224": LibraryInput((3, 224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 1000),
    "torchvision:mobilenet_v2": LibraryInput((3, 224, 224), *IMAGENET, "bilinear", 1000),
}
pytestmark = pytest.mark.usefixtures("offline")
needs_both = pytest.mark.skipif(len(INSTALLED) < 2, reason="timm and torchvision are not installed")


def parts(name: str) -> CodeName:
    code = code_name(name)
    assert code is not None
    return code


@needs_both
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_of_a_library_is_built_for_the_spec_released_and_opened_again(name, tmp_path):
    network = new_model(name, SPEC, seed=0)
    assert network.predict(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert new_model(name, SPEC, seed=0).fingerprint() == network.fingerprint()
    folder = write_release(tmp_path / "release", network)
    assert Release.open(folder).config["architecture"] == f"custom:{name.partition(':')[2]}"
    assert f"--code {name}" in (folder / "README.md").read_text()
    assert load_model(str(folder), code=name).fingerprint() == network.fingerprint()


@needs_both
@pytest.mark.parametrize("name", PUBLISHED)
def test_input_and_classes_are_those_of_the_library_and_of_the_weights(name, tmp_path):
    assert input_of(parts(name)) == PUBLISHED[name]
    module = build(parts(name), SPEC)
    state = {f"module.{key}": value for key, value in module.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    assert classes_in(name, SPEC.shape, tmp_path / "w.pth") == 7
    loaded = load_model(name, weights=tmp_path / "w.pth", spec=SPEC)
    assert loaded.fingerprint() == Network(module, SPEC, name).fingerprint()


@needs_both
def test_a_network_of_a_library_is_loaded_from_its_name_and_weights_alone(tmp_path):
    module = build(parts("timm:mobilenetv3_small_050"), SPEC)
    torch.save(module.state_dict(), tmp_path / "w.pth")
    network = load_model("timm:mobilenetv3_small_050", weights=tmp_path / "w.pth")
    published = PUBLISHED["timm:mobilenetv3_small_050"]
    assert network.spec.shape == published.shape and network.spec.mean == published.mean
    assert (
        network.spec.classes == tuple("0123456")
        and network.fingerprint() == Network(module, network.spec, "x").fingerprint()
    )


@needs_both
def test_arguments_of_the_name_come_before_those_of_the_spec():
    spec = InputSpec(shape=(1, 32, 32), classes=("a", "b"))
    assert new_model("timm:resnet18(block_args={})", spec, seed=0).predict(torch.zeros(1, 1, 32, 32)).shape == (1, 2)
    assert build(parts("timm:resnet18(num_classes=5)"), spec)(torch.zeros(2, 1, 32, 32)).shape == (2, 5)


@pytest.mark.skipif(len(INSTALLED) == len(LIBRARIES), reason="timm and torchvision are installed")
def test_a_library_that_is_not_installed_is_one_line():
    for name in set(LIBRARIES) - set(INSTALLED):
        with pytest.raises(UserError, match=f"no package '{name}', expected it for networks of its names; pip install"):
            new_model(f"{name}:resnet18", SPEC, seed=0)
