#include <NvInfer.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <mutex>
#include <optional>
#include <utility>

#include "cuda.hpp"
#include "derain/engine.hpp"

namespace derain {

namespace {

constexpr const char* api = DERAIN_TENSORRT_RTX ? "tensorrt-rtx" : "tensorrt";

/// The architecture of a TensorRT-RTX engine for every GPU that release serves: its kernels are made on the GPU.
constexpr const char* portable = "portable";

/// Turing has no part in the portable engine: TensorRT-RTX builds it one of its own.
constexpr const char* turing = "sm75";

/// The first compute capability whose tensor cores take FP8: Ada.
constexpr int first_with_fp8 = 89;

/// TensorRT allows one logger a process; this one keeps the first error since it was last asked.
class Logger final : public nvinfer1::ILogger {
   public:
    static Logger& instance() {
        static Logger& logger = *new Logger;  // for ever: an engine that was left behind may log after main
        return logger;
    }

    void log(Severity severity, const char* message) noexcept override {
        if (severity > Severity::kERROR) {
            return;
        }
        const std::scoped_lock lock(mutex_);
        if (heard_.front() != '\0') {
            return;
        }
        std::strncpy(heard_.data(), message, heard_.size() - 1);
    }

    std::string take() {
        const std::scoped_lock lock(mutex_);
        std::string heard(heard_.data());
        heard_.fill('\0');
        return heard.empty() ? "it does not say why" : heard;
    }

   private:
    std::mutex mutex_;
    std::array<char, 512> heard_{};
};

std::string version_here() {
    return std::to_string(getInferLibMajorVersion()) + "." + std::to_string(getInferLibMinorVersion()) + "." +
           std::to_string(getInferLibPatchVersion()) + "." + std::to_string(getInferLibBuildVersion());
}

/// The release of TensorRT that has the classes of this one: TensorRT-RTX has those of TensorRT 10 up to 1.4, and those
/// of 11 from 1.5 on.
constexpr int release_of_classes(int major, int minor) { return major == 1 ? (minor < 5 ? 10 : 11) : major; }

/// Error where the library that was loaded has other classes than this was compiled for: any call of them would be of
/// another function.
void check_release() {
    const int here = release_of_classes(getInferLibMajorVersion(), getInferLibMinorVersion());
    constexpr int compiled = release_of_classes(NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR);
    if (here != compiled) {
        throw Error(std::string(api) + " " + version_here() + " was loaded, this libderain is built with headers of " +
                    std::to_string(NV_TENSORRT_MAJOR) + "." + std::to_string(NV_TENSORRT_MINOR) +
                    ", whose classes are others: build it again, or see LD_LIBRARY_PATH");
    }
}

std::vector<char> read_bytes(const std::filesystem::path& path) {
    std::vector<char> bytes(std::filesystem::file_size(path));
    std::ifstream stream(path, std::ios::binary);
    if (!stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
        throw Error(path.string() + ": cannot be read: see its permissions");
    }
    return bytes;
}

/// Whether a library of version `here`, major.minor.patch.build, is the one that built: JetPack's Python names only the
/// first three parts of its own.
bool is_of_version(const std::string& built, const std::string& here) {
    return here == built || here.starts_with(built + ".");
}

bool names(const std::string& architectures, const std::string& wanted) {
    return ("+" + architectures + "+").find("+" + wanted + "+") != std::string::npos;
}

/// A tensor on the GPU and the pinned host memory its bytes pass through.
struct Buffer {
    explicit Buffer(std::size_t size) : bytes(size), device(cuda::allocate(size)), host(cuda::allocate_pinned(size)) {}

    std::size_t bytes;
    cuda::DeviceMemory device;
    cuda::PinnedMemory host;
};

/// What an open engine holds. Members are released last to first: buffers and graph, then TensorRT from the inside.
struct Loaded {
    cuda::Stream stream = cuda::make_stream();
    std::unique_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    std::unique_ptr<nvinfer1::IExecutionContext> context;
    Buffer frame;
    Buffer clean;
    cuda::Graph graph;
};

/// The bundle's engine of one precision that fits this library's version and this GPU.
class TensorRT final : public Engine {
   public:
    TensorRT(const Bundle& bundle, Precision precision, const EngineOptions& options)
        : Engine(api, bundle, precision), use_graph_(options.cuda_graph) {}
    TensorRT(const TensorRT&) = delete;
    TensorRT& operator=(const TensorRT&) = delete;
    ~TensorRT() override { release(); }

