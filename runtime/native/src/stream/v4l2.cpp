#include "v4l2.hpp"

#include <linux/videodev2.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <mutex>
#include <opencv2/imgproc.hpp>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "convert.hpp"
#include "decoded.hpp"
#include "derain/error.hpp"
#include "derain/stream/clock.hpp"
#include "finally.hpp"

namespace derain {

namespace {

constexpr std::uint32_t buffers_wanted = 6;  // two with the driver, one each: waiting, at the engine, at the sink, late
constexpr std::uint32_t buffers_needed = 2;
constexpr std::uint32_t lost_most = 1000;  // at once: more is a number that means something else
constexpr int look_ms = 100;               // how long one wait lasts before the source looks whether it was closed

/// The names of enum v4l2_field, by value.
constexpr std::array<std::string_view, 10> fields = {"any",    "none",   "top",       "bottom",        "interlaced",
                                                     "seq-tb", "seq-bt", "alternate", "interlaced-tb", "interlaced-bt"};

std::uint32_t fourcc_of(Pixels pixels) {
    switch (pixels) {
        case Pixels::bgr8:
            return V4L2_PIX_FMT_BGR24;
        case Pixels::rgb8:
            return V4L2_PIX_FMT_RGB24;
        case Pixels::nv12:
            return V4L2_PIX_FMT_NV12;
        default:
            return V4L2_PIX_FMT_UYVY;
    }
}

/// Bytes of one row, without padding.
std::size_t row_bytes(const FrameSpec& spec) {
    const auto width = static_cast<std::size_t>(spec.width);
    return spec.pixels == Pixels::nv12 ? width : spec.pixels == Pixels::uyvy ? 2 * width : 3 * width;
}

/// A camera's mapped buffers, lent as pictures; each goes back to the driver when its picture is let go.
class Buffers final : public Store {
   public:
    struct Filled {
        std::uint32_t index = 0;
        std::span<std::byte> bytes;
        std::int64_t captured_ns = 0;
        bool whole = false;
        std::int64_t skipped = 0;  // before it
    };

    static std::shared_ptr<Buffers> start(const std::string& name, std::shared_ptr<VideoDevice> device) {
        std::shared_ptr<Buffers> buffers(new Buffers(name, std::move(device)));
        buffers->request();
        int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        buffers->must(VIDIOC_STREAMON, &type, "start");
        return buffers;
    }

    /// The next filled buffer; nothing where none came in time. Error where the camera has gone.
    std::optional<Filled> next(int timeout_ms) {
        if (!device_->wait(timeout_ms)) {
            return std::nullopt;
        }
        v4l2_buffer buffer = blank();
        const int fault = device_->control(VIDIOC_DQBUF, &buffer);
        if (fault == EAGAIN) {
            return std::nullopt;
        }
        if (fault != 0) {
            throw Error(name_ + ": the camera stopped delivering frames (" + std::generic_category().message(fault) +
                        "): check its cable and power");
        }
        const auto captured_ns = time_of(buffer);
        const std::scoped_lock lock(mutex_);
        --with_driver_;
        const auto bytes = slots_[buffer.index]->bytes;
        return Filled{buffer.index, bytes.first(std::min<std::size_t>(buffer.bytesused, bytes.size())), captured_ns,
                      (buffer.flags & V4L2_BUF_FLAG_ERROR) == 0, lost_before(buffer.sequence)};
    }

    /// The newest of those filled by now, `held` the oldest of them; the others go back. A whole one goes before a
    /// newer one that came in part.
    Filled newest(Filled held) {
        for (auto looks = slots_.size(); looks > 0; --looks) {  // some cameras fill buffers as fast as they go back
            auto other = next(0);
            if (!other) {
                break;
            }
            const auto skipped = held.skipped + other->skipped + 1;
            if (other->whole || !held.whole) {
                std::swap(held, *other);
            }
            give_back(*other);
            held.skipped = skipped;
        }
        return held;
    }

    /// A filled buffer's first bytes as a picture.
    Picture lend_first(const Filled& filled, std::size_t bytes) {
        slots_[filled.index]->bytes = filled.bytes.first(bytes);
        return lend(*slots_[filled.index]);
    }

