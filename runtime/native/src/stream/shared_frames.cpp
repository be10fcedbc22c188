#include "derain/stream/shared_frames.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "derain/error.hpp"
#include "derain/stream/clock.hpp"
#include "file_descriptor.hpp"

namespace derain {

namespace {

static_assert(std::endian::native == std::endian::little, "the ring's integers are little-endian");

constexpr std::size_t count_at = 32;
constexpr std::size_t closed_at = 40;
constexpr std::size_t locked_at = 48;
constexpr std::size_t rate_at = 56;
constexpr std::size_t slots_at = 64;
constexpr std::size_t captured_at = 8;  // in a slot, as all below
constexpr std::size_t raw_at = 16;
constexpr std::size_t image_at = 64;
constexpr std::uint32_t version = 1;
constexpr std::uint32_t slots = 4;
constexpr std::size_t word_bytes = sizeof(std::uint64_t);

struct Header {
    std::array<char, 8> magic;
    std::uint32_t version, slots, width, height;
    std::array<char, 8> pixels;

    bool operator==(const Header&) const = default;
};
static_assert(sizeof(Header) == count_at);

constexpr std::array<char, 8> magic{'D', 'E', 'R', 'A', 'I', 'N', 'S', 'H'};

Header header_of(const FrameSpec& spec) {
    Header header{.magic = magic,
                  .version = version,
                  .slots = slots,
                  .width = static_cast<std::uint32_t>(spec.width),
                  .height = static_cast<std::uint32_t>(spec.height),
                  .pixels = {}};
    to_string(spec.pixels).copy(header.pixels.data(), header.pixels.size());
    return header;
}

std::string told(const Header& header) {
    if (header.magic != magic) {
        return "something else";
    }
    const std::string pixels(header.pixels.begin(), header.pixels.end());
    return "version " + std::to_string(header.version) + ", " + std::to_string(header.slots) + " slots of " +
           std::to_string(header.width) + "x" + std::to_string(header.height) + " " +
           pixels.substr(0, pixels.find('\0'));
}

std::filesystem::path path_of(const std::string& name) {
    if (name.empty() || name.starts_with('.') || name.find('/') != std::string::npos) {
        throw Error("shm://" + name + ": expected a name without slashes, such as shm://front-camera");
    }
    return std::filesystem::path("/dev/shm") / name;  // where Linux keeps POSIX shared memory
}

std::size_t padded(std::size_t bytes) { return image_at + (bytes + 63) / 64 * 64; }

std::span<std::byte> map(const FileDescriptor& file, std::size_t bytes, int access, const std::filesystem::path& path) {
    void* memory = ::mmap(nullptr, bytes, access, MAP_SHARED, file.get(), 0);
    if (memory == MAP_FAILED) {
        throw Error(path.string() + ": cannot be mapped: " + std::generic_category().message(errno));
    }
    return {static_cast<std::byte*>(memory), bytes};
}

std::atomic_ref<std::uint64_t> atomic(std::uint64_t& word) { return std::atomic_ref(word); }

void check_bytes(const std::filesystem::path& path, std::size_t seen, std::size_t expected) {
    if (seen != expected) {
        throw Error(path.string() + ": image has " + std::to_string(seen) + " bytes, expected " +
                    std::to_string(expected) + ": pass whole frames without padding");
    }
}

/// Whether `path` still names this open file; another program may have put a newer one there.
bool is_at(int file, const std::filesystem::path& path) {
    struct stat ours {};
    struct stat there {};
    return ::fstat(file, &ours) == 0 && ::stat(path.c_str(), &there) == 0 && ours.st_dev == there.st_dev &&
           ours.st_ino == there.st_ino;
}

/// Whether a writer that lives holds the ring's lock.
bool is_held(const std::filesystem::path& path) {
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    return file && ::flock(file.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

/// Takes the lock that a dead writer left; one that a reader tries meanwhile is free again in no time.
bool lock_dead(int file) {
    for (int tries = 0; tries < 10; ++tries) {
        if (::flock(file, LOCK_EX | LOCK_NB) == 0) {
            return true;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
}

/// Removes a ring whose writer held a lock and lives no more; its readers are told.
void remove_if_abandoned(const std::filesystem::path& path) {
    const FileDescriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    std::array<std::uint64_t, slots_at / word_bytes> head{};
    if (!file || ::pread(file.get(), head.data(), slots_at, 0) != static_cast<ssize_t>(slots_at) ||
        head[0] != std::bit_cast<std::uint64_t>(magic) || head[locked_at / word_bytes] != 1 || !lock_dead(file.get())) {
        return;
    }
    if (!is_at(file.get(), path)) {
        return;  // somebody else was faster
    }
    const std::uint64_t yes = 1;
    if (::pwrite(file.get(), &yes, sizeof(yes), closed_at) == sizeof(yes)) {
        ::unlink(path.c_str());
    }
}

}  // namespace

SharedFrames SharedFrames::create(const std::string& name, const FrameSpec& spec, std::optional<double> fps) {
    const auto path = path_of(name);
    const std::size_t bytes = slots_at + slots * padded(spec.bytes());
    remove_if_abandoned(path);
    FileDescriptor file(::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
    if (!file) {
        if (errno != EEXIST) {
            throw Error(path.string() + ": cannot be made: " + std::generic_category().message(errno));
        }
        throw Error(path.string() + ": exists: another program writes to it" +
                    (is_held(path) ? ": stop it" : ", or died: `rm " + path.string() + "`"));
    }
    // Unlike ftruncate: a page that is short later kills with SIGBUS.
    if (const int fault = ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes)); fault != 0) {
        ::unlink(path.c_str());
        throw Error(path.string() + ": " + std::to_string(bytes) + " bytes of shared memory: " +
                    std::generic_category().message(fault) + ": give /dev/shm more (docker: --shm-size)");
    }
    std::span<std::byte> memory;
    try {
        memory = map(file, bytes, PROT_READ | PROT_WRITE, path);
    } catch (const Error&) {
        ::unlink(path.c_str());
        throw;
    }
    const bool locked = ::flock(file.get(), LOCK_EX) == 0;
    SharedFrames frames(path, spec, memory, file.release());
    atomic(frames.word(locked_at)).store(locked ? 1 : 0, std::memory_order_relaxed);
    frames.word(rate_at) = static_cast<std::uint64_t>(std::llround(1000 * fps.value_or(0)));
    const Header header = header_of(spec);
    std::memcpy(frames.memory_.data() + magic.size(), reinterpret_cast<const char*>(&header) + magic.size(),
                sizeof(header) - magic.size());
    atomic(frames.word(0)).store(std::bit_cast<std::uint64_t>(magic), std::memory_order_release);  // makes it valid
    return frames;
}

SharedFrames SharedFrames::attach(const std::string& name, const FrameSpec& spec) {
    const auto path = path_of(name);
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!file) {
        throw Error(errno == ENOENT ? path.string() + ": no such shared memory: start the program that writes it first"
                                    : path.string() + ": cannot be opened: " + std::generic_category().message(errno));
    }
    struct stat status {};
    const auto not_yet = [&] {
        return Error(path.string() + ": " + std::to_string(status.st_size) +
                     " bytes, no frames yet: is its writer still starting?");
    };
    if (::fstat(file.get(), &status) != 0 || status.st_size < static_cast<off_t>(slots_at)) {
        throw not_yet();
    }
    const auto bytes = static_cast<std::size_t>(status.st_size);
    const SharedFrames probe(path, spec, map(file, bytes, PROT_READ, path));
    Header seen{};
    if (atomic(probe.word(0)).load(std::memory_order_acquire) == 0) {
        throw not_yet();
    }
    std::memcpy(&seen, probe.memory_.data(), sizeof(seen));
    if (seen != header_of(spec) || bytes < slots_at + slots * padded(spec.bytes())) {
        throw Error(path.string() + ": holds " + told(seen) + ", expected " + told(header_of(spec)) +
                    ": start its writer accordingly");
    }
    if (atomic(probe.word(locked_at)).load(std::memory_order_relaxed) == 1 &&
        ::flock(file.get(), LOCK_SH | LOCK_NB) == 0) {
        throw Error(path.string() + ": its writer died: start it again");
    }
    return {path, spec, map(file, bytes, PROT_READ, path)};
}

SharedFrames::SharedFrames(std::filesystem::path path, const FrameSpec& spec, std::span<std::byte> memory, int lock)
    : path_(std::move(path)), bytes_(spec.bytes()), memory_(memory), lock_(lock) {}

SharedFrames::SharedFrames(SharedFrames&& other) noexcept
    : path_(std::move(other.path_)),
      bytes_(other.bytes_),
      memory_(std::exchange(other.memory_, {})),
      lock_(std::exchange(other.lock_, -1)) {}

SharedFrames::~SharedFrames() {
    if (memory_.empty()) {
        return;
    }
    if (lock_ >= 0) {
        atomic(word(closed_at)).store(1, std::memory_order_release);
        if (is_at(lock_, path_)) {
            ::unlink(path_.c_str());
        }
        ::close(lock_);
    }
    ::munmap(memory_.data(), memory_.size());
}

void SharedFrames::publish(std::span<const std::byte> image, std::int64_t captured_ns, bool raw) {
    check_bytes(path_, image.size(), bytes_);
    const auto number = published();
    const auto at = slot_of(number);
    atomic(word(at)).store(2 * number + 1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);  // the odd number is seen before any of what follows
    atomic(word(at + captured_at)).store(static_cast<std::uint64_t>(captured_ns), std::memory_order_relaxed);
    atomic(word(at + raw_at)).store(raw ? 1 : 0, std::memory_order_relaxed);
    for (std::size_t done = 0; done < bytes_; done += word_bytes) {
        std::uint64_t value = 0;
        std::memcpy(&value, image.data() + done, std::min(word_bytes, bytes_ - done));
        atomic(word(at + image_at + done)).store(value, std::memory_order_relaxed);
    }
    atomic(word(at)).store(2 * number + 2, std::memory_order_release);
    atomic(word(count_at)).store(number + 1, std::memory_order_release);
}

std::optional<SharedFrames::Newest> SharedFrames::newest(std::span<std::byte> image) const {
    check_bytes(path_, image.size(), bytes_);
    const auto count = published();
    if (count == 0) {
        return std::nullopt;
    }
    const auto at = slot_of(count - 1);
    if (atomic(word(at)).load(std::memory_order_acquire) != 2 * count) {
        return std::nullopt;
    }
    const auto captured_ns = atomic(word(at + captured_at)).load(std::memory_order_relaxed);
    const bool raw = atomic(word(at + raw_at)).load(std::memory_order_relaxed) != 0;
    for (std::size_t done = 0; done < bytes_; done += word_bytes) {
        const auto value = atomic(word(at + image_at + done)).load(std::memory_order_relaxed);
        std::memcpy(image.data() + done, &value, std::min(word_bytes, bytes_ - done));
    }
    std::atomic_thread_fence(std::memory_order_acquire);  // all was read before the sequence is read again
    if (atomic(word(at)).load(std::memory_order_relaxed) != 2 * count) {
        return std::nullopt;
    }
    return Newest{count - 1, static_cast<std::int64_t>(captured_ns), raw};
}

bool SharedFrames::wait_for_newer(std::uint64_t than, double timeout_s) const {
    const auto end_ns = monotonic_ns() + static_cast<std::int64_t>(timeout_s * 1e9);
    while (published() <= than) {
        if (closed() || monotonic_ns() >= end_ns) {
            return false;
        }
        std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
    return true;
}

std::uint64_t SharedFrames::published() const { return atomic(word(count_at)).load(std::memory_order_acquire); }

std::optional<double> SharedFrames::fps() const {
    const auto rate = word(rate_at);  // written before the header became valid, and never again
    return rate == 0 ? std::nullopt : std::optional(static_cast<double>(rate) / 1000);
}

bool SharedFrames::closed() const { return atomic(word(closed_at)).load(std::memory_order_acquire) != 0; }

std::uint64_t& SharedFrames::word(std::size_t at) const {
    return *reinterpret_cast<std::uint64_t*>(memory_.data() + at);
}

std::size_t SharedFrames::slot_of(std::uint64_t number) const {
    return slots_at + static_cast<std::size_t>(number % slots) * padded(bytes_);
}

}  // namespace derain
