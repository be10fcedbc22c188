/// `v4l2:///dev/video0`: a camera of this machine, by its device file.
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <vector>

#include "derain/error.hpp"
#include "file_descriptor.hpp"
#include "kinds.hpp"
#include "v4l2.hpp"

namespace derain {

namespace {

class KernelDevice final : public VideoDevice {
   public:
    explicit KernelDevice(const std::string& path)
        : file_(::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC)), path_(path) {
        if (!file_) {
            throw Error(path + ": cannot be opened as a camera (" + std::generic_category().message(errno) +
                        "): is another program using it?");
        }
    }

    KernelDevice(const KernelDevice&) = delete;
    KernelDevice& operator=(const KernelDevice&) = delete;
    ~KernelDevice() override {
        for (const auto mapped : maps_) {
            ::munmap(mapped.data(), mapped.size());
        }
    }

    int control(unsigned long request, void* argument) override {
        int answer = 0;
        do {
            answer = ::ioctl(file_.get(), request, argument);
        } while (answer != 0 && errno == EINTR);
        return answer == 0 ? 0 : errno;
    }

    std::span<std::byte> map(std::size_t bytes, std::int64_t offset) override {
        void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), offset);
        if (memory == MAP_FAILED) {
            throw Error(path_ + ": cannot map a buffer of " + std::to_string(bytes) +
                        " bytes: " + std::generic_category().message(errno));
        }
        return maps_.emplace_back(static_cast<std::byte*>(memory), bytes);
    }

    bool wait(int timeout_ms) override {
        pollfd poller{.fd = file_.get(), .events = POLLIN, .revents = 0};
        return ::poll(&poller, 1, timeout_ms) > 0;
    }

   private:
    FileDescriptor file_;
    std::string path_;
    std::vector<std::span<std::byte>> maps_;
};

}  // namespace

std::unique_ptr<Source> camera_source(const std::string& location, const FrameSpec& spec) {
    if (!std::filesystem::exists(location)) {
        throw Error(location + ": no such camera: list them with `ls /dev/video*`");
    }
    return make_camera(location, spec, [location] { return std::make_shared<KernelDevice>(location); });
}

}  // namespace derain
