"""A Network from a module and a few arguments: the same as from a spec, callable, moved as a copy, refused in one line."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import datafree as df


def module(classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, classes))


def network(**changes) -> df.Network:
    arguments = {"input_shape": (3, 4, 4), "classes": 10, **changes}
    return df.Network(module(), **arguments)


PIXELS = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_the_arguments_are_those_of_the_spec():
    own = module()
    short = df.Network(own, input_shape=(3, 4, 4), classes=10, mean=0.5, std=[0.1, 0.2, 0.3], low=-1, high=2)
    names = tuple(map(str, range(10)))
    spec = df.InputSpec(shape=(3, 4, 4), classes=names, mean=(0.5,), std=(0.1, 0.2, 0.3), low=-1, high=2)
    assert short.spec == spec and short.name == "Sequential" and short.module is own
    assert df.Network(own, spec, "mine") == df.Network(own, spec=spec, name="mine")
    assert df.Network(own, spec).fingerprint() == short.fingerprint()


@pytest.mark.parametrize("classes", [["cat", "dog"], ("cat", "dog")])
def test_classes_may_be_named(classes):
    own = df.Network(module(2), input_shape=(3, 4, 4), classes=classes)
    assert own.spec.classes == ("cat", "dog")


def test_numbers_of_numpy_and_torch_are_numbers():
    own = network(classes=np.int64(10), mean=torch.tensor([0.25, 0.5, 0.75]), std=np.array([0.5, 0.5, 0.25]))
    assert own.spec.mean == (0.25, 0.5, 0.75) and own.spec.std == (0.5, 0.5, 0.25)
    assert network(mean=np.float32(0.5)).spec.mean == (0.5,)


def test_a_call_is_predict_in_eval_mode_without_gradients():
    own = df.Network(nn.Sequential(nn.Dropout(0.5), module()), input_shape=(3, 4, 4), classes=10, mean=0.3)
    own.module.train()
    pixels = PIXELS.clone().requires_grad_()
    logits = own(pixels)
    assert torch.equal(logits, own.predict(pixels)) and torch.equal(logits, own(pixels))
    assert logits.dtype == torch.float32 and not logits.requires_grad and logits.shape == (5, 10)
    assert own.module.training
    assert own.logits(pixels).requires_grad


def test_to_moves_a_copy_and_leaves_the_module_where_it_is():
    own = network()
    own.module[1].weight.requires_grad_(False)
    moved = own.to("cpu")
    assert moved.device == torch.device("cpu") and moved.spec == own.spec and moved.name == own.name
    assert moved.module is not own.module and torch.equal(moved(PIXELS), own(PIXELS))
    assert [p.requires_grad for p in moved.module.parameters()] == [False, True]
    with torch.no_grad():
        moved.module[1].weight.zero_()
    assert bool(own.module[1].weight.any())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_to_a_gpu_copies_and_gives_the_same_classes():
    own = network()
    moved = own.to("cuda")
    assert moved.device.type == "cuda" and own.device.type == "cpu"
    torch.testing.assert_close(moved(PIXELS), own(PIXELS), rtol=1e-4, atol=1e-4)


def test_neither_a_call_nor_to_changes_the_module():
    own = network()
    before = copy.deepcopy(own.module.state_dict())
    own.to("cpu")(PIXELS)
    assert all(torch.equal(own.module.state_dict()[name], tensor) for name, tensor in before.items())


SPEC = df.InputSpec(shape=(3, 4, 4), classes=("a", "b"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "input_shape: got None, expected channels, height and width"),
        ({"classes": 10}, "input_shape: got None"),
        ({"input_shape": (3, 4, 4)}, "classes: got None, expected their number or their names"),
        ({"input_shape": (4, 4), "classes": 10}, "input_shape: got (4, 4), expected 3 whole numbers"),
        ({"input_shape": 32, "classes": 10}, "input_shape: got 32, expected 3 whole numbers"),
        (
            {"input_shape": (3, 4, 0), "classes": 10},
            "input_shape: got (3, 4, 0), expected 3 whole numbers of at least 1",
        ),
        ({"input_shape": (3, 4.5, 4), "classes": 10}, "input_shape: got (3, 4.5, 4), expected 3 whole"),
        ({"input_shape": (3, 10**5, 10**5), "classes": 10}, "input_shape: got (3, 100000, 100000)"),
        ({"input_shape": (3, 4, 4), "classes": "abc"}, "classes: got 'abc', expected their number or their names"),
        ({"input_shape": (3, 4, 4), "classes": True}, "classes: got True, expected their number"),
        ({"input_shape": (3, 4, 4), "classes": 1}, "classes: got 1, expected 2 to 65,536"),
        ({"input_shape": (3, 4, 4), "classes": 10**9}, "classes: got 1000000000, expected 2 to 65,536"),
        ({"input_shape": (3, 4, 4), "classes": ["a"]}, "classes: got 1 names, expected at least 2"),
        ({"input_shape": (3, 4, 4), "classes": ["a", 1]}, "classes[1]: got 1, expected text"),
        ({"input_shape": (3, 4, 4), "classes": ["a", "a"]}, "the name 'a' for class 0 and for class 1"),
        (
            {"input_shape": (3, 4, 4), "classes": 10, "mean": (1, 2)},
            "mean: got 2 numbers, expected 1, or one for each of 3",
        ),
        ({"input_shape": (3, 4, 4), "classes": 10, "mean": "x"}, "mean: got 'x', expected a number"),
        ({"input_shape": (3, 4, 4), "classes": 10, "mean": float("nan")}, "mean: got nan"),
        ({"input_shape": (3, 4, 4), "classes": 10, "std": 0}, "std: got 0, expected above 0"),
        ({"input_shape": (3, 4, 4), "classes": 10, "low": 1.0, "high": 0.0}, "high: got 0, expected above low, 1"),
        ({"input_shape": (3, 4, 4), "classes": 10, "low": "0"}, "low: got '0', expected a number"),
        ({"input_shape": (3, 4, 4), "classes": 10, "name": 3}, "name: got 3, expected text"),
        ({"spec": SPEC, "input_shape": (3, 4, 4)}, "input_shape: got it beside spec, expected one of them"),
        ({"spec": SPEC, "classes": 2}, "classes: got it beside spec"),
        ({"spec": SPEC, "mean": 0.5}, "mean: got it beside spec"),
        ({"spec": SPEC, "std": (1.0, 1.0, 1.0)}, "std: got it beside spec"),
        ({"spec": (3, 4, 4)}, "spec: got tuple, expected an InputSpec"),
    ],
)
def test_wrong_arguments_are_one_line_that_names_the_argument(arguments, expected):
    with pytest.raises(df.UserError) as raised:
        df.Network(module(), **arguments)
    message = str(raised.value)
    assert expected in message and "; " in message and "--" not in message


def test_a_count_of_classes_that_the_logits_do_not_have_is_one_line_at_first_use():
    with pytest.raises(df.UserError, match=r"outputs of shape \(16, 10\), .*\(images, 7 classes\); give a classifier"):
        network(classes=7).check()
    with pytest.raises(df.UserError, match="does not take images of shape"):
        network(input_shape=(3, 5, 5)).check()


@pytest.mark.parametrize("device", ["meta", "nosuch", 3])
def test_a_device_that_is_not_there_is_one_line(device):
    with pytest.raises(df.UserError, match="device: got") as raised:
        network().to(device)
    assert "; give" in str(raised.value)
