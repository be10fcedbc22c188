#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <numeric>
#include <random>
#include <thread>

#include "derain/stream/records.hpp"

namespace derain {
namespace {

constexpr int schedules = 500;

Frame frame(std::int64_t number) { return {.id = number, .captured_ns = number, .asked_ns = number}; }

std::vector<std::int64_t> counted(std::int64_t count) {
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(count));
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
}

std::vector<std::int64_t> ids(const std::vector<FrameQueue::Dropped>& dropped) {
    std::vector<std::int64_t> numbers;
    std::ranges::transform(dropped, std::back_inserter(numbers), &FrameQueue::Dropped::id);
    return numbers;
}

TEST(Queue, UnderLatestATakeGivesTheNewestFrameAndAllOthersCountAsDropped) {
    for (unsigned seed = 0; seed < schedules; ++seed) {
        std::mt19937 random(seed);
        FrameQueue queue(Policy::latest);
        std::int64_t put = 0;
        std::vector<std::int64_t> taken;
        for (auto left = random() % 60; left > 0; --left) {
            if (random() % 2 == 0) {
                ASSERT_TRUE(queue.put(frame(put++)));
            } else if (const auto got = queue.take()) {
                ASSERT_EQ(got->id, put - 1);
                taken.push_back(got->id);
            }
            ASSERT_LE(queue.size(), depth(Policy::latest));
        }
        std::vector<FrameQueue::Dropped> dropped;
        queue.take_dropped(dropped);
        auto all = ids(dropped);
        EXPECT_TRUE(std::ranges::is_sorted(all));
        EXPECT_TRUE(std::ranges::is_sorted(taken));
        all.insert(all.end(), taken.begin(), taken.end());
        if (const auto got = queue.take()) {
            all.push_back(got->id);
        }
        std::ranges::sort(all);
        EXPECT_EQ(all, counted(put)) << "seed " << seed;
    }
}

TEST(Queue, UnderEveryFramesComeOutInOrderAndNoneIsLost) {
    for (unsigned seed = 0; seed < schedules; ++seed) {
        std::mt19937 random(seed);
        FrameQueue queue(Policy::every);
        std::int64_t put = 0;
        std::vector<std::int64_t> taken;
        for (auto left = random() % 60; left > 0; --left) {
            if (random() % 2 == 0 && queue.size() < depth(Policy::every)) {
                ASSERT_TRUE(queue.put(frame(put++)));
            } else if (const auto got = queue.take()) {
                taken.push_back(got->id);
            }
        }
        while (const auto got = queue.take()) {
            taken.push_back(got->id);
        }
        EXPECT_EQ(taken, counted(put)) << "seed " << seed;
        std::vector<FrameQueue::Dropped> dropped;
        queue.take_dropped(dropped);
        EXPECT_TRUE(dropped.empty());
    }
}

TEST(Queue, BetweenThreadsThatRaceNoFrameComesTwiceOutOfOrderOrIsLost) {
    for (const auto policy : {Policy::latest, Policy::every}) {
        constexpr std::int64_t count = 20'000;
        FrameQueue queue(policy);
        std::jthread writer([&queue] {
            std::mt19937 random(1);
            for (std::int64_t number = 0; number < count; ++number) {
                queue.put(frame(number));
                if (random() % 64 == 0) {
                    std::this_thread::yield();
                }
            }
            queue.close();
        });
        std::vector<std::int64_t> taken;
        std::vector<std::int64_t> all;
        std::vector<FrameQueue::Dropped> dropped;
        while (!queue.ended()) {
            if (const auto got = queue.take()) {
                taken.push_back(got->id);
            }
            queue.take_dropped(dropped);
            const auto displaced = ids(dropped);
            all.insert(all.end(), displaced.begin(), displaced.end());
        }
        queue.take_dropped(dropped);
        const auto displaced = ids(dropped);
        all.insert(all.end(), displaced.begin(), displaced.end());
        EXPECT_TRUE(std::ranges::is_sorted(taken));
        all.insert(all.end(), taken.begin(), taken.end());
        std::ranges::sort(all);
        EXPECT_EQ(all, counted(count));
        if (policy == Policy::every) {
            EXPECT_EQ(taken, counted(count));
        }
    }
}

TEST(Queue, UnderEveryAPutWaitsForRoomAndUnderLatestItDoesNot) {
    FrameQueue full(Policy::every);
    for (std::int64_t number = 0; number < 2; ++number) {
        full.put(frame(number));
    }
    auto waits = std::async(std::launch::async, [&full] { return full.put(frame(9)); });
    EXPECT_EQ(waits.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
    EXPECT_EQ(full.take()->id, 0);
    EXPECT_TRUE(waits.get());
    EXPECT_EQ(full.take()->id, 1);
    EXPECT_EQ(full.take()->id, 9);

    FrameQueue latest(Policy::latest);
    for (std::int64_t number = 0; number < 100; ++number) {
        latest.put(frame(number));
    }
    EXPECT_EQ(latest.take()->id, 99);
}

TEST(Queue, AClosedQueueRefusesFramesFreesWhoWaitsAndStillGivesWhatItHas) {
    for (const auto policy : {Policy::latest, Policy::every}) {
        int calls = 0;
        FrameQueue queue(policy, [&calls] { ++calls; });
        const auto full = static_cast<std::int64_t>(depth(policy));
        for (std::int64_t number = 0; number < full; ++number) {
            queue.put(frame(number));
        }
        std::future<bool> waits;
        if (policy == Policy::every) {
            waits = std::async(std::launch::async, [&queue] { return queue.put(frame(9)); });
        }
        queue.close();
        if (waits.valid()) {
            EXPECT_FALSE(waits.get());
        }
        EXPECT_FALSE(queue.put(frame(10)));
        EXPECT_FALSE(queue.ended());
        for (std::int64_t number = 0; number < full; ++number) {
            EXPECT_EQ(queue.take()->id, number);
        }
        EXPECT_TRUE(queue.ended());
        EXPECT_FALSE(queue.take());
        EXPECT_EQ(calls, full + 1);
    }
}

TEST(Queue, ABrokenFrameTakesNoPlaceAndIsToldBeforeTheEnd) {
    for (const auto policy : {Policy::latest, Policy::every}) {
        FrameQueue queue(policy);
        const auto full = static_cast<std::int64_t>(depth(policy));
        for (std::int64_t number = 0; number < full; ++number) {
            queue.put(frame(number));
        }
        ASSERT_TRUE(queue.put({.id = 9, .captured_ns = 90, .broken = true}));  // without waiting for room
        queue.close();
        for (std::int64_t number = 0; number < full; ++number) {
            EXPECT_EQ(queue.take()->id, number);
        }
        EXPECT_FALSE(queue.ended());
        std::vector<FrameQueue::Dropped> dropped;
        queue.take_dropped(dropped);
        ASSERT_EQ(ids(dropped), std::vector<std::int64_t>{9});
        EXPECT_EQ(dropped.front().captured_ns, 90);
        EXPECT_EQ(dropped.front().why, Why::broken);
        EXPECT_TRUE(queue.ended());
    }
}

TEST(Queue, FramesThatTheSourceSkippedCountAsDroppedAfterTheOneThatIsDisplaced) {
    FrameQueue queue(Policy::latest);
    queue.put(frame(0));
    queue.put({.id = 3, .skipped = 2});
    queue.put({.id = 5, .broken = true, .skipped = 1});
    std::vector<FrameQueue::Dropped> dropped;
    queue.take_dropped(dropped);
    EXPECT_EQ(ids(dropped), (std::vector<std::int64_t>{0, 1, 2, 4, 5}));
    EXPECT_EQ(queue.take()->id, 3);
}

TEST(Queue, ADroppedFrameKeepsWhenItWasAskedFor) {
    FrameQueue queue(Policy::latest);
    queue.put({.id = 0, .captured_ns = 20, .asked_ns = 10});
    queue.put({.id = 2, .captured_ns = 40, .asked_ns = 30, .skipped = 1});
    queue.put({.id = 3, .captured_ns = 60, .asked_ns = 50, .broken = true});
    std::vector<FrameQueue::Dropped> dropped;
    queue.take_dropped(dropped);
    ASSERT_EQ(ids(dropped), (std::vector<std::int64_t>{0, 1, 3}));
    EXPECT_TRUE(std::ranges::all_of(dropped, [](const auto& one) { return one.captured_ns - one.asked_ns == 10; }));
}

TEST(Queue, AFrameThatWasTakenOrDisplacedHoldsItsPictureNoLonger) {
    const auto pool = Pool::make(8, 1);
    FrameQueue queue(Policy::latest);
    for (std::int64_t number = 0; number < 100; ++number) {
        queue.put({.id = number, .picture = pool->take()});
    }
    queue.take();
    queue.put({.id = 100, .picture = pool->take()});
    EXPECT_LE(pool->size(), 2U);
}

}  // namespace
}  // namespace derain
