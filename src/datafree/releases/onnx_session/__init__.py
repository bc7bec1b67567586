"""ONNX files from strangers: checked from their bytes (`check`), then run in a process with limits (`Process`).

`wire` reads protobuf, `fields` the fields that are allowed, `graph` what is in the file, `values` with `elementwise`,
`shaping` and `layers` what every operator returns, `cost` what it takes, `checking` the limits, `process` and `worker` the
running. None of it needs torch, onnx or onnxruntime, but for the worker.
"""

from .checking import MAX_BYTES, Program, check
from .process import Process

__all__ = ["MAX_BYTES", "Process", "Program", "check"]
