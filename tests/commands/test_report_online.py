"""`datafree report` about online runs: their sections appear, several seeds are summed up, a damaged file is one line."""

from __future__ import annotations

import json
import shutil

import torch

from datafree._core.files import write_tensors


def online(folder, seed: int) -> None:
    """Makes the student there one of an online run."""
    log = json.loads((folder / "run.json").read_text())
    log["settings"] |= {"seed": seed, "replay": {"replay": "reservoir"}}
    log["result"]["online"] = {"scores": [50.0, 60.0 + seed], "agreement": [70.0, 80.0], "memory_bytes": 640}
    (folder / "run.json").write_text(json.dumps(log))


def test_a_report_shows_online_runs_and_sums_up_their_seeds(command, here):
    for seed in (0, 1):
        shutil.copytree(here / "student", here / f"s{seed}")
        online(here / f"s{seed}", seed)
    images = torch.zeros(2, 3, 1, 8, 8, dtype=torch.uint8)
    write_tensors(here / "s0" / "generated.safetensors", {"pixels": images}, {"epochs": [1, 2]}, kind="generated")
    assert command("report teacher s0 s1 --out page.html").code == 0
    page = (here / "page.html").read_text()
    assert "mean and standard deviation over 2 seeds: s0, s1" in page
    assert (
        "640 bytes" in page
        and "reservoir</td>" in page
        and "Generated images over time" in page
        and "test accuracy, %" in page
    )
    assert command("report teacher s0 student --out other.html").code == 0
    assert "seeds:" not in (here / "other.html").read_text()


def test_a_report_shows_a_run_as_it_was_logged(command, here):
    line = "distill online teacher hinton8 --epochs 3 --iterations 2 --student-steps 2 --batch 32 --latent 8"
    assert command(f"{line} --data digits --out s --quiet").code == 0
    result = json.loads((here / "s" / "run.json").read_text())["result"]
    assert command("report teacher s --out page.html").code == 0
    page = (here / "page.html").read_text()
    assert (
        f"{result['memory_bytes']:,} bytes" in page and f"{result['stability']['average_scores']['last']:.2f}" in page
    )
    assert page.count("data:image/png") == 1 and page.count("<svg") >= 2 and "Generated images over time" in page


def test_generated_images_that_are_damaged_are_one_line(command, here):
    shutil.copytree(here / "student", here / "s0")
    (here / "s0" / "generated.safetensors").write_bytes(b"nothing")
    assert "generated.safetensors" in command("report teacher s0 --out page.html").line
    assert not (here / "page.html").exists()
