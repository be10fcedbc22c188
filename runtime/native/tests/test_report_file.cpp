#include <gtest/gtest.h>

#include <iterator>
#include <nlohmann/json.hpp>

#include "report_file.hpp"
#include "stream_support.hpp"

namespace derain {
namespace {

using testing::fault;

std::string content_of(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST(ReportFile, AByteThatIsNoUtf8IsReplaced) {
    const testing::Folder folder;
    write_report(folder.path() / "report.json", {{"source_fault", "clip\xff.mkv: truncated"}}, 2);
    EXPECT_EQ(content_of(folder.path() / "report.json"),
              "{\n  \"source_fault\": \"clip\xef\xbf\xbd.mkv: truncated\"\n}\n");
}

TEST(ReportFile, APlaceThatCannotBeWrittenIsToldBeforeTheWork) {
    const testing::Folder folder;
    std::ofstream(folder.path() / "file") << "x";
    EXPECT_NE(fault([&] { check_report(folder.path()); }).find(" is a folder: name a file"), std::string::npos);
    EXPECT_NE(fault([&] { check_report(folder.path() / "file" / "report.json"); }).find("/file is a file, so "),
              std::string::npos);
    EXPECT_EQ(fault([&] { check_report(folder.path() / "new" / "report.json"); }), "");
    EXPECT_EQ(fault([&] { check_report("report.json"); }), "");
    EXPECT_EQ(fault([&] { check_report(""); }), "");
}

TEST(ReportFile, ALinkStaysOneAndItsFileIsReplaced) {
    const testing::Folder folder;
    std::ofstream(folder.path() / "file.json") << "old";
    std::filesystem::create_symlink("file.json", folder.path() / "link.json");
    write_report(folder.path() / "link.json", nlohmann::ordered_json::array(), 2);
    EXPECT_TRUE(std::filesystem::is_symlink(folder.path() / "link.json"));
    EXPECT_EQ(content_of(folder.path() / "file.json"), "[]\n");
}

}  // namespace
}  // namespace derain
