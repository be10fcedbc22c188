"""Which packages derain's extras bring, as pyproject.toml lists them: for `derain doctor` and for missing imports."""

REQUIREMENTS: dict[str, dict[str, str]] = {
    "cpu": {"onnxruntime": "onnxruntime"},
    "train": {
        "torch": "torch",
        "lightning": "lightning",
        "PIL": "pillow",
        "yaml": "pyyaml",
        "safetensors": "safetensors",
        "skimage": "scikit-image",
        "tensorboard": "tensorboard",
    },
    "export": {
        "torch": "torch",
        "ml_dtypes": "ml_dtypes",
        "onnx": "onnx",
        "onnxruntime": "onnxruntime",
        "onnxscript": "onnxscript",
        "safetensors": "safetensors",
        "skimage": "scikit-image",
    },
    "serve": {"fastapi": "fastapi", "prometheus_client": "prometheus-client", "uvicorn": "uvicorn"},
    "demo": {"sklearn": "scikit-learn"},
}
"""For each extra, the modules to import and the distributions that hold them."""

EXTRAS = {
    "demo": "demo",
    "synthesize": "train",
    "train": "train",
    "average": "train",
    "evaluate": "train",
    "export": "export",
    "calibrate": "export",
    "build": "export",
    "verify": "export",
    "inspect": "export",
}
"""Which extra brings all that a verb needs, where it needs one."""


def extra_for(module: str, verb: str) -> str | None:
    """The extra to install where `verb` cannot import `module`; None where none brings it: a fault of its own."""
    holders = [extra for extra, modules in REQUIREMENTS.items() if module in modules]
    return EXTRAS.get(verb, holders[0]) if holders else None
