"""The metrics, against PSNR written anew and the figures known of the test sets."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from derain.training.evaluate import derain_with, evaluate
from derain.training.models import Branch, Prediction, build, size_multiple
from derain.training.models.weights import load
from derain.training.readers import Pair, read_pairs
from derain.training.scores import EQUAL, METRICS, luma, score


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    difference = np.asarray(image, np.float64) - np.asarray(truth, np.float64)
    return 20 * np.log10(255) - 10 * np.log10((difference**2).mean())


def y_channel(rgb: np.ndarray) -> np.ndarray:
    """MATLAB's rgb2ycbcr: 16 + (65.481 R + 128.553 G + 24.966 B) / 255."""
    red, green, blue = (rgb[..., channel].astype(np.float64) for channel in range(3))
    return 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255


@pytest.fixture
def folders(tmp_path: Path, picture) -> tuple[Path, Path]:
    for name in ("rainy", "clean"):
        (tmp_path / name).mkdir()
    for index in range(2):
        clean = picture(index)
        rainy = np.clip(clean.astype(int) + 30 * (np.arange(64) % 5 == 0)[None, :, None], 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "clean" / f"{index}.png"), clean[..., ::-1])
        cv2.imwrite(str(tmp_path / "rainy" / f"{index}.png"), rainy[..., ::-1])
    return tmp_path / "rainy", tmp_path / "clean"


def test_scores_are_scikit_image_s(picture):
    """Called anew, on floats of 0 to 1, as a paper's script would."""
    truth = picture(3)
    image = np.clip(truth.astype(int) + np.random.default_rng(0).integers(-40, 40, truth.shape), 0, 255).astype(
        np.uint8
    )
    ours = score(image, truth)
    a, b = image / 255.0, truth / 255.0
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    assert ours["psnr_rgb"] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-3)
    assert ours["ssim_rgb"] == pytest.approx(structural_similarity(b, a, channel_axis=2, **wang), abs=1e-4)
    y_a, y_b = ((16 + picture @ np.array([65.481, 128.553, 24.966])) / 255 for picture in (a, b))
    assert ours["psnr_y"] == pytest.approx(peak_signal_noise_ratio(y_b, y_a, data_range=1.0), abs=1e-3)
    assert ours["ssim_y"] == pytest.approx(structural_similarity(y_b, y_a, **wang), abs=1e-4)


