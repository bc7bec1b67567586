"""datafree distill online: once with right input, once with wrong, stopped and gone on with."""

from __future__ import annotations

import json
import math
import signal

import pytest
import torch

from datafree._core.files import read_tensors
from datafree.distillation import replay
from datafree.distillation.online.run import PRESETS, GeneratorHealth
from datafree.distillation.online.trainer import OnlineTrainer

from .test_stop import PACED, stop

SHORT = "--epochs 3 --iterations 4 --student-steps 2 --batch 32 --latent 8 --threads 1 --quiet"
GO = f"distill online teacher {SHORT}"


BARE = """
import torch
from torch import nn

class Bare(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(spec.pixels, len(spec.classes)) / 8)

    def forward(self, x):
        return x.flatten(1) @ self.weight

def build(spec):
    return Bare(spec)
"""


@pytest.fixture
def result(here):
    return lambda out: json.loads((here / out / "run.json").read_text())["result"]


def test_a_student_is_learnt_from_a_generator_and_the_log_says_how(command, here, result):
    done = command(f"{GO} hinton8 --data digits --out s")
    assert done.code == 0 and "images made and learned from; memory (bank): " in done.out
    own = result("s")
    online = own["online"]
    assert len(online["scores"]) == len(online["average_scores"]) == len(online["agreement"]) == 3
    assert own["memory_bytes"] == online["memory_bytes"] > 0 and "unfinished" not in own
    assert own["evaluation"]["accuracy"] == online["average_scores"][-1]
    assert own["stability"]["average_scores"]["last"] == online["average_scores"][-1]
    assert f"accuracy {online['average_scores'][-1]:.2f} % on" in done.out
    tensors, header = read_tensors(here / "s" / "generated.safetensors", kind="generated")
    assert tensors["pixels"].shape == (3, 10, 1, 8, 8) and tensors["pixels"].dtype == torch.uint8
    assert header["epochs"] == [1, 2, 3]
    assert command("evaluate s --data digits").out.startswith(f"accuracy {online['average_scores'][-1]:.2f} %")
    assert not (here / "s" / "training.safetensors").exists()


def test_without_data_agreement_on_probes_is_all_that_is_claimed(command, result):
    done = command(f"{GO} hinton8 --replay none --out s")
    assert (
        "accuracy was not measured, as no labelled data was given" in done.out and "memory (none): 0 bytes" in done.out
    )
    assert "evaluation" not in result("s") and result("s")["online"]["scores"] == []


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.slow] * (k in ("ema", "pool", "reservoir"))) for k in sorted(replay.kinds())],
)
def test_every_memory_is_named_on_the_command_line_with_its_own_flags(command, result, kind):
    budget = "" if kind == "none" else "--replay-bytes 400000"
    assert command(f"{GO} hinton8 --replay {kind} {budget} --out s").code == 0
    assert result("s")["memory_bytes"] <= 400_000
    assert command(f"distill online --replay {kind} --help").code == 0


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_is_a_method_of_the_field_and_a_flag_changes_one_setting_of_it(command, here, name):
    assert command(f"{GO} hinton8 --preset {name} --balance 2 --out s").code == 0
    settings = json.loads((here / "s" / "run.json").read_text())["settings"]
    wanted, kind = PRESETS[name]
    assert settings["online"].items() >= {**wanted, "balance": 2.0}.items()
    assert settings["replay"]["replay"] == kind


def test_a_stopped_run_leaves_a_whole_student_and_goes_on_to_the_same_bytes(command, here, result, monkeypatch):
    line = (
        "distill online teacher hinton8 --iterations 4 --student-steps 4 --epochs 5 --batch 16 --latent 8 --threads 1"
    )
    line += " --quiet"
    code, err, seconds = stop(f"{line} --out a", here / "a" / "run.json", signal.SIGINT, PACED)
    assert code == 130 and seconds < 10
    assert err == f"datafree: stopped; the part that is complete is kept. Go on with: datafree {line} --out a\n"
    assert (here / "a" / "training.safetensors").exists() and result("a")["unfinished"]["of"] == 5
    assert command("evaluate a --data digits").code == 0
    assert "epochs so far" in (here / "a" / "README.md").read_text()
    assert "a holds an unfinished run with --balance 5.0, not 4.0: give that run's command again" in (
        command(f"{line} --balance 4 --out a").line
    )
    with monkeypatch.context() as patch:
        patch.setattr(
            "datafree.distillation.student_init.init_student_from_teacher",
            lambda *_, **__: pytest.fail("a resumed student began anew"),
        )
        assert command(f"{line} --out a").code == 0
    assert command(f"{line} --out b").code == 0
    assert (here / "a" / "model.safetensors").read_bytes() == (here / "b" / "model.safetensors").read_bytes()
    assert "unfinished" not in result("a") and not (here / "a" / "training.safetensors").exists()
    assert "so far" not in (here / "a" / "README.md").read_text()


