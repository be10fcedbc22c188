"""The bytes of a camera's frame: formats, and the colour arithmetic between RGB and YCbCr."""

from enum import StrEnum

import numpy as np
import numpy.typing as npt


class PixelFormat(StrEnum):
    """The bytes a camera delivers, uint8."""

    BGR8 = "bgr8"
    RGB8 = "rgb8"
    NV12 = "nv12"
    UYVY = "uyvy"

    def frame_shape(self, width: int, height: int) -> tuple[int, ...]:
        """The tensor's shape: [1, H, W, 3] for bgr8 and rgb8, [1, H·3/2, W] for nv12, [1, H, W, 2] for uyvy.

        Raises ValueError where chroma is shared by two columns (nv12, uyvy) or two rows (nv12) and the size is odd.
        """
        if self in (PixelFormat.BGR8, PixelFormat.RGB8):
            return 1, height, width, 3
        if width % 2:
            raise ValueError(f"width {width} is odd, {self} needs an even width: use {width - 1} or {width + 1}")
        if self is PixelFormat.UYVY:
            return 1, height, width, 2
        if height % 2:
            raise ValueError(f"height {height} is odd, nv12 needs an even height: use {height - 1} or {height + 1}")
        return 1, height * 3 // 2, width


class ColorMatrix(StrEnum):
    """Which luma weights YCbCr was made with: Rec. ITU-R BT.601-7 or BT.709-6."""

    BT601 = "bt601"
    BT709 = "bt709"


class ColorRange(StrEnum):
    """full: Y and chroma over 0..255; limited: Y over 16..235, chroma over 16..240."""

    FULL = "full"
    LIMITED = "limited"


# Kr and Kb, the luma weights of red and blue: BT.601-7 section 2.5.1, BT.709-6 item 3.2.
_LUMA_WEIGHTS = {ColorMatrix.BT601: (0.299, 0.114), ColorMatrix.BT709: (0.2126, 0.0722)}


def rgb_to_yuv(matrix: ColorMatrix, range_: ColorRange) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The affine map from R'G'B' in 0..255 to 8-bit Y'CbCr: `yuv = m @ rgb + offset`.

    Y = Kr·R + (1-Kr-Kb)·G + Kb·B, Cb = (B-Y) / (2·(1-Kb)), Cr = (R-Y) / (2·(1-Kr)); chroma is centred at 128, and the
    limited range scales luma by 219/255 from 16 and chroma by 224/255 (Rec. ITU-R BT.601-7 sections 2.5.1 to 2.5.4,
    Rec. ITU-R BT.709-6 items 3.2 to 3.5, full range as JFIF, Rec. ITU-T T.871).

    Returns `m` of shape [3, 3], rows Y, Cb, Cr and columns R, G, B, and `offset` of shape [3]. The way back is
    `rgb = inv(m) @ (yuv - offset)`.
    """
    kr, kb = _LUMA_WEIGHTS[matrix]
    luma = np.array([kr, 1 - kr - kb, kb])
    cb = (np.array([0.0, 0.0, 1.0]) - luma) / (2 * (1 - kb))
    cr = (np.array([1.0, 0.0, 0.0]) - luma) / (2 * (1 - kr))
    if range_ is ColorRange.FULL:
        return np.stack([luma, cb, cr]), np.array([0.0, 128.0, 128.0])
    return np.stack([luma * 219, cb * 224, cr * 224]) / 255, np.array([16.0, 128.0, 128.0])
