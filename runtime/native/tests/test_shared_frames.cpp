#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>

#include "derain/stream/shared_frames.hpp"
#include "derain/stream/streams.hpp"
#include "stream_support.hpp"

namespace derain {
namespace {

class Ring : public ::testing::Test {
   protected:
    const std::string name_ = "derain-test-" + std::to_string(::getpid());
    const std::filesystem::path path_ = std::filesystem::path("/dev/shm") / name_;
    const FrameSpec spec_ = testing::make_spec();
    SharedFrames writer_ = SharedFrames::create(name_, spec_);
    SharedFrames reader_ = SharedFrames::attach(name_, spec_);
    std::vector<std::byte> image_ = std::vector<std::byte>(spec_.bytes());

    void poke(std::size_t at, std::uint64_t value) const {
        std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(static_cast<std::streamoff>(at));
        file.write(reinterpret_cast<const char*>(&value), sizeof(value));
    }
};

std::jthread written_later(Sink& sink, const Picture& picture) {
    return std::jthread([&sink, &picture] {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        sink.write(picture.bytes());
    });
}

TEST_F(Ring, AReaderGetsTheNewestFrameWithItsNumberAndCaptureTimeAndWhetherItIsRaw) {
    EXPECT_FALSE(reader_.newest(image_));
    std::uint64_t number = 0;
    for (const auto& picture : testing::noise(10)) {
        const bool raw = number % 3 == 1;
        writer_.publish(picture.bytes(), static_cast<std::int64_t>(1000 + number), raw);
        const auto newest = reader_.newest(image_);
        ASSERT_TRUE(newest);
        EXPECT_EQ(newest->number, number);
        EXPECT_EQ(newest->raw, raw);
        EXPECT_EQ(newest->captured_ns, static_cast<std::int64_t>(1000 + number++));
        EXPECT_TRUE(std::ranges::equal(image_, picture.bytes()));
    }
}

TEST_F(Ring, ASourceHasTheRateThatItsWriterTold) {
    const auto rate = [&] { return open_source("shm://" + name_, spec_)->fps(); };
    EXPECT_EQ(rate(), std::nullopt);
    poke(56, 29970);
    EXPECT_EQ(rate(), 29.97);
    poke(56, 90'000'000);
    EXPECT_EQ(rate(), std::nullopt);
    const auto other = name_ + "-told";
    const auto sink = open_sink("shm://" + other, spec_, 60);
    EXPECT_EQ(open_source("shm://" + other, spec_)->fps(), 60);
}

TEST_F(Ring, AFrameThatIsBeingOverwrittenIsNotGivenOut) {
    for (const auto& picture : testing::noise(4)) {
        writer_.publish(picture.bytes(), 0);
    }
    const std::size_t slot = 64 + 3 * (64 + spec_.bytes());
    for (const std::uint64_t sequence : {7U, 9U, 16U}) {  // being written, being written over, written over
        poke(slot, sequence);
        EXPECT_FALSE(reader_.newest(image_));
    }
    poke(slot, 8);
    EXPECT_EQ(reader_.newest(image_)->number, 3U);
}

TEST_F(Ring, NoReaderEverSeesATornFrameWhileTheWriterRaces) {
    std::atomic<bool> stop = false;
    std::jthread thread([this, &stop] {
        std::vector<std::byte> level(spec_.bytes());
        for (std::int64_t number = 1; !stop; ++number) {
            std::ranges::fill(level, static_cast<std::byte>(number % 256));
            writer_.publish(level, number);
        }
    });
    int seen = 0;
    for (const auto end_ns = monotonic_ns() + second_ns; monotonic_ns() < end_ns;) {
        if (const auto newest = reader_.newest(image_)) {
            const auto level = static_cast<std::byte>(newest->captured_ns % 256);
            ASSERT_TRUE(std::ranges::all_of(image_, [level](std::byte value) { return value == level; }));
            ++seen;
        }
    }
    stop = true;
    EXPECT_GT(seen, 0);
}

TEST_F(Ring, AnImageOfAnotherSizeIsRefusedAtBothEnds) {
    std::vector<std::byte> shorter(spec_.bytes() - 1);
    const std::string expected = path_.string() + ": image has 1535 bytes, expected 1536: pass whole frames";
    EXPECT_THAT(testing::fault([&] { writer_.publish(shorter, 1); }), ::testing::StartsWith(expected));
    EXPECT_EQ(reader_.published(), 0U);
    writer_.publish(image_, 1);
    EXPECT_THAT(testing::fault([&] { static_cast<void>(reader_.newest(shorter)); }), ::testing::StartsWith(expected));
}

TEST_F(Ring, EverythingIsWhereTheTableSays) {
    const auto picture = testing::noise(1).front();
    writer_.publish(picture.bytes(), 7);
    std::ifstream file(path_, std::ios::binary);
    const std::string raw{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const auto word = [&raw](std::size_t at) {
        std::uint64_t value = 0;
        std::memcpy(&value, raw.data() + at, sizeof(value));
        return value;
    };
    EXPECT_EQ(raw.substr(0, 8), "DERAINSH");
    EXPECT_EQ(raw.substr(24, 8), std::string("bgr8\0\0\0\0", 8));
    EXPECT_EQ(word(8), 1U | std::uint64_t{4} << 32);
    EXPECT_EQ(word(16), 32U | std::uint64_t{16} << 32);
    EXPECT_EQ(word(32), 1U);
    EXPECT_EQ(word(40), 0U);
    EXPECT_EQ(word(64), 2U);
    EXPECT_EQ(word(72), 7U);
    EXPECT_EQ(std::memcmp(raw.data() + 128, picture.bytes().data(), spec_.bytes()), 0);
    EXPECT_EQ(raw.size(), 64 + 4 * (64 + spec_.bytes()));
}

TEST_F(Ring, ARingOfOtherFramesOrOfAnotherWriterIsRefusedByName) {
    auto other = testing::make_spec("frame", Pixels::nv12);
    try {
        SharedFrames::attach(name_, other);
        FAIL() << "it was opened";
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("slots of 32x16 bgr8, expected version 1, 4 slots of 32x16 nv12"),
                  std::string::npos)
            << error.what();
    }
    try {
        SharedFrames::create(name_, spec_);
        FAIL() << "it was made twice";
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("exists: another program writes to it: stop it"), std::string::npos);
    }
}

TEST(SharedMemory, ASinkRemovesItsRingAndItsReadersAreTold) {
    const std::string name = "derain-test-sink-" + std::to_string(::getpid());
    auto sink = open_sink("shm://" + name, testing::make_spec("clean"));
    const auto source = open_source("shm://" + name, testing::make_spec());
    EXPECT_TRUE(source->live());
    const auto picture = testing::noise(1).front();
    sink->write(picture.bytes());
    const auto frame = source->next();
    EXPECT_TRUE(std::ranges::equal(frame->picture.bytes(), picture.bytes()));
    EXPECT_GE(monotonic_ns(), frame->captured_ns);
    sink->close();
    EXPECT_FALSE(std::filesystem::exists("/dev/shm/" + name));
    EXPECT_THROW(source->next(), Error);
}

TEST(SharedMemory, ASourceLeavesWhatWasWrittenBeforeItCame) {
    const std::string name = "derain-test-stale-" + std::to_string(::getpid());
    const auto sink = open_sink("shm://" + name, testing::make_spec("clean"));
    const auto pictures = testing::noise(2);
    sink->write(pictures[0].bytes());
    const auto source = open_source("shm://" + name, testing::make_spec());
    const auto writer = written_later(*sink, pictures[1]);
    EXPECT_TRUE(std::ranges::equal(source->next()->picture.bytes(), pictures[1].bytes()));
}

TEST(SharedMemory, ARingIsReopenedOnceANewFrameIsInIt) {
    const std::string name = "derain-test-reopen-" + std::to_string(::getpid());
    const auto sink = open_sink("shm://" + name, testing::make_spec("clean"));
    const auto pictures = testing::noise(2);
    sink->write(pictures[0].bytes());
    const auto source = open_source("shm://" + name, testing::make_spec());
    EXPECT_EQ(testing::fault([&] { return source->reopened(); }),
              "shm://" + name + ": no frame for 1 s: is its writer still running?");
    const auto writer = written_later(*sink, pictures[1]);
    EXPECT_TRUE(std::ranges::equal(source->reopened()->next()->picture.bytes(), pictures[1].bytes()));
}

TEST(SharedMemory, AFrameKeepsItsCaptureTimeOnItsWayThroughAPipelineIntoARing) {
    const std::string name = "derain-test-time-" + std::to_string(::getpid());
    const auto sink = open_sink("shm://" + name, testing::make_spec("clean"));
    const auto reader = SharedFrames::attach(name, testing::make_spec());
    std::vector<std::byte> image(testing::make_spec().bytes());
    const auto report = run(testing::opened(std::make_shared<testing::ScriptedEngine>()),
                            open_source("test://rain?frames=3", testing::make_spec()), *sink,
                            {.on_frame = [&](const FrameRecord& record, const Frame&, const Picture&) {
                                EXPECT_EQ(reader.newest(image)->captured_ns, record.captured_ns);
                            }});
    EXPECT_EQ(report.presented, 3);
    const auto before_ns = monotonic_ns();
    sink->write(image);  // by somebody who knows of no camera
    EXPECT_GE(reader.newest(image)->captured_ns, before_ns);
}

TEST(SharedMemory, ATimeThatIsTooOldOrYetToComeIsOfAnotherClock) {
    const std::string name = "derain-test-clock-" + std::to_string(::getpid());
    const auto sink = open_sink("shm://" + name, testing::make_spec("clean"));
    const auto source = open_source("shm://" + name, testing::make_spec());
    const auto picture = testing::grey(1);
    const auto seen_of = [&](std::int64_t captured_ns) {
        sink->write(picture.bytes(), captured_ns);
        return source->next()->captured_ns;
    };
    const auto before_ns = monotonic_ns();
    EXPECT_EQ(seen_of(before_ns), before_ns);
    for (const auto other_ns : {std::int64_t{0}, before_ns - 11 * second_ns, before_ns + 100 * second_ns,
                                std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}) {
        const auto seen_ns = seen_of(other_ns);
        EXPECT_GE(seen_ns, before_ns) << other_ns;
        EXPECT_LE(seen_ns, monotonic_ns()) << other_ns;
    }
}

TEST(SharedMemory, ARingThatSharedMemoryHasNoRoomForIsRefusedBeforeItsFirstFrame) {
    const auto room = std::filesystem::space("/dev/shm").capacity;
    if (room == 0 || room >= std::uintmax_t{1} << 40) {
        GTEST_SKIP() << "/dev/shm has no bound to go beyond";
    }
    const std::string name = "derain-test-room-" + std::to_string(::getpid());
    auto large = testing::make_spec("clean");
    large.width = static_cast<int>(room / 1000);
    large.height = 1000;
    const auto told = testing::fault([&] { open_sink("shm://" + name, large); });
    EXPECT_THAT(told, ::testing::HasSubstr(" bytes of shared memory: No space left on device: give /dev/shm more"));
    EXPECT_FALSE(std::filesystem::exists("/dev/shm/" + name));
}

TEST(SharedMemory, AWriterThatWasKilledCanBeStartedAgainAndOneThatLivesIsNotPushedOut) {
    const auto name = "derain-killed-" + std::to_string(::getpid());
    const auto spec = testing::make_spec();
    const auto refused = [&] {
        try {
            SharedFrames::create(name, spec);
        } catch (const Error& error) {
            return std::string(error.what()).find("another program writes to it") != std::string::npos;
        }
        return false;
    };
    std::array<int, 2> ready{};
    ASSERT_EQ(::pipe(ready.data()), 0);
    const auto child = ::fork();
    if (child == 0) {
        const auto ring = SharedFrames::create(name, spec);
        [[maybe_unused]] const auto written = ::write(ready[1], "x", 1);
        ::pause();
    }
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    EXPECT_TRUE(refused());
    const auto reader = SharedFrames::attach(name, spec);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    EXPECT_THAT(testing::fault([&] { static_cast<void>(SharedFrames::attach(name, spec)); }),
                ::testing::EndsWith("its writer died: start it again"));
    const auto writer = SharedFrames::create(name, spec);
    EXPECT_TRUE(reader.closed());
    EXPECT_TRUE(refused());
    ::close(ready[0]);
    ::close(ready[1]);
}

TEST(SharedMemory, AWriterThatEndsLeavesANewerOnesRingAlone) {
    const auto name = "derain-newer-" + std::to_string(::getpid());
    const auto path = std::filesystem::path("/dev/shm") / name;
    std::optional older = SharedFrames::create(name, testing::make_spec());
    std::filesystem::remove(path);
    std::optional newer = SharedFrames::create(name, testing::make_spec());
    older.reset();
    EXPECT_TRUE(std::filesystem::exists(path));
    newer.reset();
    EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(Ring, ARingWhoseWriterHoldsNoLockIsLeftAlone) {
    poke(48, 0);
    EXPECT_THROW(SharedFrames::create(name_, spec_), Error);
    EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST(SharedMemory, ASourceThatIsClosedStopsWaiting) {
    const std::string name = "derain-test-wait-" + std::to_string(::getpid());
    const auto sink = open_sink("shm://" + name, testing::make_spec("clean"));
    const auto source = open_source("shm://" + name, testing::make_spec());
    std::jthread closer([&source] {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        source->close();
    });
    EXPECT_FALSE(source->next());
}

TEST(SharedMemory, WhatIsNoRingIsRefused) {
    const std::string name = "derain-test-junk-" + std::to_string(::getpid());
    for (const std::size_t bytes : {1U, 100U}) {
        std::ofstream(std::filesystem::path("/dev/shm") / name, std::ios::trunc) << std::string(bytes, 'x');
        EXPECT_THROW(SharedFrames::attach(name, testing::make_spec()), Error);
    }
    std::ofstream(std::filesystem::path("/dev/shm") / name, std::ios::trunc) << std::string(5000, '\0');
    try {
        SharedFrames::attach(name, testing::make_spec());
        FAIL() << "a ring whose header is still to come was opened";
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), ::testing::EndsWith("5000 bytes, no frames yet: is its writer still starting?"));
    }
    std::filesystem::remove(std::filesystem::path("/dev/shm") / name);
}

}  // namespace
}  // namespace derain