   protected:
    void do_open() override {
        const cuda::OnFirstGpu here;
        check_release();
        const std::vector<EngineEntry> built = of_this_version();
        Logger::instance().take();
        std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(Logger::instance()));
        if (!runtime) {
            throw Error(std::string(api) + " does not start: " + Logger::instance().take());
        }
        gpu_ = cuda::Gpu::open();
        path_ = bundle().file(of_this_gpu(built, *gpu_).file);
        load(std::move(runtime), *gpu_);
        try {
            bind(input(), loaded_->frame);
            bind(output(), loaded_->clean);
            work();  // TensorRT makes its last preparations in the first run, which a capture must not see
            synchronize();
            if (use_graph_) {
                capture();
            }
        } catch (...) {  // an engine that did not open holds nothing, least of all the memory the next attempt needs
            loaded_.reset();
            throw;
        }
    }

    void do_infer(std::span<const std::byte> frame, std::span<std::byte> clean) override {
        const cuda::OnFirstGpu here;
        std::ranges::copy(frame, loaded_->frame.host.get());
        if (loaded_->graph) {
            cuda::check(cudaGraphLaunch(loaded_->graph.get(), loaded_->stream.get()), "cudaGraphLaunch");
        } else {
            work();
        }
        synchronize();
        std::copy_n(loaded_->clean.host.get(), clean.size(), clean.data());
    }

    void do_close() override { release(); }

   private:
    void release() {
        const cuda::OnFirstGpu here;
        loaded_.reset();
    }

    void load(std::unique_ptr<nvinfer1::IRuntime> runtime, const cuda::Gpu& gpu) {
        const std::string file = path_.string();
        Logger& logger = Logger::instance();
        const std::vector<char> plan = read_bytes(path_);
        std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
        if (!engine) {
            throw Error(file + ": " + api + " cannot load it: " + logger.take() + ": " + again());
        }
        std::unique_ptr<nvinfer1::IExecutionContext> context(engine->createExecutionContext());
        if (!context) {  // only now: what a board with shared memory calls free leaves out what it could free
            const auto needed = static_cast<std::size_t>(engine->getDeviceMemorySizeV2());
            if (const std::size_t free = cuda::free_bytes(); needed > free) {
                throw Error(file + ": needs " + std::to_string(needed >> 20) + " MiB of GPU memory, " +
                            std::to_string(free >> 20) + " MiB are free on " + gpu.name +
                            ": close other programs, or export a smaller frame or model");
            }
            throw Error(file + ": " + api + " cannot run it on " + gpu.name + ": " + logger.take());
        }
        check(*engine, input(), nvinfer1::TensorIOMode::kINPUT);
        check(*engine, output(), nvinfer1::TensorIOMode::kOUTPUT);
        loaded_ = std::make_unique<Loaded>(Loaded{.runtime = std::move(runtime),
                                                  .engine = std::move(engine),
                                                  .context = std::move(context),
                                                  .frame = Buffer(input().bytes()),
                                                  .clean = Buffer(output().bytes()),
                                                  .graph = {}});
    }

    void bind(const FrameSpec& spec, const Buffer& buffer) {
        if (!loaded_->context->setTensorAddress(spec.tensor.c_str(), buffer.device.get())) {
            throw Error(path_.string() + ": " + api + " takes no memory for " + spec.tensor + ": " +
                        Logger::instance().take() + ": " + again());
        }
    }

    void check(const nvinfer1::ICudaEngine& engine, const FrameSpec& spec, nvinfer1::TensorIOMode mode) const {
        const nvinfer1::Dims seen = engine.getTensorShape(spec.tensor.c_str());
        const auto expected = spec.shape();
        const auto sides = std::span(seen.d).first(static_cast<std::size_t>(std::max(seen.nbDims, 0)));
        if (engine.getTensorIOMode(spec.tensor.c_str()) == mode &&
            engine.getTensorDataType(spec.tensor.c_str()) == nvinfer1::DataType::kUINT8 &&
            std::ranges::equal(sides, expected)) {
            return;
        }
        throw Error(path_.string() + ": " + spec.tensor + " is not the uint8 " +
                    (mode == nvinfer1::TensorIOMode::kINPUT ? "input" : "output") + " of the manifest's " +
                    std::to_string(spec.width) + "x" + std::to_string(spec.height) + " frame: " + again());
    }

