"""Networks as ONNX files, in float32 or 8-bit integers."""

from polyface.export.onnx import export_onnx

__all__ = ["export_onnx"]
