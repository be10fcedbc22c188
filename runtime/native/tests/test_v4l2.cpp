/// The camera's logic against a kernel that is played.
#include <gtest/gtest.h>
#include <linux/videodev2.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <mutex>
#include <opencv2/imgcodecs.hpp>

#include "stream_support.hpp"
#include "v4l2.hpp"

namespace derain {
namespace {

/// A camera that has the formats it is given, and hands buffer after buffer filled with the frame's number.
class PlayedCamera final : public VideoDevice {
   public:
    std::uint32_t fourcc = V4L2_PIX_FMT_BGR24;  // as settled
    std::vector<std::uint32_t> others;          // that it can be asked for
    std::uint32_t field = V4L2_FIELD_NONE;
    std::uint32_t width = 32, height = 16, stride = 96, bytes = 32 * 16 * 3, granted = 6;
    std::uint32_t flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC | V4L2_BUF_FLAG_TSTAMP_SRC_EOF;
    std::int64_t stamp_ns = monotonic_ns() / 1000 * 1000;  // of every frame
    v4l2_fract period = {.numerator = 1, .denominator = 25};
    std::uint32_t device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
    bool busy = false, unplugged = false;
    int format_fault = 0;                             // what it answers where a format is asked for
    bool shared = false;                              // by all openings: it takes no format while it has buffers
    std::deque<std::uint32_t> flags_once;             // in place of `flags`, frame by frame
    std::deque<std::uint32_t> sequence_once;          // in place of 0
    std::atomic<std::int64_t> looked_ns = 0;          // when it was last asked for a frame that is there already
    std::deque<std::vector<std::byte>> content_once;  // in place of the number
    int a_start = 1'000'000;                          // frames until it falls silent

    [[nodiscard]] std::size_t queued() {
        const std::scoped_lock lock(mutex_);
        return queue_.size();
    }
    [[nodiscard]] bool streaming() const { return streaming_; }
    [[nodiscard]] const std::byte* buffer(std::size_t index) const { return memory_[index].data(); }

