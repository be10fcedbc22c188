#include "machine.hpp"

#include <sched.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cctype>
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

/// What nvidia-smi calls CUDA's first GPU: the first in CUDA_VISIBLE_DEVICES, else 0; nothing where that hides all.
std::string first_gpu() {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): none is set once there are threads
    const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
    const std::string list = visible == nullptr ? "0" : visible;
    return list.substr(0, list.find(','));
}

/// CUDA's first GPU as nvidia-smi sees it; null without one, or where nvidia-smi does not answer. nvidia-smi counts in
/// the order of the bus, CUDA from the fastest on: with several kinds of GPU, set CUDA_DEVICE_ORDER=PCI_BUS_ID.
Json gpu() {
    const std::string id = first_gpu();
    const bool plain = std::ranges::all_of(id, [](unsigned char letter) {
        return std::isalnum(letter) != 0 || letter == '-' || letter == '/';  // an index or a UUID
    });
    if (id.empty() || !plain) {
        return nullptr;
    }
    std::string command = "timeout 10 nvidia-smi --id=" + id + " --format=csv,noheader --query-gpu=";
    for (const auto* field : gpu_fields) {
        command += std::string(field) + ",";
    }
    command.back() = ' ';
    command += "2>/dev/null";
    // NOLINTNEXTLINE(cert-env33-c): what comes from outside is letters and digits
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> answer(::popen(command.c_str(), "r"), ::pclose);
    std::array<char, 512> line{};
    if (answer == nullptr || std::fgets(line.data(), line.size(), answer.get()) == nullptr ||
        ::pclose(answer.release()) != 0) {  // "No devices were found" comes as an answer, too
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
