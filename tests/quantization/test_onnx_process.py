"""A checked ONNX file runs in a process of its own: what it answers, and what ends it."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper, numpy_helper

from datafree._core.errors import UserError
from datafree.releases.onnx_session import Process, check, process
from datafree.releases.onnx_session.checking import Program
from datafree.releases.quantized import Exported

PATH, SHAPE = Path("model.onnx"), (1, 8, 8)
WEIGHT = np.arange(640, dtype=np.float32).reshape(64, 10) / 640


def content(*middle, initializers=(), source="pixels") -> bytes:
    """Logits pixels @ WEIGHT, after `middle`."""
    nodes = [
        *middle,
        helper.make_node("Flatten", [source], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    ends = [helper.make_tensor_value_info(*own) for own in (("pixels", 1, ["n", 1, 8, 8]), ("logits", 1, ["n", 10]))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(WEIGHT, "w"), *initializers])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 10
    return made.SerializeToString()


HARMLESS = content()


@pytest.fixture(scope="module")
def program() -> Program:
    return check(HARMLESS, PATH, SHAPE, 10)


@pytest.fixture
def opened(program):
    own = Process(program, HARMLESS, 1)
    yield own
    own.close()


def test_it_answers_for_any_number_of_images(opened):
    rng = np.random.default_rng(0)
    for count in (1, 63, 64, 65, 200):
        pixels = rng.random((count, *SHAPE), dtype=np.float32)
        np.testing.assert_allclose(opened.run(pixels), pixels.reshape(count, 64) @ WEIGHT, rtol=1e-5, atol=1e-5)


def test_two_threads_and_two_files_do_not_mix_their_answers(opened, program):
    other, wrong = Process(program, HARMLESS, 1), []

    def ask(own: Process, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            pixels = rng.random((seed + 1, *SHAPE), dtype=np.float32)
            if not np.allclose(own.run(pixels), pixels.reshape(seed + 1, 64) @ WEIGHT, rtol=1e-4, atol=1e-4):
                wrong.append(seed)

    threads = [threading.Thread(target=ask, args=(own, seed)) for seed, own in enumerate((opened, opened, other))]
    [own.start() for own in threads]
    [own.join() for own in threads]
    other.close()
    assert wrong == []


def test_it_ends_with_the_network_that_it_is_of(program):
    module = Exported(program, HARMLESS, 1)
    assert module(torch.zeros(0, *SHAPE)).shape == (0, 10) and module(torch.zeros(2, *SHAPE)).shape == (2, 10)
    child = module.process.process
    del module
    gc.collect()
    assert child.poll() is not None


def test_images_of_another_shape_are_one_line(program):
    module = Exported(program, HARMLESS, 1)
    with pytest.raises(UserError, match=r"got images of shape \(3, 8, 8\), expected \(1, 8, 8\)"):
        module(torch.zeros(2, 3, 8, 8))
    module.process.close()


def refused(program: Program, hostile: bytes, **limits) -> str:
    """What opening and running says of a file that the check never saw."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in limits.items():
            patch.setattr(process, name, value)
        with pytest.raises(UserError) as caught:
            Process(program, hostile, 1).run(np.zeros((2, *SHAPE), np.float32))
    line = str(caught.value)
    assert "\n" not in line and line.endswith("; get it again, or quantize again")
    return line


