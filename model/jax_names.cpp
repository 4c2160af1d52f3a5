#include "model/jax_names.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <span>
#include <sstream>
#include <utility>

namespace pi0::model {
namespace {

struct Row {
  const char* parameter;
  const char* array;
  const char* axes;
};

constexpr Row rows_of_paligemma[] = {
    {"multi_modal_projector.linear.weight", "img/head/kernel", "d w -> w d"},
    {"multi_modal_projector.linear.bias", "img/head/bias", "w -> w"},
    {"language_model.embed_tokens.weight", "llm/embedder/input_embedding", "v d -> v d"},
};

constexpr Row rows_of_vision[] = {
    {"embeddings.patch_embedding.weight", "embedding/kernel", "y x c d -> d c y x"},
    {"embeddings.patch_embedding.bias", "embedding/bias", "d -> d"},
    {"embeddings.position_embedding.weight", "pos_embedding", "1 p d -> p d"},
    {"post_layernorm.weight", "Transformer/encoder_norm/scale", "d -> d"},
    {"post_layernorm.bias", "Transformer/encoder_norm/bias", "d -> d"},
};
constexpr Row rows_of_vision_layers[] = {
    {"layer_norm1.weight", "LayerNorm_0/scale", "l d -> d"},
    {"layer_norm1.bias", "LayerNorm_0/bias", "l d -> d"},
    {"layer_norm2.weight", "LayerNorm_1/scale", "l d -> d"},
    {"layer_norm2.bias", "LayerNorm_1/bias", "l d -> d"},
    {"mlp.fc1.weight", "MlpBlock_0/Dense_0/kernel", "l d f -> f d"},
    {"mlp.fc1.bias", "MlpBlock_0/Dense_0/bias", "l f -> f"},
    {"mlp.fc2.weight", "MlpBlock_0/Dense_1/kernel", "l f d -> d f"},
    {"mlp.fc2.bias", "MlpBlock_0/Dense_1/bias", "l d -> d"},
    {"self_attn.q_proj.weight", "MultiHeadDotProductAttention_0/query/kernel", "l d n h -> (n h) d"},
    {"self_attn.q_proj.bias", "MultiHeadDotProductAttention_0/query/bias", "l n h -> (n h)"},
    {"self_attn.k_proj.weight", "MultiHeadDotProductAttention_0/key/kernel", "l d n h -> (n h) d"},
    {"self_attn.k_proj.bias", "MultiHeadDotProductAttention_0/key/bias", "l n h -> (n h)"},
    {"self_attn.v_proj.weight", "MultiHeadDotProductAttention_0/value/kernel", "l d n h -> (n h) d"},
    {"self_attn.v_proj.bias", "MultiHeadDotProductAttention_0/value/bias", "l n h -> (n h)"},
    {"self_attn.out_proj.weight", "MultiHeadDotProductAttention_0/out/kernel", "l n h d -> d (n h)"},
    {"self_attn.out_proj.bias", "MultiHeadDotProductAttention_0/out/bias", "l d -> d"},
};

// Both Gemmas have these rows. @ stands for "_1" in the names of the expert's arrays, and for nothing in the other's.
constexpr Row rows_of_gemma_layers[] = {
    {"self_attn.q_proj.weight", "attn/q_einsum@/w", "l n d h -> (n h) d"},
    {"self_attn.k_proj.weight", "attn/kv_einsum@/w", "l 0/2 n d h -> (n h) d"},
    {"self_attn.v_proj.weight", "attn/kv_einsum@/w", "l 1/2 n d h -> (n h) d"},
    {"self_attn.o_proj.weight", "attn/attn_vec_einsum@/w", "l n h d -> d (n h)"},
    {"mlp.gate_proj.weight", "mlp@/gating_einsum", "l 0/2 d f -> f d"},
    {"mlp.up_proj.weight", "mlp@/gating_einsum", "l 1/2 d f -> f d"},
    {"mlp.down_proj.weight", "mlp@/linear", "l f d -> d f"},
    {"input_layernorm.weight", "pre_attention_norm@/scale", "l d -> d"},
    {"input_layernorm.dense.weight", "pre_attention_norm@/Dense_0/kernel", "l c d -> d c"},
    {"input_layernorm.dense.bias", "pre_attention_norm@/Dense_0/bias", "l d -> d"},
    {"post_attention_layernorm.weight", "pre_ffw_norm@/scale", "l d -> d"},
    {"post_attention_layernorm.dense.weight", "pre_ffw_norm@/Dense_0/kernel", "l c d -> d c"},
    {"post_attention_layernorm.dense.bias", "pre_ffw_norm@/Dense_0/bias", "l d -> d"},
};
constexpr Row rows_of_gemma[] = {
    {"norm.weight", "final_norm@/scale", "d -> d"},
    {"norm.dense.weight", "final_norm@/Dense_0/kernel", "c d -> d c"},
    {"norm.dense.bias", "final_norm@/Dense_0/bias", "d -> d"},
};

// Beside PaliGemma, of the same names in both models.
constexpr const char* projections[] = {"state_proj",   "action_in_proj",     "action_out_proj",    "time_mlp_in",
                                       "time_mlp_out", "action_time_mlp_in", "action_time_mlp_out"};
constexpr Row rows_of_projection[] = {
    {"weight", "kernel", "i o -> o i"},
    {"bias", "bias", "o -> o"},
};

// [batch, rows, columns] to [batch, columns, rows], both contiguous.
template <class Item>
void transpose(const Item* from, Item* to, std::int64_t batch, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t tile = 64;
  const std::int64_t bands = (columns + tile - 1) / tile;  // a band of columns is a band of the result's rows
  at::parallel_for(0, batch * bands, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const Item* const matrix = from + task / bands * rows * columns;
      Item* const result = to + task / bands * rows * columns;
      const std::int64_t first_column = task % bands * tile, last_column = std::min(first_column + tile, columns);
      for (std::int64_t first_row = 0; first_row < rows; first_row += tile) {
        const std::int64_t last_row = std::min(first_row + tile, rows);
        for (std::int64_t column = first_column; column < last_column; ++column) {
          for (std::int64_t row = first_row; row < last_row; ++row) {
            result[column * rows + row] = matrix[row * columns + column];
          }
        }
      }
    }
  });
}

