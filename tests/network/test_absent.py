"""What is said of a network without a batch norm or a layer that can be watched is true of that network."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datafree._core.errors import UserError
from datafree.distillation.online.run import train_online
from datafree.models import hooks
from datafree.models.input_spec import InputSpec
from datafree.models.missing_layers import no_batch_norm, no_layer
from datafree.models.network import Network
from datafree.records.divergence import stored_statistics
from datafree.records.statistics.batchnorm import BatchNorm
from datafree.releases.load import new_model
from datafree.synthesis.cost import inversion_bytes
from datafree.synthesis.generator import width_for
from datafree.synthesis.methods import from_name

SPEC = InputSpec(shape=(3, 4, 4), classes=("a", "b", "c"))


class FrozenBatchNorm2d(nn.Module):
    """As torchvision's and detectron2's: buffers alone."""

    def __init__(self, channels: int):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, x):
        scale = (self.weight / self.running_var.sqrt()).view(1, -1, 1, 1)
        return (x - self.running_mean.view(1, -1, 1, 1)) * scale + self.bias.view(1, -1, 1, 1)


class Standardized(nn.Module):
    """A convolution that computes its weights, as NFNets have; no torch.nn layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x):
        spread, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / spread)


class Functional(nn.Module):
    """Its layers are kept as modules, and used as functions."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 4), nn.BatchNorm2d(3)

    def forward(self, x):
        bn = self.bn
        y = F.conv2d(x, self.conv.weight, self.conv.bias)
        return F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias).flatten(1)


class Flat(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3]


class Three(nn.Module):
    """The first three numbers, as logits."""

    def forward(self, x):
        return x[:, :3]


def network(module: nn.Module) -> Network:
    return Network(module.eval(), SPEC, "net")


def behind(norm: nn.Module) -> Network:
    return network(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Flatten(), nn.Linear(16, 3)))


def script(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(module.eval())


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")  # needs no C++ compiler


NORMS = {
    "none": (lambda: behind(nn.Identity()), "net has no batch norm"),
    "frozen": (
        lambda: behind(FrozenBatchNorm2d(4)),
        "the norms of net are FrozenBatchNorm2d (1) and not torch.nn.BatchNorm, so it has no batch norm",
    ),
    "instance": (
        lambda: behind(nn.InstanceNorm2d(4)),
        "the norms of net are InstanceNorm2d (1) and not torch.nn.BatchNorm",
    ),
    "group": (lambda: behind(nn.GroupNorm(2, 4)), "the norms of net are GroupNorm, which keep no statistics"),
    "untracked": (
        lambda: behind(nn.BatchNorm2d(4, track_running_stats=False)),
        "the batch norms of net (1) keep no running statistics",
    ),
    "functional": (
        lambda: network(Functional()),
        "no image passes a batch norm of net (bn) in one size, called as a module",
    ),
    "script": (
        lambda: network(script(nn.Sequential(nn.Conv2d(3, 3, 4), nn.BatchNorm2d(3), nn.Flatten()))),
        "net is a TorchScript program, whose batch norms cannot be read",
    ),
}

LAYERS = {
    "none": (lambda: network(Flat()), "net has no conv or linear layer"),
    "standardized": (
        lambda: network(nn.Sequential(Standardized(), nn.Flatten(), Three())),
        "the weights of net are in Standardized (0) and not in torch.nn's own layers, so it has no conv or linear layer",
    ),
    "functional": (
        lambda: network(Functional()),
        "no image passes a conv or linear layer of net (conv) exactly once, called as a module",
    ),
    "script": (
        lambda: network(script(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)))),
        "net is a TorchScript program, whose layers cannot be watched",
    ),
    "graph": (
        lambda: network(torch.fx.symbolic_trace(Flat())),
        "net is a captured graph of operations, whose layers cannot be watched",
    ),
}


@pytest.mark.parametrize("kind", NORMS)
def test_every_place_that_wants_a_batch_norm_says_what_norms_there_are(kind):
    make, text = NORMS[kind]
    assert no_batch_norm(make()).startswith(text)
    for use in (
        lambda own: BatchNorm().plan(own, ()),
        lambda own: stored_statistics(own),
        lambda own: from_name("bns").bind(own, None),
    ):
        with pytest.raises(UserError) as caught:
            use(make())
        assert str(caught.value).startswith(text)


@pytest.mark.parametrize("kind", LAYERS)
def test_every_place_that_wants_a_layer_says_where_the_weights_are(kind):
    make, text = LAYERS[kind]
    assert no_layer(make()).startswith(text)
    with pytest.raises(UserError) as caught:
        hooks.layers(make())
    assert str(caught.value).startswith(text)


def test_an_exported_program_is_refused_in_one_line():
    exported = torch.export.export(nn.Flatten(), (torch.rand(2, 3, 1, 1),))
    checks = "check_guards" in inspect.signature(exported.module).parameters  # torch 2.9 and newer
    program = exported.module(check_guards=False) if checks else exported.module()
    with pytest.raises(UserError, match="is an exported program, which cannot be put into eval mode; give the module"):
        Network(program, InputSpec(shape=(3, 1, 1), classes=("a", "b", "c")), "net").check()


def test_compiled_and_wrapped_networks_are_watched_by_the_names_of_their_own_parts():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 3))
    expected = network(plain)
    images = torch.rand(4, 3, 4, 4)
    in_place = nn.Sequential(*plain)
    in_place.compile(backend="eager")
    for wrapped in (compiled(plain), nn.DataParallel(plain), compiled(nn.DataParallel(plain)), in_place):
        own = network(wrapped)
        assert hooks.layers(own) == ("0", "4") and hooks.batch_norms(own) == ("1",)
        assert own.fingerprint() == expected.fingerprint()
        assert torch.equal(own.predict(images), expected.predict(images))
    part = network(nn.Sequential(compiled(plain[:3]), *plain[3:]))
    assert len(hooks.layers(part)) == 2 and torch.equal(part.predict(images), expected.predict(images))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_network_answers_and_is_refused_in_one_line_where_its_parts_are_needed():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    images = torch.rand(4, 3, 4, 4)
    for module in (script(plain), torch.jit.trace(plain, images)):
        own = network(module)
        own.check()
        torch.testing.assert_close(own.predict(images), network(plain).predict(images))
        assert from_name("inception", steps=1).bind(own, None).chunk(0, 0, 4).pixels.shape == (4, 3, 4, 4)
        assert inversion_bytes(own, 2) > 0
        for use in (
            lambda own: hooks.layers(own),
            lambda own: hooks.watch(own, ["4"]).__enter__(),
            lambda own: train_online(own, network(plain)),
            lambda own: train_online(network(plain), own),
        ):
            with pytest.raises(UserError, match="net is a TorchScript program"):
                use(own)


def test_layers_that_take_their_size_from_a_batch_are_built_for_the_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lazy.py").write_text(
        "from torch import nn\n"
        "def build(): return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says that lazy modules may change
        one, other = (new_model("lazy.py:build", SPEC, seed=0) for _ in range(2))
    assert one.module[3].weight.shape == (3, 16) and one.fingerprint() == other.fingerprint()
    assert torch.equal(one.module[1].running_mean, torch.zeros(4))


def test_a_generator_is_sized_for_a_teacher_in_double_precision():
    assert width_for(network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3)).double())) > 0
