#include "report_file.hpp"

#include <cerrno>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <system_error>

#include "atomic_file.hpp"
#include "derain/error.hpp"

namespace derain {

namespace {

constexpr const char* standard_output = "-";

bool same(const std::filesystem::path& one, const std::filesystem::path& other) {
    std::error_code error;  // neither need be there
    return behind_links(one) == behind_links(other) || std::filesystem::equivalent(one, other, error);
}

}  // namespace

void write_report(const std::filesystem::path& path, const nlohmann::ordered_json& report, int indent) {
    if (path.empty()) {
        return;
    }
    const std::string text = report.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    if (path == standard_output) {
        if (std::fputs(text.c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
            throw Error("stdout: " + std::generic_category().message(errno) + ": the report is not written");
        }
        return;
    }
    write_bytes(path, std::as_bytes(std::span(text)));
}

void check_report(const std::filesystem::path& path) {
    if (path == standard_output) {
        std::cout.rdbuf(std::cerr.rdbuf());
    } else if (!path.empty()) {
        check_place(path);
    }
}

std::vector<std::filesystem::path> files_of(const Bundle& bundle) {
    std::vector<std::filesystem::path> files{bundle.path() / "manifest.json"};
    for (const auto& [name, entry] : bundle.manifest().files) {
        files.push_back(bundle.path() / name);
    }
    return files;
}

void refuse_overwriting(const std::map<std::string, std::filesystem::path>& written,
                        const std::vector<std::filesystem::path>& read) {
    for (auto one = written.begin(); one != written.end(); ++one) {
        const auto& [option, path] = *one;
        if (path.empty() || is_node(path)) {
            continue;
        }
        for (const auto& other : read) {
            if (same(path, other)) {
                throw Error(path.string() + ": is read by this run, which would replace it: give another " + option);
            }
        }
        for (auto beside = std::next(one); beside != written.end(); ++beside) {
            if (!beside->second.empty() && same(path, beside->second)) {
                throw Error(path.string() + ": is named by " + option + " and by " + beside->first +
                            ", expected a file each: give another " + beside->first);
            }
        }
    }
}

}  // namespace derain