@pytest.mark.parametrize(("width", "height"), [(61, 47), (33, 25)])
def test_a_frame_of_any_size_is_derained_as_if_its_edge_went_on(width, height, picture, lively_weights):
    network = load(str(lively_weights("daiam-nano"))).network
    image = picture(1, width, height)
    multiple = size_multiple(network)
    padded = np.pad(image, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")
    with torch.inference_mode():
        whole = network(torch.from_numpy(padded.astype(np.float32) / 255).permute(2, 0, 1)[None])[0].image
    expected = (whole[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()[:height, :width]
    np.testing.assert_array_equal(derain_with(network)(image), expected)


def test_an_output_that_is_not_finite_gets_no_score(picture):
    network = build("daiam-nano").eval()
    with torch.no_grad():
        network.global_decoder.out.bias.fill_(float("inf"))
    with pytest.raises(ValueError, match="the derained image is not finite"):
        derain_with(network)(picture(1))


@pytest.mark.parametrize(("folder", "rgb", "y"), [("light", 25.52, 26.90), ("heavy", 12.13, 13.55)])
def test_the_known_figures_of_rain100_come_out(data_root, folder, rgb, y):
    pairs = list(read_pairs(data_root / "rain100" / folder, data_root / "rain100" / "clean"))
    assert len(pairs) == 100
    assert np.mean([psnr(pair.rainy, pair.clean) for pair in pairs]) == pytest.approx(rgb, abs=0.01)
    luminance = [psnr(luma(pair.rainy), luma(pair.clean)) for pair in pairs]
    assert np.mean(luminance) == pytest.approx(y, abs=0.01)
    scores = score(pairs[0].rainy, pairs[0].clean)
    assert scores["psnr_rgb"] == pytest.approx(psnr(pairs[0].rainy, pairs[0].clean))
    assert scores["psnr_y"] == pytest.approx(luminance[0])


def test_both_psnrs_are_those_written_anew(folders):
    for pair in read_pairs(*folders):
        scores = score(pair.rainy, pair.clean)
        assert scores["psnr_rgb"] == pytest.approx(psnr(pair.rainy, pair.clean))
        assert scores["psnr_y"] == pytest.approx(psnr(y_channel(pair.rainy), y_channel(pair.clean)))


def test_luma_spans_16_to_235():
    ends = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    assert luma(ends)[0].tolist() == pytest.approx([16, 235, 81.481])


def test_ssim_is_1_for_equal_images_and_hardly_anything_for_unrelated_ones(picture):
    image = picture()
    same = score(image, image)
    assert same["ssim_rgb"] == same["ssim_y"] == 1
    assert same["psnr_rgb"] == same["psnr_y"] == np.inf
    noise = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    assert max(score(noise, noise[::-1])[name] for name in ("ssim_rgb", "ssim_y")) < 0.05


def test_ssim_of_flat_images_is_the_formulas_luminance_term():
    a, b = 100, 150
    images = [np.full((20, 20, 3), value, np.uint8) for value in (a, b)]
    c1 = (0.01 * 255) ** 2
    assert score(*images)["ssim_rgb"] == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-6)


def test_a_perfect_deraining_scores_the_truth_and_means_are_over_images(folders):
    pairs = list(read_pairs(*folders))
    truth = {pair.rainy.tobytes(): pair.clean for pair in pairs}
    half = evaluate(lambda rainy: (rainy.astype(int) + truth[rainy.tobytes()]).__floordiv__(2).astype(np.uint8), pairs)
    assert [image["name"] for image in half["images"]] == ["0", "1"]
    for metric in METRICS:
        for side in ("input", "output"):
            assert half[metric][side] == pytest.approx(np.mean([image[side][metric] for image in half["images"]]))
    assert half["psnr_rgb"]["output"] == pytest.approx(half["psnr_rgb"]["input"] + 20 * np.log10(2), abs=0.3)
    assert evaluate(lambda rainy: truth[rainy.tobytes()], pairs)["ssim_rgb"]["output"] == 1


def test_unmatched_names_sizes_and_doubles_are_refused_by_name(folders, picture):
    rainy, clean = folders
    (rainy / "1.png").rename(rainy / "9.png")
    with pytest.raises(ValueError, match=r"clean/1\.png has no partner of that name in .*rainy: expected one file a p"):
        list(read_pairs(rainy, clean))
    (rainy / "9.png").rename(rainy / "1.png")
    cv2.imwrite(str(rainy / "1.png"), picture(1, width=60))
    with pytest.raises(ValueError, match=r"rainy/1\.png is 60x48 and .*clean/1\.png 64x48: expected one size a pair"):
        list(read_pairs(rainy, clean))
    with pytest.raises(FileNotFoundError, match=r"no images in '.*nowhere'"):
        list(read_pairs(rainy, clean / "nowhere"))
    cv2.imwrite(str(rainy / "1.jpg"), picture(1))
    with pytest.raises(ValueError, match=r"rainy/1\.png and 1\.jpg have one name"):
        list(read_pairs(rainy, clean))


class Halve(torch.nn.Module):
    """Halves its input and refuses sizes that are no multiple of 4."""

    scale = 4

    def forward(self, x):
        assert x.shape[2] % 4 == x.shape[3] % 4 == 0
        return Prediction(x / 2, {"rain": Branch(None, x, x)}), None


def test_a_pair_too_small_for_ssim_is_named():
    tiny = np.zeros((10, 40, 3), np.uint8)
    with pytest.raises(ValueError, match=r"^a is 40x10: SSIM wants 11x11 at least, take it out$"):
        evaluate(lambda image: image, [Pair("a", tiny, tiny)])


def test_a_pair_that_what_derains_refuses_is_named(picture):
    def of_one_size(image):
        if image.shape[1] != 64:
            raise ValueError("frames are 60x48, the bundle expects 64x48")
        return image

    pairs = [Pair(str(width), picture(width=width), picture(width=width)) for width in (64, 60)]
    with pytest.raises(ValueError, match=r"^60: frames are 60x48, the bundle expects 64x48$"):
        evaluate(of_one_size, pairs)


def test_images_of_any_size_are_padded_for_the_network_and_cropped_back(picture):
    for width, height in ((64, 48), (61, 47), (17, 18)):
        image = picture(width=width, height=height)
        halved = derain_with(Halve())(image)
        assert np.abs(halved.astype(float) - image / 2).max() <= 0.51


def test_a_network_derains_a_picture_as_it_does_its_tensor(picture, lively):
    network, image = lively(build("daiam-nano", encoder_steps=2)), picture()
    with torch.no_grad():
        x = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
        expected = (network(x)[0].image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(derain_with(network)(image), expected)
    assert np.abs(expected.astype(int) - image).mean() > 5


def test_a_pair_keeps_rgb_order(folders):
    pair = next(iter(read_pairs(*folders)))
    assert isinstance(pair, Pair)
    bgr = cv2.imread(str(folders[1] / "0.png"))
    np.testing.assert_array_equal(pair.clean, bgr[..., ::-1])


def test_a_pair_of_equal_images_leaves_a_mean_of_the_others(folders, picture):
    pairs = list(read_pairs(*folders))
    alone = evaluate(lambda image: image, pairs)["psnr_rgb"]["input"]
    equal = Pair("equal", picture(9), picture(9))
    both = evaluate(lambda image: image, [*pairs, equal])["psnr_rgb"]["input"]
    assert both == pytest.approx((alone * len(pairs) + EQUAL) / (len(pairs) + 1))
    assert evaluate(lambda image: image, [equal])["psnr_rgb"]["input"] == np.inf
