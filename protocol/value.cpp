#include "protocol/value.h"

#include <algorithm>
#include <utility>

namespace pi0::protocol {
namespace {

std::string array_name(const NdArray& array) {
  std::string name = dtype_name(array.dtype) + " array [";
  for (std::size_t axis = 0; axis < array.shape.size(); ++axis) {
    name += (axis ? ", " : "") + std::to_string(array.shape[axis]);
  }
  return name + "]";
}

struct TypeName {
  std::string operator()(std::monostate) const { return "nil"; }
  std::string operator()(bool) const { return "bool"; }
  std::string operator()(std::int64_t) const { return "int"; }
  std::string operator()(std::uint64_t) const { return "int"; }
  std::string operator()(double) const { return "float"; }
  std::string operator()(const std::string&) const { return "str"; }
  std::string operator()(const Bytes&) const { return "bytes"; }
  std::string operator()(const List&) const { return "list"; }
  std::string operator()(const Dict&) const { return "map"; }
  std::string operator()(const NdArray& array) const { return array_name(array); }
  std::string operator()(const Extension&) const { return "extension"; }
  std::string operator()(const Packed&) const { return "undecoded value"; }
};

}  // namespace

std::int64_t NdArray::element_count() const {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

Dict::Dict(std::vector<Entry> entries) : entries_(std::move(entries)) {}

const Value* Dict::find(std::string_view key) const {
  const auto entry = std::ranges::find(entries_, key, &Entry::first);
  return entry == entries_.end() ? nullptr : &entry->second;
}

Value* Dict::find(std::string_view key) { return const_cast<Value*>(std::as_const(*this).find(key)); }

void Dict::set(std::string key, Value value) {
  const auto entry = std::ranges::find(entries_, key, &Entry::first);
  if (entry == entries_.end()) {
    entries_.emplace_back(std::move(key), std::move(value));
  } else {
    entry->second = std::move(value);
  }
}

void Dict::erase(std::string_view key) {
  std::erase_if(entries_, [&](const Entry& entry) { return entry.first == key; });
}

std::optional<NdArray> stacked(const List& list) {
  const auto* first = list.items.empty() ? nullptr : std::get_if<NdArray>(&list.items.front());
  if (first == nullptr) return std::nullopt;
  NdArray whole{first->dtype, {static_cast<std::int64_t>(list.items.size())}, {}};
  whole.shape.insert(whole.shape.end(), first->shape.begin(), first->shape.end());
  for (const Value& item : list.items) {
    const auto* array = std::get_if<NdArray>(&item);
    if (array == nullptr || array->dtype != first->dtype || array->shape != first->shape) return std::nullopt;
    whole.data.insert(whole.data.end(), array->data.begin(), array->data.end());
  }
  return whole;
}

std::string dtype_name(const DType& dtype) {
  const std::string bits = std::to_string(8 * dtype.item_size);
  switch (dtype.kind) {
    case 'b':
      return "bool";
    case 'i':
      return "int" + bits;
    case 'u':
      return "uint" + bits;
    case 'f':
      return "float" + bits;
    case 'U':
      return "U" + std::to_string(dtype.item_size / 4);
    default:
      return dtype.kind + std::to_string(dtype.item_size);
  }
}

std::string type_name(const Value& value) { return std::visit(TypeName{}, value); }

}  // namespace pi0::protocol
