#include "convert.hpp"

#include <array>
#include <opencv2/imgproc.hpp>

#include "derain/error.hpp"
#include "derain/stream/streams.hpp"

namespace derain {

namespace {

constexpr std::size_t pictures_in_advance = 2;

/// The affine map from R'G'B' in 0..255 to 8-bit Y'CbCr, 3 by 4 with the offset last; columns are B, G, R.
///
/// Y = Kr·R + (1-Kr-Kb)·G + Kb·B, Cb = (B-Y) / (2·(1-Kb)), Cr = (R-Y) / (2·(1-Kr)); chroma is centred at 128, and the
/// limited range scales luma by 219/255 from 16 and chroma by 224/255 (Rec. ITU-R BT.601-7 sections 2.5.1 to 2.5.4,
/// Rec. ITU-R BT.709-6 items 3.2 to 3.5, full range as JFIF, Rec. ITU-T T.871).
cv::Matx34d bgr_to_yuv(const FrameSpec& spec) {
    const bool bt601 = spec.matrix == "bt601";
    const bool full = spec.range == "full";
    const double kr = bt601 ? 0.299 : 0.2126;
    const double kb = bt601 ? 0.114 : 0.0722;
    const double kg = 1 - kr - kb;
    const double luma = full ? 1 : 219.0 / 255;
    const double cb = (full ? 1 : 224.0 / 255) / (2 * (1 - kb));
    const double cr = (full ? 1 : 224.0 / 255) / (2 * (1 - kr));
    return {luma * kb,     luma * kg, luma * kr,     full ? 0.0 : 16.0,  //
            cb * (1 - kb), cb * -kg,  cb * -kr,      128,                //
            cr * -kb,      cr * -kg,  cr * (1 - kr), 128};
}

cv::Matx34d yuv_to_bgr(const FrameSpec& spec) {
    const cv::Matx34d forward = bgr_to_yuv(spec);
    const cv::Matx33d inverse = forward.get_minor<3, 3>(0, 0).inv();
    const cv::Vec3d offset = inverse * cv::Vec3d(forward(0, 3), forward(1, 3), forward(2, 3));
    cv::Matx34d backward;
    for (int row = 0; row < 3; ++row) {
        for (int column = 0; column < 3; ++column) {
            backward(row, column) = inverse(row, column);
        }
        backward(row, 3) = -offset(row);
    }
    return backward;
}

std::string size(int width, int height) { return std::to_string(width) + "x" + std::to_string(height); }

}  // namespace

cv::Mat view(std::span<std::byte> image, int rows, int columns, int channels) {
    return {rows, columns, CV_8UC(channels), image.data()};
}

void from_bgr(const cv::Mat& bgr, const FrameSpec& spec, std::span<std::byte> image, const std::string& name) {
    if (bgr.cols != spec.width || bgr.rows != spec.height) {
        throw Error(name + ": frames are " + size(bgr.cols, bgr.rows) + ", the bundle expects " +
                    size(spec.width, spec.height) +
                    ": give it those, or export one for this size with `derain export … --size " +
                    size(bgr.cols, bgr.rows) + "`");
    }
    if (spec.pixels == Pixels::bgr8) {
        if (bgr.data != reinterpret_cast<const uchar*>(image.data())) {
            bgr.copyTo(view(image, spec.height, spec.width, 3));
        }
        return;
    }
    if (spec.pixels == Pixels::rgb8) {
        cv::cvtColor(bgr, view(image, spec.height, spec.width, 3), cv::COLOR_BGR2RGB);
        return;
    }
    cv::Mat yuv;
    bgr.convertTo(yuv, CV_32F);
    cv::transform(yuv, yuv, bgr_to_yuv(spec));
    std::array<cv::Mat, 3> planes;
    cv::split(yuv, planes);
    const bool nv12 = spec.pixels == Pixels::nv12;
    const int rows = nv12 ? spec.height / 2 : spec.height;
    for (auto* plane : {&planes[1], &planes[2]}) {
        cv::resize(*plane, *plane, {spec.width / 2, rows}, 0, 0, cv::INTER_AREA);
        plane->convertTo(*plane, CV_8U);  // rounds to the nearest and clips
    }
    planes[0].convertTo(planes[0], CV_8U);
    cv::Mat chroma;
    cv::merge(std::array{planes[1], planes[2]}, chroma);
    if (nv12) {
        planes[0].copyTo(view(image, spec.height, spec.width, 1));
        chroma.copyTo(view(image.subspan(planes[0].total()), rows, spec.width / 2, 2));
    } else {
        cv::merge(std::array{chroma.reshape(1), planes[0]}, view(image, spec.height, spec.width, 2));
    }
}

cv::Mat to_bgr(std::span<const std::byte> image, const FrameSpec& spec) {
    // OpenCV has no view that promises not to write; nothing below writes through these.
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast)
    const std::span bytes(const_cast<std::byte*>(image.data()), image.size());
    if (spec.pixels == Pixels::bgr8) {
        return view(bytes, spec.height, spec.width, 3);
    }
    cv::Mat bgr;
    if (spec.pixels == Pixels::rgb8) {
        cv::cvtColor(view(bytes, spec.height, spec.width, 3), bgr, cv::COLOR_RGB2BGR);
        return bgr;
    }
    cv::Mat luma;
    cv::Mat chroma;
    if (spec.pixels == Pixels::nv12) {
        luma = view(bytes, spec.height, spec.width, 1);
        chroma = view(bytes.subspan(luma.total()), spec.height / 2, spec.width / 2, 2);
    } else {
        std::array<cv::Mat, 2> planes;
        cv::split(view(bytes, spec.height, spec.width, 2), planes);
        luma = planes[1];
        chroma = planes[0].reshape(2);
    }
    cv::resize(chroma, chroma, {spec.width, spec.height}, 0, 0, cv::INTER_NEAREST);
    std::array<cv::Mat, 2> parts;
    cv::split(chroma, parts);
    cv::Mat yuv;
    cv::merge(std::array{luma, parts[0], parts[1]}, yuv);
    yuv.convertTo(yuv, CV_32F);
    cv::transform(yuv, yuv, yuv_to_bgr(spec));
    yuv.convertTo(bgr, CV_8U);
    return bgr;
}

cv::Mat scaled(const cv::Mat& bgr, const FrameSpec& spec) {
    cv::Mat resized;
    cv::resize(bgr, resized, {spec.width, spec.height}, 0, 0, cv::INTER_AREA);
    return resized;
}

ToOutput between(const FrameSpec& input, const FrameSpec& output) {
    if (input.same_format(output)) {
        return [](const Picture& picture) { return picture; };
    }
    return [input, output, pool = Pool::make(output.bytes(), pictures_in_advance)](const Picture& picture) {
        cv::Mat bgr = to_bgr(picture.bytes(), input);
        if (bgr.cols != output.width || bgr.rows != output.height) {
            bgr = scaled(bgr, output);
        }
        Picture converted = pool->take();
        from_bgr(bgr, output, converted.writable(), "the raw frame");
        return converted;
    };
}

}  // namespace derain
