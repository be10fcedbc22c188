/// `null://`: counts the frames and drops them, to measure everything before it.
#include "kinds.hpp"

namespace derain {

namespace {

class NullSink final : public Sink {
   public:
    explicit NullSink(const FrameSpec& spec) : Sink("null://", spec) {}

   private:
    void put(std::span<const std::byte>, std::int64_t, bool) override {}
};

}  // namespace

std::unique_ptr<Sink> null_sink(const std::string&, const FrameSpec& spec, std::optional<double>, bool) {
    return std::make_unique<NullSink>(spec);
}

}  // namespace derain
