"""Generator against student at the smallest budget, and the committed claims."""

from __future__ import annotations

import functools
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "papers"
sys.path[:0] = [str(FOLDER)]

import claims

from datafree.distillation import replay
from datafree.distillation.online.generator import new_generator
from datafree.distillation.online.run import PRESETS
from datafree.distillation.online.scene import Scene
from datafree.models.input_spec import InputSpec
from datafree.releases.load import new_model

ROWS = {
    "binici2021": {
        "teacher", "kd", "generator", "bank", "bank, any ground", "mb-dfkd", "bank, random start", "mb-dfkd, random start",
    },
    "binici2022": {
        "teacher", "kd", "bank", "vae", "ema", "pre-dfkd", "generator, random start", "bank, random start",
        "vae, random start", "ema, random start",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Claims of a paper's smallest budget, seed 0, which runs once."""

    @functools.cache
    def claims_of(paper: str) -> list[dict]:
        folder = tmp_path_factory.mktemp(paper)
        command = [sys.executable, str(FOLDER / paper / "run.py"), "--budget", "smoke", "--jobs", "1", "--seeds", "0"]
        command += ["--work", str(folder / "work"), "--out", str(folder / "claims.json")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return claims.load(folder / "claims.json")

    return claims_of


@pytest.mark.slow
@pytest.mark.parametrize("paper", sorted(ROWS))
def test_the_smoke_budget_runs_every_row_with_its_robustness(smoke, paper):
    made = means(smoke(paper))
    assert made.keys() >= ROWS[paper]
    for row in ROWS[paper] - {"teacher", "kd"}:
        assert 0 <= made[f"{row}/lost"] <= made[f"{row}/drawdown"] <= made[f"{row}/decreases"]
        assert made[f"{row}/speed"] > 0
        begun = row.removesuffix(", random start")
        assert row == begun or begun not in ROWS[paper] or made[row] != made[begun]
    assert claims.check(smoke(paper)) == []


def means(made: list[dict]) -> dict[str, float]:
    """By row of the one pair there is."""
    return {own["id"].split("/", 2)[2]: own["ours"]["mean"] for own in made}


SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
SHAPES |= {"cifar100": (3, 32, 32), "svhn": (3, 32, 32)}


@pytest.mark.parametrize("paper", sorted(ROWS))
def test_every_row_of_every_budget_can_begin(paper):
    for budget in runpy.run_path(str(FOLDER / paper / "rows.py"))["BUDGETS"].values():
        for pair in budget.pairs:
            channels, *size = SHAPES[pair.data]
            shape = (channels, *(size if pair.size is None else (pair.size, pair.size)))
            teacher = new_model(pair.teacher, InputSpec(shape=shape, classes=tuple("0123456789")), seed=0)
            for name, row in pair.rows.items():
                settings, memory = row.online(**pair.online), replay.from_dict(dict(row.replay)).bind(teacher, 0)
                scene = None if settings.scene == "none" else Scene(settings.scene)
                memory.begin(new_generator(teacher, seed=0, latent=settings.latent, width=settings.width, scene=scene))
                room = dict(row.replay).get("replay_bytes", replay.BYTES)
                assert memory.nbytes() <= room and getattr(memory, "room", 0) <= room // teacher.spec.pixels, (
                    pair.id,
                    name,
                )
                assert settings.objective(teacher, None).parts, (pair.id, name)


@pytest.mark.parametrize("paper", sorted(ROWS))
def test_a_method_of_the_field_has_its_own_terms_and_images_and_the_pairs_length(paper):
    found = 0
    for budget in runpy.run_path(str(FOLDER / paper / "rows.py"))["BUDGETS"].values():
        for pair in budget.pairs:
            for row in (own for own in pair.rows.values() if own.preset):
                settings, found = row.online(**pair.online), found + 1
                assert {name: getattr(settings, name) for name in PRESETS[row.preset][0]} == PRESETS[row.preset][0]
                assert settings.scene == "none" and settings.epochs == pair.online["epochs"]
    assert found >= 3


def test_memories_have_as_many_bytes_within_a_percent():
    budgets = runpy.run_path(str(FOLDER / "binici2022" / "rows.py"))["BUDGETS"]
    for pair in (*budgets["cpu"].pairs, *budgets["gpu"].pairs):
        shape = (SHAPES[pair.data][0], 32, 32)
        teacher = new_model(pair.teacher, InputSpec(shape=shape, classes=tuple("0123456789")), seed=0)
        taken = {}
        for name, row in pair.rows.items():
            if row.replay["replay"] == "none":
                continue
            settings, memory = row.online(**pair.online), replay.from_dict(dict(row.replay)).bind(teacher, 0)
            memory.begin(new_generator(teacher, seed=0, latent=settings.latent, scene=settings.composition()))
            taken[name] = memory.room * teacher.spec.pixels if "bank" in name else memory.nbytes()
        assert len(taken) >= 4 and max(taken.values()) <= 1.01 * min(taken.values()), taken


@pytest.mark.slow
def test_memories_are_compared_at_one_budget_of_bytes(smoke):
    made = means(smoke("binici2022"))
    assert made["bank/bytes"] == 4 * 64 * 64  # all that it was shown: four batches, which fit
    assert all(0 < made[f"{row}/bytes"] <= 60_000 for row in ("vae", "ema"))


@pytest.mark.parametrize("paper", sorted(ROWS))
def test_the_committed_claims_are_consistent_and_the_page_shows_them(paper):
    made = claims.load(FOLDER / paper)
    assert claims.check(made) == []
    assert claims.render(made) in (FOLDER / paper / "README.md").read_text(encoding="utf-8")