def body():
    ends = [helper.make_tensor_value_info(*own) for own in (("i", 7, []), ("c", 9, []), ("a", 1, None), ("b", 1, None))]
    nodes = [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Sin", ["a"], ["b"])]
    return helper.make_graph(nodes, "body", ends[:3], [helper.make_tensor_value_info("d", 9, []), ends[3]])


def test_a_hang_that_the_check_did_not_see_is_stopped(program):
    turns = numpy_helper.from_array(np.array(1 << 62), "turns")
    loop = helper.make_node("Loop", ["turns", "", "pixels"], ["x"], body=body())
    hostile = content(loop, initializers=[turns], source="x")
    began = time.monotonic()
    assert "model.onnx was stopped after 3 s without an answer" in refused(program, hostile, START=3.0)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("classes", [0, 6, 11, 1000])
def test_another_number_of_logits_is_one_line_at_once_and_ends_the_process(program, classes):
    cut = numpy_helper.from_array(np.resize(WEIGHT, (64, classes)), "v")
    nodes = [helper.make_node("Flatten", ["pixels"], ["f"]), helper.make_node("MatMul", ["f", "v"], ["other"])]
    made = onnx.ModelProto.FromString(content(*nodes, initializers=[cut]))
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("other", 1, ["n", classes]))
    opened, began = Process(program, made.SerializeToString(), 1), time.monotonic()
    with pytest.raises(UserError) as caught:
        opened.run(np.zeros((2, *SHAPE), np.float32))
    assert str(caught.value) == (
        f"onnxruntime cannot run model.onnx: it returned {8 * classes:,} bytes of logits, expected 80; "
        "get it again, or quantize again"
    )
    assert time.monotonic() - began < 10 and opened.process.poll() is not None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("os.close(1); time.sleep(99)", "it stopped answering"),
        ("os.close(0); os.close(1); time.sleep(99)", "it stopped answering"),
        ("os.write(1, b'Q' + bytes(8)); time.sleep(99)", "its answer is not logits"),
        ("os.write(1, b'D' + bytes(7) + bytes([255])); time.sleep(99)", "it returned 18,374,686,479,671,623,680 bytes"),
        ("sys.exit(3)", "it ended with code 3"),
    ],
)
def test_a_process_that_answers_otherwise_is_one_line_at_once(program, answer, reason, tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    worker.write_text(f"import os, sys, time\n{answer}\n")
    monkeypatch.setattr(process, "WORKER", worker)
    monkeypatch.setattr(process, "ENDING", 0.2)
    began = time.monotonic()
    with pytest.raises(
        UserError, match=f"onnxruntime cannot run model.onnx: {reason}.*; get it again, or quantize again$"
    ):
        Process(program, HARMLESS, 1)
    assert time.monotonic() - began < 10


def test_memory_that_the_check_did_not_see_is_refused(program):
    size, axis = (numpy_helper.from_array(np.array(own), name) for own, name in (([1, 1 << 26, 1, 1], "s"), ([1], "a")))
    nodes = [helper.make_node("Expand", ["pixels", "s"], ["e"]), helper.make_node("ReduceMax", ["e", "a"], ["x"])]
    hostile = content(*nodes, initializers=[size, axis], source="x")
    line = refused(program, hostile)
    assert "needs more memory than its operators account for" in line or "too little memory" in line


@pytest.mark.parametrize("place", ["secret", ".ssh/id_rsa"])
def test_no_file_can_be_read_even_by_what_the_check_did_not_see(program, place, tmp_path, monkeypatch):
    """Neither the working directory's nor, by an absolute path, another one's."""
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(bytes(64 * 10 * 4))
    monkeypatch.chdir(tmp_path)
    for location in (place, str(file)):
        tensor = TensorProto(name="v", data_type=1, dims=[64, 10], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        add = helper.make_node("MatMul", ["f", "v"], ["unused"])
        hostile = content(helper.make_node("Flatten", ["pixels"], ["f"]), add, initializers=[tensor])
        assert "onnxruntime cannot run model.onnx: " in refused(program, hostile)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux")
def test_the_process_can_open_no_file_and_its_memory_is_limited(opened, program):
    limits = Path(f"/proc/{opened.process.pid}/limits").read_text().splitlines()
    table = {line[:25].strip(): line[25:].split()[0] for line in limits}
    assert table["Max open files"] == table["Max file size"] == table["Max core file size"] == "0"
    assert 0 < int(table["Max address space"]) < process.memory_limit(program, 1) + (4 << 30)
    assert os.readlink(f"/proc/{opened.process.pid}/cwd") == "/"


def test_a_process_that_dies_is_one_line_and_stays_closed(opened):
    opened.process.send_signal(signal.SIGSEGV)
    opened.process.wait()
    with pytest.raises(
        UserError, match=r"onnxruntime cannot run model.onnx: it was ended by SIGSEGV, a crash or too little"
    ):
        opened.run(np.zeros((2, *SHAPE), np.float32))
    with pytest.raises(UserError, match="is no longer open in this process; open it again"):
        opened.run(np.zeros((2, *SHAPE), np.float32))


def test_an_interrupt_ends_the_process_and_not_a_later_answer(opened, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(opened, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened.run(np.zeros((2, *SHAPE), np.float32))
    assert opened.process.poll() is not None


def test_a_large_network_is_run_on_fewer_images_at_a_time():
    size = numpy_helper.from_array(np.array([1, 1 << 18, 1, 1]), "s")
    nodes = [helper.make_node("Tile", ["pixels", "s"], ["t"]), helper.make_node("ReduceMean", ["t", "axis"], ["x"])]
    axis = numpy_helper.from_array(np.array([1]), "axis")
    made = content(*nodes, initializers=[size, axis], source="x")
    program = check(made, PATH, SHAPE, 10)
    assert program.batch == 15 and program.cost(15).peak <= 1 << 30
    own, pixels = Process(program, made, 1), np.random.default_rng(0).random((17, *SHAPE), dtype=np.float32)
    np.testing.assert_allclose(own.run(pixels), pixels.reshape(17, 64) @ WEIGHT, rtol=1e-3)
    own.close()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_a_file_runs_under_a_limit_of_memory_that_is_lower_than_its_own():
    """`ulimit -v` of the user: a process may not raise it, and need not."""
    settings = {"threads": 1, "memory": 1 << 40, "input": "pixels", "shape": SHAPE, "batch": 4}
    with subprocess.Popen(
        [sys.executable, str(Path(process.__file__).with_name("worker.py"))], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30)),
    ) as worker:  # fmt: skip
        frames = [json.dumps(settings).encode(), HARMLESS, np.zeros((1, *SHAPE), np.float32).tobytes()]
        answers, _ = worker.communicate(b"".join(struct.pack("<Q", len(own)) + own for own in frames))
    assert answers == b"D" + bytes(8) + b"D" + struct.pack("<Q", 40) + bytes(40)
