"""Each command has the options of the library function that it stands for, with the same defaults."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, field

import pytest

from datafree.cli import app
from datafree.cli.settings_source import plain_type

PYTHON = {
    "state",
    "identity",
    "progress",
    "score",
    "on_epoch",
    "answered",
    "spec",
    "device",
    "job",
    "unit",
    "changes",
    "stages",
}
"""Parameters for callers from Python: hooks, states of stopped runs, and what a command resolves from other options."""


@dataclass(frozen=True)
class Pair:
    """A command, the function it stands for, and what is called otherwise."""

    words: tuple[str, ...]
    function: str
    renamed: dict[str, str] = field(default_factory=dict)
    """Parameter -> option, where the command's is another."""
    words_instead: set[str] = field(default_factory=set)
    """Parameters that are the command's first word, or several options: the fields of their settings."""
    other_default: set[str] = field(default_factory=set)
    """Options without a default of their own: the command works it out, or the function requires a value."""


PAIRS = [
    Pair(("synthesize",), "synthesis.synthetic_set:synthesize", words_instead={"method"}, other_default={"out", "record"}),
    Pair(("expand",), "synthesis.expansion:expand", words_instead={"alignment", "settings"}, other_default={"chunk"}),
    Pair(("condense",), "data.condensed.methods:condense", words_instead={"method"},
         other_default={"per_class", "data", "teacher"}),
    Pair(("record",), "records.record:record", {"network": "teacher", "add_to": "add"}, other_default={"add_to"}),
    Pair(("similarity",), "evaluation.similarity:similarity", {"network": "model", "sources": "data"}),
    Pair(("evaluate",), "evaluation.accuracy:evaluate", {"network": "model"}),
    Pair(("train",), "distillation.train:train", {"network": "model"}, words_instead={"settings"}),
    Pair(("distill",), "distillation.distill:distill", words_instead={"method", "settings", "source", "augmentation"},
         other_default={"record"}),
    Pair(("distill", "fresh"), "distillation.distill:distill",
         words_instead={"method", "settings", "source", "augmentation", "images", "condensed", "share"},
         other_default={"record", "epoch_images"}),
    Pair(("quantize",), "quantization.quantized_network:quantize",
         {"network": "teacher", "fine_tune": "finetune"}, words_instead={"settings", "bits"}),
    Pair(("compare",), "evaluation.comparison.comparing:compare",
         words_instead={"settings", "seed", "train", "record", "on_cell"}, other_default={"data", "out"}),
    Pair(("report",), "evaluation.report.collect:report", words_instead={"settings", "networks"}),
    Pair(("distill", "online"), "distillation.distill_online:distill_online", words_instead={"settings"},
         other_default={"alignment", "replay"}),
]  # fmt: skip
"""Add a line for each new command with a function."""


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " ".join(pair.words))
def test_a_command_has_its_functions_parameters_with_the_same_defaults(pair):
    module, _, name = pair.function.partition(":")
    function = getattr(importlib.import_module(f"datafree.{module}"), name)
    command = app().parse_commands(list(pair.words))[1][-1]
    options = {own.field_info.name: own for own in command.assemble_argument_collection()}
    compared = 0
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in PYTHON | pair.words_instead:
            continue
        option = options.get(pair.renamed.get(parameter.name, parameter.name))
        assert option is not None, f"no option for {parameter.name}"
        if parameter.name in pair.other_default or parameter.default is parameter.empty:
            continue
        default = option.field_info.default
        assert (None if default is option.field_info.empty else default) == parameter.default, parameter.name
        compared += 1
    assert compared or pair.words[0] in ("train", "evaluate")


def test_settings_are_options_of_the_same_type():
    quantize = app()["quantize"].assemble_argument_collection()
    assert {plain_type(own.hint) for own in quantize if own.field_info.name in ("weights", "activations")} >= {int}
