"""ONNX Runtime, told to keep what it learns to itself.

From 1.31 on its wheels report to Microsoft unless told otherwise, and read that when they are imported (Privacy.md of
the wheel). A serving system must not tell others what it serves, so everything of ours imports ONNX Runtime from here.
This is the one module with an effect at import: later would be too late.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime import InferenceSession, RunOptions
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

__all__ = ["InferenceSession", "InvalidArgument", "RunOptions", "ort"]