def test_a_finished_run_is_not_made_again_over_itself(command, here):
    assert command(f"{GO} hinton8 --data digits --out s").code == 0
    before = {path.name: path.read_bytes() for path in (here / "s").iterdir()}
    done = command(f"{GO} hinton8 --data digits --out s")
    assert (done.code, done.out) == (0, "already complete: release in s, of the same settings; nothing was changed\n")
    assert {path.name: path.read_bytes() for path in (here / "s").iterdir()} == before
    assert (
        "s was made with --seed 0, not 1: name another --out"
        in command(f"{GO} hinton8 --data digits --seed 1 --out s").line
    )


def test_a_generator_of_one_class_is_said(command, here, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(OnlineTrainer, "check_health", lambda *_: GeneratorHealth(1.0, 0.2, 0.0))
    monkeypatch.setattr(OnlineTrainer, "agreement", lambda _: [50.0, 50.0])
    done = command(f"{GO} hinton8 --out s")
    assert done.code == 0 and "the teacher predicts a single class for the generator's last images" in done.out


def test_a_generator_is_kept_near_a_condensed_set(command, here):
    assert command("condense kmeans --data digits --per-class 1 --out few --quiet").code == 0
    assert command(f"{GO} hinton8 --condensed few --alignment means --guidance 5 --out s").code == 0
    log = json.loads((here / "s" / "run.json").read_text())
    assert log["settings"]["alignment"]["alignment"] == "means" and "condensed" in log["inputs"]
    assert command(f"{GO} hinton8 --out p").code == 0
    assert (here / "s" / "model.safetensors").read_bytes() != (here / "p" / "model.safetensors").read_bytes()
    flags = "--condensed few --alignment discriminator --discriminator-width 8 --translate 0"
    assert command(f"{GO} hinton8 {flags} --out d").code == 0
    told = json.loads((here / "d" / "run.json").read_text())["settings"]["alignment"]
    assert (told["alignment"], told["discriminator_width"], told["translate"]) == ("discriminator", 8, 0.0)


WRONG = [
    ("--online generater", "no synthesis method 'generater'; nearest: 'generator'"),
    ("--replay banc", 'Invalid value "banc" for --replay.'),
    ("--preset dafk", 'Invalid value "dafk" for --preset.'),
    (
        "--replay bank --replay-bytes 63",
        "--replay-bytes: got 63, expected at least 64, the size of one image",
    ),
    ("--replay vae --replay-bytes 64", "--replay-bytes: got 64, expected at least"),
    ("--replay ema --replay-bytes 64", "--replay-bytes: got 64, expected at least 256"),
    ("--epochs 0", "--epochs: got 0, expected at least 1"),
    ("--optimizer adam --student-learning-rate 1e38", "--student-learning-rate: got 1e38, expected at most 10"),
    ("--generator-learning-rate 1e38", "--generator-learning-rate: got 1e38, expected at most 10"),
    (
        "--preset dafl --ground dark",
        "--ground: got dark with --scene none, expected --scene things or --scene drawings; give such a scene, or "
        "leave --ground out",
    ),
    (
        "--scene drawings --symmetry 1",
        "--symmetry: got 1 with --scene drawings, expected --scene things; give",
    ),
    ("--preset dafl --centre 6", "--centre: got 6 with --scene none, expected --scene things; give"),
    ("--centre -1", "--centre: got -1, expected at least 0"),
    (
        "--preset dafl --replay-bytes 99",
        "--replay-bytes: got it with --replay none, expected --replay balanced or bank",
    ),
    (
        "--replay balanced --replay-bytes 64",
        "got room for 1 images, expected at least one for each of 10",
    ),
    (
        "--alignment mmd --discriminator-width 8",
        "--alignment: got it without --condensed",
    ),
    ("--replay vae --vae-learning-rate 1e38", "--vae-learning-rate: got 1e38, expected at most 10"),
    ("--ground dim", "--ground: got 'dim', expected 'any', 'dark' or 'bright'"),
    ("--disagreement 0 --confidence 0 --balance 0", "all weights of the generator's losses are 0"),
    ("--statistics 1 --record set/set.json", "set/set.json"),
    ("--condensed nosuch", "no condensed set nosuch"),
    ("--condensed set", "no condensed set set"),
    ("--alignment means", "--alignment: got it without --condensed"),
    ("--condensed set --alignment meens", 'Invalid value "meens" for --alignment.'),
    ("--set set", "no flag '--set'"),
]


@pytest.mark.parametrize(("flags", "text"), WRONG, ids=[flags for flags, _ in WRONG])
def test_wrong_flags_are_one_line_and_leave_nothing(refused, flags, text):
    assert text in refused(f"distill online teacher hinton8 {flags} --out o --quiet")


def test_a_student_of_other_classes_is_one_line(refused, here):
    (here / "two.py").write_text(
        "from torch import nn\ndef build(spec):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))"
    )
    text = refused("distill online teacher two.py:build --out o --quiet")
    assert "outputs of shape" in text and "expected (images, 10 classes)" in text


def test_a_teacher_whose_logits_are_not_finite_is_one_line(refused, here):
    from safetensors.torch import load_file, save_file

    weights = load_file(here / "other" / "model.safetensors")
    save_file({name: 1e30 * own for name, own in weights.items()}, here / "other" / "model.safetensors")
    text = refused("distill online other hinton8 --out o --quiet")
    assert "the logits of hinton16 are not finite" in text


def test_a_run_that_diverges_at_once_is_one_line_and_leaves_nothing(command, here, monkeypatch):
    line = "distill online teacher hinton8 --iterations 3 --epochs 4 --batch 32 --latent 8 --out s --quiet"
    with monkeypatch.context() as patch:
        patch.setattr(
            OnlineTrainer,
            "_set_learning_rates",
            lambda self, _: self.generator_optimizer.param_groups[0].update(lr=1e30),
        )
        done = command(line)
    assert done.line.startswith("epoch 1 ended with a non-finite loss 4 times; the student is unchanged; lower ")
    assert done.line.endswith(
        "lower --student-learning-rate or --generator-learning-rate, and start again with another --out"
    )
    assert not (here / "s").exists()


def ruined(network):
    """By a last step that no loss was taken after."""
    with torch.no_grad():
        for own in network.module.parameters():
            own.fill_(3e38)


BREAKS = {
    "the loss": (lambda _: None, math.nan, "a non-finite loss"),
    "the student": (lambda game: ruined(game.student), 0.0, "non-finite student logits"),
    "its average": (lambda game: ruined(game.average), 0.0, "non-finite student logits"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_run_that_diverges_later_keeps_its_student_and_says_what_was_thrown_away(
    command, here, result, monkeypatch, what
):
    real, (ruin, loss, why) = OnlineTrainer.epoch, BREAKS[what]

    def epoch(self, number, progress):
        found = real(self, number, progress)
        if number < 2:
            return found
        ruin(self)
        return loss, 0.0

    monkeypatch.setattr(OnlineTrainer, "epoch", epoch)
    done = command(f"{GO} hinton8 --out s")
    assert (
        f"epoch 3 ended with {why} 4 times; the student is as after epoch 2; lower --student-learning-rate or "
        in done.line
    )
    assert result("s")["online"]["rollbacks"] == [f"epoch 3: {why}"] * 4
    assert result("s")["unfinished"] == {"epochs": 2, "of": 3} and (here / "s" / "training.safetensors").exists()
    assert command("evaluate s --data digits").code == 0
    left, advice = here / "s" / "training.safetensors", "left it: remove it to start over, or name another --out"
    assert (
        "s holds an unfinished run by datafree distill, not datafree train: give that run's command again to finish it"
        in command("train hinton8 --data digits --epochs 1 --out s --quiet").line
    )
    left.write_bytes(left.read_bytes()[:-1])
    assert command(f"{GO} hinton8 --out s").line.endswith(advice)


def test_a_teacher_that_no_gradient_comes_through_is_one_line(refused, command):
    assert command("quantize teacher --calibrate noise --images 8 --out q8 --quiet").code == 0
    line = "q8: a quantized file only returns logits: it cannot be quantized again, none of its layers can be recorded"
    for verb in ("distill online q8 hinton8", "expand q8 set", "synthesize q8"):
        assert refused(f"{verb} --out o --quiet").startswith(line)


def test_a_teacher_without_features_is_one_line_where_they_are_asked_for(refused, command, here):
    (here / "bare.py").write_text(BARE)
    assert command("train bare.py:build --data digits --epochs 1 --out bare --quiet").code == 0
    assert command("condense random --data digits --per-class 1 --out few --quiet").code == 0
    text = "has no conv or linear layer, so it has no features to match; remove the loss that matches them"
    assert text in refused("expand bare few --code bare.py:build --out o --quiet")
    for flags in ("--features 1", "--preset mb-dfkd", "--condensed few"):
        assert text in refused(f"distill online bare hinton8 --code bare.py:build {flags} --out o --quiet")
