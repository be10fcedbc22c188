/// `frames://folder`: 000000.png, 000001.png, … without loss.
#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <iomanip>
#include <opencv2/imgcodecs.hpp>
#include <optional>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "atomic_file.hpp"
#include "convert.hpp"
#include "file_descriptor.hpp"
#include "kinds.hpp"

namespace derain {

namespace {

/// One PNG a frame, each by atomic rename, in a folder that holds no other PNG: two clips must not mix.
///
/// It is this sink's alone from its opening, or from its first frame where it was not there yet; the system lets go of
/// it when the process ends, however it ends.
class PngFolder final : public Sink {
   public:
    PngFolder(const std::string& folder, const FrameSpec& spec) : Sink(folder, spec) {
        const bool exists = std::filesystem::exists(folder);
        if (exists && !std::filesystem::is_directory(folder)) {
            throw Error(folder + ": is a file, expected a folder: give --sink frames://FOLDER");
        }
        check_place(name());
        if (exists) {
            hold();
        }
    }

    void close() override { held_.reset(); }

   private:
    void put(std::span<const std::byte> image, std::int64_t, bool) override {
        if (!held_) {
            std::error_code error;
            std::filesystem::create_directories(location(), error);
            if (error) {
                throw WriteError(location() + ": cannot be made (" + error.message() + "): check its space and rights");
            }
            hold();
        }
        cv::imencode(".png", to_bgr(image, spec()), png_);
        write_bytes(name(), std::as_bytes(std::span(png_)));
    }

    /// Takes the folder; Error where it is taken or full, which ends a run: no later frame would fare better.
    void hold() {
        FileDescriptor folder(::open(location().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!folder) {
            throw WriteError(location() + ": " + std::generic_category().message(errno));
        }
        if (::flock(folder.get(), LOCK_EX | LOCK_NB) != 0) {
            if (errno == EWOULDBLOCK) {
                throw Error(location() + ": another run writes to it: give another folder");
            }
            // A file system that cannot lock folders, such as some network's.
            warn(location() + ": cannot be locked: let no other run write there");
        }
        const auto old = std::ranges::count_if(std::filesystem::directory_iterator(location()),
                                               [](const auto& entry) { return entry.path().extension() == ".png"; });
        if (old > 0) {
            throw Error(location() + ": already holds " + std::to_string(old) +
                        " PNG files: remove them or give another folder");
        }
        held_.emplace(std::move(folder));
    }

    /// The next picture's.
    [[nodiscard]] std::filesystem::path name() const {
        std::ostringstream name;
        name << std::setw(6) << std::setfill('0') << written() << ".png";
        return std::filesystem::path(location()) / name.str();
    }

    std::optional<FileDescriptor> held_;
    std::vector<uchar> png_;
};

}  // namespace

std::unique_ptr<Sink> png_folder_sink(const std::string& location, const FrameSpec& spec, std::optional<double>, bool) {
    return std::make_unique<PngFolder>(location, spec);
}

}  // namespace derain
