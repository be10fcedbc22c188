#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <opencv2/imgcodecs.hpp>

#include "container.hpp"
#include "convert.hpp"
#include "derain/stream/redact.hpp"
#include "derain/stream/streams.hpp"
#include "finally.hpp"
#include "stream_support.hpp"

namespace derain {
namespace {

using testing::fault;

using Pixel = std::vector<std::byte>;

std::vector<Pixel> read_all(const std::string& uri, const FrameSpec& spec = testing::make_spec()) {
    std::vector<Pixel> images;
    const auto source = open_source(uri, spec);
    while (const auto frame = source->next()) {
        EXPECT_EQ(frame->id, static_cast<std::int64_t>(images.size()));
        EXPECT_LE(frame->asked_ns, frame->captured_ns);
        images.emplace_back(frame->picture.bytes().begin(), frame->picture.bytes().end());
    }
    return images;
}

std::vector<Pixel> write_noise(const std::string& uri, std::size_t count = 5) {
    std::vector<Pixel> images;
    const auto sink = open_sink(uri, testing::make_spec("clean"));
    for (const auto& picture : testing::noise(count)) {
        sink->write(picture.bytes());
        images.emplace_back(picture.bytes().begin(), picture.bytes().end());
    }
    sink->close();
    return images;
}

TEST(Streams, WhatALosslessSinkWritesItsSourceReadsBack) {
    const testing::Folder folder;
    for (const auto* name : {"clip.mkv", "pictures"}) {
        const auto path = (folder.path() / name).string();
        const auto written = write_noise(path);
        EXPECT_EQ(read_all(path), written) << name;
    }
    EXPECT_TRUE(std::filesystem::exists(folder.path() / "pictures" / "000004.png"));
    std::size_t left = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path())) {
        ++left;
    }
    EXPECT_EQ(left, 2U);  // nothing partial
}

TEST(Streams, NumbersInNamesCountAsNumbers) {
    const testing::Folder folder;
    const auto pictures = folder.path() / "pictures";
    const auto written = write_noise(pictures.string(), 7);
    const std::array names{"a1.png", "a2.png", "a10.png", "a10b.png", "ab.png", "b01.png", "b1.png"};
    for (std::size_t index = 0; index < names.size(); ++index) {
        std::filesystem::rename(pictures / ("00000" + std::to_string(index) + ".png"), pictures / names.at(index));
    }
    EXPECT_EQ(read_all(pictures.string()), written);
}

TEST(Streams, AWordWithoutAColonIsAPathThoughASchemeIsCalledSo) {
    const testing::Folder folder;
    const auto written = write_noise((folder.path() / "frames").string(), 1);
    const auto before = std::filesystem::current_path();
    std::filesystem::current_path(folder.path());
    const Finally back([&] { std::filesystem::current_path(before); });
    EXPECT_TRUE(std::filesystem::exists("frames/000000.png"));
    EXPECT_EQ(read_all("frames"), written);
}

