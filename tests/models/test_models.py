"""Naming a model: the zoo, the user's own code, a release; code never comes from inside a file."""

from __future__ import annotations

import copy
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from datafree._core.code_names import code_name, with_arguments
from datafree._core.errors import Notice, UserError
from datafree._core.files import read_sealed_json, read_weights, write_sealed_json, write_tensors
from datafree.models import zoo
from datafree.models.input_spec import InputSpec
from datafree.models.network import PROBES, Network
from datafree.records.record import Record, record
from datafree.records.statistics.moments import Moments
from datafree.releases import load
from datafree.releases.load import load_model, load_weights, named_as_in, new_model
from datafree.releases.release import Release, write_record, write_release

SPEC = InputSpec(shape=(1, 4, 4), classes=("a", "b", "c"))
CODE = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Sizes:
    width: int = 5

def with_spec(spec):
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.pixels, Sizes().width), nn.Linear(5, len(spec.classes)))

def without():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

class Net(nn.Sequential):
    def __init__(self, spec):
        super().__init__(nn.Flatten(), nn.Linear(spec.pixels, len(spec.classes)))

class Bare(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(16, 3))

def keyword(*, width=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, width))

def number(spec):
    return 7

def wrong(spec):
    return nn.Sequential(nn.Flatten(), nn.Linear(15, 3))
"""


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(CODE)
    return str(path)


def refused(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["with_spec", "without", "Net", "Bare", "keyword"])
def test_own_code_is_called_with_the_spec_where_it_takes_one(code, name):
    network = new_model(f"{code}:{name}", SPEC, seed=0)
    assert network.answers().shape == (16, 3)
    assert network.name == f"{code}:{name}"


def test_a_module_on_the_path_is_found_and_the_same_seed_gives_the_same_weights(tmp_path, monkeypatch):
    (tmp_path / "datafree_test_own.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    prints = [new_model("datafree_test_own:with_spec", SPEC, seed=seed).fingerprint() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
    sys.modules.pop("datafree_test_own")


def test_what_is_wrong_with_own_code_is_one_line(code):
    assert refused(lambda: new_model(f"{code}:with_spce", SPEC, seed=0)).startswith(
        f"no function 'with_spce' in {code}; nearest: 'with_spec'"
    )
    assert refused(lambda: new_model("nowhere.py:f", SPEC, seed=0)) == (
        "no file nowhere.py, expected the Python file that builds the model; check the path"
    )
    assert refused(lambda: new_model("no_such_package_here:f", SPEC, seed=0)).startswith(
        "no module 'no_such_package_here' for model 'no_such_package_here'; install it"
    )
    assert "returned int, expected a torch.nn.Module" in refused(lambda: new_model(f"{code}:number", SPEC, seed=0))
    assert "does not take images of shape (1, 4, 4)" in refused(lambda: new_model(f"{code}:wrong", SPEC, seed=0))
    assert "no model 'lenet6' in the zoo" in refused(lambda: new_model("lenet6", SPEC, seed=0))
    assert refused(lambda: load_model("lenet5")) == (
        "model 'lenet5' has no weights; give a release folder, or `weights='FILE'` beside the model"
    )


def test_models_are_made_without_touching_torchs_global_stream(release):
    torch.manual_seed(8)
    before = torch.get_rng_state()
    new_model("hinton16", SPEC, seed=0)
    load_model(str(release))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_release_gives_back_the_network_and_the_record(release, teacher, whole_record):
    network = load_model(str(release))
    assert network.fingerprint() == teacher.fingerprint()
    assert (network.spec, network.name) == (teacher.spec, "hinton32")
    assert not network.module.training
    own = Release.open(release).record(network)
    assert own.digest() == whole_record.digest()
    card = (release / "README.md").read_text()
    assert "- parameters: 3,466" in card
    assert "samples of `digits` (train, sha256 " in card
    assert {path.name for path in release.iterdir()} == {
        ".datafree.json", "README.md", "config.json", "model.safetensors", "record.safetensors"
    }  # fmt: skip


def test_a_record_can_be_added_and_a_release_without_one_has_none(toy, tmp_path):
    network = new_model("hinton8", SPEC, seed=0)
    folder = write_release(tmp_path / "own", network)
    assert Release.open(folder).record(network) is None
    made = record(network, toy(), [Moments()])
    write_record(folder, network, made)
    assert Release.open(folder).record(load_model(str(folder))).digest() == made.digest()
    assert "Forecast of a membership attack" in (folder / "README.md").read_text()
    assert Record.load(folder / "record.safetensors", network).digest() == made.digest()


def test_a_release_of_any_name_is_opened_with_its_module(tmp_path):
    """A network that was built in Python has no `file.py:function`."""
    build = lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))  # noqa: E731
    network = Network(build(), SPEC, "mine")
    folder = write_release(tmp_path / "mine", network)
    assert Release.open(folder).config["architecture"] == "custom:mine"
    assert "or, from Python, give `module`" in refused(lambda: load_model(str(folder)))
    fresh = build()
    before = fresh[1].weight.clone()
    loaded = load_model(str(folder), module=fresh)
    assert loaded.fingerprint() == network.fingerprint() and loaded.name == "mine" and not loaded.module.training
    assert torch.equal(fresh[1].weight, before) and fresh.training and loaded.module is not fresh
    again = write_release(tmp_path / "again", loaded)
    assert load_model(str(again), module=fresh).fingerprint() == network.fingerprint()


def test_a_module_that_is_not_that_of_the_release_is_one_line(code, tmp_path):
    build = lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))  # noqa: E731
    folder = str(write_release(tmp_path / "mine", Network(build(), SPEC, "mine")))
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Sigmoid(), nn.Linear(8, 3))
    assert "gives other logits than its publisher's network" in refused(lambda: load_model(folder, module=other))
    assert "has no weight" in refused(lambda: load_model(folder, module=nn.Linear(2, 2)))
    message = refused(lambda: load_model(folder, module=build(), code=f"{code}:with_spec"))
    assert message.startswith("module: got it beside code, expected one of them")
    message = refused(lambda: load_model("hinton8", module=build(), weights="w.safetensors", spec=SPEC))
    assert message.startswith("module: got it with 'hinton8', expected a release folder")
    assert "module: got 'x', expected a Module or None" in refused(lambda: load_model(folder, module="x"))


OPTIONAL = """
from torch import nn


