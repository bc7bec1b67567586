"""The report's settings have the names of the flags."""

from __future__ import annotations

import pytest

from datafree._core.flag_names import FLAG_NAMES
from datafree.evaluation.report.setting_names import named_settings
from datafree.runs.run_reader import FinishedRun


def named(verb: str, **settings: object) -> dict:
    return named_settings(FinishedRun(verb=verb, settings=settings))


def test_online_settings_have_the_names_of_their_flags():
    online = {"generator_rate": 0.001, "student_rate": 0.005, "kind": "js", "batch": 128}
    replay = {"replay": "vae", "vae_rate": 0.1}
    assert named("distill", online=online, replay=replay, learns_from="x", alignment=None) == {
        "generator learning rate": 0.001, "student learning rate": 0.005, "disagreement kind": "js", "batch": 128,
        "replay": "vae", "vae learning rate": 0.1, "learns from": "x", "alignment": None,
    }  # fmt: skip


def test_the_bits_of_a_quantized_network_have_the_names_of_their_flags():
    assert named("quantize", weights=4, activations=8, first=8, last=None, checkpoint="w.safetensors") == {
        "weight bits": 4, "activation bits": 8, "first bits": 8, "last bits": None, "weights": "w.safetensors",
    }  # fmt: skip
    assert named("synthesize", method="top", weights=None) == {"method": "top", "weights": None}


@pytest.mark.parametrize(
    ("verb", "settings", "name"),
    [
        ("synthesize", {"method": "bns-inception", "classes": 1}, "class weight"),
        ("synthesize", {"method": "matched", "classes": 1}, "classes per batch"),
        ("synthesize", {"method": "distribution", "shift": 1}, "translate"),
        ("condense", {"method": "dm", "mirror": 1}, "flip"),
        ("expand", {"alignment": "coral", "covariance": 1}, "covariance weight"),
        ("expand", {"alignment": "mmd", "classes": 1}, "class weight"),
        ("pack", {"classes": 1}, "classes"),
        ("synthesize", {"method": "own", "classes": 1}, "classes"),
    ],
)
def test_a_name_is_that_of_the_class_that_has_the_field(verb, settings, name):
    assert named(verb, **settings)[name] == 1


def test_settings_of_a_method_and_of_the_training_are_told_apart():
    settings = named("distill", method={"method": "matched", "classes": 5, "steps": 3}, learning_rate=0.1)
    assert settings == {"method": "matched", "method classes per batch": 5, "method steps": 3, "learning rate": 0.1}


def test_the_statistics_of_a_record_have_the_names_of_their_flags():
    assert named("record", what=[{"kind": "moments", "scale": 2.0}]) == {
        "what": [{"kind": "moments", "activation scale": 2.0}]
    }


def test_every_flag_of_its_own_name_belongs_to_a_field():
    from datafree._core.settings import Settings
    from datafree.evaluation.report import setting_names  # imports the classes

    assert setting_names.named_settings
    classes = {cls.__name__: cls for cls in below(Settings)}
    assert [key for key in FLAG_NAMES if key[0] in classes and key[1] not in classes[key[0]].model_fields] == []
    assert len(FLAG_NAMES) > 15


def below(cls: type):
    for child in cls.__subclasses__():
        yield child
        yield from below(child)
