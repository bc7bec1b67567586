"""The command line: reads files into nouns, calls the verb, writes the result and its run.json. One file a verb."""

from __future__ import annotations

from cyclopts import App
from rich.console import Console

from .._core.version import VERSION
from .terminal import plain

__all__ = ["app"]

# verb -> (where it lives, what it does); the modules load when their verb is used, so that --help is quick
VERBS = {
    "demo": "the whole journey on scikit-learn's digits, with a report",
    "train": "train a network on labelled data: the publisher's teacher",
    "record": "measure a network's activations on its data, into one small file",
    "condense": "make a few images a class that stand for a data set",
    "import-condensed": "read a condensed set as its authors published it, and try it on the teacher",
    "inspect": "say what is in a release, a record, a synthetic set or a run",
    "synthesize": "make images from a network and its record, without data",
    "expand": "make many images from a few condensed or real ones and the network, without other data",
    "distill": "train a smaller student from a teacher, on synthetic or real images",
    "quantize": "8, 4 or fewer bits, calibrated and fine-tuned without data; ONNX, checked and timed",
    "evaluate": "accuracy on labelled data, agreement with a teacher",
    "similarity": "rank data sets by how like a network's training data they are",
    "report": "one self-contained page: table, images, curves, settings",
    "pack": "make a release from a network's weights alone, without data",
    "convert": "turn a .pt / .pth state dict into safetensors, without running its code",
    "rerun": "repeat a run from its run.json",
}


def app(argv: list[str]) -> App:
    """The application; `argv` decides which flags `synthesize` and `distill` have, since each method brings its own."""
    root = App(
        name="datafree",
        help="Compress a trained neural network without its training data.",
        version=VERSION,
        console=Console(file=plain()),
        suppress_keyboard_interrupt=False,  # it would exit without a word
        help_epilogue="Data sets are looked for under --data-dir, or the folder that DATAFREE_DATA names.",
    )
    for verb, text in VERBS.items():
        if argv[:1] in (["synthesize"], ["expand"], ["distill"], ["record"], ["condense"]) and argv[0] == verb:
            module = __import__(f"datafree.cli.{verb}", fromlist=["command"])
            root.command(module.command(argv), name=verb)
        else:
            own = None if argv[:1] == [verb] else text  # the verb's own help is its docstring, with examples
            function = verb.replace("-", "_")
            root.command(f"datafree.cli.{function}:{function}", name=verb, help=own)
    return root
