#include "model/policy/prompt_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "model/policy/python_text.h"
#include "model/text_file.h"

namespace pi0::policy {
namespace {

std::string cleaned(std::string_view prompt) {
  std::string text(python_strip(prompt));
  for (char& c : text) {
    if (c == '_' || c == '\n') c = ' ';
  }
  return text;
}

std::vector<int> pieces(const sentencepiece::SentencePieceProcessor& processor, const std::string& text) {
  std::vector<int> ids;
  const auto status = processor.Encode(text, &ids);
  if (!status.ok()) throw TokenizerError("the prompt cannot be tokenized: " + status.ToString());
  return ids;
}

PromptTokens padded(int bos, const std::vector<int>& ids, std::int64_t max_token_len) {
  PromptTokens prompt;
  prompt.needed = static_cast<std::int64_t>(ids.size()) + 1;
  prompt.used = std::min(prompt.needed, max_token_len);
  prompt.tokens.push_back(bos);
  prompt.tokens.insert(prompt.tokens.end(), ids.begin(), ids.end());
  prompt.tokens.resize(static_cast<std::size_t>(max_token_len), 0);
  return prompt;
}

}  // namespace

PromptTokenizer PromptTokenizer::from_file(const std::filesystem::path& file, std::int64_t vocab_size) {
  std::string model;
  try {
    model = model::read_file(file);
  } catch (const std::runtime_error& error) {
    throw TokenizerError(std::string("tokenizer ") + error.what());
  }
  return {model, file.string(), vocab_size};
}

PromptTokenizer::PromptTokenizer(std::string_view model, const std::string& source, std::int64_t vocab_size)
    : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  const auto refuse = [&](const std::string& what) { throw TokenizerError("tokenizer " + source + ": " + what); };
  const auto status = processor_->LoadFromSerializedProto(model);
  if (!status.ok()) refuse("is not a SentencePiece model: " + status.ToString());
  if (processor_->bos_id() < 0) refuse("has no <bos> piece, which starts every prompt");
  if (processor_->GetPieceSize() > vocab_size) {
    refuse("has " + std::to_string(processor_->GetPieceSize()) + " pieces, the model's embedding has " +
           std::to_string(vocab_size) + " rows; is it the tokenizer of another model?");
  }
}

PromptTokenizer::~PromptTokenizer() = default;
PromptTokenizer::PromptTokenizer(PromptTokenizer&&) noexcept = default;
PromptTokenizer& PromptTokenizer::operator=(PromptTokenizer&&) noexcept = default;

PromptTokens PromptTokenizer::encode(std::string_view prompt, std::int64_t max_token_len) const {
  std::vector<int> ids = pieces(*processor_, cleaned(prompt));
  const std::vector<int> start_of_answer = pieces(*processor_, "\n");
  ids.insert(ids.end(), start_of_answer.begin(), start_of_answer.end());
  return padded(processor_->bos_id(), ids, max_token_len);
}

PromptTokens PromptTokenizer::encode_as_sent(std::string_view prompt, std::int64_t max_token_len) const {
  std::string text(prompt);
  if (!text.ends_with('\n')) text += '\n';
  return padded(processor_->bos_id(), pieces(*processor_, text), max_token_len);
}

PromptTokens PromptTokenizer::encode(std::string_view prompt, std::span<const double> state,
                                     std::int64_t max_token_len) const {
  std::string bins;
  for (const double value : state) {
    if (!bins.empty()) bins += ' ';
    bins += std::to_string(state_bin(value));
  }
  const std::string text = "Task: " + cleaned(prompt) + ", State: " + bins + ";\nAction: ";
  return padded(processor_->bos_id(), pieces(*processor_, text), max_token_len);
}

int state_bin(double value) {
  if (std::isnan(value)) return 255;
  // Bin edges are multiples of 1/128, so this product is exact; value + 1 would round.
  return static_cast<int>(std::clamp(std::floor(value * 128.0) + 128.0, -1.0, 255.0));
}

std::filesystem::path openpi_data_home() {
  const char* home = std::getenv("HOME");
  const std::filesystem::path users = home != nullptr ? home : "";
  const char* chosen = std::getenv("OPENPI_DATA_HOME");
  const std::string folder = chosen != nullptr ? chosen : "~/.cache/openpi";
  if (folder == "~") return users;
  return folder.starts_with("~/") ? users / folder.substr(2) : std::filesystem::path(folder);
}

std::filesystem::path find_tokenizer(const std::filesystem::path& checkpoint_dir) {
  const std::filesystem::path beside = checkpoint_dir / "paligemma_tokenizer.model";
  if (std::filesystem::exists(beside)) return beside;
  const std::filesystem::path downloaded = openpi_data_home() / "big_vision/paligemma_tokenizer.model";
  if (std::filesystem::exists(downloaded)) return downloaded;
  throw TokenizerError(
      "no tokenizer: neither " + beside.string() + " nor " + downloaded.string() +
      " exists; download gs://big_vision/paligemma_tokenizer.model, as openpi does, or give PaliGemma's "
      "SentencePiece model with --tokenizer");
}

}  // namespace pi0::policy
