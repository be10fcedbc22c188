/// `frames://folder`: 000000.png, 000001.png, … without loss.
#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <opencv2/imgcodecs.hpp>
#include <sstream>
#include <vector>

#include "atomic_file.hpp"
#include "convert.hpp"
#include "kinds.hpp"

namespace derain {

namespace {

/// One PNG a frame, each by atomic rename, in a folder that holds no other PNG: two clips must not mix.
class PngFolder final : public Sink {
   public:
    PngFolder(const std::string& folder, const FrameSpec& spec) : Sink(folder, spec) {
        const bool exists = std::filesystem::exists(folder);
        if (exists && !std::filesystem::is_directory(folder)) {
            throw Error(folder + ": is a file, expected a folder: give --sink frames://FOLDER");
        }
        check_place(name());
        if (!exists) {
            return;
        }
        const auto old = std::ranges::count_if(std::filesystem::directory_iterator(folder),
                                               [](const auto& entry) { return entry.path().extension() == ".png"; });
        if (old > 0) {
            throw Error(folder + ": already holds " + std::to_string(old) +
                        " PNG files: remove them or give another folder");
        }
    }

   private:
    void put(std::span<const std::byte> image, std::int64_t, bool) override {
        cv::imencode(".png", to_bgr(image, spec()), png_);
        write_bytes(name(), std::as_bytes(std::span(png_)));
    }

    /// The next picture's.
    [[nodiscard]] std::filesystem::path name() const {
        std::ostringstream name;
        name << std::setw(6) << std::setfill('0') << written() << ".png";
        return std::filesystem::path(location()) / name.str();
    }

    std::vector<uchar> png_;
};

}  // namespace

std::unique_ptr<Sink> png_folder_sink(const std::string& location, const FrameSpec& spec, std::optional<double>, bool) {
    return std::make_unique<PngFolder>(location, spec);
}

}  // namespace derain