    void work() {
        cudaStream_t stream = loaded_->stream.get();
        const Buffer& frame = loaded_->frame;
        const Buffer& clean = loaded_->clean;
        cuda::check(cudaMemcpyAsync(frame.device.get(), frame.host.get(), frame.bytes, cudaMemcpyHostToDevice, stream),
                    "cudaMemcpyAsync");
        if (!loaded_->context->enqueueV3(stream)) {
            throw Error(path_.string() + ": " + api + " failed: " + Logger::instance().take() + ": open it again");
        }
        cuda::check(cudaMemcpyAsync(clean.host.get(), clean.device.get(), clean.bytes, cudaMemcpyDeviceToHost, stream),
                    "cudaMemcpyAsync");
    }

    /// The three calls as one graph; where one of them cannot be captured they stay three, which give the same pixels.
    void capture() {
        try {
            loaded_->graph = cuda::capture(loaded_->stream, [this] { work(); });
        } catch (const Error&) {
            static_cast<void>(cudaGetLastError());  // else the next call that looks for one finds it
            Logger::instance().take();
        }
    }

    void synchronize() { cuda::check(cudaStreamSynchronize(loaded_->stream.get()), "cudaStreamSynchronize"); }

    /// The bundle's engines of this precision and API, if one is of the version that is linked.
    [[nodiscard]] std::vector<EngineEntry> of_this_version() const {
        const std::vector<EngineEntry> built = bundle().engines(precision(), api);
        const std::string here = version_here();
        if (built.empty()) {
            throw Error(bundle().path().string() + ": no " + std::string(to_string(precision())) + " engine for " +
                        api + ": " + again());
        }
        std::vector<EngineEntry> fitting;
        std::ranges::copy_if(built, std::back_inserter(fitting),
                             [&](const EngineEntry& entry) { return is_of_version(entry.api_version, here); });
        if (fitting.empty()) {
            throw Error(unfit(built.front(), std::string(api) + " " + here));
        }
        return fitting;
    }

    [[nodiscard]] EngineEntry of_this_gpu(const std::vector<EngineEntry>& built, const cuda::Gpu& gpu) const {
        if (precision() == Precision::fp8 && std::stoi(gpu.architecture.substr(2)) < first_with_fp8) {
            throw Error(gpu.name + " is " + gpu.architecture + ", FP8 needs sm" + std::to_string(first_with_fp8) +
                        " or newer: take fp16 or int8");
        }
        for (const std::string& wanted : {gpu.architecture, std::string(portable)}) {
            for (const EngineEntry& entry : built) {
                if (names(entry.arch, wanted) && (wanted != portable || gpu.architecture != turing)) {
                    return entry;
                }
            }
        }
        const std::string here = std::string(api) + " " + version_here() + " on " + gpu.architecture;
        throw Error(unfit(built.front(), here + " (" + gpu.name + ")"));
    }

    [[nodiscard]] std::string unfit(const EngineEntry& entry, const std::string& here) const {
        return (bundle().path() / entry.file).string() + ": built with " + entry.api + " " + entry.api_version +
               " for " + entry.arch + ", this is " + here + ": " + again();
    }

    /// The command that builds the engine; it names this GPU where that is known and has no part in the portable one.
    [[nodiscard]] std::string again() const {
        const bool named = DERAIN_TENSORRT_RTX && gpu_ && gpu_->architecture == turing;
        return "run `derain build " + bundle().path().string() + " --precision " + std::string(to_string(precision())) +
               " --api " + api + (named ? std::string(" --arch ") + turing : "") + "`";
    }

    bool use_graph_;
    std::optional<cuda::Gpu> gpu_;
    std::filesystem::path path_;
    std::unique_ptr<Loaded> loaded_;
};

const bool registered = [] {
    register_engine(api, [](const Bundle& bundle, Precision precision, const EngineOptions& options) {
        return std::make_unique<TensorRT>(bundle, precision, options);
    });
    return true;
}();

}  // namespace

}  // namespace derain
