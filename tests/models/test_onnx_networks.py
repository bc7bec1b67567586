"""Networks in ONNX files become torch modules with the same logits, as other networks are."""

from __future__ import annotations

import copy
import importlib.util
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from datafree._core.errors import Notice, UserError
from datafree._core.optional_packages import quiet
from datafree.models.input_spec import InputSpec
from datafree.releases.load import load_model, read_code
from datafree.releases.release import Release, write_release

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
INSTALLED = all(importlib.util.find_spec(name) is not None for name in ("onnx2torch", "torchvision"))
needs_onnx2torch = pytest.mark.skipif(not INSTALLED, reason="onnx2torch and torchvision are not installed")
SPEC = InputSpec(shape=(3, 8, 8), classes=tuple("abcde"), mean=(0.5,), std=(0.25,))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("a network in a file must not reach for the internet")

    monkeypatch.setattr(socket.socket, "connect", refuse)


class Norms(nn.Module):
    """Batch norms, a residual connection, a pool and a view whose shape is computed from the images."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.second, self.act = nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.ReLU6()
        self.drop, self.last = nn.Dropout(0.2), nn.Linear(96, 5)

    def forward(self, x):
        x = self.act(self.norm(self.first(x)))
        x = nn.functional.max_pool2d(x + self.second(x), 2)
        return self.last(self.drop(x.view(x.size(0), -1)))


class Attention(nn.Module):
    """Patches, a token of the class, attention, layer norm and gelu, as in a vision transformer."""

    def __init__(self):
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 8, 4, stride=4), nn.Parameter(torch.randn(1, 1, 8))
        self.norm, self.qkv, self.out, self.head = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        n, count, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, count, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * 0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(n, count, width))
        return self.head(nn.functional.gelu(x)[:, 0])


class Shuffled(nn.Module):
    """Slices, splits, paddings, a mean, channels in another order, and a stored matrix."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(12, 5))

    def forward(self, x):
        x = nn.functional.pad(x, (1, 2, 0, 1), value=0.5)
        left, right = x[:, :, ::2], x[:, :, 1::2, :]
        x = torch.cat([left[:, :, :4], right[:, :, :4]], 1)
        first, second = x.chunk(2, 1)
        x = torch.cat([second, first, x.flip(1)], 1)
        x = x.view(x.shape[0], 2, 6, 4, 11).transpose(1, 2).reshape(x.shape[0], 12, 4, 11)
        return torch.tanh(x.mean((2, 3))) @ self.matrix


NETWORKS = (Norms, Attention, Shuffled)


def made(kind):
    torch.manual_seed(3)
    module = kind()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2), part.running_var.uniform_(0.5, 2)
    return module.eval()


def exported(module, path, *, dynamic=True, **options):
    """An ONNX file of torch's exporter that traces."""
    axes = {"dynamic_axes": {"pixels": {0: "batch"}, "logits": {0: "batch"}}} if dynamic else {}
    options = {"opset_version": 17, "training": torch.onnx.TrainingMode.PRESERVE, **axes, **options}
    with quiet():
        torch.onnx.export(
            module, (torch.rand(1 if not dynamic else 2, 3, 8, 8),), str(path),
            dynamo=False, input_names=["pixels"], output_names=["logits"], **options,
        )  # fmt: skip
    return str(path)


@needs_onnx2torch
@pytest.mark.parametrize("opset", [11, 13, 17, 18])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_has_the_logits_and_gradients_of_the_one_that_was_exported(kind, opset, tmp_path):
    module = made(kind)
    network = load_model(exported(module, tmp_path / "net.onnx", opset_version=opset))
    assert network.spec.shape == (3, 8, 8) and network.spec.classes == tuple("01234")
    pixels = torch.rand(7, 3, 8, 8, requires_grad=True)
    twin = pixels.detach().clone().requires_grad_()
    torch.testing.assert_close(network.logits(pixels), module(twin), rtol=1e-4, atol=1e-5)
    network.logits(pixels).square().sum().backward(), module(twin).square().sum().backward()
    torch.testing.assert_close(pixels.grad, twin.grad, rtol=1e-3, atol=1e-4)


