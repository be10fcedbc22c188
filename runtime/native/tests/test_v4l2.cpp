/// The camera's logic against a kernel that is played.
#include <gtest/gtest.h>
#include <linux/videodev2.h>

#include <cerrno>
#include <deque>
#include <mutex>

#include "stream_support.hpp"
#include "v4l2.hpp"

namespace derain {
namespace {

/// A camera that has one format, and hands buffer after buffer filled with the frame's number.
class PlayedCamera final : public VideoDevice {
   public:
    std::uint32_t fourcc = V4L2_PIX_FMT_BGR24;
    std::uint32_t width = 32, height = 16, stride = 96, bytes = 32 * 16 * 3, granted = 6;
    std::uint32_t flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC | V4L2_BUF_FLAG_TSTAMP_SRC_EOF;
    bool busy = false, unplugged = false;
    std::deque<std::uint32_t> flags_once;  // in place of `flags`, frame by frame

    [[nodiscard]] std::size_t queued() {
        const std::scoped_lock lock(mutex_);
        return queue_.size();
    }
    [[nodiscard]] bool streaming() const { return streaming_; }
    [[nodiscard]] const std::byte* buffer(std::size_t index) const { return memory_[index].data(); }

    int control(unsigned long request, void* argument) override {
        const std::scoped_lock lock(mutex_);
        switch (request) {
            case VIDIOC_QUERYCAP:
                static_cast<v4l2_capability*>(argument)->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
                return 0;
            case VIDIOC_S_FMT: {
                auto& pix = static_cast<v4l2_format*>(argument)->fmt.pix;
                pix.pixelformat = fourcc;  // as drivers do, whatever was asked for
                pix.width = width;
                pix.height = height;
                pix.bytesperline = stride;
                return 0;
            }
            case VIDIOC_G_PARM: {
                auto& capture = static_cast<v4l2_streamparm*>(argument)->parm.capture;
                capture.timeperframe = {.numerator = 1, .denominator = 25};
                return 0;
            }
            case VIDIOC_REQBUFS: {
                auto& wanted = *static_cast<v4l2_requestbuffers*>(argument);
                wanted.count = std::min(wanted.count, granted);
                memory_.assign(wanted.count, std::vector<std::byte>(bytes));
                return busy ? EBUSY : 0;
            }
            case VIDIOC_QUERYBUF: {
                auto& buffer = *static_cast<v4l2_buffer*>(argument);
                buffer.length = bytes;
                buffer.m.offset = buffer.index;
                return 0;
            }
            case VIDIOC_QBUF:
                queue_.push_back(static_cast<v4l2_buffer*>(argument)->index);
                return 0;
            case VIDIOC_DQBUF:
                return fill(*static_cast<v4l2_buffer*>(argument));
            case VIDIOC_STREAMON:
            case VIDIOC_STREAMOFF:
                streaming_ = request == VIDIOC_STREAMON;
                return 0;
            default:
                return EINVAL;
        }
    }

    std::span<std::byte> map(std::size_t, std::int64_t offset) override {
        return memory_[static_cast<std::size_t>(offset)];
    }

    bool wait(int) override { return true; }

   private:
    int fill(v4l2_buffer& buffer) {
        if (unplugged) {
            return ENODEV;
        }
        if (queue_.empty()) {
            return EAGAIN;
        }
        buffer.index = queue_.front();
        queue_.pop_front();
        std::ranges::fill(memory_[buffer.index], static_cast<std::byte>(++filled_));
        buffer.bytesused = bytes;
        buffer.timestamp = {.tv_sec = 3, .tv_usec = filled_};
        buffer.flags = flags;
        if (!flags_once.empty()) {
            buffer.flags = flags_once.front();
            flags_once.pop_front();
        }
        return 0;
    }

    std::mutex mutex_;
    std::vector<std::vector<std::byte>> memory_;
    std::deque<std::uint32_t> queue_;
    bool streaming_ = false;
    int filled_ = 0;
};

class V4l2 : public ::testing::Test {
   protected:
    std::shared_ptr<PlayedCamera> device_ = std::make_shared<PlayedCamera>();

