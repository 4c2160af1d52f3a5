#include <utility>

#include "model/backend.h"
#include "model/matmul_site.h"

namespace pi0::model {

SiteList::SiteList(Execution execution) : execution_(std::move(execution)), backend_(make_backend(execution_)) {}

MatmulSite& SiteList::add(std::string path, SiteKind kind, std::int64_t in, std::int64_t out) {
  const Component component = component_of(path);
  return sites_.emplace_back(MatmulSite{std::move(path), component, kind, in, out, backend_.get()});
}

}  // namespace pi0::model