    /// Gives a filled buffer back to the driver.
    void give_back(const Filled& filled) noexcept { take_back(*slots_[filled.index]); }

    /// Whether the driver still has a buffer to fill.
    [[nodiscard]] bool driver_has_one() const {
        const std::scoped_lock lock(mutex_);
        return with_driver_ > 0;
    }

    /// No more frames; what is lent stays readable, and does not keep the camera from being opened again.
    void stop() {
        {
            const std::scoped_lock lock(mutex_);
            stopped_ = true;
        }
        int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        device_->control(VIDIOC_STREAMOFF, &type);  // an unplugged camera refuses, and has stopped anyway
        // Drivers take no format while they have buffers; this lets go of them. Old kernels (those without
        // V4L2_BUF_CAP_SUPPORTS_ORPHANED_BUFS) refuse, and the last picture's end does it.
        v4l2_requestbuffers none = requested(0);
        device_->control(VIDIOC_REQBUFS, &none);
    }

   private:
    Buffers(std::string name, std::shared_ptr<VideoDevice> device)
        : name_(std::move(name)), device_(std::move(device)) {}

    /// The driver's time where it is of our clock, else now. The start of the frame, which is what USB cameras tell,
    /// errs by a frame's time towards older.
    static std::int64_t time_of(const v4l2_buffer& buffer) {
        const auto now_ns = monotonic_ns();
        const auto told_ns =
            std::int64_t{buffer.timestamp.tv_sec} * second_ns + std::int64_t{buffer.timestamp.tv_usec} * 1000;
        const bool ours = (buffer.flags & V4L2_BUF_FLAG_TIMESTAMP_MASK) == V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        return ours ? of_our_clock(told_ns, now_ns) : now_ns;
    }

    /// How many frames the driver had no buffer for; none where it does not number them.
    std::int64_t lost_before(std::uint32_t sequence) {
        const auto last = std::exchange(sequence_, sequence);
        const std::uint32_t lost = last ? sequence - *last - 1 : 0;
        return lost < lost_most ? lost : 0;
    }

    static v4l2_buffer blank(std::size_t index = 0) {
        v4l2_buffer buffer{};
        buffer.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        buffer.memory = V4L2_MEMORY_MMAP;
        buffer.index = static_cast<std::uint32_t>(index);
        return buffer;
    }

    static v4l2_requestbuffers requested(std::uint32_t count) {
        v4l2_requestbuffers buffers{};
        buffers.count = count;
        buffers.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        buffers.memory = V4L2_MEMORY_MMAP;
        return buffers;
    }

    void must(unsigned long request, void* argument, const char* what) {
        if (const int fault = device_->control(request, argument); fault != 0) {
            throw Error(name_ + ": cannot " + what + " the camera (" + std::generic_category().message(fault) +
                        "): is another program using it?");
        }
    }

    void request() {
        v4l2_requestbuffers wanted = requested(buffers_wanted);
        must(VIDIOC_REQBUFS, &wanted, "get buffers of");
        if (wanted.count < buffers_needed) {
            throw Error(name_ + ": the camera has " + std::to_string(wanted.count) + " buffer, expected at least " +
                        std::to_string(buffers_needed) + ": close what else uses it");
        }
        for (std::size_t index = 0; index < wanted.count; ++index) {
            v4l2_buffer buffer = blank(index);
            must(VIDIOC_QUERYBUF, &buffer, "see a buffer of");
            auto slot = std::make_unique<Slot>();
            slot->index = index;
            mapped_.push_back(device_->map(buffer.length, buffer.m.offset));
            slot->bytes = mapped_.back();
            slots_.push_back(std::move(slot));
            must(VIDIOC_QBUF, &buffer, "give a buffer to");
            ++with_driver_;
        }
    }

    void take_back(Slot& slot) noexcept override {
        const std::scoped_lock lock(mutex_);
        slot.bytes = mapped_[slot.index];
        v4l2_buffer buffer = blank(slot.index);
        if (!stopped_ && device_->control(VIDIOC_QBUF, &buffer) == 0) {  // where it fails, the next DQBUF says why
            ++with_driver_;
        }
    }