// x.permute(order).contiguous(), fast where axes that stay neighbours make it a transposition of matrices.
at::Tensor permuted(const at::Tensor& x, const std::vector<std::int64_t>& order) {
  struct Run {
    std::int64_t first, size;
  };
  std::vector<Run> runs;
  std::vector<std::int64_t> shape;
  std::int64_t before = -2;
  for (const std::int64_t axis : order) {
    if (axis == before + 1) {
      runs.back().size *= x.size(axis);
    } else {
      runs.push_back({axis, x.size(axis)});
    }
    shape.push_back(x.size(axis));
    before = axis;
  }
  if (runs.size() <= 1) return x;
  const bool keeps_first = runs.size() == 3 && runs[0].first == 0 && runs[1].first > runs[2].first;
  if (runs.size() > 2 && !keeps_first) return x.permute(order).contiguous();
  const std::int64_t batch = keeps_first ? runs[0].size : 1;
  const Run& columns = runs[runs.size() - 2];
  const Run& rows = runs[runs.size() - 1];
  at::Tensor result = at::empty(shape, x.options());
  if (x.element_size() == 2) {
    transpose(static_cast<const std::uint16_t*>(x.const_data_ptr()),
              static_cast<std::uint16_t*>(result.mutable_data_ptr()), batch, rows.size, columns.size);
  } else if (x.element_size() == 4) {
    transpose(static_cast<const std::uint32_t*>(x.const_data_ptr()),
              static_cast<std::uint32_t*>(result.mutable_data_ptr()), batch, rows.size, columns.size);
  } else {
    return x.permute(order).contiguous();
  }
  return result;
}

