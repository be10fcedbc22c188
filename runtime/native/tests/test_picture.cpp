#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "derain/stream/picture.hpp"

namespace derain {
namespace {

TEST(Picture, BytesAreReusedOnceTheLastCopyIsGone) {
    const auto pool = Pool::make(100, 1);
    Picture first = pool->take();
    EXPECT_EQ(first.bytes().size(), 100U);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first.bytes().data()) % 64, 0U);
    const auto* where = first.bytes().data();
    Picture copy = first;
    EXPECT_EQ(copy, first);
    first = {};
    EXPECT_FALSE(first);
    EXPECT_NE(pool->take().bytes().data(), where);
    EXPECT_EQ(pool->size(), 2U);
    copy = {};
    const Picture again = pool->take();
    const Picture other = pool->take();
    EXPECT_TRUE(again.bytes().data() == where || other.bytes().data() == where);
    EXPECT_EQ(pool->size(), 2U);
}

TEST(Picture, OutlivesItsPool) {
    Picture picture;
    {
        const auto pool = Pool::make(8, 1);
        picture = pool->take();
    }
    picture.writable()[7] = std::byte{5};
    EXPECT_EQ(picture.bytes()[7], std::byte{5});
}

TEST(Picture, ThreadsThatTakeAndGiveBackNeverShareBytesTheyDidNotPassOn) {
    const auto pool = Pool::make(4, 1);
    std::atomic<int> wrong = 0;
    constexpr int count = 4;
    std::vector<std::jthread> threads;
    threads.reserve(count);
    for (int thread = 0; thread < count; ++thread) {
        threads.emplace_back([&pool, &wrong, thread] {
            for (int round = 0; round < 5000; ++round) {
                Picture picture = pool->take();
                picture.writable()[0] = static_cast<std::byte>(thread);
                const Picture copy = std::move(picture);
                wrong += copy.bytes()[0] != static_cast<std::byte>(thread) ? 1 : 0;
            }
        });
    }
    threads.clear();
    EXPECT_EQ(wrong, 0);
    EXPECT_LE(pool->size(), 4U);
}

}  // namespace
}  // namespace derain