    std::string name_;
    std::shared_ptr<VideoDevice> device_;
    std::vector<std::span<std::byte>> mapped_;
    std::vector<std::unique_ptr<Slot>> slots_;
    mutable std::mutex mutex_;
    std::optional<std::uint32_t> sequence_;
    int with_driver_ = 0;
    bool stopped_ = false;
};

/// What this node can do: a camera's `capabilities` are those of all its nodes, that of its metadata among them.
std::uint32_t caps_of(const v4l2_capability& capability) {
    return (capability.capabilities & V4L2_CAP_DEVICE_CAPS) != 0 ? capability.device_caps : capability.capabilities;
}

class Camera final : public DecodedSource {
   public:
    Camera(const std::string& location, const FrameSpec& spec, OpenDevice open)
        : DecodedSource(location, spec), open_(std::move(open)) {
        set_live(true);
        const auto device = open_();
        constexpr std::uint32_t needed = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        v4l2_capability capability{};
        const auto caps = device->control(VIDIOC_QUERYCAP, &capability) == 0 ? caps_of(capability) : 0;
        if ((caps & (V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_VIDEO_CAPTURE_MPLANE)) == V4L2_CAP_VIDEO_CAPTURE_MPLANE) {
            throw Error(location + ": has only V4L2's multi-planar interface, expected the single-planar one: use " +
                        "`gst:v4l2src device=" + location + " ! …`");
        }
        if ((caps & needed) != needed) {
            throw Error(location + ": is no camera that streams: list those with `v4l2-ctl --list-devices`");
        }
        choose_format(*device);
        v4l2_streamparm rate{};
        rate.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        const auto& period = rate.parm.capture.timeperframe;
        if (device->control(VIDIOC_G_PARM, &rate) == 0 && period.numerator > 0) {
            set_fps(believed(static_cast<double>(period.denominator) / period.numerator));
        }
        buffers_ = Buffers::start(location, device);
    }

    [[nodiscard]] std::unique_ptr<Source> reopened() const override {
        return std::make_unique<Camera>(location(), spec(), open_);
    }

   private:
    /// The best first: the bundle's own bytes; for uyvy YUYV, which is the same with each pair of bytes swapped; Motion
    /// JPEG, which every USB camera has at sizes and rates its raw formats do not fit through USB for; YUYV.
    [[nodiscard]] std::array<std::uint32_t, 3> formats() const {
        if (spec().pixels == Pixels::uyvy) {
            return {V4L2_PIX_FMT_UYVY, V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_MJPEG};
        }
        return {fourcc_of(spec().pixels), V4L2_PIX_FMT_MJPEG, V4L2_PIX_FMT_YUYV};
    }

    void choose_format(VideoDevice& device) {
        std::string seen = "none";
        for (const auto fourcc : formats()) {
            v4l2_format format{};
            format.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
            format.fmt.pix.width = static_cast<std::uint32_t>(spec().width);
            format.fmt.pix.height = static_cast<std::uint32_t>(spec().height);
            format.fmt.pix.pixelformat = fourcc;
            format.fmt.pix.field = V4L2_FIELD_NONE;
            const int fault = device.control(VIDIOC_S_FMT, &format);
            if (fault == EBUSY || fault == ENODEV) {  // no answer about the format
                throw Error(location() + ": cannot set up the camera (" + std::generic_category().message(fault) +
                            "): is another program using it?");
            }
            if (fault != 0) {
                continue;
            }
            const auto& got = format.fmt.pix;
            if (got.pixelformat == fourcc && got.width == static_cast<std::uint32_t>(spec().width) &&
                got.height == static_cast<std::uint32_t>(spec().height)) {
                check_progressive(got.field);
                fourcc_ = fourcc;
                stride_ = got.bytesperline;
                return;
            }
            seen = std::to_string(got.width) + "x" + std::to_string(got.height) + " " +
                   std::string(reinterpret_cast<const char*>(&got.pixelformat), sizeof(got.pixelformat));
        }
        throw Error(location() + ": frames are " + seen + ", the bundle expects " + std::to_string(spec().width) + "x" +
                    std::to_string(spec().height) + " " + std::string(to_string(spec().pixels)) +
                    ": see `v4l2-ctl --list-formats-ext -d " + location() + "` and export a bundle for one of them");
    }