std::string replaced(std::string text, const std::string& mark, const std::string& by) {
  const std::size_t place = text.find(mark);
  return place == text.npos ? text : text.replace(place, mark.size(), by);
}

}  // namespace

at::ScalarType dtype_of(orbax::DType dtype) {
  switch (dtype) {
    case orbax::DType::float32:
      return at::kFloat;
    case orbax::DType::bfloat16:
      return at::kBFloat16;
    case orbax::DType::float16:
      return at::kHalf;
  }
  TORCH_CHECK(false, "a dtype that zarr's reader made up");
}

JaxAxes::JaxAxes(std::string_view text) {
  std::istringstream words{std::string(text)};
  std::string word;
  while (words >> word && word != "->") {
    if (word == "l") {
      has_layers_ = true;
    } else if (word.find('/') != word.npos) {
      has_parts_ = true;
      part_ = word[0] - '0';
      parts_ = word[2] - '0';
    } else {
      from_ += word[0];
    }
  }
  bool is_open = false;
  while (words >> word) {
    if (!is_open) to_.emplace_back();
    is_open = (is_open || word.front() == '(') && word.back() != ')';
    std::erase_if(word, [](char c) { return c == '(' || c == ')'; });
    to_.back() += word;
  }
}

at::IntArrayRef JaxAxes::part_shape(at::IntArrayRef array) const {
  return array.slice((has_layers_ ? 1U : 0U) + (has_parts_ ? 1U : 0U));
}

bool JaxAxes::fit(at::IntArrayRef array, at::IntArrayRef parameter) const {
  const std::size_t outer = (has_layers_ ? 1U : 0U) + (has_parts_ ? 1U : 0U);
  if (array.size() != outer + from_.size() || parameter.size() != to_.size()) return false;
  if (has_parts_ && array[outer - 1] != parts_) return false;
  const at::IntArrayRef part = part_shape(array);
  for (std::size_t i = 0; i < from_.size(); ++i) {
    if (from_[i] == '1' && part[i] != 1) return false;
  }
  for (std::size_t axis = 0; axis < to_.size(); ++axis) {
    std::int64_t size = 1;
    for (const char letter : to_[axis]) size *= part[from_.find(letter)];
    if (size != parameter[axis]) return false;
  }
  return true;
}

std::string JaxAxes::expected(at::IntArrayRef parameter) const {
  std::ostringstream text;
  const char* separator = "[";
  const auto add = [&](const auto& item) {
    text << separator << item;
    separator = ", ";
  };
  if (has_layers_) add("layers");
  if (has_parts_) add(parts_);
  std::string products;
  for (const char letter : from_) {
    const auto axis = std::ranges::find_if(to_, [&](const std::string& to) { return to.find(letter) != to.npos; });
    if (axis != to_.end() && axis->size() == 1) {
      add(parameter[static_cast<std::size_t>(axis - to_.begin())]);
    } else {
      add(letter);
    }
  }
  text << "]";
  for (std::size_t axis = 0; axis < to_.size(); ++axis) {
    if (to_[axis].size() == 2) text << " with " << to_[axis][0] << " * " << to_[axis][1] << " = " << parameter[axis];
  }
  return text.str();
}

std::vector<std::int64_t> JaxAxes::array_shape(std::int64_t layers, at::IntArrayRef parameter,
                                               std::int64_t head_size) const {
  std::vector<std::int64_t> shape;
  if (has_layers_) shape.push_back(layers);
  if (has_parts_) shape.push_back(parts_);
  for (const char letter : from_) {
    std::int64_t size = 1;
    for (std::size_t axis = 0; axis < to_.size(); ++axis) {
      if (to_[axis].find(letter) == std::string::npos) continue;
      const bool is_alone = to_[axis].size() == 1;
      size = is_alone ? parameter[axis] : letter == 'h' ? head_size : parameter[axis] / head_size;
    }
    shape.push_back(size);
  }
  return shape;
}

