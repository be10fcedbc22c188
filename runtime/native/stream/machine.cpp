#include "machine.hpp"

#include <sched.h>
#include <sys/utsname.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>

namespace derain {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::array gpu_fields{"name",       "driver_version", "pstate",         "clocks.sm",
                                "clocks.mem", "power.limit",    "temperature.gpu"};

std::optional<std::string> first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    return std::getline(file, line) ? std::optional(line) : std::nullopt;
}

std::string cpu(const std::string& architecture) {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("model name") || line.starts_with("Model")) {
            return line.substr(line.find(':') + 2);
        }
    }
    return architecture;
}

/// The first GPU as nvidia-smi sees it; null without one.
Json gpu() {
    std::string command = "nvidia-smi --id=0 --format=csv,noheader --query-gpu=";
    for (const auto* field : gpu_fields) {
        command += std::string(field) + ",";
    }
    command.back() = ' ';
    command += "2>/dev/null";
    // NOLINTNEXTLINE(cert-env33-c): nothing in the command comes from outside
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> answer(::popen(command.c_str(), "r"), ::pclose);
    std::array<char, 512> line{};
    if (answer == nullptr || std::fgets(line.data(), line.size(), answer.get()) == nullptr) {
        return nullptr;
    }
    Json fields;
    std::istringstream values(line.data());
    for (const auto* field : gpu_fields) {
        std::string value;
        std::getline(values >> std::ws, value, ',');
        value.erase(value.find_last_not_of(" \n") + 1);
        fields[field] = value;
    }
    return fields;
}

}  // namespace

Json machine() {
    utsname system{};
    ::uname(&system);
    cpu_set_t usable;
    CPU_ZERO(&usable);
    ::sched_getaffinity(0, sizeof(usable), &usable);
    double load = 0;
    ::getloadavg(&load, 1);
    const std::string frequency = "/sys/devices/system/cpu/cpu0/cpufreq/";
    const auto governor = first_line(frequency + "scaling_governor");
    const auto clock = first_line(frequency + "scaling_cur_freq");
    Json json;
    json["system"] =
        std::string(std::data(system.sysname)) + "-" + std::data(system.release) + "-" + std::data(system.machine);
    json["python"] = "none";
    json["cpu"] = cpu(std::data(system.machine));
    json["cores"] = CPU_COUNT(&usable);
    json["load"] = std::round(load * 100) / 100;
    json["governor"] = governor ? Json(*governor) : Json(nullptr);
    json["clock_mhz"] = clock ? Json(std::stod(*clock) / 1e3) : Json(nullptr);
    json["gpu"] = gpu();
    return json;
}

}  // namespace derain
