/// The pipeline's rules in a time of their own: no threads, no sleeping, random schedules from a seed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>
#include <set>

#include "stream_support.hpp"

namespace derain {
namespace {

using testing::ms_ns;

/// Milliseconds a frame the engine gets, and whether it fails on it.
struct Job {
    std::int64_t took_ms;
    bool fails = false;
};

constexpr std::int64_t capture_ns = 7 * ms_ns;

struct Schedule {
    Policy policy = Policy::latest;
    std::vector<std::int64_t> gaps_ms;
    std::vector<Job> jobs;  // then always the last
    std::int64_t sink_ms = 0;
    std::optional<std::int64_t> deadline_ms = std::nullopt;
};

/// A camera, an engine and a sink that take the times they are given, on one clock that is only a number.
class Simulation final : public Jobs, private Sink {
   public:
    explicit Simulation(Schedule schedule)
        : Sink("simulation", testing::make_spec("clean")),
          schedule_(std::move(schedule)),
          queue_(schedule_.policy),
          guard_(schedule_.deadline_ms ? std::optional(*schedule_.deadline_ms * ms_ns) : std::nullopt) {
        std::int64_t at_ms = 0;
        for (const auto gap_ms : schedule_.gaps_ms) {
            arrivals_.push_back((at_ms += gap_ms) * ms_ns);
        }
    }

    Simulation& run() {
        deliver();
        while (!loop_.finished()) {
            const bool moved = loop_.step();
            deliver();
            if (!moved && !(pending_ && pending_->end_ns <= now_ns_)) {
                advance();
                deliver();
            }
            if (now_ns_ > 10'000'000 * ms_ns) {
                throw std::logic_error("the loop hangs");
            }
        }
        return *this;
    }

    std::vector<FrameRecord> records;
    std::vector<bool> shown_clean;
    Loop& loop() { return loop_; }
    const Guard& guard() const { return guard_; }

    void infer(const Frame& frame) override {
        ASSERT_FALSE(pending_) << "the engine got a frame while it had one";
        if (jobs_ < schedule_.jobs.size()) {
            job_ = schedule_.jobs[jobs_++];
        }
        pending_ = Done{.frame = frame, .start_ns = now_ns_, .end_ns = now_ns_ + job_.took_ms * ms_ns};
        if (job_.fails) {
            pending_->fault = "boom";
        } else {
            pending_->clean = clean_;
        }
    }

    void reopen() override {
        ASSERT_FALSE(pending_);
        pending_ = Done{.start_ns = now_ns_, .end_ns = now_ns_ + 20 * ms_ns};
    }

    std::optional<Done> poll() override {
        return pending_ && pending_->end_ns <= now_ns_ ? std::exchange(pending_, std::nullopt) : std::nullopt;
    }

   private:
    void put(std::span<const std::byte>, std::int64_t, bool) override {
        now_ns_ += schedule_.sink_ms * ms_ns;
        deliver();
    }

    /// What the capture thread has done by now.
    void deliver() {
        while (!arrivals_.empty() && arrivals_.front() <= now_ns_) {
            if (schedule_.policy == Policy::every && queue_.size() == depth(Policy::every)) {
                return;
            }
            const auto at_ns = schedule_.policy == Policy::latest ? arrivals_.front() : now_ns_;
            arrivals_.pop_front();
            queue_.put({.id = count_++, .captured_ns = at_ns, .asked_ns = at_ns - capture_ns, .picture = raw_});
        }
        if (arrivals_.empty()) {
            queue_.close();
        }
    }

    /// To the next thing that happens.
    void advance() {
        auto next_ns =
            now_ns_ + std::max(static_cast<std::int64_t>(std::llround(loop_.patience_s() * 1e9)), std::int64_t{1});
        if (!arrivals_.empty() && arrivals_.front() > now_ns_) {
            next_ns = std::min(next_ns, arrivals_.front());
        }
        if (pending_ && pending_->end_ns > now_ns_) {
            next_ns = std::min(next_ns, pending_->end_ns);
        }
        now_ns_ = next_ns;
    }

