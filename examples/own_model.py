"""A network of your own on the command line: any nn.Module that maps images to logits.

datafree train examples/own_model.py:build --data digits --out teacher
datafree record teacher --code examples/own_model.py:build --data digits --preset sharp
datafree distill fresh distribution teacher hinton64 --code examples/own_model.py:build --out student
"""

from torch import nn

from datafree import InputSpec


def build(spec: InputSpec) -> nn.Module:
    """A small convolutional network for the given input; the function may also take no argument."""
    channels, height, width = spec.shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * -(-height // 2) * -(-width // 2), len(spec.classes)),
    )
