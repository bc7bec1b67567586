"""The process that runs one ONNX file: started by `process`, never imported.

Reads frames from standard input: settings (JSON), the file, then batches of pixels, and answers each of the last two.
Before it parses the file it gives up opening and writing files, and its memory is limited, on systems that have such
limits.
"""

import json
import os
import struct
import sys
import threading
import time

import numpy as np
import onnxruntime


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    settings = json.loads(frame())
    content = frame()
    os.chdir("/")
    parent = os.getppid()
    threading.Thread(target=leave_with, args=(parent,), daemon=True).start()
    try:
        limit(settings["memory"])
        session = session_of(content, settings["threads"])
        name, shape, batch = settings["input"], settings["shape"], settings["batch"]
        del content
        answer(answers, b"")
        while True:
            pixels = np.frombuffer(frame(), np.float32).reshape(-1, *shape)
            parts = [pixels[start : start + batch] for start in range(0, len(pixels), batch)]
            logits = [np.asarray(session.run(None, {name: part})[0]) for part in parts]
            answer(answers, np.concatenate(logits).astype(np.float32, copy=False).tobytes())
    except EOFError:
        return
    except (Exception, MemoryError) as error:  # onnxruntime's errors have no common base class but Exception
        answer(answers, (str(error) or type(error).__name__).encode(), b"E")


def session_of(content: bytes, threads: int):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.add_session_config_entry(
        "session.load_model_format", "ONNX"
    )  # not onnxruntime's own format, which was not checked
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def limit(memory: int) -> None:
    """Forbids opening and writing files, and limits further memory to this many bytes."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    if sys.platform == "linux":
        hard_limit = resource.getrlimit(resource.RLIMIT_AS)[1]  # the user may have set one (ulimit -v)
        limit_bytes = USED + memory if hard_limit == resource.RLIM_INFINITY else min(USED + memory, hard_limit)
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def address_space() -> int:
    """Bytes of address space of this process; 0 if unknown."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


USED = address_space()


def leave_with(parent: int) -> None:
    """Ends this process soon after its parent, even during a run."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(0)


def frame() -> bytes:
    (size,) = struct.unpack("<Q", exactly(8))
    return exactly(size)


def exactly(size: int) -> bytes:
    data = sys.stdin.buffer.read(size)
    if len(data) < size:
        raise EOFError
    return data


def answer(file, data: bytes, kind: bytes = b"D") -> None:
    file.write(kind + struct.pack("<Q", len(data)))
    file.write(data)
    file.flush()


if __name__ == "__main__":
    main()
