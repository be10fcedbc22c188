#include "session.hpp"

#include <algorithm>
#include <utility>

namespace derain {

namespace {

/// Waits on `condition` until `ready`, for ever or as long as the patience lasts; false where it ran out.
template <typename Ready>
bool wait(std::condition_variable& condition, std::unique_lock<std::mutex>& lock, Patience patience, Ready ready) {
    if (patience) {
        return condition.wait_for(lock, *patience, ready);
    }
    condition.wait(lock, ready);
    return true;
}

/// The caller takes the frames from `present`; the run's own sink has nothing to do.
class Nowhere final : public Sink {
   public:
    using Sink::Sink;

   private:
    void put(std::span<const std::byte> /*image*/, std::int64_t /*captured_ns*/, bool /*raw*/) override {}
};

constexpr std::size_t pictures_in_advance = 8;  // more than the pipeline holds at a time

}  // namespace

/// A slot between the caller's thread, which fills it, and the capture thread, which empties it.
class Session::Fed final : public Source {
   public:
    Fed(const FrameSpec& spec, Tell tell)
        : Source("submitted frames", spec),
          tell_(std::move(tell)),
          pool_(Pool::make(spec.bytes(), pictures_in_advance)) {}

    /// `captured_ns` 0: now, as is a time of another clock, which would be no deadline or one long past.
    ///
    /// `count` is called before the frame can go anywhere, so that no more are seen out than in.
    template <typename Count>
    std::optional<std::uint64_t> feed(std::span<const std::byte> frame, std::int64_t captured_ns, Patience patience,
                                      Count count) {
        const auto now_ns = monotonic_ns();
        const auto ours_ns = captured_ns == 0 ? now_ns : of_our_clock(captured_ns, now_ns);
        Read read{.picture = pool_->take(), .captured_ns = ours_ns};
        std::ranges::copy(frame, read.picture.writable().begin());
        std::unique_lock lock(mutex_);
        if (!wait(emptied_, lock, patience, [this] { return !slot_ || ended_; })) {
            return std::nullopt;
        }
        if (ended_) {
            throw Error("the stream has ended, no frame can follow: open another");
        }
        if (captured_ns != 0 && ours_ns != captured_ns && !foreign_) {
            foreign_ = "captured_ns is " + std::to_string(captured_ns) + ", expected CLOCK_MONOTONIC, now " +
                       std::to_string(now_ns) + ", of the last 10 s: such frames count as captured when submitted";
        }
        count();
        slot_ = std::move(read);
        filled_.notify_one();
        return count_++;
    }

    void end() {
        const std::scoped_lock lock(mutex_);
        ended_ = true;
        if (count_ == 0) {
            close();  // a source that ends without a frame is a fault, one that was closed is not
        }
        filled_.notify_all();
        emptied_.notify_all();
    }

    [[nodiscard]] std::unique_ptr<Source> reopened() const override {
        throw Error(location() + " come from the caller: there is nothing to reopen");
    }

   private:
    Read read() override {
        std::unique_lock lock(mutex_);
        filled_.wait(lock, [this] { return slot_ || ended_; });
        if (!slot_) {
            return {};
        }
        Read read = std::move(*slot_);
        slot_.reset();
        const bool untold = foreign_ && !std::exchange(foreign_told_, true);
        emptied_.notify_one();
        lock.unlock();
        if (untold && tell_) {
            tell_(*foreign_);
        }
        return read;
    }

    const Tell tell_;
    const std::shared_ptr<Pool> pool_;
    std::mutex mutex_;
    std::condition_variable filled_;
    std::condition_variable emptied_;
    std::optional<Read> slot_;
    std::uint64_t count_ = 0;
    bool ended_ = false;
    std::optional<std::string> foreign_;  // set once; told on the stream's thread, where all warnings come from
    bool foreign_told_ = false;
};

Session::Session(std::shared_ptr<Engine> engine, Options options)
    : engine_(std::move(engine)),
      options_(std::move(options)),
      source_(std::make_shared<Fed>(engine_->input(), options_.tell)) {
    if (!engine_->input().same_format(engine_->output())) {
        throw Error(engine_->bundle().path().string() +
                    ": input and output differ in size or pixels, so a raw frame cannot stand in for a clean one: "
                    "export it with one format");
    }
    thread_ = std::thread([this] { run_until_end(); });
}

Session::~Session() {
    {
        const std::scoped_lock lock(mutex_);
        closed_ = true;
    }
    room_.notify_all();
    source_->end();
    thread_.join();
}

std::optional<std::uint64_t> Session::submit(std::span<const std::byte> frame, std::int64_t captured_ns,
                                             Patience patience) {
    if (frame.size() != engine_->input().bytes()) {
        throw Error("frame is " + std::to_string(frame.size()) + " bytes, expected " +
                    std::to_string(engine_->input().bytes()) + ": pass whole frames without padding");
    }
    // Under `latest` the capture thread empties the slot at once, so waiting for it is no waiting for the engine.
    const auto counted = [this] {
        const std::scoped_lock lock(mutex_);
        ++statistics_.submitted;
    };
    return source_->feed(frame, captured_ns, options_.policy == Policy::latest ? std::nullopt : patience, counted);
}

std::optional<Received> Session::receive(Patience patience) {
    std::unique_lock lock(mutex_);
    if (!wait(arrived_, lock, patience, [this] { return size_ > 0 || over_; })) {
        return std::nullopt;
    }
    if (size_ == 0) {
        if (!fault_.empty()) {
            throw Error(fault_);
        }
        return std::nullopt;
    }
    std::optional<Received> received = std::exchange(ring_.at(first_), std::nullopt);
    first_ = (first_ + 1) % ring_.size();
    --size_;
    room_.notify_one();
    return received;
}

void Session::finish() { source_->end(); }

bool Session::ended() const {
    const std::scoped_lock lock(mutex_);
    return over_ && size_ == 0 && fault_.empty();
}

void Session::present(const FrameRecord& record, const Picture& picture) {
    std::unique_lock lock(mutex_);
    statistics_.tally.add(record);
    if (options_.policy == Policy::every) {
        room_.wait(lock, [this] { return size_ < ring_.size() || closed_; });
        if (closed_) {
            return;
        }
    } else if (size_ > 0) {
        size_ = 0;
        ++statistics_.unreceived;
    }
    ring_.at((first_ + size_) % ring_.size()) = Received{record, picture};
    ++size_;
    arrived_.notify_one();
}

void Session::run_until_end() {
    Nowhere sink("whoever receives", engine_->output());
    std::string fault;
    try {
        run(engine_, source_, sink,
            {.policy = options_.policy,
             .deadline_ms = options_.deadline_ms,
             .patience_s = options_.patience_s,
             .on_frame = [this](const FrameRecord& record, const Frame&,
                                const Picture& picture) { present(record, picture); },
             .on_drop =
                 [this](const FrameRecord& record) {
                     const std::scoped_lock lock(mutex_);
                     statistics_.tally.add(record);
                 },
             .on_unused =
                 [this](std::int64_t captured_ns, std::int64_t ns) {
                     const std::scoped_lock lock(mutex_);
                     statistics_.tally.add_unused_inference(captured_ns, ns);
                 },
             .tell = options_.tell,
             .stop =
                 [this] {
                     const std::scoped_lock lock(mutex_);
                     return closed_;
                 }});
    } catch (...) {
        fault = what_was_caught();
    }
    source_->end();
    const std::scoped_lock lock(mutex_);
    over_ = true;
    fault_ = std::move(fault);
    arrived_.notify_all();
}

}  // namespace derain
