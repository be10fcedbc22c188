#include "cuda.hpp"

#include "derain/error.hpp"

namespace derain::cuda {

namespace {

std::string words(cudaError_t status) {
    return "CUDA error " + std::to_string(static_cast<int>(status)) + ", " + cudaGetErrorString(status);
}

}  // namespace

void check(cudaError_t status, const char* function) {
    if (status != cudaSuccess) {
        throw Error(std::string(function) + ": " + words(status) + ": see `nvidia-smi`");
    }
}

Gpu Gpu::open() {
    int count = 0;
    if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess || count == 0) {
        throw Error("no GPU that CUDA can use (" + words(status == cudaSuccess ? cudaErrorNoDevice : status) +
                    "): install or update NVIDIA's driver, or take another engine");
    }
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    return {.name = static_cast<const char*>(properties.name),
            .architecture = "sm" + std::to_string(properties.major) + std::to_string(properties.minor)};
}

OnFirstGpu::OnFirstGpu() noexcept {
    if (cudaGetDevice(&callers_) != cudaSuccess) {
        callers_ = 0;
    }
    if (callers_ != 0) {
        static_cast<void>(cudaSetDevice(0));
    }
}

OnFirstGpu::~OnFirstGpu() {
    if (callers_ != 0) {
        static_cast<void>(cudaSetDevice(callers_));
    }
}

std::size_t free_bytes() {
    std::size_t free = 0;
    std::size_t total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return free;
}

Stream make_stream() {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    return Stream(stream);
}

DeviceMemory allocate(std::size_t bytes) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes), "cudaMalloc");
    return DeviceMemory(memory);
}

PinnedMemory allocate_pinned(std::size_t bytes) {
    void* memory = nullptr;
    check(cudaMallocHost(&memory, bytes), "cudaMallocHost");
    return PinnedMemory(static_cast<std::byte*>(memory));
}

Graph capture(const Stream& stream, const std::function<void()>& work) {
    check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    try {
        work();
    } catch (...) {  // a capture must be ended, whatever became of it
        cudaGraph_t broken = nullptr;
        if (cudaStreamEndCapture(stream.get(), &broken) == cudaSuccess) {
            cudaGraphDestroy(broken);
        }
        throw;
    }
    cudaGraph_t captured = nullptr;
    check(cudaStreamEndCapture(stream.get(), &captured), "cudaStreamEndCapture");
    const std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, Release<cudaGraphDestroy>> graph(captured);
    cudaGraphExec_t executable = nullptr;
    check(cudaGraphInstantiateWithFlags(&executable, graph.get(), 0), "cudaGraphInstantiateWithFlags");
    return Graph(executable);
}

}  // namespace derain::cuda
