"""From PyTorch to a bundle: the unroller, camera I/O in the graph, ONNX and its verification."""
