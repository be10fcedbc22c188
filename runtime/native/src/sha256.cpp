#include "sha256.hpp"

#include <openssl/evp.h>

#include <array>
#include <fstream>
#include <memory>
#include <vector>

#include "derain/error.hpp"

namespace derain {

namespace {

struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

void check(int status) {
    if (status != 1) {
        throw Error("libcrypto has no SHA-256: install OpenSSL 1.1.1 or later");
    }
}

}  // namespace

std::string sha256_of(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    const std::unique_ptr<EVP_MD_CTX, Free> context(EVP_MD_CTX_new());
    check(context ? EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) : 0);
    std::vector<char> block(1 << 16);
    while (stream) {
        stream.read(block.data(), static_cast<std::streamsize>(block.size()));
        check(EVP_DigestUpdate(context.get(), block.data(), static_cast<std::size_t>(stream.gcount())));
    }
    if (!stream.eof()) {
        throw Error(path.string() + ": cannot be read: see its permissions");
    }
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size = 0;
    check(EVP_DigestFinal_ex(context.get(), digest.data(), &size));
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (unsigned int index = 0; index < size; ++index) {
        text += digits[digest.at(index) >> 4];
        text += digits[digest.at(index) & 15];
    }
    return text;
}

}  // namespace derain
