#include "atomic_file.hpp"

#include <fstream>
#include <random>
#include <system_error>

#include "derain/stream/sink.hpp"

namespace derain {

std::filesystem::path temporary_beside(const std::filesystem::path& path) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::random_device random;
    std::string name = path.stem().string();
    name.insert(0, 1, '.').append(1, '.');
    for (int digit = 0; digit < 8; ++digit) {
        name += digits[random() % digits.size()];
    }
    return path.parent_path() / name.append(".partial").append(path.extension().string());
}

void write_bytes(const std::filesystem::path& path, std::span<const std::byte> data) {
    const auto temporary = temporary_beside(path);
    std::error_code error;
    if (path.has_parent_path()) {
        std::filesystem::create_directories(path.parent_path(), error);
    }
    std::ofstream file(temporary, std::ios::binary);
    file.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
    file.close();
    if (file) {
        std::filesystem::rename(temporary, path, error);
    }
    if (!file || error) {
        std::filesystem::remove(temporary, error);
        throw WriteError(path.string() + ": cannot be written: check the space and the rights of its folder");
    }
}

}  // namespace derain
