/// `frames:///folder`: the images of a folder, sorted by name, the numbers in it by value: 2.png before 10.png.
#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "decoded.hpp"
#include "derain/error.hpp"
#include "kinds.hpp"

namespace derain {

namespace {

constexpr std::array suffixes{".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"};

bool is_image(const std::filesystem::path& path) {
    auto suffix = path.extension().string();
    std::ranges::transform(suffix, suffix.begin(), [](unsigned char letter) { return std::tolower(letter); });
    return std::ranges::find(suffixes, suffix) != suffixes.end();
}

/// Takes what is, or is not, a run of digits off the front of a name.
std::string_view taken(std::string_view& name, bool digits) {
    const auto* const end = std::ranges::find_if(
        name.begin(), name.end(), [digits](unsigned char letter) { return (std::isdigit(letter) != 0) != digits; });
    const auto length = static_cast<std::size_t>(end - name.begin());
    const std::string_view part = name.substr(0, length);
    name.remove_prefix(length);
    return part;
}

/// Text by text and number by number; 2 comes before 10, and 01 before 1.
bool in_time(const std::filesystem::path& left, const std::filesystem::path& right) {
    const std::string left_name = left.filename().string();
    const std::string right_name = right.filename().string();
    std::string_view a = left_name;
    std::string_view b = right_name;
    while (!a.empty() && !b.empty()) {
        if (const int order = taken(a, false).compare(taken(b, false)); order != 0) {
            return order < 0;
        }
        const auto value = [](std::string_view number) {
            number.remove_prefix(std::min(number.find_first_not_of('0'), number.size()));
            return std::pair(number.size(), number);
        };
        if (a.empty() || b.empty()) {
            break;
        }
        const auto first = value(taken(a, true));
        const auto second = value(taken(b, true));
        if (first != second) {
            return first < second;
        }
    }
    return a.empty() && b.empty() ? left_name < right_name : a.empty();
}

/// One frame an image; a broken image throws Error with its name.
class ImageFolder final : public DecodedSource {
   public:
    ImageFolder(const std::string& folder, const FrameSpec& spec) : DecodedSource(folder, spec) {
        if (!std::filesystem::is_directory(folder)) {
            throw Error(folder + ": no such folder: give a folder of images");
        }
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            if (is_image(entry.path())) {
                paths_.push_back(entry.path());
            }
        }
        if (paths_.empty()) {
            throw Error(folder +
                        ": holds no images, expected at least one of .png, .jpg, .jpeg, .bmp, .tif, .tiff, .webp");
        }
        std::ranges::sort(paths_, in_time);
        set_frames(static_cast<std::int64_t>(paths_.size()));
    }

    [[nodiscard]] std::unique_ptr<Source> reopened() const override {
        return std::make_unique<ImageFolder>(location(), spec());
    }

   private:
    Read read() override {
        if (next_ == paths_.size()) {
            return {};
        }
        const auto& path = paths_[next_++];
        std::ifstream file(path, std::ios::binary);
        const std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
        const cv::Mat image = [&] {
            try {
                return decoded(content);
            } catch (const Error& error) {
                throw Error(path.string() + ": " + error.what());
            }
        }();
        if (image.empty()) {
            throw Error(path.string() + ": " + std::to_string(content.size()) +
                        " bytes that are no whole image: replace or remove it");
        }
        return from(image, path.string());
    }

    std::vector<std::filesystem::path> paths_;
    std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<Source> image_folder_source(const std::string& location, const FrameSpec& spec) {
    return std::make_unique<ImageFolder>(location, spec);
}

}  // namespace derain