class ByCount(nn.Sequential):
    def __init__(self, num_classes=3):
        assert num_classes == 3, num_classes
        super().__init__(nn.Flatten(), nn.Linear(16, num_classes))


class ByCountAndSpec(nn.Sequential):
    def __init__(self, num_classes=3, spec=None):
        assert num_classes == 3 and spec.shape == (1, 4, 4)
        super().__init__(nn.Flatten(), nn.Linear(16, num_classes))


class Alone(nn.Sequential):
    def __init__(self, spec, /):
        assert spec.shape == (1, 4, 4)
        super().__init__(nn.Flatten(), nn.Linear(16, 3))


def by_count(num_classes=3, *rest, **more):
    assert num_classes == 3 and not rest and not more
    return ByCount(num_classes)
"""


@pytest.mark.parametrize("name", ["ByCount", "ByCountAndSpec", "Alone", "by_count"])
def test_an_optional_argument_does_not_receive_the_spec(name, tmp_path):
    """Only one named `spec` or annotated as InputSpec does."""
    (tmp_path / "optional.py").write_text(OPTIONAL)
    assert new_model(f"{tmp_path / 'optional.py'}:{name}", SPEC, seed=0).parameters == 51


def test_arguments_are_part_of_the_name(tmp_path):
    code = tmp_path / "wide.py"
    code.write_text(
        "from torch import nn\n"
        "def build(width, text='', *, spec, more=()):\n"
        "    assert text in ('', 'a:b(c)') and more in ((), [1, 2])\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(spec.pixels, width), nn.Linear(width, 3))\n"
    )
    for arguments, parameters in (("width=2", 43), ("width=3, text='a:b(c)', more=[1, 2]", 63)):
        network = new_model(f"{code}:build({arguments})", SPEC, seed=0)
        assert network.parameters == parameters
        folder = write_release(tmp_path / str(parameters), network)
        assert Release.open(folder).config["architecture"] == "custom:build"
        assert f"FILE.py:build({arguments})" in (folder / "README.md").read_text()
        assert load_model(str(folder), code=f"{code}:build({arguments})").fingerprint() == network.fingerprint()
    for arguments, expected in (
        (
            "",
            f"needs the argument 'width', expected a value for it; name it '{code}:build(width=VALUE)', or give",
        ),
        ("(widht=3)", f"no argument 'widht' in {code}:build(widht=3); nearest: 'width'"),
        ("(3)", "arguments: got (3), expected name=value with numbers"),
        ("(width=open('x'))", "arguments: got (width=open('x')), expected name=value with numbers"),
        ("(width=3, width=4)", "arguments: got one twice in (width=3, width=4), expected each once; leave one out"),
        ("(**{})", "arguments: got (**{}), expected name=value"),
        ("(width=3", "names no function, expected file.py:function"),
    ):
        assert expected in refused(lambda arguments=arguments: new_model(f"{code}:build{arguments}", SPEC, seed=0))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("resnet20", None),
        ("net.py:build", ("net.py", "build", "")),
        ("a/b:c/net.py:build", ("a/b:c/net.py", "build", "")),
        ("d:x(1)/net.py:build(a=1)", ("d:x(1)/net.py", "build", "(a=1)")),
        ("net.py:build(a='x.py:y(z)')", ("net.py", "build", "(a='x.py:y(z)')")),
        ("timm:resnet18.a1_in1k(num_classes=7)", ("timm", "resnet18.a1_in1k", "(num_classes=7)")),
        ("package.module:Net", ("package.module", "Net", "")),
        ("a b:c:d", ("a b:c", "d", "")),
    ],
)
def test_a_name_is_split_into_place_function_and_arguments(name, parts):
    assert code_name(name) == parts


def test_arguments_of_the_command_line_join_those_of_the_name():
    assert with_arguments("net.py:build", []) == "net.py:build"
    assert with_arguments("net.py:build", ["width=8", "kind=big", "sizes=[1, 2]"]) == (
        "net.py:build(width=8, kind='big', sizes=[1, 2])"
    )
    assert with_arguments("net.py:build(depth=2)", ["width='8'"]) == "net.py:build(depth=2, width='8')"
    for name, argument, expected in (
        ("resnet20", "width=8", "arg: got width=8 with 'resnet20', expected a network of your own code, of timm"),
        ("net.py:build", "width", "arg: got 'width', expected NAME=VALUE, such as num_classes=10"),
        ("net.py:build", "2=3", "arg: got '2=3', expected NAME=VALUE"),
        ("net.py:build(width=8)", "width=9", "arg: got width twice"),
    ):
        assert expected in refused(lambda name=name, argument=argument: with_arguments(name, [argument]))


def test_a_path_in_an_argument_is_not_released(tmp_path):
    code = tmp_path / "own.py"
    code.write_text("from torch import nn\ndef build(file): return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))\n")
    network = new_model(f"{code}:build(file='/home/me/secret.yaml')", SPEC, seed=0)
    card = (write_release(tmp_path / "out", network) / "README.md").read_text()
    assert "FILE.py:build(...)" in card and "secret" not in card


def test_a_release_of_own_code_needs_that_code_named(code, tmp_path):
    network = new_model(f"{code}:with_spec", SPEC, seed=3)
    folder = write_release(tmp_path / "own", network)
    assert Release.open(folder).config["architecture"] == "custom:with_spec"
    assert refused(lambda: load_model(str(folder))) == (
        f"{folder} is a custom network ('custom:with_spec'); name it with "
        "`code='FILE.py:FUNCTION'`, the Python file that its publisher provides with this folder, or the name that its "
        "README.md gives, such as timm:NAME, or, from Python, give `module`"
    )
    assert load_model(str(folder), code=f"{code}:with_spec").fingerprint() == network.fingerprint()


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "sentinel:build",
        "sentinel.py:build",
        "./sentinel.py:build",
        "../x/sentinel.py",
        "sentinel",
        7,
        None,
    ],
)
def test_a_name_inside_a_file_imports_nothing(name, tmp_path, monkeypatch, release):
    """The sentinel would leave a file behind; an audit hook watches for its import, for exec and for a process."""
    touched = tmp_path / "ran"
    (tmp_path / "sentinel.py").write_text(f"open({str(touched)!r}, 'w').close()\ndef build(spec): return None\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    folder = write_release(tmp_path / "hostile", load_model(str(release)))
    config = {**Release.open(folder).config, "architecture": name}
    write_sealed_json(folder / "config.json", config)
    events, watching = [], [True]

    def audit(event, args):
        if watching[0] and (
            event in ("os.system", "subprocess.Popen", "os.exec") or (event == "import" and "sentinel" in str(args[0]))
        ):
            events.append((event, args))

    sys.addaudithook(audit)
    try:
        refused(lambda: load_model(str(folder)))
    finally:
        watching[0] = False
    assert events == []
    assert not touched.exists()


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    network = new_model("hinton8", SPEC, seed=0)
    state, path = network.module.state_dict(), tmp_path / "weights.safetensors"

    def text(change) -> str:
        path.unlink(missing_ok=True)
        own = {name: tensor.clone() for name, tensor in state.items()}
        change(own)
        write_tensors(path, own, {}, kind="weights")
        return refused(lambda: load_weights(network, path))

    before = network.fingerprint()
    assert text(lambda own: own.pop("fc1.bias")).startswith(f"{path} has no weight 'fc1.bias' of hinton8; nearest: 'fc")
    assert text(lambda own: own.update({"fc9.bias": torch.zeros(2)})).startswith(
        "no weight 'fc9.bias' in hinton8; nearest: "
    )
    assert text(lambda own: own.update({"fc1.bias": torch.zeros(9)})) == (
        f"weight 'fc1.bias' in {path} is (9,), expected (8,) for hinton8; "
        "use the weights of this architecture and input size"
    )
    assert text(lambda own: own.update({"fc1.bias": torch.zeros(8, dtype=torch.int32)})) == (
        f"weight 'fc1.bias' in {path} is torch.int32, expected torch.float32; use weights in that number format"
    )
    assert text(lambda own: own.update({"fc1.bias": torch.full((8,), 1e39, dtype=torch.float64)})) == (
        f"weight 'fc1.bias' in {path} exceeds the range of torch.float32, which the network has; expected smaller values; "
        "use weights of this architecture"
    )
    assert network.fingerprint() == before, "nothing is loaded of a file that does not fit"


EIGHT = InputSpec(shape=(1, 8, 8), classes=tuple("abcdefghij"))


@pytest.fixture
def trained():
    """A network with a batch norm and a buffer that it computes itself."""

    class Net(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 10))
            self.register_buffer("positions", torch.arange(4), persistent=False)

    torch.manual_seed(1)
    net = Net().eval()
    net[1].running_mean.normal_()
    return net


def loaded(module: nn.Module, path: Path, **options) -> Network:
    network = Network(copy.deepcopy(module), EIGHT, "net")
    for parameter in network.module.parameters():
        parameter.data.zero_()
    load_weights(network, path, **options)
    return network


PREFIXES = ("", "module.", "_orig_mod.", "_orig_mod.module.", "model.", "net.backbone.")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("container", ["safetensors", "torch", "torch, nested"])
def test_weights_of_training_scripts_are_read_without_conversion(trained, tmp_path, prefix, container):
    state, path = {prefix + name: tensor for name, tensor in trained.state_dict().items()}, tmp_path / "weights"
    if container == "safetensors":
        save_file(state, path)
    else:
        torch.save({"model_state": state, "epoch": 3} if "nested" in container else state, path)
    network = loaded(trained, path)
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in network.module.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_take_the_networks(trained, tmp_path, dtype):
    state = trained.state_dict()
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    torch.save(cast, tmp_path / "w.pt")
    got = loaded(trained, tmp_path / "w.pt").module.state_dict()
    assert all(got[name].dtype == state[name].dtype for name in state)
    assert all(torch.equal(got[name], cast[name].to(state[name].dtype)) for name in state)


def test_counters_and_buffers_that_the_network_computes_are_not_needed(trained, tmp_path):
    extra = {"positions": torch.arange(4), "total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)}
    torch.save({**trained.state_dict(), **extra}, tmp_path / "w.pt")
    assert torch.equal(loaded(trained, tmp_path / "w.pt").module[3].weight, trained[3].weight)
    torch.save({**trained.state_dict(), "4.weight": torch.zeros(1)}, tmp_path / "w.pt")
    assert refused(lambda: loaded(trained, tmp_path / "w.pt")).startswith("no weight '4.weight' in net")


@pytest.mark.parametrize("save", [save_file, torch.save])
def test_one_of_several_networks_in_a_file_is_chosen_by_its_prefix(trained, tmp_path, save):
    state, other = trained.state_dict(), copy.deepcopy(trained)
    other[3].weight.data += 1
    both = {f"encoder_q.{name}": tensor for name, tensor in state.items()}
    loss = {"loss.weight": torch.zeros(3)}
    save({**both, **loss}, tmp_path / "one")
    with pytest.warns(Notice, match=r"behind 'encoder_q.'; its other 1 tensors, such as 'loss.weight', are not used"):
        assert torch.equal(loaded(trained, tmp_path / "one").module[3].weight, trained[3].weight)
    both |= {f"encoder_k.{name}": tensor for name, tensor in other.state_dict().items()}
    save(both, tmp_path / "two")
    assert "behind 'encoder_" in refused(lambda: loaded(trained, tmp_path / "two"))
    assert torch.equal(loaded(trained, tmp_path / "two", key="encoder_k").module[3].weight, other[3].weight)
    assert "no key 'encoder_x'" in refused(lambda: loaded(trained, tmp_path / "two", key="encoder_x"))


def test_a_key_without_weights_and_a_git_lfs_pointer_are_one_line(trained, tmp_path, release):
    assert refused(lambda: load_model(str(release), key="ema")).startswith("key: got it without `weights`")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 17364911\n"
    for name in ("w.safetensors", "w.pth"):
        (tmp_path / name).write_text(pointer)
        text = refused(lambda name=name: loaded(trained, tmp_path / name))
        assert text.endswith("is a Git LFS pointer, expected the file itself; run git lfs pull, or download it")


@pytest.mark.parametrize("refs", [True, False])
@pytest.mark.parametrize("library", ["", "transformers:", "timm:"])
def test_a_repository_of_the_hugging_face_cache_is_answered_with_its_snapshot(tmp_path, refs, library):
    folder = tmp_path / "models--a--b"
    for name in ("0a", "0b"):
        (folder / "snapshots" / name).mkdir(parents=True)
    if refs:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0b")
    with pytest.raises(
        UserError, match=r"is a repository of the Hugging Face cache, expected one of its snapshots"
    ) as caught:
        load_model(f"{library}{folder}")
    assert str(caught.value).endswith(f"give {folder / 'snapshots' / ('0b' if refs else '0a')}")


def test_a_folder_that_is_no_release_is_refused(tmp_path, release):
    (tmp_path / "empty").mkdir()
    assert refused(lambda: load_model(str(tmp_path / "empty"))).startswith(
        f"{tmp_path / 'empty'} has no config.json, expected a release"
    )
    assert "is a trained release, expected a new network" in refused(lambda: new_model(str(release), SPEC, seed=0))
    (tmp_path / "empty" / "config.json").write_text('{"format": 2}')
    assert "is no datafree release of format 1" in refused(lambda: Release.open(tmp_path / "empty"))
    folder = write_release(tmp_path / "own", new_model("hinton8", SPEC, seed=0))
    write_sealed_json(folder / "config.json", {**Release.open(folder).config, "architecture": "hinton16"})
    assert "weight 'fc1.bias' in" in refused(lambda: load_model(str(folder)))
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in refused(lambda: load_model(str(folder)))


def test_weights_with_nan_are_not_written_and_not_released(tmp_path):
    network = new_model("hinton8", SPEC, seed=0)
    network.module.fc1.bias.data[0] = torch.nan
    assert "weight 'fc1.bias' of hinton8 has NaN or infinity" in refused(
        lambda: write_release(tmp_path / "own", network)
    )
    assert not (tmp_path / "own" / "model.safetensors").exists()


def test_other_peoples_folders_are_not_written_to(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    assert "holds 'thesis.txt'" in refused(lambda: write_release(tmp_path, Network(torch.nn.Identity(), SPEC, "x")))


def test_a_network_whose_weights_alone_do_not_fit_is_refused_without_torchs_compiler(monkeypatch):
    monkeypatch.setattr(load.memory, "available", lambda: 1 << 20)
    monkeypatch.setattr(load, "_largest_output", lambda *_: pytest.fail("outputs were measured"))
    spec = InputSpec(shape=(1, 8, 8), classes=tuple("abc"))
    weights = 4 * (64 * 30_000 + 30_000 + 30_000**2 + 30_000 + 3 * 30_000 + 3)
    with pytest.raises(
        UserError, match=f"hinton30000 for images .* needs {weights:,} bytes, expected at most the 1,048,576"
    ):
        new_model("hinton30000", spec, seed=0)


OTHERS = ("hinton16", "alexnet", "alexnet/32", "resnet8", "resnet20")


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for shape in ((1, 32, 32), (3, 32, 32)) for name in ("lenet5", "lenet5-half", *OTHERS)]
    + [(name, (3, 64, 48)) for name in OTHERS],
)
def test_no_layer_of_the_zoo_gives_more_than_is_reckoned_with(name, shape):
    spec = InputSpec(shape=shape, classes=tuple("abc"))
    module = zoo.on_meta(name, spec)
    assert 0 < load._largest_output(module, spec) <= PROBES * load._most_outputs(module, spec)


def test_what_a_command_says_of_a_network_outlives_a_record(toy, tmp_path):
    network = Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval(), SPEC, "x.py:net")
    write_release(tmp_path / "a", network, notes="trained on digits: accuracy 97.20 %\n")
    assert Release.open(tmp_path / "a").notes == "trained on digits: accuracy 97.20 %"
    made = record(network, toy(), [Moments()])
    write_record(tmp_path / "a", network, made)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "- trained on digits: accuracy 97.20 %" in card and "the weights of a network also reveal something" in card


@pytest.mark.parametrize("notes", [3, ["x"], "a\nb", "x" * 1001, None])
def test_notes_that_are_no_line_are_refused(tmp_path, notes):
    write_release(tmp_path, new_model("hinton8", InputSpec(shape=(1, 8, 8), classes=("a", "b")), seed=0))
    config = read_sealed_json(tmp_path / "config.json", ())
    write_sealed_json(tmp_path / "config.json", {**config, "notes": notes})
    assert "notes: got" in refused(lambda: Release.open(tmp_path))


OTHER_CODE = """
from torch import nn
def relu(): return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
def gelu(): return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 3))
"""


def test_a_release_without_a_record_tells_other_code_by_its_logits(tmp_path):
    code = tmp_path / "nets.py"
    code.write_text(OTHER_CODE)
    folder = write_release(tmp_path / "r", new_model(f"{code}:relu", SPEC, seed=0))
    assert load_model(str(folder), code=f"{code}:relu").module(torch.zeros(1, 1, 4, 4)).shape == (1, 3)
    line = refused(lambda: load_model(str(folder), code=f"{code}:gelu"))
    assert "but gives other logits than its publisher's network; use the code that came with it" in line
    weights = tmp_path / "plain.safetensors"
    save_file(read_weights(folder / "model.safetensors"), weights)
    assert load_model(str(folder), code=f"{code}:gelu", weights=weights)  # other weights than the release's
    os.replace(weights, folder / "model.safetensors")  # which datafree did not write
    assert load_model(str(folder), code=f"{code}:gelu")


def test_the_key_that_a_message_names_chooses_those_weights(tmp_path):
    """Also of a file whose networks lie under another key, and with a key given before."""
    spec = InputSpec(shape=(1, 8, 8), mean=(0.0,), std=(1.0,), classes=tuple("abc"))
    network = new_model("hinton8", spec, seed=0)
    state = copy.deepcopy(network.module.state_dict())
    other = {name: own + 1 for name, own in state.items()}
    pair = {f"module.{part}.{name}": own for part, table in (("q", state), ("k", other)) for name, own in table.items()}
    path = tmp_path / "x.pt"
    torch.save({"state_dict": pair, "epoch": 3}, path)
    for key in (None, "state_dict"):
        text = refused(lambda key=key: load_weights(network, path, key=key))
        named = text.partition("`key='")[2].partition("'")[0]
        assert named == ("q" if key is None else "state_dict/q")
        load_weights(new_model("hinton8", spec, seed=1), path, key=named)
        load_weights(network, path, key=named.removesuffix("q") + "k")
        assert all(torch.equal(network.module.state_dict()[name], own) for name, own in other.items())


def test_weights_with_nan_or_infinity_are_refused_in_any_precision(tmp_path):
    spec = InputSpec(shape=(1, 8, 8), mean=(0.0,), std=(1.0,), classes=tuple("abc"))
    network = new_model("hinton8", spec, seed=0)
    for dtype in (torch.float16, torch.float32):
        state = {name: own.to(dtype) for name, own in network.module.state_dict().items()}
        state["fc1.bias"] = torch.full_like(state["fc1.bias"], torch.inf)
        torch.save(state, tmp_path / "x.pt")
        text = refused(lambda: load_weights(new_model("hinton8", spec, seed=0), tmp_path / "x.pt"))
        assert text == "weight 'fc1.bias' of hinton8 has NaN or infinity; use weights that are finite"


def test_weights_are_found_behind_a_prefix_in_a_file_of_many_names_in_little_time(tmp_path):
    state = {"1.weight": torch.zeros(2, 16), "1.bias": torch.zeros(2)}
    names = dict.fromkeys([f"a.{name}" for name in state], torch.zeros(1))
    many = {f"{start}.{number}": torch.zeros(1) for start in "ab" for number in range(20_000)}
    start = time.process_time()
    with pytest.warns(Notice, match="its other 20000 tensors"):
        assert len(named_as_in(state, {**names, **many}, tmp_path)) == 20_002
    assert time.process_time() - start < 3


@pytest.mark.parametrize("left_out", ["0.weight", "1.weight"])
def test_tied_weights_behind_a_prefix_may_have_one_of_their_names(tmp_path, left_out):
    def tied() -> Network:
        first, second = nn.Linear(16, 16), nn.Linear(16, 16)
        second.weight = first.weight
        return Network(nn.Sequential(first, second, nn.Flatten()), SPEC, "tied")

    state = tied().module.state_dict()
    torch.save({f"model.{name}": own for name, own in state.items() if name != left_out}, tmp_path / "x.pt")
    network = tied()
    load_weights(network, tmp_path / "x.pt")
    assert all(torch.equal(own, state[name]) for name, own in network.module.state_dict().items())


@pytest.mark.parametrize("suffix", [".py", ".pt", ".pt2", ".safetensors", ".onnx"])
def test_a_name_that_no_file_can_have_is_one_line(suffix):
    for build in (load_model, lambda name: new_model(name, SPEC, seed=0)):
        with pytest.raises(UserError):
            build(5000 * "a" + suffix)
