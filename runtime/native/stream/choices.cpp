#include "choices.hpp"

namespace derain {

void EngineChoice::add_to(CLI::App& verb) {
    std::string names;
    for (const auto& name : available_engines()) {
        names += (names.empty() ? "" : ", ") + name;
    }
    engine = default_engine();
    verb.add_option("bundle", bundle, "The bundle, made by `derain export`.")->required()->type_name("BUNDLE");
    verb.add_option("--engine", engine, "The engine by name; this build has: " + names + ".")->capture_default_str();
    verb.add_option("--precision", precision, "One the bundle has.")
        ->check(CLI::IsMember({"fp32", "fp16", "int8", "fp8"}))
        ->capture_default_str();
}

std::shared_ptr<Engine> EngineChoice::open(const Bundle& loaded) const {
    std::shared_ptr<Engine> opened = make_engine(engine, loaded, parse_precision(precision));
    opened->open();
    opened->warm_up();
    return opened;
}

void add_deadline(CLI::App& verb, std::optional<double>& ms, const std::string& what) {
    verb.add_option_function<double>(
            "--deadline",
            [&ms](double given) {
                if (!(given > 0)) {
                    throw CLI::ValidationError("--deadline", "expected more than 0, or inf for none");
                }
                ms = given;
            },
            what)
        ->type_name("MS");
}

}  // namespace derain
