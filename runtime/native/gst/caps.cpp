#include "caps.hpp"

#include "images.hpp"

namespace derain::gst {

namespace {

/// The frames' matrix and range, with the transfer function and primaries that go by the matrix's name.
GstVideoColorimetry colorimetry_of(const FrameSpec& spec) {
    const bool bt709 = spec.matrix == "bt709";
    return {.range = spec.range == "full" ? GST_VIDEO_COLOR_RANGE_0_255 : GST_VIDEO_COLOR_RANGE_16_235,
            .matrix = bt709 ? GST_VIDEO_COLOR_MATRIX_BT709 : GST_VIDEO_COLOR_MATRIX_BT601,
            .transfer = bt709 ? GST_VIDEO_TRANSFER_BT709 : GST_VIDEO_TRANSFER_BT601,
            .primaries = bt709 ? GST_VIDEO_COLOR_PRIMARIES_BT709 : GST_VIDEO_COLOR_PRIMARIES_SMPTE170M};
}

GstVideoInfo info_of(const FrameSpec& spec) {
    GstVideoInfo info{};
    gst_video_info_set_format(&info, gst_video_format_from_string(format_of(spec.pixels)),
                              static_cast<guint>(spec.width), static_cast<guint>(spec.height));
    if (GST_VIDEO_INFO_IS_YUV(&info)) {
        info.colorimetry = colorimetry_of(spec);
    }
    return info;
}

/// Caps are matched by the words in them, so this is every word for the same matrix and range, `first`'s before others.
GValue words_for(const GstVideoColorimetry& first) {
    GValue words = G_VALUE_INIT;
    g_value_init(&words, GST_TYPE_LIST);
    const auto add = [&words](const GstVideoColorimetry& colorimetry) {
        GValue word = G_VALUE_INIT;
        g_value_init(&word, G_TYPE_STRING);
        g_value_take_string(&word, gst_video_colorimetry_to_string(&colorimetry));
        gst_value_list_append_and_take_value(&words, &word);
    };
    add(first);
    for (int transfer = GST_VIDEO_TRANSFER_UNKNOWN; transfer <= GST_VIDEO_TRANSFER_BT601; ++transfer) {
        for (int primaries = GST_VIDEO_COLOR_PRIMARIES_UNKNOWN; primaries <= GST_VIDEO_COLOR_PRIMARIES_EBU3213;
             ++primaries) {
            add({.range = first.range,
                 .matrix = first.matrix,
                 .transfer = static_cast<GstVideoTransferFunction>(transfer),
                 .primaries = static_cast<GstVideoColorPrimaries>(primaries)});
        }
    }
    return words;
}

}  // namespace

void describe(GstCaps& caps, const FrameSpec& spec) {
    const GstVideoInfo info = info_of(spec);
    gst_caps_set_simple(&caps, "format", G_TYPE_STRING, format_of(spec.pixels), "width", G_TYPE_INT, spec.width,
                        "height", G_TYPE_INT, spec.height, nullptr);
    GValue words = words_for(info.colorimetry);
    for (guint index = 0; index < gst_caps_get_size(&caps); ++index) {
        GstStructure* structure = gst_caps_get_structure(&caps, index);
        gst_structure_remove_field(structure, "chroma-site");
        GValue kept = G_VALUE_INIT;
        const GValue* told = gst_structure_get_value(structure, "colorimetry");
        if (!GST_VIDEO_INFO_IS_YUV(&info)) {
            gst_structure_remove_field(structure, "colorimetry");
        } else if (told != nullptr && gst_value_intersect(&kept, told, &words) != FALSE) {
            gst_structure_take_value(structure, "colorimetry", &kept);
        } else {
            gst_structure_set_value(structure, "colorimetry", &words);
        }
    }
    g_value_unset(&words);
}

bool fits(const GstVideoInfo& info, const GstCaps& caps, const FrameSpec& spec) {
    const GstVideoInfo expected = info_of(spec);
    const bool told = gst_structure_has_field(gst_caps_get_structure(&caps, 0), "colorimetry") != FALSE;
    return GST_VIDEO_INFO_FORMAT(&info) == GST_VIDEO_INFO_FORMAT(&expected) && info.width == expected.width &&
           info.height == expected.height &&
           (!GST_VIDEO_INFO_IS_YUV(&info) || !told ||
            (info.colorimetry.matrix == expected.colorimetry.matrix &&
             info.colorimetry.range == expected.colorimetry.range));
}

std::string to_string(const GstVideoInfo& info) {
    std::string text = std::to_string(info.width) + "x" + std::to_string(info.height) + " " +
                       gst_video_format_to_string(GST_VIDEO_INFO_FORMAT(&info));
    if (GST_VIDEO_INFO_IS_YUV(&info)) {
        gchar* colorimetry = gst_video_colorimetry_to_string(&info.colorimetry);
        text.append(" ").append(colorimetry == nullptr ? "of no colorimetry" : colorimetry);
        g_free(colorimetry);
    }
    return text;
}

std::string to_string(const FrameSpec& spec) { return to_string(info_of(spec)); }

}  // namespace derain::gst
