#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>

#include "derain/stream/capture.hpp"
#include "stream_support.hpp"

namespace derain {
namespace {

/// A flag that threads wait for.
class Flag {
   public:
    void set() {
        const std::scoped_lock lock(mutex_);
        set_ = true;
        changed_.notify_all();
    }
    bool wait() {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(20), [this] { return set_; });
    }
    bool is_set() {
        const std::scoped_lock lock(mutex_);
        return set_;
    }

   private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool set_ = false;
};

constexpr int hang = -1, wait = -2, broken = -3, foreign = -4;
constexpr double soon_s = 0.01;

/// Gives pictures of `levels`, throws no error but a number at `foreign`, and hangs at `hang` until `go_on` is set, at
/// `wait` until it is closed, as the reads of a camera or of a ring do that look for that; `reopened` gives the
/// successors one after the other.
struct Script {
    std::vector<int> levels;
    Flag hangs, go_on, released;
    std::shared_ptr<Script> successor;
    std::function<void()> on_reopening = [] {};
    bool opened = false;
};

class Camera final : public Source {
   public:
    explicit Camera(std::shared_ptr<Script> script, std::optional<double> fps = std::nullopt)
        : Source("camera", testing::make_spec()), script_(std::move(script)) {
        set_live(true);
        set_fps(fps);
    }
    /// What the first of all is asked each time.
    [[nodiscard]] std::unique_ptr<Source> reopened() const override {
        script_->on_reopening();
        for (auto next = script_->successor; next; next = next->successor) {
            if (!std::exchange(next->opened, true)) {
                return std::make_unique<Camera>(next);
            }
        }
        throw Error("camera: away");
    }

