#include "derain/stream/filter.hpp"

#include <utility>

namespace derain {

/// The host presents.
class Filter::Nowhere final : public Sink {
   public:
    explicit Nowhere(const FrameSpec& spec) : Sink("filter", spec) {}

   private:
    void put(std::span<const std::byte>, std::int64_t, bool) override {}
};

Filter::Filter(std::shared_ptr<Engine> engine, std::optional<double> deadline_ms, ToOutput to_output, Tell tell)
    : wake_(std::make_shared<Wake>()),
      guard_(deadline_in_ns(deadline_ms), tell),
      sink_(std::make_unique<Nowhere>(engine->output())),
      worker_(std::move(engine), [wake = wake_] { wake->set(); }),
      loop_(frames_, worker_, *sink_, guard_,
            {.to_output = std::move(to_output),
             .on_frame =
                 [this](const FrameRecord& record, const Frame&, const Picture& picture) {
                     shown_ = {picture, record.why};
                     if (!stopped_) {
                         const std::scoped_lock lock(mutex_);
                         tally_.add(record);
                     }
                 },
             .on_unused =
                 [this](std::int64_t captured_ns, std::int64_t ns) {
                     const std::scoped_lock lock(mutex_);
                     tally_.add_unused_inference(captured_ns, ns);
                 },
             .tell = std::move(tell)}) {}

Filter::~Filter() = default;

Filter::Shown Filter::process(Picture raw, std::int64_t captured_ns) {
    frames_.put({.id = count_++, .captured_ns = captured_ns, .asked_ns = captured_ns, .picture = std::move(raw)});
    for (loop_.step(); !shown_; loop_.step()) {
        if (stopped_) {
            loop_.give_up();
        } else {
            wake_->wait(loop_.patience_s());
        }
    }
    return *std::exchange(shown_, std::nullopt);
}

void Filter::stop() {
    stopped_ = true;
    wake_->set();
}

void Filter::go_on() { stopped_ = false; }

}  // namespace derain