    /// Error for half pictures and combed ones, which no network learned.
    void check_progressive(std::uint32_t field) const {
        if (field != V4L2_FIELD_NONE && field != V4L2_FIELD_ANY) {
            const auto seen = field < fields.size() ? std::string(fields[field]) : std::to_string(field);
            throw Error(location() + ": frames are interlaced (field " + seen + "), expected progressive ones: use " +
                        "a deinterlacer, such as `gst:v4l2src device=" + location() + " ! deinterlace ! …`");
        }
    }

    Read read() override {
        while (!closed()) {
            if (auto filled = buffers_->next(look_ms)) {
                if (policy() == Policy::latest) {
                    filled = buffers_->newest(*filled);
                }
                Read got = picture_of(*filled);
                got.captured_ns = filled->captured_ns;
                got.skipped = filled->skipped;
                return got;
            }
        }
        return {};
    }

    /// Broken for a frame that came in part, as the first ones of some cameras do.
    Read picture_of(const Buffers::Filled& filled) {
        bool lent = false;
        const Finally back([&] {
            if (!lent) {
                buffers_->give_back(filled);
            }
        });
        if (!filled.whole) {
            return {.broken = true};
        }
        if (fourcc_ == V4L2_PIX_FMT_MJPEG) {
            const cv::Mat bgr = decoded({reinterpret_cast<const char*>(filled.bytes.data()), filled.bytes.size()});
            return bgr.empty() ? Read{.broken = true} : from(bgr, location());
        }
        const bool own = fourcc_ == fourcc_of(spec().pixels);
        const std::size_t row = own ? row_bytes(spec()) : 2 * static_cast<std::size_t>(spec().width);
        const std::size_t rows = own ? spec().bytes() / row : static_cast<std::size_t>(spec().height);
        const std::size_t stride = std::max<std::size_t>(stride_, row);
        if (filled.bytes.size() < stride * (rows - 1) + row) {
            return {.broken = true};
        }
        if (!own) {
            return from_yuyv({spec().height, spec().width, CV_8UC2, filled.bytes.data(), stride});
        }
        if (stride == row && buffers_->driver_has_one()) {
            lent = true;
            return {.picture = buffers_->lend_first(filled, spec().bytes())};
        }
        Picture picture = blank();
        for (std::size_t line = 0; line < rows; ++line) {
            std::ranges::copy(filled.bytes.subspan(line * stride, row), picture.writable().subspan(line * row).begin());
        }
        return {.picture = std::move(picture)};
    }

    /// Y'CbCr stays what the camera made it, by whatever matrix; BGR is made of it as BT.601.
    Read from_yuyv(const cv::Mat& yuyv) {
        if (spec().pixels == Pixels::nv12) {
            Picture picture = blank();
            cv::Mat luma = view(picture.writable(), spec().height, spec().width, 1);
            cv::Mat chroma = view(picture.writable().subspan(luma.total()), spec().height / 2, spec().width, 1);
            cv::Mat of_every_row;
            cv::extractChannel(yuyv, luma, 0);
            cv::extractChannel(yuyv, of_every_row, 1);
            cv::resize(of_every_row, chroma, chroma.size(), 0, 0, cv::INTER_AREA);  // the mean of two rows
            return {.picture = std::move(picture)};
        }
        if (spec().pixels == Pixels::uyvy) {
            Picture picture = blank();
            cv::Mat uyvy = view(picture.writable(), spec().height, spec().width, 2);
            cv::mixChannels(yuyv, uyvy, {0, 1, 1, 0});
            return {.picture = std::move(picture)};
        }
        cv::Mat bgr;
        cv::cvtColor(yuyv, bgr, cv::COLOR_YUV2BGR_YUYV);
        return from(bgr, location());
    }

    void release() override {
        buffers_->stop();
        buffers_.reset();
    }

    OpenDevice open_;
    std::uint32_t fourcc_ = 0;
    std::size_t stride_ = 0;
    std::shared_ptr<Buffers> buffers_;
};

}  // namespace

std::unique_ptr<Source> make_camera(const std::string& location, const FrameSpec& spec, OpenDevice open) {
    return std::make_unique<Camera>(location, spec, std::move(open));
}

}  // namespace derain