@needs_onnx2torch
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_file_for_one_image_takes_any_number(kind, tmp_path):
    module = made(kind)
    network = load_model(exported(module, tmp_path / "net.onnx", dynamic=False))
    pixels = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(network(pixels), module(pixels).detach(), rtol=1e-4, atol=1e-5)


@needs_onnx2torch
@pytest.mark.parametrize("kind", NETWORKS)
def test_torch_export_follows_it_for_any_number_of_images(kind, tmp_path):
    network = load_model(exported(made(kind), tmp_path / "net.onnx"))
    pixels = torch.rand(3, 3, 8, 8)
    program = torch.export.export(
        network.module, (pixels,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},)
    )
    torch.testing.assert_close(program.module()(pixels), network.module(pixels))


@needs_onnx2torch
def test_batch_norms_are_torchs_own_unless_the_exporter_folded_them(tmp_path):
    module = made(Norms)
    network = load_model(exported(module, tmp_path / "net.onnx"))
    (norm,) = (part for part in network.module.modules() if isinstance(part, nn.BatchNorm2d))
    torch.testing.assert_close(norm.running_var, module.norm.running_var)
    folded = load_model(exported(module, tmp_path / "folded.onnx", training=torch.onnx.TrainingMode.EVAL))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.module.modules())
    from datafree.models.missing_layers import no_batch_norm

    assert no_batch_norm(folded).endswith(
        "folded.onnx has no batch norm (exporters fold them into convolutions in eval mode)"
    )


@needs_onnx2torch
def test_products_with_stored_matrices_are_linear_layers(tmp_path):
    network = load_model(exported(made(Attention), tmp_path / "net.onnx"))
    assert sum(isinstance(part, nn.Linear) for part in network.module.modules()) == 3
    assert not any(buffer.numel() > 8 for buffer in network.module.buffers())


@needs_onnx2torch
def test_copies_and_threads_give_the_same_logits(tmp_path):
    network = load_model(exported(made(Norms), tmp_path / "net.onnx"))
    pixels = torch.rand(6, 3, 8, 8)
    expected = network(pixels)
    assert torch.equal(copy.deepcopy(network.module)(pixels), expected)
    assert network.to("cpu").fingerprint() == network.fingerprint()
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(logits, expected) for logits in pool.map(network, [pixels] * 8))


@needs_onnx2torch
def test_a_release_is_opened_with_its_file(tmp_path):
    path = exported(made(Norms), tmp_path / "my net.onnx")
    network = load_model(path, spec=SPEC)
    folder = write_release(tmp_path / "release", network)
    assert Release.open(folder).config["architecture"] == "custom:my-net.onnx"
    assert str(tmp_path) not in (folder / "README.md").read_text()
    assert "--code FILE.onnx" in (folder / "README.md").read_text()
    assert load_model(str(folder), code=path).fingerprint() == network.fingerprint()
    assert read_code(path) == [tmp_path / "my net.onnx"]
    with pytest.raises(
        UserError, match=r"is a network of an ONNX file \('custom:my-net.onnx'\); name it with `code='FILE.onnx'`"
    ):
        load_model(str(folder))
    other = exported(made(Attention), tmp_path / "other.onnx")
    with pytest.raises(UserError, match="has no weight"):
        load_model(str(folder), code=other)


@needs_onnx2torch
def test_a_spec_that_does_not_fit_and_weights_beside_the_file_are_refused(tmp_path):
    path = exported(made(Norms), tmp_path / "net.onnx")
    with pytest.raises(UserError, match=r"classes: got 2, and .*net.onnx returns 5 logits, expected one for each"):
        load_model(path, spec=InputSpec(shape=(3, 8, 8), classes=("a", "b")))
    with pytest.raises(UserError, match=r"and got a shape of \(1, 8, 8\); leave the shape out"):
        load_model(path, spec=InputSpec(shape=(1, 8, 8), classes=tuple("abcde")))
    with pytest.raises(UserError, match=r"weights: got w.pth with .*net.onnx, which has its own; leave them out"):
        load_model(path, weights="w.pth")


