"""PSNR and SSIM of an image against its truth, in RGB and on the Y channel, as the deraining papers report them."""

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

SSIM_WINDOW = 11
"""Rows and columns of the Gaussian window, cut at 3.5 σ."""

EQUAL = 100.0
"""dB that a pair of equal images counts as in a mean; alone its PSNR has no end."""

METRICS = ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y")


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Y of BT.601 in limited range, 16…235, unrounded: the "Y channel" of the deraining papers (MATLAB's rgb2ycbcr).

    `image` is RGB uint8 [H, W, 3], the result [H, W].
    """
    weights = np.array([65.481, 128.553, 24.966]) / 255
    return image @ weights + 16  # type: ignore[no-any-return]


def ssim(image: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Structural similarity of Wang et al. 2004, Gaussian window, σ = 1.5, the mean over channels; 1 if equal.

    Both [H, W, 3] or [H, W], of values in 0…255.
    """
    channels = 2 if image.ndim == 3 else None
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(truth, image, data_range=255, channel_axis=channels, **gaussian))


def score(image: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, float]:
    """Each of `METRICS` of two RGB uint8 images [H, W, 3]; PSNR in dB with a peak of 255, infinite if equal."""
    y, y_truth = luma(image), luma(truth)
    with np.errstate(divide="ignore"):
        return {
            "psnr_rgb": float(peak_signal_noise_ratio(truth, image, data_range=255)),
            "ssim_rgb": ssim(image, truth),
            "psnr_y": float(peak_signal_noise_ratio(y_truth, y, data_range=255)),
            "ssim_y": ssim(y, y_truth),
        }
