#include "derain/stream/capture.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <utility>

#include "derain/error.hpp"
#include "derain/stream/back_off.hpp"
#include "finally.hpp"
#include "tenths.hpp"

namespace derain {

namespace {

constexpr double patient_frames = 4;
constexpr double longest_s = 60;
constexpr int most_left_behind = 8;  // each holds a thread, a source and its pool
constexpr auto first_frame_ns = static_cast<std::int64_t>(first_frame_s * static_cast<double>(second_ns));

std::int64_t stall_ns(double stalled_after_s, std::optional<double> fps) {
    const double frames_s = fps && *fps > 0 ? std::min(patient_frames / *fps, longest_s) : 0;
    return std::llround(std::max(stalled_after_s, frames_s) * static_cast<double>(second_ns));
}

double seconds_of(std::int64_t ns) { return static_cast<double>(ns) / static_cast<double>(second_ns); }

}  // namespace

/// What the threads need; it outlives the capture where a read hangs. A thread of an older generation is left behind.
class Capture::Thread {
   public:
    Thread(std::shared_ptr<Source> source, std::shared_ptr<FrameQueue> queue, double stalled_after_s, Tell tell,
           Clock clock)
        : source_(std::move(source)),
          queue_(std::move(queue)),
          stalled_after_ns_(stall_ns(stalled_after_s, source_->fps())),
          tell_(std::move(tell)),
          clock_(std::move(clock)),
          heard_ns_(clock_()),
          current_(source_) {
        source_->set_policy(queue_->policy());
    }

    /// Reads `source`, or, without one, first reopens it.
    void run(std::shared_ptr<Source> source, int generation) {
        ++running_;
        const Finally ended([this] { --running_; });
        while (current(generation) && !stopped()) {
            if (!source) {
                source = reopen(generation);
                continue;
            }
            const bool over = deliver(*source, generation);
            source->close();
            if (over) {
                break;
            }
            source = nullptr;
        }
        const std::scoped_lock lock(mutex_);
        ended_ = ended_ || generation == generation_;
        changed_.notify_all();
    }

    void stop() {
        {
            const std::scoped_lock lock(mutex_);
            stopped_ = true;
        }
        changed_.notify_all();
        queue_->close();
    }

    /// Whether the thread ended in time; where it did not, what it reads is closed.
    bool end(double patience_s) {
        stop();
        std::unique_lock lock(mutex_);
        if (changed_.wait_for(lock, std::chrono::duration<double>(patience_s), [this] { return ended_; })) {
            return true;
        }
        const auto left = current_;
        lock.unlock();
        left->close();
        return false;
    }

    /// The generation of a thread to start, where the one there hangs; what that one reads is closed.
    std::optional<int> watch(std::int64_t now_ns) {
        std::unique_lock lock(mutex_);
        const auto silent_ns = now_ns - heard_ns_;
        const auto patience_ns = began_ ? stalled_after_ns_ : std::max(stalled_after_ns_, first_frame_ns);
        if (!source_->live() || state_ != "open" || stopped_ || over_ || putting_ || silent_ns < patience_ns) {
            return std::nullopt;
        }
        if (count_ == 0) {
            warn_of_silence(silent_ns, patience_ns);
            return std::nullopt;
        }
        const int next = ++generation_;
        const auto left = current_;
        lose("no frame for " + tenths(seconds_of(silent_ns)) + " s");
        lock.unlock();
        left->close();
        return next;
    }

    /// Tells why a source is not back, where that is news: the reason may have become another, with another mend.
    void stay_away(const std::string& why, int generation) {
        {
            const std::scoped_lock lock(mutex_);
            if (generation != generation_ || stopped_ || away_ == why) {
                return;
            }
            away_ = why;
            fault_ = lost_ + "; not back: " + why;
        }
        if (tell_) {
            tell_("the source is not back: " + why);
        }
    }

    /// How many threads have not ended.
    [[nodiscard]] int running() const { return running_; }

    template <typename T>
    T look(T Thread::*what) const {
        const std::scoped_lock lock(mutex_);
        return this->*what;
    }

    // Guarded by the mutex.
    std::exception_ptr error_;
    std::int64_t faults_ = 0;
    std::optional<std::string> fault_;
    std::string state_ = "open";

   private:
    bool current(int generation) const { return look(&Thread::generation_) == generation; }
    bool stopped() const { return look(&Thread::stopped_); }

    /// Every frame of a source into the queue, and the queue's end after the last; false where it is to be reopened.
    bool deliver(Source& source, int generation) {
        try {
            while (auto frame = source.next()) {
                const bool whole = !frame->broken;  // a camera that delivers nothing else is as good as stalled
                {
                    const std::scoped_lock lock(mutex_);
                    if (generation != generation_) {
                        return true;
                    }
                    count_ += frame->skipped;
                    frame->id = count_++;
                    began_ = true;
                    putting_ = whole;  // one that is broken never waits for room, but wakes who watches
                }
                const bool wanted = queue_->put(std::move(*frame));
                const std::scoped_lock lock(mutex_);
                putting_ = false;
                if (whole) {
                    hear();
                }
                if (!wanted) {
                    return true;
                }
            }
        } catch (...) {
            return !survives(what_was_caught(), generation);
        }
        if (tell_ && source.warning()) {
            tell_(*source.warning());
        }
        {
            const std::scoped_lock lock(mutex_);
            if (generation != generation_) {
                return true;
            }
            over_ = true;
        }
        queue_->close();
        return true;
    }

