// Turns a prompt, and for Pi0.5 the state, into PaliGemma's tokens.
// Reference: PaligemmaTokenizer of openpi's src/openpi/models/tokenizer.py.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace pi0::policy {

// Names the file and what is wrong with it.
class TokenizerError : public std::runtime_error {
  using runtime_error::runtime_error;
};

struct PromptTokens {
  std::vector<std::int64_t> tokens;  // max_token_len values, 0 where padded
  std::int64_t used = 0;             // positions that hold a token; the mask is true there
  std::int64_t needed = 0;           // by the whole prompt: more than `used` if it was truncated
};

// Encoding is const and may run on several threads at once.
class PromptTokenizer {
 public:
  // Both throw TokenizerError if the model cannot be read, has no <bos>, or has more pieces than
  // `vocab_size`, the rows of the model's embedding.
  static PromptTokenizer from_file(const std::filesystem::path& file, std::int64_t vocab_size);
  // `model` is the content of a SentencePiece file, `source` its name for messages.
  PromptTokenizer(std::string_view model, const std::string& source, std::int64_t vocab_size);
  ~PromptTokenizer();
  PromptTokenizer(PromptTokenizer&&) noexcept;
  PromptTokenizer& operator=(PromptTokenizer&&) noexcept;

  // Pi0: the prompt, then a newline that is tokenized separately. `prompt` is UTF-8.
  PromptTokens encode(std::string_view prompt, std::int64_t max_token_len) const;

  // The same for a prompt that is not cleaned, with a newline only if it does not end with one: LeRobot's Pi0.
  PromptTokens encode_as_sent(std::string_view prompt, std::int64_t max_token_len) const;

  // Pi0.5 with discrete state: "Task: ..., State: <bins>;\nAction: ". `state` is normalised,
  // unpadded.
  PromptTokens encode(std::string_view prompt, std::span<const double> state, std::int64_t max_token_len) const;

 private:
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

// One of 256 equal bins of [-1, 1): 255 at and above the last edge and for NaN, -1 below -1.
int state_bin(double value);

// The folder of openpi's downloads: $OPENPI_DATA_HOME, by default ~/.cache/openpi. A leading ~ is the home folder, as
// in openpi's src/openpi/shared/download.py.
std::filesystem::path openpi_data_home();

// paligemma_tokenizer.model in the checkpoint's folder, else in big_vision/ of openpi's downloads.
// Throws TokenizerError naming both places.
std::filesystem::path find_tokenizer(const std::filesystem::path& checkpoint_dir);

}  // namespace pi0::policy
