#include "derain/stream/worker.hpp"

#include <condition_variable>
#include <mutex>
#include <utility>

#include "derain/stream/plausibility.hpp"

namespace derain {

namespace {

constexpr std::size_t outputs_in_advance = 3;  // one being made, one with the loop, one with whoever looks at it

std::string first_line(std::string_view what) { return std::string(what.substr(0, what.find('\n'))); }

}  // namespace

/// What the thread needs; it outlives the worker where the engine hangs.
class Worker::Thread {
   public:
    Thread(std::shared_ptr<Engine> engine, std::function<void()> on_done, Clock clock)
        : engine_(std::move(engine)),
          plausibility_(engine_->input(), engine_->output()),
          outputs_(Pool::make(engine_->output().bytes(), outputs_in_advance)),
          on_done_(std::move(on_done)),
          clock_(std::move(clock)) {}

    void give(Done job) {
        {
            const std::scoped_lock lock(mutex_);
            job_ = std::move(job);
        }
        changed_.notify_all();
    }

    std::optional<Done> poll() {
        const std::scoped_lock lock(mutex_);
        return std::exchange(done_, std::nullopt);
    }

    /// Asks the thread to end; false where the engine is at work for too long.
    bool end(double patience_s) {
        std::unique_lock lock(mutex_);
        ending_ = true;
        changed_.notify_all();
        return changed_.wait_for(lock, std::chrono::duration<double>(patience_s), [this] { return ended_; });
    }

    void run() {
        std::unique_lock lock(mutex_);
        while (true) {
            changed_.wait(lock, [this] { return job_ || ending_; });
            if (!job_) {
                break;
            }
            Done job = *std::exchange(job_, std::nullopt);
            lock.unlock();
            job.start_ns = clock_();
            if (job.frame) {
                infer(job);
            } else {
                reopen(job);
            }
            lock.lock();
            done_ = std::move(job);
            lock.unlock();
            on_done_();
            lock.lock();
        }
        ended_ = true;
        changed_.notify_all();
    }

   private:
    // Whatever an engine throws, std::bad_alloc included, must not end the stream: it becomes a counted fault.

    void infer(Done& job) {
        const auto image = job.frame->picture.bytes();
        try {
            job.clean = outputs_->take();
            engine_->infer(image, job.clean.writable());
            job.end_ns = clock_();
            job.fault = plausibility_.fault(image, job.clean.bytes());
        } catch (...) {
            job.end_ns = clock_();
            job.fault = first_line(what_was_caught());
        }
        if (job.fault) {
            job.clean = {};
        }
    }

    void reopen(Done& job) {
        try {
            engine_->close();
            engine_->open();
            engine_->warm_up();
        } catch (...) {
            job.fault = first_line(what_was_caught());
        }
        job.end_ns = clock_();
    }

    const std::shared_ptr<Engine> engine_;
    Plausibility plausibility_;
    const std::shared_ptr<Pool> outputs_;
    const std::function<void()> on_done_;
    const Clock clock_;

    std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<Done> job_;  // to do: with a frame to infer, without one to reopen
    std::optional<Done> done_;
    bool ending_ = false;
    bool ended_ = false;
};

Worker::Worker(std::shared_ptr<Engine> engine, std::function<void()> on_done, Clock clock, double patience_s)
    : patience_s_(patience_s),
      state_(std::make_shared<Thread>(std::move(engine), std::move(on_done), std::move(clock))),
      thread_([state = state_] { state->run(); }) {}

Worker::~Worker() {
    if (state_->end(patience_s_)) {
        thread_.join();
    } else {
        thread_.detach();
    }
}

void Worker::infer(const Frame& frame) { state_->give({.frame = frame}); }

void Worker::reopen() { state_->give({}); }

std::optional<Done> Worker::poll() { return state_->poll(); }

}  // namespace derain
