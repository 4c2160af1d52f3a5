// The tokenizer of checkpoints that `pi0 make-checkpoint` makes: a SentencePiece model of 512 pieces with
// PaliGemma's special tokens.
#pragma once

#include <string_view>

namespace pi0::tools {

std::string_view tiny_tokenizer();  // the file's bytes

}  // namespace pi0::tools
