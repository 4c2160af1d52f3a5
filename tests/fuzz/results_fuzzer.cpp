// Whatever a result holds, alone or as part of a folder: an error that names its file, or tables of it.
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "support/temporary_folder.h"
#include "tools/bench/bench_compare.h"
#include "tools/common/results.h"
#include "tools/report/report_data.h"
#include "tools/report/report_tables.h"

namespace {

namespace fs = std::filesystem;
using namespace pi0::tools;

// Folders of results in each of which one file is the input.
class Results {
 public:
  Results() {
    const char* const statistics =
        R"({"layers":[{"layer":"l","component":"vision","rmse":1}],"components":[{"component":"vision"}]})";
    put("summary/float16__float16/stats.json", statistics);
    put("summary/rules__r/stats.json", statistics);
    link("summary/summary.json");
    put("ranking/layers/l/stats.json", statistics);
    put("ranking/components/vision/stats.json", statistics);
    link("ranking/sensitivity.json");
    put("statistics/summary.json", R"([{"input_fmt":"float16","output_fmt":"float16"}])");
    link("statistics/float16__float16/stats.json");
  }

  fs::path place(const std::string& name) const { return folder_.path() / name; }

 private:
  void put(const std::string& name, const std::string& content) { pi0::test::write_all(place(name), content); }
  void link(const std::string& name) {
    fs::create_directories(place(name).parent_path());
    fs::create_symlink(place("input.json"), place(name));
  }

  pi0::test::TemporaryFolder folder_;
};

template <class Read>
void expect_named(const Results& results, Read read) {
  try {
    read();
  } catch (const std::exception& error) {
    if (std::string(error.what()).find(results.place("").string()) == std::string::npos) throw;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const Results results;
  const fs::path input = results.place("input.json");
  std::ofstream(input, std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(bytes), static_cast<std::streamsize>(size));
  expect_named(results, [&] { table_of({read_result(input).entry}); });
  expect_named(results, [&] {
    nlohmann::ordered_json entry = read_closed_loop_entry(input);
    entry["components"] = entry["component_rmse"];
    table_of({entry});
  });
  expect_named(results, [&] { compare_benches(input, input); });
  for (const char* name : {"input.json", "summary", "ranking", "statistics"}) {
    expect_named(results, [&] { report_text(read_results({results.place(name)})); });
  }
  return 0;
}
