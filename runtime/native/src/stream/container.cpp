#include "container.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

namespace derain {

namespace {

constexpr std::array boxed{".mp4", ".m4v", ".mov"};
constexpr std::uint64_t box_head = 8;
constexpr std::uint64_t long_box_head = 16;
constexpr std::string_view riff("RIFF");
constexpr std::uint32_t unknown_length = 0xffffffff;
constexpr std::string_view ebml("\x1a\x45\xdf\xa3");
constexpr std::string_view segment("\x18\x53\x80\x67");
constexpr std::size_t head_bytes = 4096;

std::uint64_t big_endian(std::string_view bytes) {
    std::uint64_t number = 0;
    for (const char byte : bytes) {
        number = number << 8 | static_cast<unsigned char>(byte);
    }
    return number;
}

/// Whether a file is boxes to its very end, with the one among them that describes the film.
bool has_whole_boxes(std::ifstream& file, std::uint64_t end) {
    bool described = false;
    for (std::uint64_t at = 0; at < end;) {
        std::array<char, long_box_head> bytes{};
        file.clear();
        file.seekg(static_cast<std::streamoff>(at));
        file.read(bytes.data(), bytes.size());
        const std::string_view head(bytes.data(), bytes.size());
        std::uint64_t size = big_endian(head.substr(0, 4));
        if (size == 1) {  // it did not fit
            size = std::max(big_endian(head.substr(box_head)), long_box_head);
        } else {  // without a size it is all that follows
            size = std::max(size == 0 ? end - at : size, box_head);
        }
        if (size > end - at) {
            return false;
        }
        described = described || head.substr(4, 4) == "moov";
        at += size;
    }
    return described;
}

/// Whether an AVI's chunks, of which a long one has several, end inside the file; one of unknown length is open.
bool has_whole_chunks(std::ifstream& file, std::uint64_t end) {
    std::uint64_t at = 0;
    std::array<char, 8> head{};
    file.clear();
    while (file.seekg(static_cast<std::streamoff>(at)).read(head.data(), head.size()) &&
           std::string_view(head.data(), head.size()).starts_with(riff)) {
        std::uint32_t size = 0;
        std::memcpy(&size, head.data() + riff.size(), sizeof(size));  // little-endian, as all that this runs on
        if (size == unknown_length) {                                 // its writer could not go back to write it
            return true;
        }
        at += head.size() + size;
    }
    return at <= end;
}

struct Content {
    std::size_t at = 0;
    std::optional<std::uint64_t> bytes;
};

/// Where an element's content begins, given where its size is, and how many bytes it has where its writer knew that.
Content content_of(std::string_view head, std::size_t at) {
    head.remove_prefix(std::min(at, head.size()));
    // As many bytes as the first has leading zeros, and one.
    const int length = head.empty() ? 0 : std::countl_zero(static_cast<unsigned char>(head.front())) + 1;
    if (length < 1 || length > 8 || head.size() < static_cast<std::size_t>(length)) {
        return {at, std::nullopt};
    }
    const std::uint64_t unknown = (std::uint64_t{1} << 7 * length) - 1;
    const std::uint64_t size = big_endian(head.substr(0, static_cast<std::size_t>(length))) & unknown;
    return {at + static_cast<std::size_t>(length), size != unknown ? std::optional(size) : std::nullopt};
}

}  // namespace

bool is_cut_short(const std::filesystem::path& path) {
    std::string suffix = path.extension().string();
    std::ranges::transform(suffix, suffix.begin(), [](unsigned char letter) { return std::tolower(letter); });
    std::ifstream file(path, std::ios::binary);
    if (std::ranges::find(boxed, suffix) != boxed.end()) {
        return !has_whole_boxes(file, std::filesystem::file_size(path));
    }
    std::string head(head_bytes, '\0');
    file.read(head.data(), static_cast<std::streamsize>(head.size()));
    head.resize(static_cast<std::size_t>(file.gcount()));
    if (head.starts_with(riff)) {
        return !has_whole_chunks(file, std::filesystem::file_size(path));
    }
    if (!head.starts_with(ebml)) {
        return false;
    }
    const Content header = content_of(head, ebml.size());
    const std::size_t at = header.at + header.bytes.value_or(0);
    if (at >= head.size() || !std::string_view(head).substr(at).starts_with(segment)) {
        return false;
    }
    const Content all = content_of(head, at + segment.size());
    return all.bytes && all.at + *all.bytes > std::filesystem::file_size(path);
}

}  // namespace derain
