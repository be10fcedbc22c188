"""Trees of tensors and plain values."""

import torch


def assert_same(a: object, b: object) -> None:
    """Both are alike to the bit, and their tensors lie alike in memory."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b) and a.stride() == b.stride()
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b
