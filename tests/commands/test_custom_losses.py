"""Losses and replay memories of the user's own, named on the command line."""

from __future__ import annotations

import json

import pytest

import datafree as df

CODE = '''
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from datafree.distillation.replay.stored import ImageMemory, StoredReplay
from datafree.synthesis.losses import Term


@dataclass(frozen=True)
class Contrast(Term):
    """Negative variance of each image."""

    def __call__(self, view):
        return -view.pixels.flatten(1).var(1).sum()


@dataclass(frozen=True)
class Needy(Term):
    scale: float

    def __call__(self, view):
        return self.scale * view.pixels.sum()


class Slots(ImageMemory):
    def _slots(self, count, labels, rng):
        numbers = self.seen + torch.arange(count)
        return torch.where(numbers < self.room, numbers, torch.randint(self.room, (count,), generator=rng))


class Holes(ImageMemory):
    def _slots(self, count, labels, rng):
        return torch.randint(self.room, (count,), generator=rng)


class Mine(StoredReplay):
    """Random slots."""

    replay: Literal["my-own"] = "my-own"
    slack: float = 2.0
    """Slack that only this memory has."""

    summary: ClassVar[str] = "random slots"
    memory: ClassVar[type[ImageMemory]] = Slots
'''
SET = "synthesize top teacher --images 8 --chunk 8 --steps 2 --workers 1 --quiet"
ONLINE = "distill online teacher hinton8 --epochs 1 --iterations 2 --batch 16 --replay mine.py:Mine --quiet"


@pytest.fixture(autouse=True)
def code(here):
    path = here / "mine.py"
    path.write_text(CODE)
    return path


def test_a_loss_of_ones_own_is_added_to_the_objective(command, here):
    for name, flags in (("plain", ""), ("added", "--extra-loss mine.py:Contrast --extra-loss-weight 3")):
        assert command(f"{SET} {flags} --out {name}").code == 0
    shards = [next((here / name).glob("unit-*")).read_bytes() for name in ("plain", "added")]
    assert shards[0] != shards[1]
    settings = [json.loads((here / name / "run.json").read_text())["settings"] for name in ("plain", "added")]
    assert settings[1].items() - settings[0].items() == {("extra_loss", "mine.py:Contrast"), ("extra_loss_weight", 3.0)}
    assert "extra_loss" not in settings[0]


def test_changed_code_is_another_run(command, refused, code):
    line = f"{SET} --extra-loss mine.py:Contrast --out changed"
    assert command(line).code == 0
    code.write_text(CODE.replace("-view", "-2 * view"))
    assert "was made with other content of code of extra loss" in refused(line)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("--extra-loss contrast", "no loss 'contrast', expected file.py:Class or package.module:Class"),
        ("--extra-loss mine.py:Contrst", "no class 'Contrst' in mine.py; nearest: 'Contrast'"),
        ("--extra-loss mine.py:Mine", "mine.py:Mine: Mine is no loss, expected a subclass of Term"),
        ("--extra-loss mine.py:Needy", "expected a loss that is made without arguments"),
        ("--extra-loss-weight 2", "--extra-loss-weight: got 2 without --extra-loss, whose weight it is"),
    ],
)
def test_a_wrong_loss_is_one_line(refused, here, flags, text):
    assert text in refused(f"{SET} {flags} --out wrong")
    assert not (here / "wrong").exists()


def test_a_memory_of_ones_own_has_flags_and_is_repeated_with_trust(command, refused, here):
    assert "Slack that only this memory has" in command("distill online --replay mine.py:Mine --help").out
    assert command(f"{ONLINE} --slack 3 --out mine").code == 0
    log = json.loads((here / "mine.run.json").read_text())
    assert log["settings"]["replay"]["replay"] == "my-own" and log["settings"]["replay"]["slack"] == 3
    assert "add --trust" in command("rerun mine --out again").err
    assert command("rerun mine --out again --trust").code == 0
    same = [(here / name / "model.safetensors").read_bytes() for name in ("mine", "again")]
    assert same[0] == same[1]
    assert "'--slack'" in refused(f"{ONLINE.replace('mine.py:Mine', 'bank')} --slack 3 --out other")
    assert "Contrast is no kind of replay" in refused(f"{ONLINE.replace(':Mine', ':Contrast')} --out other")


