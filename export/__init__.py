"""Pack -> fold -> graph -> verified ONNX file."""