TEST(Streams, AClipWithoutAFrameIsNotThere) {
    const testing::Folder folder;
    open_sink((folder.path() / "clip.mkv").string(), testing::make_spec("clean"))->close();
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

/// What of `times_ms` a clip of `fps` shows, by frame.
std::vector<std::size_t> shown_of(const std::vector<std::int64_t>& times_ms, bool live, double fps = 10) {
    const testing::Folder folder;
    const auto path = (folder.path() / "clip.mkv").string();
    const auto sink = open_sink(path, testing::make_spec("clean"), fps, live);
    std::vector<Pixel> written;
    for (const auto& picture : testing::noise(times_ms.size())) {
        const auto since_ns = times_ms[written.size()] * testing::ms_ns;
        sink->write(picture.bytes(), 7 * second_ns + since_ns);
        written.emplace_back(picture.bytes().begin(), picture.bytes().end());
    }
    EXPECT_EQ(sink->written(), static_cast<std::int64_t>(times_ms.size()));
    sink->close();
    std::vector<std::size_t> shown;
    for (const auto& image : read_all(path)) {
        shown.push_back(static_cast<std::size_t>(std::ranges::find(written, image) - written.begin()));
    }
    return shown;
}

TEST(Streams, AClipOfALiveSourceKeepsTheTimeOfItsFrames) {
    EXPECT_EQ(shown_of({0, 110, 390, 500}, true), (std::vector<std::size_t>{0, 1, 1, 1, 2, 3}));
    EXPECT_EQ(shown_of({0, 30, 60, 300}, true), (std::vector<std::size_t>{0, 1, 2, 3}));  // each at least once
}

TEST(Streams, AClipOfALiveSourceThatWasAwayForLongShowsASecondOfItsLastFrameAndThenGoesOn) {
    EXPECT_EQ(shown_of({0, 60'000, 60'500, 61'500}, true, 2), (std::vector<std::size_t>{0, 0, 0, 1, 2, 2, 3}));
}

TEST(Streams, ACoderSlowerThanTheCameraIsGivenItsFramesAndNotTheirRepetitions) {
    const testing::Folder folder;
    const auto path = (folder.path() / "clip.mkv").string();
    const FrameSpec spec{.tensor = "clean", .width = 640, .height = 480};
    const auto sink = open_sink(path, spec, 200, true);  // noise of that size takes FFV1 longer than 5 ms
    const auto picture = testing::noise(1, spec.bytes()).front();
    std::vector<std::string> told;
    for (int frame = 0; frame < 6; ++frame) {
        sink->write(picture.bytes(), second_ns + frame * 50 * testing::ms_ns);
        if (const auto warning = sink->take_warning()) {
            told.push_back(*warning);
        }
    }
    sink->close();
    EXPECT_LT(read_all(path, spec).size(), 12U);
    ASSERT_EQ(told.size(), 1U);
    EXPECT_NE(told.front().find(" ms, one is due every 5 ms: frames are lost"), std::string::npos) << told.front();
}

TEST(Streams, ARateThatMpeg4HasNoNumberForIsRounded) {
    for (const double fps : {66 + 2.0 / 3, 119.933, 239.7634, 90'000.0}) {
        const testing::Folder folder;
        const auto path = (folder.path() / "clip.mp4").string();
        const auto sink = open_sink(path, testing::make_spec("clean"), fps);
        for (const auto& picture : testing::noise(5)) {
            sink->write(picture.bytes());
        }
        sink->close();
        const auto source = open_source(path, testing::make_spec());
        EXPECT_NEAR(source->fps().value_or(0), std::min(fps, 65535.0), 1e-4 * fps);
        EXPECT_EQ(source->frames(), 5);
    }
}

TEST(Streams, AClipOfAFileHasItsFramesOneToOneWheneverTheyWereRead) {
    EXPECT_EQ(shown_of({0, 110, 390, 60'000}, false), (std::vector<std::size_t>{0, 1, 2, 3}));
}

TEST(Streams, ATruncatedClipThrowsAfterItsLastFrame) {
    for (const auto* name : {"clip.mkv", "clip.avi"}) {
        const testing::Folder folder;
        const auto path = (folder.path() / name).string();
        write_noise(path, 10);
        std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
        const auto source = open_source(path, testing::make_spec());
        int frames = 0;
        const auto told = fault([&] {
            while (source->next()) {
                ++frames;
            }
        });
        EXPECT_NE(told.find("truncated, the decoder stopped after " + std::to_string(frames) + " of 10"),
                  std::string::npos)
            << name << told;
        EXPECT_GT(frames, 0);
    }
}

/// A clip of 10 frames whose bytes after `element`, by its name in the container, are others.
std::string patched_clip(const testing::Folder& folder, std::string_view element, std::string_view value,
                         const std::string& name = "clip.mkv") {
    auto path = (folder.path() / name).string();
    write_noise(path, 10);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const auto at = content.find(element);
    EXPECT_NE(at, std::string::npos);
    file.seekp(static_cast<std::streamoff>(at + element.size()));
    file.write(value.data(), static_cast<std::streamsize>(value.size()));
    return path;
}

/// What a run over a clip tells, once all its frames are out.
std::string told_of(const std::string& path, std::int64_t frames) {
    std::string told;
    testing::CountingSink sink;
    const auto report =
        run(testing::opened(std::make_shared<testing::ScriptedEngine>()), open_source(path, testing::make_spec()), sink,
            {.tell = [&told](std::string_view line) { told += line; }});
    EXPECT_EQ(report.presented, frames);
    return told;
}

TEST(Streams, AWholeClipWhoseSoundIsLongerThanItsPictureIsNotCalledTruncated) {
    const testing::Folder folder;
    // 520 ms as a float of 8 bytes, big-endian: 13 frames at 25 a second.
    const auto path = patched_clip(folder, "\x44\x89\x88", std::string_view("\x40\x80\x40\0\0\0\0\0", 8));
    EXPECT_EQ(told_of(path, 10), path + ": 10 frames came, its duration is that of 13: it is damaged, or its rate " +
                                     "varies, it hides some, or its sound is longer than its picture");
}

TEST(Streams, AClipWhoseWriterDidNotKnowItsSizeGivesWhatThereIs) {
    const testing::Folder folder;
    const auto path = patched_clip(folder, "\x18\x53\x80\x67", "\x01\xff\xff\xff\xff\xff\xff\xff");
    EXPECT_EQ(told_of(path, 10), "");
    std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
    const auto frames = static_cast<std::int64_t>(read_all(path).size());
    EXPECT_GT(frames, 0);
    EXPECT_NE(told_of(path, frames).find(" frames came, its duration is that of 10: it is damaged"), std::string::npos);
}

TEST(Streams, AWholeClipWhoseEditListHidesItsFirstFramesIsNotCalledTruncated) {
    const testing::Folder folder;
    // One edit of 240 ms from tick 2048 on: FFmpeg gives a frame 512 ticks at 25 a second.
    const auto path =
        patched_clip(folder, "elst", std::string_view("\0\0\0\0\0\0\0\1\0\0\0\xf0\0\0\x08\0\0\1\0\0", 20), "clip.mp4");
    EXPECT_EQ(told_of(path, 6), path + ": 6 frames came, its duration is that of 10: it is damaged, or its rate " +
                                    "varies, it hides some, or its sound is longer than its picture");
}

TEST(Streams, AnAviIsCutShortWhereItsChunksGoOnBehindItsEndAndNotWhereFramesAreLeftEmpty) {
    const auto chunk = [](const std::string& content) {
        return std::string("RIFF") + static_cast<char>(content.size()) + std::string(3, '\0') + content;
    };
    const auto film =
        chunk("AVI " + std::string(100, 'x')) + chunk("AVIX" + std::string(100, 'x'));  // a long one has two
    const std::vector<std::pair<std::string, bool>> contents{
        {film, false},
        {film + "more of another program", false},
        {film.substr(0, film.size() - 1), true},
        {film.substr(0, 60), true},
        {"RIFF\xff\xff\xff\xff" + film.substr(8), false},  // written into a pipe
        {"", false},
    };
    const testing::Folder folder;
    const auto clip = folder.path() / "clip.avi";
    for (const auto& [content, cut] : contents) {
        std::ofstream(clip, std::ios::binary | std::ios::trunc) << content;
        EXPECT_EQ(is_cut_short(clip), cut) << content.size() << " bytes";
    }
}

TEST(Streams, AnMp4IsCutShortWhereItsBoxesDoNotFitTheFileOrNoneDescribesTheFilm) {
    const auto box = [](const std::string& type, std::size_t bytes) {
        return std::string("\0\0\0", 3) + static_cast<char>(8 + bytes) + type + std::string(bytes, 'x');
    };
    const auto boxes = box("ftyp", 4) + box("moov", 50);
    const auto long_box = std::string("\0\0\0\1mdat\0\0\0\0\0\0\4\0", 16) + std::string(1008, 'x');
    const auto film = boxes + long_box;
    const auto open_end = std::string("\0\0\0\0free", 8);
    const std::vector<std::pair<std::string, bool>> contents{
        {film, false},
        {film + open_end + std::string(99, 'x'), false},
        {film.substr(0, film.size() - 1), true},
        {film + std::string(2, '\0'), true},
        {boxes + long_box.substr(0, 12), true},
        {boxes + std::string("\0\0\0\1mdat", 8) + std::string(50, '\xff'), true},
        {box("ftyp", 4) + long_box, true},
        {"", true},
    };
    const testing::Folder folder;
    for (const auto* name : {"clip.MP4", "clip.m4v", "clip.mov"}) {
        for (const auto& [content, cut] : contents) {
            std::ofstream(folder.path() / name, std::ios::binary | std::ios::trunc) << content;
            EXPECT_EQ(is_cut_short(folder.path() / name), cut) << name << ", " << content.size() << " bytes";
        }
    }
}

TEST(Streams, EveryPixelFormatSurvivesTheWayToCameraBytesAndBack) {
    cv::Mat smooth(16, 32, CV_8UC3);
    for (int row = 0; row < 16; ++row) {
        for (int column = 0; column < 32; ++column) {
            smooth.at<cv::Vec3b>(row, column) = {static_cast<uchar>(100 + column / 2), static_cast<uchar>(110 + row),
                                                 static_cast<uchar>(140 - column / 2)};
        }
    }
    for (const auto pixels : {Pixels::bgr8, Pixels::rgb8, Pixels::nv12, Pixels::uyvy}) {
        for (const auto& [matrix, range] : {std::pair("bt601", "limited"), std::pair("bt709", "full")}) {
            auto spec = testing::make_spec("frame", pixels);
            spec.matrix = matrix;
            spec.range = range;
            std::vector<std::byte> image(spec.bytes());
            from_bgr(smooth, spec, image, "smooth");
            EXPECT_LE(cv::norm(to_bgr(image, spec), smooth, cv::NORM_INF), 3) << to_string(pixels) << matrix << range;
        }
    }
}

TEST(Streams, WhiteIsTheTopOfItsRange) {
    const cv::Mat white(16, 32, CV_8UC3, cv::Scalar::all(255));
    auto spec = testing::make_spec("frame", Pixels::nv12);
    std::vector<std::byte> image(spec.bytes());
    from_bgr(white, spec, image, "white");
    EXPECT_EQ(image.front(), std::byte{235});
    EXPECT_EQ(image.back(), std::byte{128});
    spec.range = "full";
    from_bgr(white, spec, image, "white");
    EXPECT_EQ(image.front(), std::byte{255});
}

TEST(Streams, TheTestPatternIsTheSameForTheSameSeedMovesAndHasStreaks) {
    const auto rain = read_all("test://rain?frames=3&seed=4");
    EXPECT_EQ(rain, read_all("test://rain?frames=3&seed=4"));
    EXPECT_NE(rain, read_all("test://rain?frames=3&seed=5"));
    EXPECT_NE(rain, read_all("test://clean?frames=3&seed=4"));
    EXPECT_EQ(rain.size(), 3U);
    EXPECT_NE(rain[0], rain[1]);
}

TEST(Streams, ALiveTestPatternKeepsItsRate) {
    const auto start_ns = monotonic_ns();
    EXPECT_EQ(read_all("test://rain?live=1&frames=11&fps=50").size(), 11U);
    EXPECT_GE(monotonic_ns() - start_ns, second_ns / 5);
}

TEST(Streams, WhatCannotBeOpenedIsToldInOneLineWithItsMend) {
    const testing::Folder folder;
    const auto spec = testing::make_spec();
    const auto path = folder.path().string();
    std::ofstream(folder.path() / "notes.txt") << "no video";
    std::ofstream(folder.path() / "broken.png") << "no image";
    const testing::Folder raw;  // a camera's 12 bits
    cv::imwrite(raw.path() / "0.png", cv::Mat(spec.height, spec.width, CV_16UC3, cv::Scalar::all(4095)));
    const std::vector<std::pair<std::string, std::string>> sources{
        {path + "/nothing.mp4", "nothing.mp4: no such file: give the path of a video"},
        {path + "/notes.txt", "notes.txt: 8 bytes that are no video"},
        {path, "broken.png: 8 bytes that are no whole image: replace or remove it"},
        {"frames://" + raw.path().string(), "0.png: holds uint16 values up to 4095, expected 8 bits, or 16 of which"},
        {"frames://" + path + "/away", "away: no such folder"},
        {"test://snow", "test://snow: pattern 'snow' is unknown, known are: clean, rain"},
        {"test://rain?speed=1", "test://rain?speed=1: speed: unknown key; known keys: width"},
        {"test://rain?frames=0", "frames is '0', expected a number of at least 1"},
        {"test://rain?fps=inf", "fps is 'inf', expected a number of at least"},
        {"test://rain?fps=nan", "fps is 'nan', expected a number of at least"},
        {"test://rain?unplug=3", "faults of a camera: add live=1"},
        {"test://rain?width=64",
         "frames are 64x16, the bundle expects 32x16: give it those, or export one for this size"},
        {"v4l2:///dev/video99", "/dev/video99: no such camera"},
        {"shm://nobody-writes-this", "no such shared memory: start the program that writes it first"},
        {"shm://a/b", "expected a name without slashes"},
        {"tape://me:secret@deck", "source tape://***@deck: scheme 'tape' is unknown, known are: file, frames"},
    };
    for (const auto& [uri, expected] : sources) {
        const auto told = fault([&, uri = uri] { open_source(uri, spec)->next(); });
        EXPECT_NE(told.find(expected), std::string::npos) << uri << ": " << told;
        EXPECT_EQ(told.find('\n'), std::string::npos);
    }
    ASSERT_EQ(::mkfifo((folder.path() / "pipe.mkv").c_str(), 0600), 0);
    const std::vector<std::pair<std::string, std::string>> sinks{
        {path + "/pipe.mkv", "pipe.mkv: is a device or a pipe, expected a file"},
        {"file:" + path + "/x.gif", "suffix '.gif' is unknown"},
        {path + "/x.gif", "suffix '.gif' is unknown, known are: .avi, .mkv, .mp4"},
        {"frames://" + path, "already holds 1 PNG files"},
        {"frames://" + path + "/notes.txt", "is a file, expected a folder"},
        {"tape://deck?token=abc",
         "sink tape://deck?token=***: scheme 'tape' is unknown, known are: file, frames, null"},
    };
    for (const auto& [uri, expected] : sinks) {
        const auto told = fault([&, uri = uri] { open_sink(uri, spec); });
        EXPECT_NE(told.find(expected), std::string::npos) << uri << ": " << told;
    }
    EXPECT_NE(fault([&] { open_sink("null://", spec)->write({}); }).find("0 bytes, expected 1536 (32x16 bgr8)"),
              std::string::npos);
}

TEST(Streams, AFolderThatCannotBeWrittenIsAWriteError) {
    const testing::Folder folder;
    const auto sink = open_sink("frames://" + (folder.path() / "pictures").string(), testing::make_spec("clean"));
    std::ofstream(folder.path() / "pictures") << "x";
    EXPECT_THROW(sink->write(testing::grey(1).bytes()), WriteError);
}

TEST(Streams, AFolderTakesTheFramesOfOneRunAtATime) {
    for (const bool there : {true, false}) {
        const testing::Folder folder;
        const auto path = (folder.path() / "out").string();
        if (there) {
            std::filesystem::create_directory(path);
        }
        const auto open = [&] { return open_sink("frames://" + path, testing::make_spec("clean")); };
        const auto picture = testing::noise(2);
        auto first = open();
        auto other = there ? nullptr : open();
        first->write(picture[0].bytes());
        EXPECT_EQ(fault([&] { (other ? std::move(other) : open())->write(picture[1].bytes()); }),
                  path + ": another run writes to it: give another folder");
        first->close();
        EXPECT_EQ(fault([&] { open(); }), path + ": already holds 1 PNG files: remove them or give another folder");
        EXPECT_FALSE(first->take_warning());
    }
}

TEST(Streams, APlaceThatCannotBeWrittenIsToldWhenTheSinkIsOpened) {
    const testing::Folder folder;
    const auto open = [&](const std::string& name) {
        return fault([&] { open_sink((folder.path() / name).string(), testing::make_spec("clean")); });
    };
    std::ofstream(folder.path() / "file") << "x";
    std::filesystem::create_directory(folder.path() / "links");
    std::filesystem::create_symlink(folder.path() / "file", folder.path() / "links" / "away");
    const auto path = std::filesystem::canonical(folder.path()).string();
    EXPECT_EQ(open("file/clip.mkv"),
              path + "/file is a file, so " + path + "/file/clip.mkv cannot be made: name another place");
    EXPECT_EQ(open("links/away/below/clip.mkv"),
              path + "/file is a file, so " + path + "/file/below/clip.mkv cannot be made: name another place");
    EXPECT_EQ(open("file/below"),
              path + "/file is a file, so " + path + "/file/below/000000.png cannot be made: name another place");
    EXPECT_EQ(open("new/below/clip.mkv"), "");
    EXPECT_FALSE(std::filesystem::exists(folder.path() / "new"));
}

TEST(Streams, AFolderThatMayNotBeWrittenToIsToldWhenTheSinkIsOpened) {
    if (::geteuid() == 0) {
        GTEST_SKIP() << "root may write everywhere";
    }
    const testing::Folder folder;
    std::filesystem::permissions(folder.path(),
                                 std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
    const auto path = std::filesystem::canonical(folder.path()).string();
    for (const auto& [name, file] : {std::pair("clip.mkv", "clip.mkv"), std::pair("pictures", "000000.png")}) {
        const auto told = fault([&, name = name] { open_sink(path + "/" + name, testing::make_spec("clean")); });
        EXPECT_EQ(told, path + " cannot be written to: name another place for " + file);
    }
    std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_all);
}

TEST(Streams, ANameWithAColonIsNoProtocol) {
    const testing::Folder folder;
    const auto before = std::filesystem::current_path();
    std::filesystem::current_path(folder.path());
    const Finally back([&] { std::filesystem::current_path(before); });
    const auto written = write_noise("file://out-12:30:00.mkv");
    EXPECT_EQ(read_all("file://out-12:30:00.mkv"), written);
}

TEST(Streams, CredentialsAreTakenOutOfALineOfAnyLength) {
    const std::string token(100'000, 'a');
    EXPECT_EQ(redact("rtsp://me:" + token + "@deck/" + token + "?jwt=" + token + "&key=" + token + "&" + token),
              "rtsp://***@deck/" + token + "?jwt=" + token + "&key=***&" + token);
}

TEST(Streams, CredentialsAreNeverShown) {
    EXPECT_EQ(redact("rtsp://me:sec@ret@host/x?pwd=1&fps=2"), "rtsp://***@host/x?pwd=***&fps=2");
    EXPECT_EQ(redact("gst:rtspsrc location=rtsp://a:b@c user-id=\"me too\" ! x"),
              "gst:rtspsrc location=rtsp://***@c user-id=*** ! x");
    EXPECT_EQ(redact("file:///clip.mp4"), "file:///clip.mp4");
}

}  // namespace
}  // namespace derain
