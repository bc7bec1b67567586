"""Generator against student in two processes: one student, a memory for each, and stops that leave no trace."""

from __future__ import annotations

import json

import torch

from datafree._core.files import read_tensors


def test_two_processes_play_one_game_and_a_stopped_one_goes_on_to_the_same_bits(done_in_turn):
    folder = done_in_turn[0] / "playing"
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1] and found[0]["size"] == 2 and found[0]["stopped"] == "stopped"
    for name in ("students", "losses", "agreements"):
        assert found[0][name][0] == found[0][name][1], name
    assert found[0]["images"] == 2 * 4 * 2 * 63
    whole, again = (
        read_tensors(folder / f"{name}.safetensors", kind="online-state")[0] for name in ("whole", "stopped")
    )
    clock = {"history/seconds", "history/phases"}
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole.keys() - clock)
    assert len(whole["memory/pixels"]) == len(whole["memory-1/pixels"]) == 20, "half of the bytes for each"
    assert not torch.equal(whole["memory/pixels"], whole["memory-1/pixels"]), "both made the same images"