std::vector<std::int64_t> JaxAxes::letter_sizes(at::IntArrayRef part_shape) const {
  std::vector<std::int64_t> sizes;
  for (std::size_t i = 0; i < from_.size(); ++i) {
    if (from_[i] != '1') sizes.push_back(part_shape[i]);
  }
  return sizes;
}

std::vector<std::int64_t> JaxAxes::order() const {
  std::string letters = from_;
  std::erase(letters, '1');
  std::vector<std::int64_t> order;
  for (const std::string& axis : to_) {
    for (const char letter : axis) order.push_back(static_cast<std::int64_t>(letters.find(letter)));
  }
  return order;
}

at::Tensor JaxAxes::to_parameter(const at::Tensor& part, at::IntArrayRef shape) const {
  return permuted(part.view(letter_sizes(part.sizes())), order()).view(shape);
}

at::Tensor JaxAxes::to_part(const at::Tensor& parameter, at::IntArrayRef part_shape) const {
  const std::vector<std::int64_t> sizes = letter_sizes(part_shape), there = order();
  std::vector<std::int64_t> back(there.size()), from_sizes;
  for (std::size_t i = 0; i < there.size(); ++i) {
    back[static_cast<std::size_t>(there[i])] = static_cast<std::int64_t>(i);
    from_sizes.push_back(sizes[static_cast<std::size_t>(there[i])]);
  }
  return permuted(parameter.contiguous().view(from_sizes), back).view(part_shape);
}

JaxNames::JaxNames() {
  const auto add = [&](std::span<const Row> rows, const std::string& parameters, const std::string& arrays,
                       const std::string& suffix = "") {
    for (const Row& row : rows) {
      rules_.emplace(parameters + row.parameter, Rule{arrays + replaced(row.array, "@", suffix), JaxAxes(row.axes)});
    }
  };
  const std::string vision = "paligemma_with_expert.paligemma.model.vision_tower.vision_model.";
  add(rows_of_vision, vision, "PaliGemma/img/");
  add(rows_of_vision_layers, vision + "encoder.layers.{}.", "PaliGemma/img/Transformer/encoderblock/");
  add(rows_of_paligemma, "paligemma_with_expert.paligemma.model.", "PaliGemma/");
  for (const auto& [gemma, suffix] : {std::pair{"paligemma_with_expert.paligemma.model.language_model.", ""},
                                      std::pair{"paligemma_with_expert.gemma_expert.model.", "_1"}}) {
    add(rows_of_gemma_layers, std::string(gemma) + "layers.{}.", "PaliGemma/llm/layers/", suffix);
    add(rows_of_gemma, gemma, "PaliGemma/llm/", suffix);
  }
  for (const std::string name : projections) add(rows_of_projection, name + ".", name + "/");
  for (const auto& [parameter, rule] : rules_) arrays_.emplace(rule.array, &rule.axes);
}

std::optional<JaxPlace> JaxNames::find(const std::string& parameter) const {
  constexpr std::string_view mark = "layers.";
  constexpr std::size_t most_digits = 6;
  std::string name = parameter;
  std::int64_t layer = 0;
  if (const std::size_t place = name.find(mark); place != name.npos) {
    const std::size_t begin = place + mark.size();
    const std::size_t end = std::min(name.find_first_not_of("0123456789", begin), name.size());
    if (end == begin || end - begin > most_digits) return std::nullopt;
    layer = std::stoll(name.substr(begin, end - begin));
    name.replace(begin, end - begin, "{}");
  }
  const auto found = rules_.find(name);
  if (found == rules_.end()) return std::nullopt;
  return JaxPlace{found->second.array, &found->second.axes, layer};
}

const JaxAxes* JaxNames::axes(const std::string& array) const {
  const auto found = arrays_.find(array);
  return found == arrays_.end() ? nullptr : found->second;
}

LoraNames lora_names(const std::string& array) {
  if (array.ends_with("/w")) {
    const std::string owner = array.substr(0, array.size() - 1);
    return {owner + "lora_a", owner + "lora_b"};
  }
  return {array + "_lora_a", array + "_lora_b"};
}

}  // namespace pi0::model