    int control(unsigned long request, void* argument) override {
        const std::scoped_lock lock(mutex_);
        switch (request) {
            case VIDIOC_QUERYCAP: {
                auto& capability = *static_cast<v4l2_capability*>(argument);
                capability.capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING | V4L2_CAP_DEVICE_CAPS;
                capability.device_caps = device_caps;
                return 0;
            }
            case VIDIOC_S_FMT: {
                if (format_fault != 0 || (shared && !memory_.empty())) {
                    return format_fault != 0 ? format_fault : EBUSY;
                }
                auto& pix = static_cast<v4l2_format*>(argument)->fmt.pix;
                if (std::ranges::find(others, pix.pixelformat) != others.end()) {
                    fourcc = pix.pixelformat;
                }
                pix.pixelformat = fourcc;  // as drivers do, whatever was asked for
                pix.width = width;
                pix.height = height;
                pix.bytesperline = stride;
                pix.field = field;
                return 0;
            }
            case VIDIOC_G_PARM: {
                static_cast<v4l2_streamparm*>(argument)->parm.capture.timeperframe = period;
                return 0;
            }
            case VIDIOC_REQBUFS: {
                auto& wanted = *static_cast<v4l2_requestbuffers*>(argument);
                wanted.count = std::min(wanted.count, granted);
                queue_.clear();
                std::ranges::move(memory_, std::back_inserter(orphans_));  // what is mapped stays readable
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
                left_ = a_start;
                [[fallthrough]];
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

    bool wait(int timeout_ms) override {
        if (timeout_ms == 0) {
            looked_ns = monotonic_ns();
        }
        if (left_ > 0) {
            return true;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return false;
    }

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
        --left_;
        if (!content_once.empty()) {
            std::ranges::copy(content_once.front(), memory_[buffer.index].begin());
            buffer.bytesused = static_cast<std::uint32_t>(content_once.front().size());
            content_once.pop_front();
        }
        buffer.timestamp = {.tv_sec = stamp_ns / second_ns, .tv_usec = stamp_ns % second_ns / 1000};
        buffer.flags = flags;
        if (!sequence_once.empty()) {
            buffer.sequence = sequence_once.front();
            sequence_once.pop_front();
        }
        if (!flags_once.empty()) {
            buffer.flags = flags_once.front();
            flags_once.pop_front();
        }
        return 0;
    }

    std::mutex mutex_;
    std::vector<std::vector<std::byte>> memory_, orphans_;
    std::deque<std::uint32_t> queue_;
    std::atomic<int> left_ = 0;
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
    EXPECT_EQ(frame->captured_ns, device_->stamp_ns);
    EXPECT_EQ(device_->queued(), 5U);
    Picture copy = frame->picture;
    frame.reset();
    EXPECT_EQ(device_->queued(), 5U);
    copy = {};
    EXPECT_EQ(device_->queued(), 6U);
}

TEST_F(V4l2, ARateThatNoCameraHasIsNotBelieved) {
    for (const v4l2_fract period : {v4l2_fract{10, 1}, v4l2_fract{1, 240}}) {
        device_->period = period;
        EXPECT_EQ(open()->fps(), static_cast<double>(period.denominator) / period.numerator);
    }
    for (const v4l2_fract period : {v4l2_fract{1, 241}, v4l2_fract{1, 90'000}}) {
        device_->period = period;
        EXPECT_FALSE(open()->fps()) << period.denominator << "/" << period.numerator;
    }
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

TEST_F(V4l2, ACameraComesBackWhileAPictureOfItIsStillLent) {
    device_->shared = true;
    const auto source = open();
    auto frame = source->next();
    source->close();
    const auto again = source->reopened();
    EXPECT_EQ(again->next()->picture.bytes().front(), std::byte{2});
    EXPECT_EQ(frame->picture.bytes().front(), std::byte{1});
    frame.reset();
    EXPECT_EQ(device_->queued(), 6U);  // not among the new ones
}

TEST_F(V4l2, RowsWithPaddingAreCopiedTight) {
    device_->stride = 128;
    device_->bytes = 128 * 16;
    const auto frame = open()->next();
    EXPECT_EQ(frame->picture.bytes().size(), testing::make_spec().bytes());
    EXPECT_EQ(device_->queued(), 6U);
    EXPECT_EQ(frame->picture.bytes().back(), std::byte{1});
}

TEST_F(V4l2, FramesThatCameInPartAreBrokenAndTheirBuffersGoBack) {
    const std::vector<std::byte> whole(device_->bytes);
    const std::vector<std::byte> half(device_->bytes / 2);
    device_->flags_once = {V4L2_BUF_FLAG_ERROR};
    device_->content_once = {whole, half, {}};
    const auto source = open();
    for (int count = 0; count < 3; ++count) {
        const auto frame = source->next();
        EXPECT_TRUE(frame->broken);
        EXPECT_FALSE(frame->picture);
    }
    EXPECT_EQ(device_->queued(), 6U);
    const auto frame = source->next();
    EXPECT_FALSE(frame->broken);
    EXPECT_EQ(frame->id, 3);
    EXPECT_EQ(frame->picture.bytes().front(), std::byte{4});
}

TEST_F(V4l2, AMotionJpegCutShortIsBrokenAndNotPaddedWithGrey) {
    const cv::Mat grey(16, 32, CV_8UC3, cv::Scalar::all(200));
    std::vector<uchar> jpeg;
    cv::imencode(".jpg", grey, jpeg);
    const auto bytes = std::as_bytes(std::span(jpeg));
    const auto cut = bytes.first(bytes.size() - 8);
    device_->fourcc = V4L2_PIX_FMT_MJPEG;
    device_->bytes = 4096;
    device_->content_once = {{bytes.begin(), bytes.end()}, {cut.begin(), cut.end()}, {}, {bytes.begin(), bytes.end()}};
    const auto source = open();
    for (const bool broken : {false, true, true, false}) {
        const auto frame = source->next();
        EXPECT_EQ(frame->broken, broken);
        if (!broken) {
            EXPECT_EQ(frame->picture.bytes().back(), std::byte{200});
        }
    }
    EXPECT_EQ(device_->queued(), 6U);
}

TEST_F(V4l2, AStalledCameraIsClosedSoThatItCanBeOpenedAgain) {
    device_->shared = true;
    device_->a_start = 1;
    const auto queue = std::make_shared<FrameQueue>(Policy::latest);
    Capture capture(open(), queue);
    const auto frame_comes = [&queue] {
        for (int patience = 0; patience < 20'000; ++patience) {
            if (queue->take()) {
                return true;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return false;
    };
    ASSERT_TRUE(frame_comes());
    while (capture.faults() == 0) {
        capture.watch(monotonic_ns() + 1000 * second_ns);
    }
    EXPECT_TRUE(frame_comes());
    EXPECT_EQ(capture.state(), "open");
}

TEST_F(V4l2, ATimeOfAnotherClockIsNotTakenButThatOfTheBuffersComing) {
    device_->flags = V4L2_BUF_FLAG_TIMESTAMP_UNKNOWN;
    device_->a_start = 1;
    const auto source = open();
    source->set_policy(Policy::latest);
    const auto before_ns = monotonic_ns();
    const auto captured_ns = source->next()->captured_ns;
    EXPECT_GE(captured_ns, before_ns);
    EXPECT_LE(captured_ns, device_->looked_ns);
}

TEST_F(V4l2, AUsbCamerasTimeIsTakenThoughItIsThatOfTheFramesStart) {
    device_->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC | V4L2_BUF_FLAG_TSTAMP_SRC_SOE;
    EXPECT_EQ(open()->next()->captured_ns, device_->stamp_ns);
}

TEST_F(V4l2, ATimeThatIsTooOldOrYetToComeIsOfAnotherClockWhateverTheDriverCallsIt) {
    const auto now_ns = device_->stamp_ns;
    for (const auto stamp_ns : {std::int64_t{0}, now_ns - 11 * second_ns, now_ns + 100 * second_ns}) {
        device_->stamp_ns = stamp_ns;
        const auto captured_ns = open()->next()->captured_ns;
        EXPECT_GE(captured_ns, now_ns);
        EXPECT_LE(captured_ns, monotonic_ns());
    }
}

TEST_F(V4l2, UnderLatestTheNewestFilledBufferIsTakenAndTheOthersCountAsDropped) {
    device_->a_start = 4;
    device_->flags_once = {device_->flags, device_->flags, device_->flags, V4L2_BUF_FLAG_ERROR};
    const auto queue = std::make_shared<FrameQueue>(Policy::latest);
    Capture capture(open(), queue);
    auto frame = queue->take();
    while (!frame) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        frame = queue->take();
    }
    EXPECT_EQ(frame->id, 3);
    EXPECT_EQ(frame->picture.bytes().front(), std::byte{3});  // the fourth came in part
    EXPECT_EQ(device_->queued(), 5U);
    std::vector<FrameQueue::Dropped> dropped;
    queue->take_dropped(dropped);
    ASSERT_EQ(dropped.size(), 3U);
    for (std::size_t index = 0; index < dropped.size(); ++index) {
        EXPECT_EQ(dropped[index].id, static_cast<std::int64_t>(index));
        EXPECT_EQ(dropped[index].why, Why::newer);
    }
}

TEST_F(V4l2, UnderLatestACameraThatIsFasterThanItsReaderDoesNotHoldItUp) {
    const auto source = open();
    source->set_policy(Policy::latest);
    EXPECT_EQ(source->next()->skipped, 6);
}

TEST_F(V4l2, UnderEveryNothingIsSkippedButWhatTheDriverLost) {
    device_->sequence_once = {7, 8, 12, 12, 3, 4'000'000'000, 4'000'000'001};
    const auto source = open();
    std::vector<std::pair<std::int64_t, std::int64_t>> seen;
    for (int level = 1; level <= 7; ++level) {
        const auto frame = source->next();
        EXPECT_EQ(frame->picture.bytes().front(), static_cast<std::byte>(level));
        seen.emplace_back(frame->id, frame->skipped);
    }
    EXPECT_EQ(seen, (decltype(seen){{0, 0}, {1, 0}, {5, 3}, {6, 0}, {7, 0}, {8, 0}, {9, 0}}));
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

TEST_F(V4l2, MotionJpegGoesBeforeYuyvWhichIsSlowThroughUsb) {
    for (const auto pixels : {Pixels::bgr8, Pixels::rgb8, Pixels::nv12}) {
        device_ = std::make_shared<PlayedCamera>();
        device_->fourcc = V4L2_PIX_FMT_YUYV;
        device_->others = {V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_MJPEG};
        open(pixels);
        EXPECT_EQ(device_->fourcc, V4L2_PIX_FMT_MJPEG);
    }
}

TEST_F(V4l2, ForUyvyYuyvIsTakenWithItsBytesSwapped) {
    device_->fourcc = V4L2_PIX_FMT_MJPEG;
    device_->others = {V4L2_PIX_FMT_MJPEG, V4L2_PIX_FMT_YUYV};
    device_->stride = 80;  // 64 bytes and padding
    device_->bytes = 80 * 16;
    std::vector<std::byte> yuyv(device_->bytes);
    for (std::size_t at = 0; at < yuyv.size(); ++at) {
        yuyv[at] = static_cast<std::byte>(at * 7);
    }
    device_->content_once = {yuyv};
    const auto frame = open(Pixels::uyvy)->next();
    EXPECT_EQ(device_->fourcc, V4L2_PIX_FMT_YUYV);
    const auto uyvy = frame->picture.bytes();
    ASSERT_EQ(uyvy.size(), 64U * 16);
    for (std::size_t at = 0; at < uyvy.size(); ++at) {
        EXPECT_EQ(uyvy[at], yuyv[at / 64 * 80 + (at % 64 ^ 1U)]) << at;
    }
    EXPECT_EQ(device_->queued(), 6U);
}

TEST_F(V4l2, ForNv12YuyvStaysAsTheCameraSentItWithTheChromaOfTwoRowsAveraged) {
    device_->fourcc = V4L2_PIX_FMT_YUYV;
    device_->stride = 80;  // 64 bytes and padding
    device_->bytes = 80 * 16;
    std::vector<std::byte> yuyv(device_->bytes);
    for (std::size_t at = 0; at < yuyv.size(); ++at) {
        yuyv[at] = static_cast<std::byte>(at * 7 + at / 80);
    }
    device_->content_once = {yuyv};
    auto spec = testing::make_spec("frame", Pixels::nv12);
    spec.matrix = "bt709";
    const auto frame = make_camera("/dev/video7", spec, [this] { return device_; })->next();
    const auto nv12 = frame->picture.bytes();
    ASSERT_EQ(nv12.size(), 32U * 24);
    for (std::size_t at = 0; at < std::size_t{32} * 16; ++at) {
        EXPECT_EQ(nv12[at], yuyv[at / 32 * 80 + at % 32 * 2]) << at;
    }
    for (std::size_t at = 0; at < std::size_t{32} * 8; ++at) {
        const auto above = at / 32 * 160 + at % 32 * 2 + 1;
        const int sum = std::to_integer<int>(yuyv[above]) + std::to_integer<int>(yuyv[above + 80]);
        EXPECT_LE(std::abs(2 * std::to_integer<int>(nv12[32 * 16 + at]) - sum), 1) << at;
    }
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

TEST_F(V4l2, ACameraThatTakesNoFormatNowIsNotSaidToHaveNone) {
    device_->format_fault = EBUSY;
    EXPECT_EQ(fault(), "/dev/video7: cannot set up the camera (Device or resource busy): is another program using it?");
    device_->format_fault = ENODEV;
    EXPECT_EQ(fault(), "/dev/video7: cannot set up the camera (No such device): is another program using it?");
    device_->format_fault = EINVAL;
    EXPECT_NE(fault().find("frames are none, the bundle expects 32x16 bgr8"), std::string::npos);
}

TEST_F(V4l2, OnlyProgressiveFramesAreTaken) {
    for (const auto field : {V4L2_FIELD_NONE, V4L2_FIELD_ANY}) {
        device_->field = field;
        EXPECT_EQ(fault(), "");
    }
    for (const auto& [field, name] : {std::pair{4U, "interlaced"}, {5U, "seq-tb"}, {7U, "alternate"}, {12U, "12"}}) {
        device_->field = field;
        EXPECT_EQ(fault(), "/dev/video7: frames are interlaced (field " + std::string(name) +
                               "), expected progressive ones: use a deinterlacer, such as `gst:v4l2src "
                               "device=/dev/video7 ! deinterlace ! …`");
    }
}

TEST_F(V4l2, WhatACameraCannotDoIsToldWithItsMend) {
    device_->device_caps = V4L2_CAP_VIDEO_CAPTURE_MPLANE | V4L2_CAP_STREAMING;
    EXPECT_EQ(fault(),
              "/dev/video7: has only V4L2's multi-planar interface, expected the single-planar one: use "
              "`gst:v4l2src device=/dev/video7 ! …`");
    device_->device_caps = V4L2_CAP_META_CAPTURE | V4L2_CAP_STREAMING;  // the second node of a USB camera
    EXPECT_NE(fault().find("/dev/video7: is no camera that streams"), std::string::npos);
    device_->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
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