    /// Called by a handler.
    bool survives(const std::string& why, int generation) {
        {
            const std::scoped_lock lock(mutex_);
            if (generation != generation_) {
                return false;
            }
            if (source_->live() && count_ > 0 && !stopped_) {
                lose(why);
                return true;
            }
            error_ = std::current_exception();
        }
        queue_->close();
        return false;
    }

    /// One attempt, after its delay; nothing where it failed or is no longer wanted.
    std::shared_ptr<Source> reopen(int generation) {
        {
            std::unique_lock lock(mutex_);
            const std::chrono::duration<double> delay(back_off_.next_s(clock_()).value());
            if (changed_.wait_for(lock, delay, [this] { return stopped_; })) {
                return nullptr;
            }
        }
        std::shared_ptr<Source> source;
        try {
            source = source_->reopened();
            source->set_policy(queue_->policy());
        } catch (...) {
            stay_away(what_was_caught(), generation);
            return nullptr;
        }
        bool wanted = false;
        {
            const std::scoped_lock lock(mutex_);
            wanted = generation == generation_ && !stopped_;
            if (wanted) {
                current_ = source;
                began_ = false;
                hear();
            }
        }
        if (!wanted) {
            source->close();
            return nullptr;
        }
        if (tell_) {
            tell_("the source is open again");
        }
        return source;
    }

    void hear() {
        if (state_ != "open") {
            state_ = "open";
        }
        heard_ns_ = clock_();
    }

    /// Once. The source is waited for: opening it again would only begin its start anew.
    void warn_of_silence(std::int64_t silent_ns, std::int64_t expected_ns) {
        if (std::exchange(silence_told_, true) || !tell_) {
            return;
        }
        tell_(source_->location() + ": open, but no frame for " + tenths(seconds_of(silent_ns)) +
              " s, expected one within " + tenths(seconds_of(expected_ns)) +
              " s: is the camera, or what writes its frames, at work?");
    }

    void lose(const std::string& why) {
        ++faults_;
        fault_ = lost_ = why;
        away_.clear();
        state_ = "lost (" + why + ")";
        if (tell_) {
            tell_("source lost: " + why + ": reopening it");
        }
    }

    const std::shared_ptr<Source> source_;
    const std::shared_ptr<FrameQueue> queue_;
    const std::int64_t stalled_after_ns_;
    const Tell tell_;
    const Clock clock_;

    std::atomic<int> running_ = 0;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    BackOff back_off_;
    std::int64_t count_ = 0;
    std::int64_t heard_ns_;
    std::string lost_, away_;  // why it was lost, and why it is not back
    std::shared_ptr<Source> current_;
    bool silence_told_ = false;
    bool began_ = false;    // the source, as it was opened last, gave a frame
    bool putting_ = false;  // a frame waits for room: that is not the source's silence
    int generation_ = 0;
    bool stopped_ = false;
    bool over_ = false;  // the source's last frame came: nothing is awaited
    bool ended_ = false;
};

Capture::Capture(std::shared_ptr<Source> source, std::shared_ptr<FrameQueue> queue, double stalled_after_s, Tell tell,
                 Clock clock, double patience_s)
    : patience_s_(patience_s),
      state_(std::make_shared<Thread>(source, std::move(queue), stalled_after_s, std::move(tell), std::move(clock))),
      thread_([state = state_, source = std::move(source)]() mutable { state->run(std::move(source), 0); }) {}

Capture::~Capture() {
    if (state_->end(patience_s_)) {
        thread_.join();
    } else if (thread_.joinable()) {
        thread_.detach();
    }
}

void Capture::stop() { state_->stop(); }

void Capture::watch(std::int64_t now_ns) {
    if (const auto generation = state_->watch(now_ns)) {
        unread_ = generation;
    }
    if (!unread_) {
        return;
    }
    if (state_->running() >= most_left_behind) {
        state_->stay_away(std::to_string(most_left_behind) +
                              " reads of it hang, no more are begun until one returns: reset the camera or its driver",
                          *unread_);
        return;
    }
    try {
        std::thread reader([state = state_, generation = *unread_] { state->run(nullptr, generation); });
        thread_.detach();
        thread_ = std::move(reader);
        unread_.reset();
    } catch (...) {
        state_->stay_away(std::string("no thread to read it (") + what_was_caught() +
                              "): let this process have more of them, see `ulimit -u` and pids.max",
                          *unread_);
    }
}

std::exception_ptr Capture::error() const { return state_->look(&Thread::error_); }
std::int64_t Capture::faults() const { return state_->look(&Thread::faults_); }
std::optional<std::string> Capture::fault() const { return state_->look(&Thread::fault_); }
std::string Capture::state() const { return state_->look(&Thread::state_); }

}  // namespace derain