   private:
    Read read() override {
        while (next_ < script_->levels.size()) {
            const int level = script_->levels[next_++];
            if (level == broken) {
                return {.broken = true};
            }
            if (level == foreign) {
                throw 7;
            }
            if (level != hang && level != wait) {
                return {.picture = testing::grey(level)};
            }
            script_->hangs.set();
            while (level == wait && !closed()) {
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
            if (level == hang) {
                script_->go_on.wait();
            }
        }
        return {};
    }
    void release() override { script_->released.set(); }

    std::shared_ptr<Script> script_;
    std::size_t next_ = 0;
};

std::shared_ptr<Script> script(std::vector<int> levels, std::shared_ptr<Script> successor = nullptr) {
    auto made = std::make_shared<Script>();
    made->levels = std::move(levels);
    made->successor = std::move(successor);
    return made;
}

/// Ids and levels of the next `count` frames.
std::vector<std::pair<std::int64_t, int>> taken(FrameQueue& queue, std::size_t count) {
    std::vector<std::pair<std::int64_t, int>> seen;
    for (int patience = 0; patience < 20'000 && seen.size() < count; ++patience) {
        if (const auto frame = queue.take()) {
            seen.emplace_back(frame->id, std::to_integer<int>(frame->picture.bytes().front()));
        } else {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }
    return seen;
}

using Seen = std::vector<std::pair<std::int64_t, int>>;

/// Lines told on any thread.
class Lines {
   public:
    Tell tell() {
        return [this](std::string_view line) {
            const std::scoped_lock lock(mutex_);
            lines_.emplace_back(line);
        };
    }
    std::ptrdiff_t count(const std::string& line) {
        const std::scoped_lock lock(mutex_);
        return std::ranges::count(lines_, line);
    }

   private:
    std::mutex mutex_;
    std::vector<std::string> lines_;
};

/// While it lives, no thread can be started: each would have a stack that no memory is large enough for.
class NoThreads {
   public:
    NoThreads() {
        pthread_getattr_default_np(&before_);
        pthread_attr_t vast{};
        pthread_getattr_default_np(&vast);
        pthread_attr_setstacksize(&vast, std::size_t{1} << 60U);
        EXPECT_EQ(pthread_setattr_default_np(&vast), 0);
        pthread_attr_destroy(&vast);
    }
    NoThreads(const NoThreads&) = delete;
    NoThreads& operator=(const NoThreads&) = delete;
    ~NoThreads() {
        pthread_setattr_default_np(&before_);
        pthread_attr_destroy(&before_);
    }

   private:
    pthread_attr_t before_{};
};

TEST(Capture, WhatAStalledReaderDeliversAfterAllIsIgnoredAndItsSourceReleased) {
    const auto back = script({2, 3, hang});
    const auto stalled = script({1, hang, 99}, back);
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    Capture capture(std::make_shared<Camera>(stalled), queue);
    EXPECT_EQ(taken(*queue, 1), (Seen{{0, 1}}));
    ASSERT_TRUE(stalled->hangs.wait());
    capture.watch(monotonic_ns() + 1000 * second_ns);
    EXPECT_TRUE(capture.state().starts_with("lost (no frame for 1000.")) << capture.state();
    EXPECT_EQ(taken(*queue, 2), (Seen{{1, 2}, {2, 3}}));
    ASSERT_TRUE(back->hangs.wait());
    EXPECT_EQ(capture.state(), "open");
    stalled->go_on.set();
    EXPECT_TRUE(stalled->released.wait());
    EXPECT_FALSE(queue->take());
    EXPECT_EQ(capture.faults(), 1);
    EXPECT_FALSE(capture.error());
    back->go_on.set();
}

TEST(Capture, AStalledSourceIsClosedSoThatItsReaderAndItsDeviceAreFree) {
    const auto last = script({3, hang});
    const auto second = script({2, wait}, last);
    const auto first = script({1, wait}, second);
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    Capture capture(std::make_shared<Camera>(first), queue);
    for (const auto& stalled : {first, second}) {
        EXPECT_EQ(taken(*queue, 1).size(), 1U);
        ASSERT_TRUE(stalled->hangs.wait());
        capture.watch(monotonic_ns() + 1000 * second_ns);
        EXPECT_TRUE(stalled->released.wait());
    }
    EXPECT_EQ(taken(*queue, 1), (Seen{{2, 3}}));
    EXPECT_EQ(capture.faults(), 2);
    EXPECT_FALSE(capture.error());
    last->go_on.set();
}

TEST(Capture, ARunThatEndsWhileAReopenedSourceIsSilentClosesIt) {
    const auto back = script({wait});
    const auto stalled = script({1, wait}, back);
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    {
        Capture capture(std::make_shared<Camera>(stalled), queue, stall_s, nullptr, monotonic_ns, soon_s);
        EXPECT_EQ(taken(*queue, 1).size(), 1U);
        ASSERT_TRUE(stalled->hangs.wait());
        capture.watch(monotonic_ns() + 1000 * second_ns);
        ASSERT_TRUE(back->hangs.wait());
    }
    EXPECT_TRUE(back->released.wait());
}

TEST(Capture, ASourceThatComesBackAfterTheEndIsClosedUnread) {
    Flag opening;
    Flag go_on;
    const auto back = script({wait});
    const auto stalled = script({1, wait}, back);
    stalled->on_reopening = [&] {
        opening.set();
        go_on.wait();
    };
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    {
        Capture capture(std::make_shared<Camera>(stalled), queue, stall_s, nullptr, monotonic_ns, soon_s);
        EXPECT_EQ(taken(*queue, 1).size(), 1U);
        ASSERT_TRUE(stalled->hangs.wait());
        capture.watch(monotonic_ns() + 1000 * second_ns);
        ASSERT_TRUE(opening.wait());
    }
    go_on.set();
    EXPECT_TRUE(back->released.wait());
    EXPECT_FALSE(back->hangs.is_set());
}

TEST(Capture, AReopeningThatFailsWhateverItThrowsIsTriedAgain) {
    const auto back = script({2, hang});
    const auto stalled = script({1, wait}, back);
    int attempts = 0;
    stalled->on_reopening = [&attempts] {
        ++attempts;
        if (attempts == 1) {
            throw std::bad_alloc();
        }
        if (attempts == 2) {
            throw 7;
        }
    };
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    Capture capture(std::make_shared<Camera>(stalled), queue);
    EXPECT_EQ(taken(*queue, 1).size(), 1U);
    ASSERT_TRUE(stalled->hangs.wait());
    capture.watch(monotonic_ns() + 1000 * second_ns);
    EXPECT_EQ(taken(*queue, 1), (Seen{{1, 2}}));
    back->go_on.set();
}

TEST(Capture, ASourceThatThrowsWhatIsNoErrorIsLostAsAnyOther) {
    const auto back = script({2, hang});
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    Capture capture(std::make_shared<Camera>(script({1, foreign}, back)), queue);
    EXPECT_EQ(taken(*queue, 2), (Seen{{0, 1}, {1, 2}}));
    EXPECT_EQ(capture.faults(), 1);
    EXPECT_EQ(capture.fault(), "an exception of unknown type: report it");
    back->go_on.set();
}

TEST(Capture, AThreadThatCannotBeStartedIsToldOfOnceAndTriedAgainAtTheNextLook) {
    const auto back = script({2, hang});
    const auto stalled = script({1, wait}, back);
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    Lines lines;
    Capture capture(std::make_shared<Camera>(stalled), queue, stall_s, lines.tell());
    EXPECT_EQ(taken(*queue, 1).size(), 1U);
    ASSERT_TRUE(stalled->hangs.wait());
    const std::string why =
        "no thread to read it (Resource temporarily unavailable): let this process have more of them, see `ulimit -u` "
        "and pids.max";
    {
        const NoThreads none;
        for (int looks = 0; looks < 3; ++looks) {
            capture.watch(monotonic_ns() + 1000 * second_ns);
        }
    }
    EXPECT_EQ(lines.count("the source is not back: " + why), 1);
    EXPECT_TRUE(capture.fault()->ends_with(" s; not back: " + why)) << *capture.fault();
    EXPECT_EQ(capture.faults(), 1);
    capture.watch(monotonic_ns());
    EXPECT_EQ(taken(*queue, 1), (Seen{{1, 2}}));
    EXPECT_EQ(lines.count("the source is open again"), 1);
    back->go_on.set();
}

TEST(Capture, ARunEndsAlsoWhereNoThreadCouldBeStarted) {
    const auto stalled = script({1, wait});
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    Capture capture(std::make_shared<Camera>(stalled), queue, stall_s, nullptr, monotonic_ns, soon_s);
    EXPECT_EQ(taken(*queue, 1).size(), 1U);
    ASSERT_TRUE(stalled->hangs.wait());
    const NoThreads none;
    capture.watch(monotonic_ns() + 1000 * second_ns);
}

TEST(Capture, OnceEightReadsHangForGoodNoOtherIsBegunUntilOneReturns) {
    std::vector<std::shared_ptr<Script>> cameras{script({9, hang})};
    for (int level = 8; level > 0; --level) {
        cameras.insert(cameras.begin(), script({level, hang}, cameras.front()));
    }
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    Lines lines;
    std::atomic<std::int64_t> now_ns = 0;
    Capture capture(std::make_shared<Camera>(cameras.front()), queue, stall_s, lines.tell(),
                    [&now_ns] { return now_ns.load(); });
    for (int level = 1; level <= 8; ++level) {
        EXPECT_EQ(taken(*queue, 1), (Seen{{level - 1, level}}));
        ASSERT_TRUE(cameras.at(static_cast<std::size_t>(level - 1))->hangs.wait());
        now_ns += 100 * second_ns;  // so long that the back-off has forgotten the one before
        capture.watch(now_ns);
    }
    capture.watch(now_ns);
    EXPECT_EQ(lines.count("the source is not back: 8 reads of it hang, no more are begun until one returns: reset the "
                          "camera or its driver"),
              1);
    EXPECT_EQ(capture.faults(), 8);
    EXPECT_FALSE(cameras.back()->opened);
    cameras.at(3)->go_on.set();
    for (int patience = 0; patience < 20'000 && !cameras.back()->hangs.is_set(); ++patience) {
        capture.watch(now_ns);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(taken(*queue, 1), (Seen{{8, 9}}));
    for (const auto& camera : cameras) {
        camera->go_on.set();
    }
}

TEST(Capture, WhyALostSourceDoesNotComeBackIsToldOnceAndKept) {
    const auto stalled = script({1, wait});
    std::atomic<int> attempts = 0;
    stalled->on_reopening = [&attempts] { ++attempts; };
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    Lines lines;
    Capture capture(std::make_shared<Camera>(stalled), queue, stall_s, lines.tell());
    EXPECT_EQ(taken(*queue, 1).size(), 1U);
    ASSERT_TRUE(stalled->hangs.wait());
    capture.watch(monotonic_ns() + 1000 * second_ns);
    for (int patience = 0; patience < 20'000 && attempts < 3; ++patience) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const auto fault = capture.fault();
    EXPECT_TRUE(fault->ends_with(" s; not back: camera: away")) << *fault;
    EXPECT_EQ(capture.faults(), 1);
    EXPECT_EQ(lines.count("the source is not back: camera: away"), 1);
}

TEST(Capture, AFrameThatWaitsForRoomIsNotTheCamerasSilence) {
    const auto camera = script({1, 2, 3, hang});
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    std::atomic<std::int64_t> now_ns = 0;
    Capture capture(std::make_shared<Camera>(camera), queue, stall_s, nullptr, [&now_ns] { return now_ns.load(); });
    while (queue->size() < depth(Policy::every)) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(500));  // the third waits by now
    now_ns = 1000 * second_ns;
    capture.watch(now_ns);  // the engine has been busy ever since
    EXPECT_EQ(capture.faults(), 0);
    EXPECT_EQ(taken(*queue, 3), (Seen{{0, 1}, {1, 2}, {2, 3}}));
    ASSERT_TRUE(camera->hangs.wait());
    capture.watch(now_ns + second_ns);
    EXPECT_EQ(capture.faults(), 0);
    capture.watch(now_ns + 3 * second_ns);
    EXPECT_EQ(capture.faults(), 1);
    camera->go_on.set();
}

TEST(Capture, ACameraThatDeliversOnlyBrokenFramesIsAsGoodAsStalled) {
    const auto camera = script({1, broken, broken, hang});
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    std::atomic<std::int64_t> now_ns = 0;
    Capture capture(std::make_shared<Camera>(camera), queue, stall_s, nullptr,
                    [&now_ns] { return now_ns += second_ns; });  // once for its start and once for the first frame
    EXPECT_EQ(taken(*queue, 1), (Seen{{0, 1}}));
    ASSERT_TRUE(camera->hangs.wait());
    std::vector<FrameQueue::Dropped> dropped;
    queue->take_dropped(dropped);
    ASSERT_EQ(dropped.size(), 2U);
    EXPECT_EQ(dropped[1].id, 2);
    EXPECT_EQ(dropped[1].why, Why::broken);
    capture.watch(4 * second_ns);
    EXPECT_EQ(capture.faults(), 1);
    camera->go_on.set();
}

TEST(Capture, ACameraThatEndedIsNotLostWhileTheEngineWorksOnItsLastFrame) {
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    Capture capture(std::make_shared<Camera>(script({1})), queue);
    EXPECT_EQ(taken(*queue, 1).size(), 1U);
    while (!queue->ended()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    capture.watch(monotonic_ns() + 1000 * second_ns);
    EXPECT_EQ(capture.faults(), 0);
}

TEST(Capture, ASlowCameraHasTheTimeOfFourFrames) {
    const auto camera = script({1, hang});
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    Capture capture(std::make_shared<Camera>(camera, 0.4), queue, stall_s, nullptr, [] { return 0; });
    EXPECT_EQ(taken(*queue, 1).size(), 1U);
    ASSERT_TRUE(camera->hangs.wait());
    capture.watch(9 * second_ns);
    EXPECT_EQ(capture.faults(), 0);
    capture.watch(10 * second_ns);
    EXPECT_EQ(capture.faults(), 1);
    camera->go_on.set();
}

TEST(Capture, ASourceClosedDuringAReadIsReleasedByTheReaderWhenTheReadReturns) {
    const auto hanging = script({hang});
    Camera camera(hanging);
    std::jthread reader([&camera] { EXPECT_FALSE(camera.next()); });
    ASSERT_TRUE(hanging->hangs.wait());
    camera.close();
    EXPECT_FALSE(hanging->released.is_set());
    hanging->go_on.set();
    reader.join();
    EXPECT_TRUE(hanging->released.is_set());
}

TEST(Capture, ACameraThatNeverDeliveredIsToldOfOnceAndWaitedFor) {
    for (const auto& [fps, expected_s] : {std::pair(std::optional<double>(), 5), std::pair(std::optional(0.4), 10)}) {
        const auto silent = script({hang, 1, hang});
        const auto queue = std::make_shared<FrameQueue>(Policy::latest);
        std::vector<std::string> lines;
        Capture capture(
            std::make_shared<Camera>(silent, fps), queue, stall_s,
            [&lines](std::string_view line) { lines.emplace_back(line); }, [] { return 0; });
        ASSERT_TRUE(silent->hangs.wait());
        capture.watch(expected_s * second_ns - 1);
        EXPECT_TRUE(lines.empty());
        capture.watch(expected_s * second_ns);
        capture.watch(1000 * second_ns);
        ASSERT_EQ(lines.size(), 1U);
        const std::string seconds = expected_s == 5 ? "5.0 s" : "10.0 s";
        EXPECT_EQ(lines[0], "camera: open, but no frame for " + seconds + ", expected one within " + seconds +
                                ": is the camera, or what writes its frames, at work?");
        EXPECT_EQ(capture.faults(), 0);
        silent->go_on.set();
        EXPECT_EQ(taken(*queue, 1), (Seen{{0, 1}}));
    }
}

TEST(Capture, ACameraThatIsOpenedAgainHasAsLongForItsFirstFrameAsAtTheStart) {
    const auto back = script({hang, 2, hang});
    const auto first = script({1, wait}, back);
    const auto queue = std::make_shared<FrameQueue>(Policy::every);
    Capture capture(std::make_shared<Camera>(first), queue, stall_s, nullptr, [] { return 0; });
    EXPECT_EQ(taken(*queue, 1), (Seen{{0, 1}}));
    ASSERT_TRUE(first->hangs.wait());
    capture.watch(3 * second_ns);
    EXPECT_EQ(capture.faults(), 1);
    ASSERT_TRUE(back->hangs.wait());
    capture.watch(5 * second_ns - 1);
    EXPECT_EQ(capture.faults(), 1);
    back->go_on.set();
    EXPECT_EQ(taken(*queue, 1), (Seen{{1, 2}}));
}

TEST(Capture, ASourceWithoutFramesSaysSo) {
    Camera camera(script({}));
    EXPECT_THROW(camera.next(), Error);
}

}  // namespace
}  // namespace derain