def test_a_memory_that_leaves_slots_empty_is_refused(refused, code):
    code.write_text(
        CODE
        + "\n\nclass Wrong(Mine):\n    replay: Literal['wrong'] = 'wrong'\n    memory: ClassVar[type[ImageMemory]] = Holes\n"
    )
    assert "Holes leaves slot" in refused(f"{ONLINE.replace(':Mine', ':Wrong')} --out wrong")


PLAIN = """
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

import datafree as df
from datafree.synthesis.methods import Batch, chunk_labels


class Plain(df.Settings):
    \"\"\"Grey images.\"\"\"

    method: Literal["plain"] = "plain"
    summary: ClassVar[str] = "grey images"
    in_range: ClassVar[bool] = True

    def bind(self, teacher, record):
        return Bound(teacher)


@dataclass(frozen=True)
class Bound:
    teacher: df.Network

    def chunk(self, index, seed, size):
        return Batch(torch.full((size, 1, 8, 8), 0.5), chunk_labels(index, size, 10))
"""


def test_a_method_without_settings_has_no_options_of_its_own(command, here):
    (here / "plain.py").write_text(PLAIN)
    text = command("synthesize plain.py:Plain --help").out
    assert "PLAIN" not in text and "Options of plain" not in text
    assert command("synthesize plain.py:Plain teacher --images 8 --chunk 8 --out grey --quiet").code == 0


FAILING = PLAIN.replace(
    "        return Batch(torch.full((size, 1, 8, 8), 0.5)",
    "        if self.teacher is None or MODE == 'error':\n            raise ValueError('oops')\n"
    "        number = size - 1 if MODE == 'few' else size\n"
    "        return Batch(torch.full((number, 1, 8, 8), 0.5)",
)


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("error", "the code in failing.py, line 29, fails with ValueError: oops; fix it"),
        (
            "few",
            "the method 'Bound' returns pixels (7, 1, 8, 8) and labels (8,) for a chunk of 8, expected (8, 1, 8, 8)",
        ),
    ],
)
def test_code_that_fails_while_it_works_is_one_line(refused, here, mode, text):
    (here / "failing.py").write_text(f"MODE = {mode!r}\n{FAILING}")
    assert text in refused("synthesize failing.py:Plain teacher --images 8 --chunk 8 --workers 1 --out failed --quiet")


def test_options_of_every_command_may_stand_before_it(command, here):
    (here / "plain.py").write_text(PLAIN)
    done = command("--json --log log.txt synthesize plain.py:Plain teacher --images 8 --chunk 8 --out first --quiet")
    assert done.code == 0 and json.loads(done.out)["settings"]["images"] == 8
    assert "synthesize plain.py:Plain teacher" in (here / "log.txt").read_text()


def test_python_too_refuses_to_go_on_with_changed_code(here, code, tmp_path):
    teacher = df.load_model(str(here / "teacher"))
    method = df.method("top", steps=1, extra_loss=f"{code}:Contrast")
    df.synthesize(teacher, df.Record.load(here / "teacher" / "record.safetensors", teacher), method,
                  tmp_path / "set", images=8, chunk=8, workers=1)  # fmt: skip
    code.write_text(CODE.replace("-view", "-3 * view"))
    with pytest.raises(df.UserError, match="a set of other code of its method"):
        df.synthesize(teacher, df.Record.load(here / "teacher" / "record.safetensors", teacher), method,
                      tmp_path / "set", images=16, chunk=8, workers=1)  # fmt: skip
