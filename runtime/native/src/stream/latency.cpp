#include "derain/stream/latency.hpp"

#include <algorithm>
#include <bit>

namespace derain {

namespace {

constexpr int kept_bits = 9;
constexpr std::int64_t longest_ns = std::int64_t{1} << 50;  // 13 days
constexpr int octaves = 51 - kept_bits;
constexpr double ns_a_ms = 1e6;

double middle(std::size_t bucket) {
    const auto shift = std::max<std::int64_t>(static_cast<std::int64_t>(bucket >> (kept_bits - 1)) - 1, 0);
    const auto low = (static_cast<std::int64_t>(bucket) - (shift << (kept_bits - 1))) << shift;
    return static_cast<double>(low) + static_cast<double>((std::int64_t{1} << shift) - 1) / 2;
}

}  // namespace

std::string_view to_string(Stage stage) {
    constexpr std::array<std::string_view, 5> texts{"capture", "wait", "inference", "present", "capture_to_present"};
    return texts[static_cast<std::size_t>(stage)];
}

Histogram::Histogram() : counts_(std::size_t{octaves + 2} << (kept_bits - 1)) {}

void Histogram::add(std::int64_t ns) {
    ns = std::clamp<std::int64_t>(ns, 0, longest_ns);
    const auto value = static_cast<std::uint64_t>(ns);
    const auto shift = std::max(static_cast<int>(std::bit_width(value)) - kept_bits, 0);
    ++counts_[(static_cast<std::size_t>(shift) << (kept_bits - 1)) + (value >> shift)];
    ++count_;
    total_ += ns;
    longest_ = std::max(longest_, ns);
}

double Histogram::quantile(double share) const {
    if (share >= 1) {
        return static_cast<double>(longest_);
    }
    const double rank = share * static_cast<double>(count_ - 1);
    const auto whole = static_cast<std::int64_t>(rank);
    const auto at = [this](std::int64_t index) {
        std::size_t bucket = 0;
        for (std::int64_t below = counts_[0]; below <= index; below += counts_[bucket]) {
            ++bucket;
        }
        return middle(bucket);
    };
    const double low = at(whole);
    const double high = at(std::min(whole + 1, count_ - 1));
    return std::min(low + (high - low) * (rank - static_cast<double>(whole)), static_cast<double>(longest_));
}

Percentiles Histogram::percentiles() const {
    const auto ms = [this](double share) { return quantile(share) / ns_a_ms; };
    return {.p50 = ms(0.5), .p90 = ms(0.9), .p99 = ms(0.99), .p999 = ms(0.999), .max = ms(1)};
}

}  // namespace derain
