"""Networks as one file that runs without their definition, with maps and boxes: by JAX, or by ONNX Runtime."""