    Schedule schedule_;
    std::int64_t now_ns_ = 0;
    std::deque<std::int64_t> arrivals_;
    std::int64_t count_ = 0;
    std::size_t jobs_ = 0;
    Job job_{.took_ms = 1};
    std::optional<Done> pending_;
    Picture raw_ = testing::grey(0), clean_ = testing::grey(1);
    FrameQueue queue_;
    Guard guard_;
    Loop loop_{queue_,
               *this,
               *this,
               guard_,
               {.on_frame =
                    [this](const FrameRecord& record, const Frame&, const Picture& picture) {
                        records.push_back(record);
                        shown_clean.push_back(picture == clean_);
                    },
                .on_drop = [this](const FrameRecord& record) { records.push_back(record); },
                .clock = [this] { return now_ns_; }}};
};

/// Any schedule a seed can think of.
Schedule random_schedule(unsigned seed) {
    std::mt19937 random(seed);
    const auto up_to = [&random](std::int64_t most) { return static_cast<std::int64_t>(random()) % (most + 1); };
    Schedule schedule{.policy = up_to(1) == 0 ? Policy::latest : Policy::every, .gaps_ms = {}, .jobs = {}};
    for (auto left = 1 + up_to(39); left > 0; --left) {
        schedule.gaps_ms.push_back(up_to(60));
    }
    for (auto left = 1 + up_to(19); left > 0; --left) {
        schedule.jobs.push_back({.took_ms = up_to(80), .fails = up_to(3) == 0});
    }
    schedule.sink_ms = up_to(40);
    if (up_to(1) == 0) {
        schedule.deadline_ms = 1 + up_to(99);
    }
    return schedule;
}

constexpr unsigned seeds = 1000;

TEST(Loop, EveryFrameHasOneRecordAndPresentedOnesAreInOrder) {
    for (unsigned seed = 0; seed < seeds; ++seed) {
        const auto schedule = random_schedule(seed);
        Simulation done(schedule);
        done.run();
        std::set<std::int64_t> ids;
        std::vector<std::int64_t> presented;
        std::vector<bool> derained;
        for (const auto& record : done.records) {
            ids.insert(record.id);
            EXPECT_EQ(!record.why.has_value(), record.outcome == Outcome::derained);
            if (record.outcome == Outcome::dropped) {
                continue;
            }
            presented.push_back(record.id);
            derained.push_back(record.outcome == Outcome::derained);
            std::vector<std::int64_t> stamps{record.captured_ns};
            if (record.inference_start_ns) {
                stamps.insert(stamps.end(), {*record.inference_start_ns, *record.inference_end_ns});
            }
            stamps.push_back(*record.presented_ns);
            EXPECT_TRUE(std::ranges::is_sorted(stamps)) << "seed " << seed;
        }
        EXPECT_EQ(done.records.size(), schedule.gaps_ms.size()) << "seed " << seed;
        EXPECT_EQ(ids.size(), schedule.gaps_ms.size()) << "seed " << seed;
        EXPECT_TRUE(std::ranges::is_sorted(presented)) << "seed " << seed;
        EXPECT_EQ(done.shown_clean, derained) << "seed " << seed;
    }
}

TEST(Loop, UnderEveryNoFrameIsLost) {
    for (unsigned seed = 0; seed < seeds; ++seed) {
        auto schedule = random_schedule(seed);
        schedule.policy = Policy::every;
        Simulation done(schedule);
        done.run();
        for (std::size_t index = 0; index < done.records.size(); ++index) {
            EXPECT_EQ(done.records[index].id, static_cast<std::int64_t>(index)) << "seed " << seed;
            EXPECT_TRUE(done.records[index].presented_ns) << "seed " << seed;
        }
    }
}

TEST(Loop, UnderLatestNoPictureIsOlderThanTwoInferencesAndThreePresentationsOrItsDeadlineAndThree) {
    for (unsigned seed = 0; seed < seeds; ++seed) {
        auto schedule = random_schedule(seed);
        schedule.policy = Policy::latest;
        Simulation done(schedule);
        done.run();
        const auto slowest = std::ranges::max(schedule.jobs, {}, &Job::took_ms).took_ms;
        const auto bound_ms = schedule.deadline_ms.value_or(2 * slowest) + 3 * schedule.sink_ms;
        for (const auto& record : done.records) {
            if (record.presented_ns) {  // 1 ns: a deadline is missed once it is past
                EXPECT_LE(*record.presented_ns - record.captured_ns, bound_ms * ms_ns + 1) << "seed " << seed;
            }
        }
    }
}

TEST(Loop, AnEngineThatKeepsUpDerainsEveryFrame) {
    for (const auto policy : {Policy::latest, Policy::every}) {
        Simulation done({.policy = policy,
                         .gaps_ms = std::vector<std::int64_t>(40, 33),
                         .jobs = {{.took_ms = 25}},
                         .deadline_ms = 30});
        done.run();
        EXPECT_TRUE(std::ranges::all_of(done.records,
                                        [](const FrameRecord& record) { return record.outcome == Outcome::derained; }));
    }
}

TEST(Loop, AnEngineThatNeverComesBackLeavesEveryFrameRawAndOnTime) {
    std::vector<Job> jobs(10, {.took_ms = 5});
    jobs.push_back({.took_ms = 1'000'000});
    Simulation done({.gaps_ms = std::vector<std::int64_t>(30, 33), .jobs = jobs, .deadline_ms = 30});
    done.run();
    for (std::size_t index = 0; index < 30; ++index) {
        const auto& record = done.records[index];
        const auto why = index < 10 ? std::nullopt : std::optional(index == 10 ? Why::deadline : Why::late);
        EXPECT_EQ(record.why, why) << index;
        EXPECT_LT(*record.presented_ns - record.captured_ns, index > 10 ? 1 : 31 * ms_ns);
    }
    EXPECT_EQ(done.guard().state(), State::late);
}

TEST(Loop, AFaultPutsItsOwnFrameOutRawAndFramesAreDerainedAgainAfterTheReopening) {
    std::vector<Job> jobs(5, {.took_ms = 5});
    jobs.push_back({.took_ms = 5, .fails = true});
    jobs.push_back({.took_ms = 5});
    Simulation done({.gaps_ms = std::vector<std::int64_t>(20, 33), .jobs = jobs});
    done.run();
    for (std::size_t index = 0; index < 20; ++index) {  // 100 ms delay, 20 ms opening
        const auto why = index == 5                ? std::optional(Why::fault)
                         : index > 5 && index <= 8 ? std::optional(Why::away)
                                                   : std::nullopt;
        EXPECT_EQ(done.records[index].why, why) << index;
    }
    EXPECT_EQ(done.guard().faults(), 1);
    EXPECT_EQ(done.guard().reopened(), 1);
}

TEST(Loop, AnEngineThatAlwaysFailsEndsOnRawFramesForGood) {
    Simulation done({.gaps_ms = std::vector<std::int64_t>(200, 33), .jobs = {{.took_ms = 5, .fails = true}}});
    done.run();
    EXPECT_EQ(done.loop().tally().count(Outcome::passed_through), 200);
    EXPECT_EQ(done.guard().state(), State::raw);
    EXPECT_EQ(done.guard().faults(), 6);
    EXPECT_EQ(done.guard().reopened(), 5);
    EXPECT_EQ(done.records.back().why, Why::given_up);
}

TEST(Loop, AFrameThatIsDroppedForANewerOneCountsInTheTimeOfCaptureAsAnyOther) {
    Simulation done({.gaps_ms = std::vector<std::int64_t>(30, 10), .jobs = {{.took_ms = 35}}});
    done.run();
    EXPECT_GT(done.loop().tally().count(Why::newer), 10);
    EXPECT_EQ(done.loop().tally().latency().of(Stage::capture).total(), 30 * capture_ns);
}

TEST(Loop, ALateResultCountsInThePercentilesOfInference) {
    Simulation done({.gaps_ms = std::vector<std::int64_t>(9, 33),
                     .jobs = {{.took_ms = 5}, {.took_ms = 5}, {.took_ms = 90}, {.took_ms = 5}},
                     .deadline_ms = 30});
    done.run();
    EXPECT_DOUBLE_EQ(done.loop().tally().latency().of(Stage::inference).percentiles().max, 90);
}

TEST(Loop, AResultThatCameTooLateWhileTheSinkWasBusyIsNotShown) {
    Simulation done({.gaps_ms = {0, 10, 40},
                     .jobs = {{.took_ms = 10}, {.took_ms = 30}, {.took_ms = 1}},
                     .sink_ms = 50,
                     .deadline_ms = 25});
    done.run();
    EXPECT_EQ(done.records[0].why, std::nullopt);
    EXPECT_EQ(done.records[1].why, Why::deadline);
    EXPECT_FALSE(done.shown_clean[1]);
}

}  // namespace
}  // namespace derain
