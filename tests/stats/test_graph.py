"""The network as a graph: its wiring, its operators, its Fourier basis."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from datafree._core.errors import UserError
from datafree.models import hooks, zoo
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.records.graph import build, fourier, pairs
from datafree.records.graph.basis import canonical, complement
from datafree.records.graph.operators import between, channel_matrix, conv_matrix
from datafree.records.graph.wiring import wire


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(module: nn.Module, shape=(1, 8, 8), classes=3) -> Network:
    return Network(module, InputSpec(shape=shape, classes=tuple("abcdefghij"[:classes])), "net")


def seeded(make, *args, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    return make(*args, **kwargs)


def small_conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 3),
    )  # fmt: skip


def mlp(*widths: int) -> nn.Module:
    parts: list[nn.Module] = [nn.Flatten()]
    for a, b in pairwise(widths):
        parts += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


class Residual(nn.Module):
    """stem -> (conv1 -> conv2) + stem -> global mean -> linear."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv1, self.conv2 = (nn.Conv2d(c, 4, 3, padding=1) for c in (1, 4, 4))
        self.bn, self.fc = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (x + self.bn(self.conv2(self.conv1(x).relu()))).relu()
        return self.fc(x.mean((2, 3)))


class Branch(nn.Module):
    """a -> b, and both -> c: a triangle, so no two sides."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        a = self.a(x.flatten(1)).relu()
        return self.c(a + self.b(a).relu())


def dense(basis) -> torch.Tensor:
    """The basis as columns."""
    return basis.synthesise(torch.eye(len(basis.values), dtype=torch.float64)).T


# -- wiring -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hinton20", "lenet5"])
def test_a_chain_is_found_in_the_papers_networks(name):
    spec = InputSpec(shape=(1, 32, 32), classes=tuple("0123456789"))
    net = Network(seeded(zoo.build, name, spec), spec, name)
    layers = hooks.layers(net)
    assert wire(net).feeds == tuple(pairwise(layers))


def test_a_shortcut_is_an_edge():
    feeds = set(wire(network(seeded(Residual))).feeds)
    assert feeds == {("stem", "conv1"), ("conv1", "conv2"), ("stem", "fc"), ("conv2", "fc")}


def test_a_branch_is_found_and_dead_relus_do_not_hide_it():
    module = seeded(Branch)
    nn.init.constant_(module.a.bias, -1e6)
    assert set(wire(network(module)).feeds) == {("a", "b"), ("a", "c"), ("b", "c")}


def test_cifar_resnets_have_two_sides_and_every_layer_an_edge():
    spec = InputSpec(shape=(3, 32, 32), classes=tuple("0123456789"))
    net = Network(seeded(zoo.build, "resnet8", spec), spec, "resnet8")
    graph = build(net, hooks.layers(net))
    assert graph.kind == "channels"
    assert graph.sizes == (16, 16, 16, 32, 32, 64, 64, 10)
    assert graph.sides() is not None


def test_the_probe_leaves_no_hook_no_gradient_and_no_changed_flag():
    net = network(seeded(small_conv).train())
    wire(net)
    assert not any(part._forward_hooks for part in net.module.modules())
    assert all(p.grad is None and p.requires_grad for p in net.module.parameters())
    assert net.module.training


def test_a_layer_used_twice_is_no_vertex_and_cuts_the_path():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(64, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.c(self.b(self.b(self.a(x.flatten(1)))))

    wiring = wire(network(Twice()))
    assert set(wiring.layers) == {"a", "c"}
    assert wiring.feeds == ()


# -- operators --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"kernel_size": 3}, (4, 7, 5)),
        ({"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 2)}, (4, 6, 6)),
        ({"kernel_size": 3, "dilation": 2, "padding": 1}, (4, 7, 8)),
        ({"kernel_size": 3, "groups": 2, "padding": "same"}, (4, 5, 5)),
        ({"kernel_size": 5, "groups": 4, "stride": 3, "padding": 2, "padding_mode": "circular"}, (4, 8, 8)),
        ({"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}, (4, 5, 6)),
    ],
)
def test_a_conv_matrix_is_the_convolution(options, shape):
    conv = seeded(nn.Conv2d, 4, 8, bias=False, dtype=torch.float64, **options)
    x = torch.randn(3, *shape, dtype=torch.float64)
    want = conv(x).detach().flatten(1)
    torch.testing.assert_close(torch.from_numpy(x.flatten(1).numpy() @ conv_matrix(conv, shape).T), want)


@pytest.mark.parametrize(("source", "given", "grid"), [
    ((3, 6, 6), (3, 3, 3), (3, 3)), ((3, 7, 5), (3, 3, 2), (3, 2)), ((3, 6, 4), (3,), (1, 1)), ((2, 10, 10), (50,), (5, 5)),
])  # fmt: skip
def test_fewer_positions_are_adaptive_average_pooling(source, given, grid):
    x = torch.randn(2, *source, dtype=torch.float64)
    link = between(source, given)
    assert link is not None
    want = adaptive_avg_pool2d(x, grid).flatten(1)
    torch.testing.assert_close(torch.from_numpy(x.flatten(1).numpy() @ link.T), want)


def test_more_positions_get_their_channels_mean():
    link = between((2, 2, 2), (2, 4, 4))
    assert link is not None
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64)
    want = x.mean((2, 3))[..., None].expand(-1, -1, 16).flatten(1)
    torch.testing.assert_close(torch.from_numpy(x.flatten(1).numpy() @ link.T), want)


@pytest.mark.parametrize(("source", "given"), [((4, 8, 8), (8, 8, 8)), ((120,), (240,)), ((4, 8, 8), (6,))])
def test_other_channels_are_no_edge(source, given):
    assert between(source, given) is None


def test_a_channel_matrix_answers_constant_channels_as_the_layer_does():
    conv = seeded(nn.Conv2d, 4, 6, 3, groups=2, bias=False, dtype=torch.float64)
    levels = torch.randn(2, 4, dtype=torch.float64)
    want = conv(levels[..., None, None].expand(-1, -1, 5, 5)).mean((2, 3)).detach()
    assert_product(levels, channel_matrix(conv, (4, 5, 5), (4, 5, 5)), want)
    linear = seeded(nn.Linear, 36, 5, bias=False, dtype=torch.float64)
    want = linear(levels[..., None].expand(-1, -1, 9).flatten(1)).detach()
    assert_product(levels, channel_matrix(linear, (4, 6, 6), (36,)), want)


def assert_product(x, matrix, want):
    assert matrix is not None
    torch.testing.assert_close(torch.from_numpy(x.numpy() @ matrix.T), want)


def test_edges_are_the_linear_network_where_nothing_lies_between():
    module = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3, bias=False), nn.Flatten(), nn.Linear(48, 3, bias=False)
    )
    net = network(module)
    graph = build(net, ("0", "1", "3"))
    with hooks.watch(net, ("0", "1", "3")) as seen, torch.no_grad():
        net.logits(torch.rand(2, 1, 8, 8))
    a, b, c = (seen[t].flatten(1).double().numpy() for t in ("0", "1", "3"))
    np.testing.assert_allclose(a @ graph.edges[0, 1].T, b, atol=1e-5)
    np.testing.assert_allclose(b @ graph.edges[1, 2].T, c, atol=1e-5)


# -- basis ------------------------------------------------------------------------------------------------------------

CASES = {
    "conv, two sides": (small_conv, "units"),
    "conv by channels": (small_conv, "channels"),
    "residual, global pooling": (Residual, "units"),
    "triangle": (Branch, "units"),
    "wide to narrow": (lambda: mlp(64, 12, 7, 3), "units"),
}


@pytest.fixture(params=CASES, ids=str)
def graph(request):
    make, kind = CASES[request.param]
    net = network(seeded(make))
    return build(net, hooks.layers(net), kind)


def test_the_basis_is_orthonormal_and_rebuilds_every_signal(graph):
    basis = fourier(graph)
    v = dense(basis)
    assert float((v.T @ v - torch.eye(len(v), dtype=torch.float64)).abs().max()) < 1e-10
    signal = torch.randn(5, len(v), dtype=torch.float64)
    torch.testing.assert_close(basis.synthesise(basis.analyse(signal)), signal, rtol=0, atol=1e-10)
    torch.testing.assert_close(basis.analyse(signal), signal @ v, rtol=0, atol=1e-10)


def test_the_basis_solves_the_eigen_equation_in_descending_order(graph):
    basis = fourier(graph)
    v, a = dense(basis), torch.from_numpy(graph.adjacency().toarray())
    torch.testing.assert_close(a, a.T, rtol=0, atol=0)
    assert float((a @ v - v * basis.values).abs().max()) < 1e-10 * float(basis.values.abs().max())
    size = basis.values.abs()
    assert bool((size[1:] <= size[:-1] + 1e-12).all())


def test_the_largest_entry_of_every_vector_is_positive(graph):
    v = dense(fourier(graph))
    assert bool((v.amax(0) >= v.abs().amax(0) * (1 - 1e-5)).all())


def test_only_the_triangle_has_no_two_sides():
    sided = {
        name: build(n := network(seeded(make)), hooks.layers(n), kind).sides() for name, (make, kind) in CASES.items()
    }
    assert [name for name, sides in sided.items() if sides is None] == ["triangle"]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_another_thread_count_gives_the_same_basis(graph, threads):
    want = dense(fourier(graph))
    torch.set_num_threads(threads)
    torch.testing.assert_close(dense(fourier(graph)), want, rtol=0, atol=1e-8)


def test_a_canonical_basis_depends_on_the_span_alone():
    torch.manual_seed(1)
    x = torch.linalg.qr(torch.randn(40, 12, dtype=torch.float64))[0]
    turn = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64))[0]
    torch.testing.assert_close(canonical(x @ turn), canonical(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(complement(x @ turn), complement(x), rtol=0, atol=1e-12)
    y = canonical(x)
    torch.testing.assert_close(y @ y.T, x @ x.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["svd", "eigh"])
def test_a_re_mixed_degenerate_eigenspace_gives_the_same_basis(monkeypatch, name):
    """Another LAPACK may return any rotation of a degenerate eigenspace: here all of them are rotated."""
    module = seeded(Branch) if name == "eigh" else mlp(64, 6, 6, 3)
    middle = module.b if name == "eigh" else module[3]
    last = module.c if name == "eigh" else module[5]
    with torch.no_grad():
        middle.weight.copy_(torch.eye(6)[[3, 1, 0, 2, 5, 4]])
        last.weight.zero_()
    net = network(module)
    graph = build(net, hooks.layers(net))
    want = dense(fourier(graph))
    svd, eigh = torch.linalg.svd, torch.linalg.eigh
    torch.manual_seed(7)

    def mix(vectors, start, stop):
        vectors[:, start:stop] @= torch.linalg.qr(torch.randn(stop - start, stop - start, dtype=torch.float64))[0]

    def mixed_svd(block, full_matrices):
        u, s, vh = svd(block, full_matrices=full_matrices)
        turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
        assert float((s - 1).abs().max()) < 1e-6
        return u @ turn, s, turn.T @ vh

    def mixed_eigh(a):
        values, vectors = eigh(a)
        for start, stop in ((0, 6), (6, 9), (9, 15)):
            mix(vectors, start, stop)
        return values, vectors

    monkeypatch.setattr(torch.linalg, name, mixed_svd if name == "svd" else mixed_eigh)
    torch.testing.assert_close(dense(fourier(graph)), want, rtol=0, atol=1e-10)


def test_weights_of_zero_still_have_an_orthonormal_basis():
    for make in (lambda: mlp(64, 5, 4, 3), Branch):
        module = make()
        with torch.no_grad():
            for weight in module.parameters():
                weight.zero_()
        net = network(module)
        basis = fourier(build(net, hooks.layers(net)))
        v = dense(basis)
        assert bool((basis.values == 0).all())
        torch.testing.assert_close(v.T @ v, torch.eye(len(v), dtype=torch.float64), rtol=0, atol=1e-10)


def test_renaming_hidden_units_renames_the_basis():
    """Permuted units: the same eigenvalues, and the same coefficients of the permuted signal where they are simple."""
    module = seeded(mlp, 64, 12, 7, 3)
    net = network(module)
    layers = hooks.layers(net)
    before = fourier(build(net, layers))
    signal = torch.randn(4, 22, dtype=torch.float64)
    turn = torch.randperm(12)
    with torch.no_grad():
        module[1].weight.copy_(module[1].weight[turn].clone())
        module[3].weight.copy_(module[3].weight[:, turn].clone())
    after = fourier(build(net, layers))
    torch.testing.assert_close(after.values, before.values)
    old, new = before.analyse(signal), after.analyse(torch.cat([signal[:, :12][:, turn], signal[:, 12:]], 1))
    simple = before.values != 0
    assert int(simple.sum()) == 14
    torch.testing.assert_close(new[:, simple], old[:, simple])
    torch.testing.assert_close(new[:, ~simple].norm(dim=1), old[:, ~simple].norm(dim=1))


def test_a_pairs_eigenvalues_are_plus_and_minus_the_singular_values():
    net = network(seeded(mlp, 64, 12, 7, 3))
    basis = fourier(build(net, ("1", "3")))
    sigma = torch.linalg.svdvals(net.module[3].weight.detach().double())
    torch.testing.assert_close(basis.values[:14], torch.stack([sigma, -sigma], 1).flatten())
    assert bool((basis.values[14:] == 0).all())


# -- wrong inputs -----------------------------------------------------------------------------------------------------


def test_pairs_are_the_adjacent_layers_only():
    net = network(seeded(small_conv))
    assert pairs(net, ("0", "3", "6", "8")) == [("0", "3"), ("3", "6"), ("6", "8")]
    assert pairs(net, ("0", "6", "8")) == [("6", "8")]


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (("0", "33"), "no conv or linear layer '33' in net"),
        (("input", "0"), "no conv or linear layer 'input' in net"),
        (("0", "3", "8"), "layer '8' of net has no edge to another recorded layer"),
        (("0", "3", "3"), "expected each once"),
    ],
)
def test_layers_that_make_no_graph_are_named(layers, text):
    with pytest.raises(UserError, match=text):
        build(network(seeded(small_conv)), layers)


def test_layers_that_are_not_adjacent_have_no_pairs():
    with pytest.raises(UserError, match="no two of the layers 0, 6 are adjacent"):
        pairs(network(seeded(small_conv)), ("0", "6"))


def test_a_graph_too_large_for_a_dense_basis_is_refused_with_a_way_out():
    module = nn.Sequential(nn.Conv2d(1, 16, 1), nn.Conv2d(16, 16, 1), nn.Flatten(), nn.Linear(16 * 900, 3))
    net = network(module, (1, 30, 30))
    with pytest.raises(UserError, match="28803 units, expected at most 16384; give `graph='channels'`"):
        build(net, hooks.layers(net), "units")
    assert build(net, hooks.layers(net)).sizes == (16, 16, 3)


def test_a_transposed_convolution_is_refused():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 2, 3), nn.Flatten(), nn.Linear(128, 3))
    net = network(module)
    with pytest.raises(UserError, match="ConvTranspose2d layer, expected Conv2d and Linear"):
        build(net, hooks.layers(net))
