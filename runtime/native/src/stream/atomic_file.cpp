#include "atomic_file.hpp"

#include <unistd.h>

#include <fstream>
#include <random>
#include <system_error>

#include "derain/stream/sink.hpp"

namespace derain {

namespace {

bool written(const std::filesystem::path& path, std::span<const std::byte> data) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
    file.close();
    return !file.fail();
}

}  // namespace

std::filesystem::path behind_links(const std::filesystem::path& path) {
    std::error_code error;
    const auto file = std::filesystem::weakly_canonical(std::filesystem::absolute(path), error);
    return error ? path : file;
}

bool is_node(const std::filesystem::path& path) {
    std::error_code error;
    return std::filesystem::is_other(std::filesystem::status(path, error));
}

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

void check_place(const std::filesystem::path& path) {
    std::error_code error;
    if (is_node(path)) {
        if (::access(path.c_str(), W_OK) != 0) {
            throw Error(path.string() + " cannot be written to: name another place");
        }
        return;
    }
    const auto file = behind_links(path);
    if (std::filesystem::is_directory(file, error)) {
        throw Error(file.string() + " is a folder: name a file");
    }
    auto nearest = file.parent_path();
    while (!std::filesystem::exists(nearest, error) && nearest.has_relative_path()) {
        nearest = nearest.parent_path();
    }
    if (!std::filesystem::is_directory(nearest, error)) {
        throw Error(nearest.string() + " is a file, so " + file.string() + " cannot be made: name another place");
    }
    if (::access(nearest.c_str(), W_OK | X_OK) != 0) {
        throw Error(nearest.string() + " cannot be written to: name another place for " + file.filename().string());
    }
}

void write_bytes(const std::filesystem::path& path, std::span<const std::byte> data) {
    const auto fault = [&] {
        return WriteError(path.string() + ": cannot be written: check the space and the rights of its folder");
    };
    if (is_node(path)) {
        if (!written(path, data)) {
            throw fault();
        }
        return;
    }
    const auto target = behind_links(path);
    const auto temporary = temporary_beside(target);
    std::error_code error;
    if (target.has_parent_path()) {
        std::filesystem::create_directories(target.parent_path(), error);
    }
    const bool whole = written(temporary, data);
    if (whole) {
        std::filesystem::rename(temporary, target, error);
    }
    if (!whole || error) {
        std::filesystem::remove(temporary, error);
        throw fault();
    }
}

}  // namespace derain
