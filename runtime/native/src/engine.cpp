#include "derain/engine.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

namespace derain {

namespace {

struct Registry {
    std::mutex mutex;
    std::map<std::string, EngineFactory, std::less<>> factories;
};

/// Made on first use, because backends register before main.
Registry& registry() {
    static Registry instance;
    return instance;
}

void check_size(const std::string& engine, const char* which, std::size_t seen, const FrameSpec& spec) {
    if (seen == spec.bytes()) {
        return;
    }
    throw Error("engine " + engine + ": " + which + " is " + std::to_string(seen) + " bytes, expected " +
                std::to_string(spec.bytes()) + " (" + std::to_string(spec.width) + "x" + std::to_string(spec.height) +
                " " + std::string(to_string(spec.pixels)) + "): pass whole frames without padding");
}

}  // namespace

Engine::Engine(std::string name, const Bundle& bundle, Precision precision)
    : name_(std::move(name)), bundle_(bundle), precision_(precision) {}

void Engine::open() {
    if (open_) {
        throw Error("engine " + name_ + " is already open: close it first");
    }
    do_open();
    open_ = true;
}

void Engine::warm_up(int frames) {
    const std::vector<std::byte> grey(input().bytes(), std::byte{128});
    std::vector<std::byte> clean(output().bytes());
    for (int frame = 0; frame < frames; ++frame) {
        infer(grey, clean);
    }
}

void Engine::infer(std::span<const std::byte> frame, std::span<std::byte> clean) {
    if (!open_) {
        throw Error("engine " + name_ + " is not open: call open() first");
    }
    check_size(name_, "frame", frame.size(), input());
    check_size(name_, "clean", clean.size(), output());
    do_infer(frame, clean);
}

void Engine::close() {
    if (!open_) {
        return;
    }
    open_ = false;
    do_close();
}

void register_engine(std::string name, EngineFactory factory) {
    const std::scoped_lock lock(registry().mutex);
    registry().factories.insert_or_assign(std::move(name), std::move(factory));
}

std::unique_ptr<Engine> make_engine(std::string_view name, const Bundle& bundle, Precision precision,
                                    const EngineOptions& options) {
    EngineFactory factory;
    {
        const std::scoped_lock lock(registry().mutex);
        const auto found = registry().factories.find(name);
        if (found != registry().factories.end()) {
            factory = found->second;
        }
    }
    if (!factory) {
        std::string known;
        for (const std::string& engine : available_engines()) {
            known.append(known.empty() ? "" : ", ").append(engine);
        }
        throw Error("engine '" + std::string(name) +
                    "' is unknown, this build has: " + (known.empty() ? "none" : known));
    }
    return factory(bundle, precision, options);
}

std::vector<std::string> available_engines() {
    const std::scoped_lock lock(registry().mutex);
    std::vector<std::string> names;
    for (const auto& [name, factory] : registry().factories) {
        names.push_back(name);
    }
    return names;
}

std::string default_engine() {
    const auto known = available_engines();
    return known.empty() || std::ranges::find(known, "openvino") != known.end() ? "openvino" : known.front();
}

}  // namespace derain
