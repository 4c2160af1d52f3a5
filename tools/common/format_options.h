// Options that name formats.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "quant/format.h"
#include "tools/common/cli_fwd.h"

namespace pi0::tools {

// An option with one format. A wrong name is refused with what it may be.
CLI::Option* add_format(CLI::App& app, const std::string& name, std::optional<quant::NumberFormat>& format,
                        const std::string& description);

// --rotate, --smooth and --clip.
void add_method_options(CLI::App& app, formats::Methods& methods, const std::string& group);

// --accumulator, and --functional-model as pi0-quant has it.
void add_accumulator_options(CLI::App& app, formats::Accumulator& accumulator, const std::string& group);

// --output-noise, and the short name --noise unless the command has an option of that name.
CLI::Option* add_noise_option(CLI::App& app, std::optional<formats::Noise>& noise, const std::string& group);

// Formats by role, as one setting after the other needs them: each of inputs with each of weights and of outputs, or
// some combinations by name. All pairs of plain casts unless the command line names some.
struct FormatLists {
  FormatLists();
  std::vector<quant::NumberFormat> inputs, weights, outputs;  // no weights: as inputs
  std::vector<quant::SiteFormats> named;                      // if there are any, the lists do not count
  std::optional<quant::NumberFormat> kv_cache, vector;        // of all settings
  formats::Methods methods;                                   // likewise, beside a preset's own
  std::vector<formats::Accumulator> accumulators;             // each setting under each; none: float32
  std::optional<formats::Noise> noise;                        // of all settings

  std::vector<quant::SiteFormats> settings() const;  // of lists, all of the first input format first
};

// What a researcher would try first, with what it is called: W8A8 has weights and activations of 8 bits.
struct NamedFormats {
  std::string name;
  quant::SiteFormats formats;
};
const std::vector<NamedFormats>& preset_formats();

// --input-fmts, --weight-fmts, --output-fmts, --pairs, --presets, --accumulators, --kv-cache-fmt, --vector-fmt,
// --output-noise and methods.
void add_format_lists(CLI::App& app, FormatLists& formats, const std::string& group);

}  // namespace pi0::tools
