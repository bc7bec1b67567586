"""The command line: resolves names into objects, calls one function of the library and prints. One file a verb."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

from cyclopts import App, Group, Parameter
from rich.console import Console

from .._core.version import VERSION
from .terminal import plain

__all__ = ["APPS", "VERBS", "Output", "app", "output_of"]

# verb -> what it does; the modules load when their verb is used, so that --help is quick
VERBS = {
    "demo": "the whole pipeline on scikit-learn's digits, with a report",
    "train": "train a network on labelled data: the publisher's teacher",
    "record": "measure a network's activations on its data, into one small file",
    "condense": "make a few images per class that represent a data set",
    "import-condensed": "read a condensed set as its authors published it, and test it on the teacher",
    "inspect": "show what is in a release, a record, a synthetic set or a run",
    "synthesize": "make images from a network and its record, without data",
    "expand": "make many images from a few condensed or real ones and the network, without other data",
    "distill": "train a smaller student from a teacher, on synthetic or real images or without any",
    "prune": "leave out a network's channels, and repair it without its data",
    "quantize": "8, 4 or fewer bits, calibrated and fine-tuned without data; ONNX, checked and timed",
    "evaluate": "accuracy on labelled data, agreement with a teacher",
    "similarity": "rank data sets by how similar they are to a network's training data",
    "compare": "compare methods on one teacher under one protocol: a table over seeds, with controls",
    "report": "one self-contained page: table, images, curves, settings",
    "pack": "make a release from a network's weights alone, without data",
    "convert": "turn a .pt / .pth state dict into safetensors, without running its code",
    "rerun": "repeat a run from its run.json",
    "list": "list methods, kinds, presets, models and data sets",
    "completion": "print a script that completes commands and flags in a shell",
}
APPS = ("record", "condense", "synthesize", "expand", "distill")
"""Verbs with commands of their own, one for each method."""
MODULES = {
    "demo": "demo_command",
    "import-condensed": "import_condensed_command",
    "list": "listing",
    "quantize": "quantize_command",
    "record": "record_command",
}
"""Where a verb's options are, if not in the file of its name."""
WITH_DATA = (
    "train",
    "record",
    "pack",
    "condense",
    "distill",
    "prune",
    "quantize",
    "evaluate",
    "similarity",
    "compare",
    "report",
)
"""Verbs with --data-dir."""
DATA = "Data sets are looked for under --data-dir, or the folder that DATAFREE_DATA names."
GLOBAL = Group("Output", sort_key=99)


def output_of(
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    json: Annotated[bool, Parameter(negative="", group=GLOBAL, help="Print one JSON object on standard output; "
                                    "everything else goes to standard error.")] = False,
    log: Annotated[str | None, Parameter(group=GLOBAL, help="File that everything printed is appended to, as plain "
                                         "text.")] = None,
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative="", group=GLOBAL,
                                       help="Also print versions, device, threads and time.")] = False,
) -> Output:  # fmt: skip
    """The options of every command, and the words that are the command itself."""
    return Output(list(words), json, log, verbose)


class Output:
    """How a command prints."""

    def __init__(self, words: list[str], json: bool, log: str | None, verbose: bool):
        self.words, self.json, self.log, self.verbose = words, json, log, verbose


def app(verb: str | None = None) -> App:
    """The application. Its own help has a line for each verb; that of the `verb` named here is the verb's docstring."""
    root = App(
        name="datafree",
        help="Compress a trained neural network without its training data.",
        version=VERSION,
        version_flags=["--version", "-V"],
        console=Console(file=plain()),
        suppress_keyboard_interrupt=False,  # it would exit without a word
        help_epilogue=DATA if verb in WITH_DATA else None,
    )
    for name, text in VERBS.items():
        module = MODULES.get(name, name)
        function = "app" if name in APPS else {"list": "listing"}.get(name, name.replace("-", "_"))
        if name == verb and name in APPS:  # the application of a module keeps the help that another root gave it
            import_module(f"datafree.cli.{module}").app.help = None
        root.command(f"datafree.cli.{module}:{function}", name=name, help=None if verb == name else text)
    root.meta.default(output_of)
    return root
