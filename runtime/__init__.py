"""From a bundle to a stream: frames, sources, sinks, engines and the pipeline. Needs neither torch nor onnx."""
