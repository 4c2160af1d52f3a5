#include "quant/layer_place.h"

#include <charconv>
#include <string_view>
#include <system_error>

namespace pi0::quant {

LayerPlace place_of(const std::string& layer) {
  constexpr std::string_view blocks = ".layers.";
  const std::string_view path = layer;
  if (const std::size_t found = path.find(blocks); found != std::string_view::npos) {
    const std::string_view rest = path.substr(found + blocks.size());
    std::int64_t block = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), block);
    if (error == std::errc() && end != rest.data() + rest.size() && *end == '.') {
      std::string_view matrix = rest.substr(static_cast<std::size_t>(end - rest.data()) + 1);
      if (matrix.ends_with(".residual")) return {block, std::string(matrix)};  // a block has two
      for (const std::string_view part : {"self_attn.", "mlp."}) {
        if (matrix.starts_with(part)) matrix.remove_prefix(part.size());
      }
      return {block, std::string(matrix)};
    }
  }
  std::size_t dot = layer.rfind('.');
  if (layer.ends_with(".act")) dot = layer.rfind('.', dot - 1);
  return {std::nullopt, layer.substr(dot + 1)};  // npos + 1 is 0
}

}  // namespace pi0::quant
