// CLI11's names for headers that only pass them on; its own header takes seconds to compile.
#pragma once

namespace CLI {
class App;
class Option;
class Validator;
}  // namespace CLI
