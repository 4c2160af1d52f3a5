#include "model/jax_writer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <map>
#include <vector>

#include "model/jax_names.h"
#include "model/pi0.h"
#include "model/weight_source.h"

namespace pi0::model {
namespace {

// A parameter's place in an array.
struct Piece {
  ShapeRecorder::Parameter parameter;
  JaxPlace place;
};

std::int64_t head_size(const std::string& parameter, const ModelConfig& config) {
  return parameter.find(".vision_tower.") != parameter.npos ? config.vision.width / config.vision.num_heads
                                                            : config.paligemma.head_dim;
}

orbax::WrittenArray written(const std::string& name, std::vector<Piece> pieces, const ModelConfig& config,
                            const DrawParameter& draw, orbax::DType dtype) {
  std::ranges::sort(pieces, {},
                    [](const Piece& piece) { return std::pair(piece.place.layer, piece.place.axes->part()); });
  const Piece& first = pieces.front();
  const std::int64_t layers = pieces.back().place.layer + 1;
  const std::vector<std::int64_t> shape =
      first.place.axes->array_shape(layers, first.parameter.shape, head_size(first.parameter.name, config));
  std::string path = "params/" + name + "/value";
  std::ranges::replace(path, '/', '.');
  const auto elements = [pieces = std::move(pieces), shape, draw, dtype](const WriteBytes& write) {
    for (const Piece& piece : pieces) {
      const JaxAxes& axes = *piece.place.axes;
      const at::Tensor values = draw(piece.parameter.name, piece.parameter.shape).to(dtype_of(dtype));
      const at::Tensor part = axes.to_part(values, axes.part_shape(shape));
      write(part.const_data_ptr(), part.nbytes());
    }
  };
  return {std::move(path), dtype, shape, elements};
}

}  // namespace

void write_jax_params(const orbax::WriteFile& write, const ModelConfig& config, const DrawParameter& draw,
                      const JaxForm& form) {
  ShapeRecorder recorder;
  const Pi0 shapes(config, recorder, Precision::float32, {});
  const JaxNames names;
  std::map<std::string, std::vector<Piece>> arrays;
  for (const ShapeRecorder::Parameter& parameter : recorder.parameters()) {
    const std::optional<JaxPlace> place = names.find(parameter.name);
    if (place) {
      arrays[place->array].push_back({parameter, *place});
    } else {
      TORCH_CHECK(parameter.name.ends_with("lm_head.weight"), "JAX's model has no ", parameter.name);
    }
  }
  std::vector<orbax::WrittenArray> list;
  for (auto& [name, pieces] : arrays) list.push_back(written(name, std::move(pieces), config, draw, form.dtype));
  orbax::write_arrays(write, std::move(list), form.form, at::get_num_threads());
}

}  // namespace pi0::model
