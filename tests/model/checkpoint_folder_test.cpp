#include "model/checkpoint_folder.h"

#include "support/catch.h"
#include "support/temporary_folder.h"
#include "support/tensor_file.h"

namespace pi0 {
namespace {

using model::Layout;
namespace fs = std::filesystem;

// A folder of empty files: what is in them is read later.
class Tree {
 public:
  explicit Tree(std::initializer_list<const char*> files) {
    for (const char* file : files) test::write_all(folder_.path() / file, "");
  }
  fs::path operator/(const char* place) const { return folder_.path() / place; }

 private:
  test::TemporaryFolder folder_;
};

TEST_CASE("find_checkpoint tells layouts apart and finds what belongs to the weights", "[checkpoint]") {
  const Tree tree({"torch/model.safetensors", "shards/model.safetensors.index.json", "jax/params/manifest.ocdbt",
                   "jax/assets/droid/norm_stats.json", "plain/params/params.a.value/.zarray",
                   "lerobot/pretrained_model/model.safetensors"});
  test::write_all(tree / "lerobot/pretrained_model/config.json", R"({"type": "pi0"})");

  for (const char* place : {"torch", "torch/", "torch/model.safetensors"}) {
    INFO(place);
    const model::CheckpointFolder found = model::find_checkpoint(tree / place);
    CHECK(found.layout == Layout::openpi);
    CHECK(fs::equivalent(found.root, tree / "torch"));
    CHECK(found.weights == found.root);
    CHECK(found.config.is_null());
  }
  CHECK(model::find_checkpoint(tree / "shards").layout == Layout::openpi);

  for (const char* place : {"jax", "jax/params", "jax/params/"}) {
    INFO(place);
    const model::CheckpointFolder found = model::find_checkpoint(tree / place);
    CHECK(found.layout == Layout::jax);
    CHECK(fs::equivalent(found.root, tree / "jax"));
    CHECK(fs::equivalent(found.weights, tree / "jax/params"));
  }
  CHECK(model::find_checkpoint(tree / "plain").layout == Layout::jax);

  const model::CheckpointFolder lerobot = model::find_checkpoint(tree / "lerobot");
  CHECK(lerobot.layout == Layout::lerobot);
  CHECK(lerobot.root == tree / "lerobot/pretrained_model");
}

TEST_CASE("find_checkpoint says what a wrong place is, and what to give", "[checkpoint]") {
  const Tree tree({"run/100/params/manifest.ocdbt", "run/20/params/manifest.ocdbt", "run/wandb_id.txt",
                   "run/100/train_state/manifest.ocdbt", "run/100/assets/droid/norm_stats.json",
                   "hub/005000/pretrained_model/model.safetensors", "peft/adapter_model.safetensors",
                   "pickled/pytorch_model.bin", "empty/readme"});
  test::write_all(tree / "broken/model.safetensors", "");
  test::write_all(tree / "broken/config.json", "{");
  CHECK_THROWS_WITH(model::find_checkpoint(tree / "run"),
                    contains_text("20, 100") && contains_text((tree / "run/100").string()));
  CHECK_THROWS_WITH(model::find_checkpoint(tree / "hub"), contains_text("steps: 005000"));
  CHECK_THROWS_WITH(model::find_checkpoint(tree / "run/100/train_state"), contains_text("optimizer's state"));
  CHECK_THROWS_WITH(model::find_checkpoint(tree / "run/100/assets"), contains_text("the folder above assets/"));
  CHECK_THROWS_WITH(model::find_checkpoint(tree / "run/100/assets/droid"), contains_text("the folder above assets/"));
  CHECK_THROWS_WITH(model::find_checkpoint(tree / "peft"), contains_text("PEFT adapters without the model"));
  CHECK_THROWS_WITH(model::find_checkpoint(tree / "pickled"),
                    contains_text("pytorch_model.bin") && contains_text("can run code"));
  CHECK_THROWS_WITH(model::find_checkpoint(tree / "empty"),
                    contains_text("model.safetensors") && contains_text("params/"));
  CHECK_THROWS_WITH(model::find_checkpoint(tree / "empty/readme"), contains_text("is a file"));
  CHECK_THROWS_WITH(model::find_checkpoint(tree / "absent"), contains_text("there is no such folder"));
  CHECK_THROWS_WITH(model::find_checkpoint(tree / "broken"),
                    contains_text("config.json") && contains_text("not valid JSON"));
  CHECK_THROWS_WITH(model::find_checkpoint("gs://openpi-assets/checkpoints/pi05_droid"),
                    contains_text("gsutil -m cp -r gs://openpi-assets"));
  CHECK_THROWS_WITH(model::find_checkpoint("s3://bucket/pi05"),
                    contains_text("aws s3 cp --recursive s3://bucket/pi05"));
  CHECK_THROWS_WITH(model::find_checkpoint("hf://lerobot/pi0_base"), contains_text("hf download lerobot/pi0_base"));
  CHECK_THROWS_WITH(model::find_checkpoint("lerobot/pi0_base"), contains_text("hf download lerobot/pi0_base"));
}

}  // namespace
}  // namespace pi0
