#include "report_file.hpp"

#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "atomic_file.hpp"

namespace derain {

void write_report(const std::filesystem::path& path, const nlohmann::ordered_json& report, int indent) {
    if (path.empty()) {
        return;
    }
    const std::string text = report.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    write_bytes(path, std::as_bytes(std::span(text)));
}

void check_report(const std::filesystem::path& path) {
    if (!path.empty()) {
        check_place(path);
    }
}

}  // namespace derain
