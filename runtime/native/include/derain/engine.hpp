#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "derain/bundle.hpp"

namespace derain {

/// What a caller may ask of a backend; each takes what concerns it.
struct EngineOptions {
    int threads = 0;         ///< CPU threads of a CPU engine; 0: all that this process may use
    bool cuda_graph = true;  ///< GPU engines launch upload, network and download as one CUDA graph
};

/// One precision of a bundle, executed: open, warm up, infer, close. The public functions check, backends compute.
///
/// One thread at a time uses an engine, but not the same one always. A backend's destructor releases what is still
/// held.
class Engine {
   public:
    Engine(std::string name, const Bundle& bundle, Precision precision);
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;
    virtual ~Engine() = default;

    /// Load the checked graph or plan; Error where it is open already, or cannot be loaded.
    void open();

    /// Infer `frames` grey frames, so that the first real one meets allocated memory and settled kernels.
    void warm_up(int frames = 3);

    /// One frame of `input().bytes()` bytes to a clean one of `output().bytes()`, into the caller's memory.
    ///
    /// Error where the engine is not open, a size is another, or the backend fails; `clean` then holds anything.
    void infer(std::span<const std::byte> frame, std::span<std::byte> clean);

    /// Release what open took; closing a closed engine does nothing.
    void close();

    [[nodiscard]] bool is_open() const { return open_; }
    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] Precision precision() const { return precision_; }
    [[nodiscard]] const Bundle& bundle() const { return bundle_; }
    [[nodiscard]] const FrameSpec& input() const { return bundle_.manifest().input; }
    [[nodiscard]] const FrameSpec& output() const { return bundle_.manifest().output; }

   protected:
    virtual void do_open() = 0;
    virtual void do_infer(std::span<const std::byte> frame, std::span<std::byte> clean) = 0;
    virtual void do_close() = 0;

   private:
    std::string name_;
    Bundle bundle_;
    Precision precision_;
    bool open_ = false;
};

/// What makes an engine, not yet open.
using EngineFactory = std::function<std::unique_ptr<Engine>(const Bundle&, Precision, const EngineOptions&)>;

/// Make an engine known by `name`; one of that name already known is replaced. Thread-safe.
void register_engine(std::string name, EngineFactory factory);

/// The engine called `name`, not yet open; Error for a name that is not known.
std::unique_ptr<Engine> make_engine(std::string_view name, const Bundle& bundle, Precision precision,
                                    const EngineOptions& options = {});

/// The names of the engines in this build, sorted.
std::vector<std::string> available_engines();

/// The engine to take where none is named: OpenVINO, or in a build without it the first it has.
std::string default_engine();

}  // namespace derain
