"""The fields that --help reads from source files are those of the real settings classes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from datafree._core.settings import family as real_family
from datafree.cli import settings_source
from datafree.cli.settings_source import from_class, read

FAMILIES = [
    ("datafree.synthesis.methods", "method", 10),
    ("datafree.data.condensed.methods", "method", 3),
    ("datafree.records.statistics", "kind", 4),
    ("datafree.distillation.replay", "replay", 7),
    ("datafree.synthesis.losses.alignment", "alignment", 4),
]
SINGLE = [
    ("datafree.synthesis.expansion", "Expansion"),
    ("datafree.distillation.online.settings", "OnlineDistillation"),
    ("datafree.distillation.schedule", "Schedule"),
    ("datafree.distillation.schedule", "Distillation"),
    ("datafree.quantization.settings", "FineTuning"),
    ("datafree.releases.bits", "Bits"),
    ("datafree.data.augmentation", "Augmentation"),
]


@pytest.mark.parametrize(("package", "field", "count"), FAMILIES)
def test_every_family_is_read_as_it_is(package, field, count):
    real = {kind: from_class(cls) for kind, cls in real_family(package, field).items()}
    expected = {kind: text for kind, text in real.items() if text.offered}
    assert len(expected) >= count
    assert settings_source.family(package, field) == expected


@pytest.mark.parametrize(("module", "name"), SINGLE)
def test_single_settings_are_read_as_they_are(module, name):
    text = read(module, name)
    assert text == from_class(text.load())


def test_reading_needs_neither_torch_nor_pydantic():
    code = f"""
import sys
from datafree.cli import settings_source
for package, field, _ in {FAMILIES!r}:
    settings_source.family(package, field)
for module, name in {SINGLE!r}:
    settings_source.read(module, name)
sys.exit(" ".join({{"torch", "numpy", "pydantic"}} & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_that_cannot_be_read_is_imported(monkeypatch):
    def refuse(name):
        raise settings_source.Unreadable(name)

    expected = settings_source.family("datafree.distillation.replay", "replay")
    settings_source.family.cache_clear()
    monkeypatch.setattr(settings_source, "_source", refuse)
    try:
        assert settings_source.family("datafree.distillation.replay", "replay") == expected
        assert read("datafree.releases.bits", "Bits").fields[0].name == "weights"
    finally:
        settings_source.family.cache_clear()
