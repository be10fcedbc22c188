/// `frames:///folder`: the images of a folder, sorted by name.
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
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

/// One frame an image; a broken image throws Error with its name.
class ImageFolder final : public DecodedSource {
   public:
    ImageFolder(const std::string& folder, const FrameSpec& spec) : DecodedSource(folder, spec) {
        if (!std::filesystem::is_directory(folder)) {
            throw Error(folder + ": no such folder: give --source a folder of images");
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
        std::ranges::sort(paths_);
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
        const cv::Mat image = decoded(content);
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
