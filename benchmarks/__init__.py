"""Eager, compiled, ONNX Runtime and TensorRT on the same inputs: one table."""
