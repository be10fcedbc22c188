#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <type_traits>

namespace derain::cuda {

/// Error with CUDA's own words unless `status` is success.
void check(cudaError_t status, const char* function);

/// Gives a resource back with the CUDA function that does; what that function says is of no use any more.
template <auto release>
struct Release {
    template <typename Resource>
    void operator()(Resource* resource) const {
        static_cast<void>(release(resource));
    }
};

using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, Release<cudaStreamDestroy>>;
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Release<cudaGraphExecDestroy>>;
using DeviceMemory = std::unique_ptr<void, Release<cudaFree>>;
using PinnedMemory = std::unique_ptr<std::byte, Release<cudaFreeHost>>;

/// The first GPU this process may use.
struct Gpu {
    std::string name;
    std::string architecture;  ///< as "sm90": the compute capability's digits

    /// Error where there is no driver or no GPU.
    static Gpu open();
};

/// Makes the first GPU this thread's current one, and the caller's own current again at its end: the host of a library
/// may work on another. Where there is none, `Gpu::open` says so.
class OnFirstGpu {
   public:
    OnFirstGpu() noexcept;
    OnFirstGpu(const OnFirstGpu&) = delete;
    OnFirstGpu& operator=(const OnFirstGpu&) = delete;
    ~OnFirstGpu();

   private:
    int callers_ = 0;
};

/// GPU memory that nobody holds, in bytes.
std::size_t free_bytes();

Stream make_stream();
DeviceMemory allocate(std::size_t bytes);
/// Host memory that the GPU copies from and to without a detour.
PinnedMemory allocate_pinned(std::size_t bytes);

/// What `work` puts on the stream, as one graph.
Graph capture(const Stream& stream, const std::function<void()>& work);

}  // namespace derain::cuda