@needs_onnx2torch
def test_probabilities_are_said(tmp_path):
    path = exported(nn.Sequential(made(Norms), nn.Softmax(1)), tmp_path / "net.onnx")
    with pytest.warns(Notice, match="are probabilities .* expected logits"):
        load_model(path)


@needs_onnx2torch
def test_names_in_a_file_do_not_become_code(tmp_path, monkeypatch):
    import onnx

    monkeypatch.chdir(tmp_path)
    path = exported(made(Norms), tmp_path / "net.onnx")
    model = onnx.load(path)
    attack = 'x")); open("attacked", "w"); (("'
    old = model.graph.node[0].output[0]
    for number, node in enumerate(model.graph.node):
        node.name = f"{attack}{number}"
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = attack if name == old else name
    onnx.save(model, path)
    network = load_model(path)
    assert network.predict(torch.rand(2, 3, 8, 8)).shape == (2, 5)
    assert not (tmp_path / "attacked").exists()
    assert all(name.isidentifier() for name, _ in network.module.named_children())


@needs_onnx2torch
@pytest.mark.parametrize("key", ["domain", "name", "doc_string"])
def test_attributes_in_a_file_do_not_become_parts_of_operators(key):
    import onnx

    from datafree.releases.onnx_lowering import lower
    from datafree.releases.onnx_session.foreign import read_foreign

    attack = b'x")); open("attacked", "w"); (("'
    nodes = [onnx.helper.make_node("Flatten", ["x"], ["y"])]
    nodes[0].attribute.append(onnx.helper.make_attribute(key, attack))
    ends = [onnx.helper.make_tensor_value_info(*end) for end in (("x", 1, ["n", 1, 2, 2]), ("y", 1, ["n", 4]))]
    graph = onnx.helper.make_graph(nodes, "graph", ends[:1], ends[1:])
    content = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    (node,) = lower(read_foreign(content.SerializeToString(), lambda _: memoryview(b""))).model.graph.node
    assert node.name == "y" and not node.domain and not node.doc_string


@needs_onnx2torch
def test_an_operator_that_cannot_be_converted_is_named(tmp_path):
    class Sampled(nn.Module):
        def forward(self, x):
            grid = torch.zeros(x.shape[0], 5, 1, 2)
            return nn.functional.grid_sample(x, grid, align_corners=False)[:, 0, :, 0]

    path = exported(Sampled(), tmp_path / "net.onnx")
    with pytest.raises(
        UserError, match=r"onnx2torch .* has no conversion of the operator 'GridSample', expected one; give"
    ):
        load_model(path)


@needs_onnx2torch
def test_a_conversion_with_other_logits_is_refused(tmp_path, monkeypatch):
    path = exported(made(Norms), tmp_path / "net.onnx")
    load_model(path)
    relu6 = sys.modules["onnx2torch.node_converters.clip"]
    monkeypatch.setattr(relu6, "_create_torch_module", lambda min_val, max_val: nn.ReLU())  # noqa: ARG005
    import onnx

    model = onnx.load(path)
    for weight in model.graph.initializer:  # so that the limit of 6 matters
        if weight.name == "norm.bias":
            weight.CopyFrom(onnx.numpy_helper.from_array(np.full(6, 9, np.float32), weight.name))
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"returns other logits than onnxruntime .by up to .* for logits up to"):
        load_model(path)


@needs_onnx2torch
def test_the_random_generator_is_left_alone(tmp_path):
    path = exported(made(Norms), tmp_path / "net.onnx")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_model(path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(INSTALLED, reason="onnx2torch is installed")
def test_a_missing_package_is_one_line(tmp_path):
    path = exported(made(Norms), tmp_path / "net.onnx")
    with pytest.raises(UserError, match=r"a network in an ONNX file needs \w+>=.*, got none; install it: pip install"):
        load_model(path)
