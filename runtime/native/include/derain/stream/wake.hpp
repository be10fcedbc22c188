/// What other threads wake a loop with.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace derain {

class Wake {
   public:
    void set() {
        {
            const std::scoped_lock lock(mutex_);
            set_ = true;
        }
        changed_.notify_one();
    }

    /// Waits until it was set since the last wait, or the time is over.
    void wait(double seconds) {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return set_; });
        set_ = false;
    }

   private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool set_ = false;
};

}  // namespace derain