    std::unique_ptr<Source> open(Pixels pixels = Pixels::bgr8) {
        return make_camera("/dev/video7", testing::make_spec("frame", pixels), [this] { return device_; });
    }
    std::string fault() {
        try {
            open()->next();
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    }
};

TEST_F(V4l2, ThePictureIsTheMappedBufferAndGoesBackToTheDriverWithItsLastCopy) {
    const auto source = open();
    EXPECT_TRUE(source->live());
    EXPECT_EQ(source->fps(), 25);
    auto frame = source->next();
    EXPECT_EQ(frame->picture.bytes().data(), device_->buffer(0));
    EXPECT_EQ(frame->captured_ns, 3 * second_ns + 1000);
    EXPECT_EQ(device_->queued(), 5U);
    Picture copy = frame->picture;
    frame.reset();
    EXPECT_EQ(device_->queued(), 5U);
    copy = {};
    EXPECT_EQ(device_->queued(), 6U);
}

TEST_F(V4l2, WhileTheStreamHoldsAllBuffersFramesAreCopiedAndTheDriverIsNeverWithoutOne) {
    const auto source = open();
    std::vector<Frame> held;
    for (int count = 1; count <= 10; ++count) {
        held.push_back(*source->next());
        EXPECT_GE(device_->queued(), 1U);
        EXPECT_EQ(held.back().picture.bytes().front(), static_cast<std::byte>(count));
    }
    for (std::size_t index = 0; index < held.size(); ++index) {
        EXPECT_EQ(held[index].picture.bytes().back(), static_cast<std::byte>(index + 1));
    }
    held.clear();
    EXPECT_EQ(device_->queued(), 6U);
}

TEST_F(V4l2, APictureStaysReadableAfterTheCameraIsClosed) {
    auto source = open();
    const auto frame = source->next();
    source->close();
    EXPECT_FALSE(device_->streaming());
    source.reset();
    EXPECT_EQ(frame->picture.bytes().front(), std::byte{1});
}

TEST_F(V4l2, RowsWithPaddingAreCopiedTight) {
    device_->stride = 128;
    device_->bytes = 128 * 16;
    const auto frame = open()->next();
    EXPECT_EQ(frame->picture.bytes().size(), testing::make_spec().bytes());
    EXPECT_EQ(device_->queued(), 6U);
    EXPECT_EQ(frame->picture.bytes().back(), std::byte{1});
}

TEST_F(V4l2, BrokenAndShortFramesAreSkipped) {
    device_->flags_once = {V4L2_BUF_FLAG_ERROR};
    const auto frame = open()->next();
    EXPECT_EQ(frame->picture.bytes().front(), std::byte{2});
}

TEST_F(V4l2, ATimeOfAnotherClockIsNotTaken) {
    device_->flags = V4L2_BUF_FLAG_TIMESTAMP_UNKNOWN;
    const auto before_ns = monotonic_ns();
    EXPECT_GE(open()->next()->captured_ns, before_ns);
}

TEST_F(V4l2, YuyvIsConvertedWhereTheCameraHasNothingBetter) {
    device_->fourcc = V4L2_PIX_FMT_YUYV;
    device_->stride = 64;
    device_->bytes = 64 * 16;
    const auto frame = open(Pixels::bgr8)->next();
    EXPECT_EQ(frame->picture.bytes().size(), testing::make_spec().bytes());
    EXPECT_TRUE(frame->fits);
    EXPECT_EQ(device_->queued(), 6U);
}

TEST_F(V4l2, Nv12AndUyvyGoThroughAsTheyAre) {
    for (const auto& [pixels, fourcc, stride, bytes] : {std::tuple(Pixels::nv12, V4L2_PIX_FMT_NV12, 32U, 32U * 24),
                                                        std::tuple(Pixels::uyvy, V4L2_PIX_FMT_UYVY, 64U, 64U * 16)}) {
        device_ = std::make_shared<PlayedCamera>();
        device_->fourcc = fourcc;
        device_->stride = stride;
        device_->bytes = bytes;
        const auto frame = open(pixels)->next();
        EXPECT_EQ(frame->picture.bytes().data(), device_->buffer(0));
    }
}

TEST_F(V4l2, WhatACameraCannotDoIsToldWithItsMend) {
    device_->unplugged = true;
    EXPECT_NE(fault().find("/dev/video7: the camera stopped delivering frames"), std::string::npos);
    device_->busy = true;
    EXPECT_NE(fault().find("is another program using it?"), std::string::npos);
    device_->busy = false;
    device_->granted = 1;
    EXPECT_NE(fault().find("the camera has 1 buffer, expected at least 2"), std::string::npos);
    device_->width = 640;
    EXPECT_NE(fault().find("frames are 640x16 BGR3, the bundle expects 32x16 bgr8: see `v4l2-ctl"), std::string::npos);
}

}  // namespace
}  // namespace derain
