// JSON Schemas: options, the schema's text, NUL, then bytes of an instance. The schema is read, opened, walked along the instance, and its masks over a
// small vocabulary are checked. Every failure is one of the core's own errors.
#include <algorithm>
#include <memory>
#include <string>
#include <string_view>

#include "core/engine.h"
#include "core/errors.h"
#include "core/json/schema.h"
#include "tiny_vocabulary.h"

using namespace guiderail;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::string_view schema = rest.substr(0, rest.find('\0'));
  std::string_view instance = rest.substr(std::min(rest.size(), schema.size() + 1));
  JsonSchemaOptions options;
  options.whitespace = data[0] & 1 ? "compact" : "flexible";
  options.free_order = (data[0] & 2) != 0;
  options.strict = (data[0] & 4) != 0;
  options.warn = (data[0] & 8) != 0;
  options.formats = (data[0] & 16) != 0;
  static const auto vocabulary = fuzz::tiny_vocabulary(
      fuzz::all_bytes(),
      {"{\"", "\":", "\",\"", "\"}", "},{", "[[", "]]", "true", "null", "12", "-0.", "e+", "\\u00", "\xc3\xa9"});
  Limits limits;
  limits.lexer_states_per_request = 20'000;
  limits.states = 20'000;
  limits.grammar_bytes = limits.request_bytes = limits.mask_bytes = std::size_t{1} << 25;
  try {
    auto source = std::make_shared<const JsonSchemaSource>(schema, options);
    source->report();
    Engine engine(source, limits);
    StateId state = engine.initial();
    std::size_t read = 0;
    for (; read < instance.size(); ++read) {
      StateId next = engine.advance(state, instance.substr(read, 1));
      fuzz::law((next != kDead) == engine.next_bytes(state).has(static_cast<uint8_t>(instance[read])),
                "next_bytes <=> advance");
      if (next == kDead) break;
      state = next;
    }
    fuzz::law(engine.advance(engine.initial(), instance.substr(0, read)) == state,
              "a text read at once or byte by byte leads to one state");
    auto compiled = std::make_shared<CompiledGrammar>(source, vocabulary, nullptr, limits);
    std::size_t steps = std::min<std::size_t>(instance.size(), 4);
    fuzz::check_laws(compiled, {reinterpret_cast<const uint8_t*>(instance.data()), steps});
  } catch (const GrammarError&) {
  } catch (const SchemaError&) {
  } catch (const LimitError&) {
  } catch (const DeadEndError&) {}
  return 0;
}
