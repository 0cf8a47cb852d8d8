// `main` for fuzz targets where the compiler brings none (GCC). With Clang, libFuzzer takes this file's place; the flags are its own.
//
//   fuzz_NAME [-runs=N] [-max_total_time=SECONDS] [-seed=N] [-max_len=N] [FILE | FOLDER]...
//
// Every file is replayed first. Then, until runs or seconds are used up, inputs are mutated from those that reached something new. What
// an input reaches comes from -fsanitize-coverage=trace-pc: the compiler calls __sanitizer_cov_trace_pc at every edge, and a byte per hashed
// return address counts it, in classes of powers of two (Zalewski's AFL counts the same way). Inputs that reach something new are
// written to the first folder. The input in work is kept in a file, so that a crash, an abort or a hang leaves its reproducer behind.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size);
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

constexpr std::size_t kEdges = std::size_t{1} << 17;
constexpr unsigned kSecondsPerInput = 60;  // under sanitizers; an input that takes longer is reported
std::array<uint8_t, kEdges> edges;         // of the run in progress
std::array<uint8_t, kEdges> reached;       // classes of counts ever seen, one bit each

using Input = std::vector<uint8_t>;

// The input in work, in a file that is mapped: written without a system call, there after any kind of end.
struct Reproducer {
  static constexpr std::size_t kMax = std::size_t{1} << 20;
  std::string path = "fuzz-last-input." + std::to_string(getpid());
  uint8_t* memory = nullptr;
  int file = -1;

  Reproducer() {
    file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || ftruncate(file, kMax) != 0) std::exit(2);
    void* place = mmap(nullptr, kMax, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (place == MAP_FAILED) std::exit(2);
    memory = static_cast<uint8_t*>(place);
  }
  // Eight bytes of length, then the input.
  void write(const Input& input) {
    uint64_t size = std::min(input.size(), kMax - sizeof(uint64_t));
    std::memcpy(memory, &size, sizeof size);
    if (size) std::memcpy(memory + sizeof size, input.data(), size);
  }
  void remove() { unlink(path.c_str()); }
};

Reproducer* reproducer = nullptr;

// Only what a signal handler may call. Of a hang or a crash, once.
void report(const char* what) {
  const char* texts[] = {"\n== ", what, "; the input is in crash.input\n"};
  uint64_t size = 0;
  std::memcpy(&size, reproducer->memory, sizeof size);
  int out = open("crash.input", O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (out >= 0 && write(out, reproducer->memory + sizeof size, size) >= 0) close(out);
  for (const char* text : texts)
    if (write(2, text, std::strlen(text)) < 0) break;
  unlink(reproducer->path.c_str());
}

extern "C" void on_signal(int number) {
  report(number == SIGALRM ? "an input takes too long" : "a crash");
  signal(number, SIG_DFL);
  raise(number);
  _exit(77);
}

extern "C" void on_death() { report("a sanitizer's finding"); }

// On a stack of its own, because the usual crash is the end of the other one. A sanitizer that is linked in reports crashes better
// than a handler could, so it keeps those signals and calls on_death.
void catch_crashes() {
  static std::array<char, std::size_t{1} << 16> memory;
  stack_t stack{};
  stack.ss_sp = memory.data();
  stack.ss_size = memory.size();
  sigaltstack(&stack, nullptr);
  struct sigaction action{};
  action.sa_handler = on_signal;
  action.sa_flags = SA_ONSTACK;
  sigaction(SIGABRT, &action, nullptr);
  sigaction(SIGALRM, &action, nullptr);
  if (__sanitizer_set_death_callback) {
    __sanitizer_set_death_callback(on_death);
    return;
  }
  for (int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigaction(number, &action, nullptr);
}

// Runs once; true if it reached something new.
bool run(const Input& input) {
  reproducer->write(input);
  edges.fill(0);
  alarm(kSecondsPerInput);
  LLVMFuzzerTestOneInput(input.data(), input.size());
  alarm(0);
  bool found = false;
  for (std::size_t i = 0; i < kEdges; ++i) {
    if (!edges[i]) continue;
    uint8_t count_class = static_cast<uint8_t>(1u << (std::bit_width(edges[i]) - 1));
    if (!(reached[i] & count_class)) {
      reached[i] = static_cast<uint8_t>(reached[i] | count_class);
      found = true;
    }
  }
  return found;
}

Input read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class Mutator {
 public:
  Mutator(uint64_t seed, std::size_t max_len) : random_(seed), max_len_(max_len) {}

  Input mutate(const std::vector<Input>& corpus) {
    // New inputs are tried more often: they stand where the frontier is.
    std::size_t index =
        below(2) ? below(corpus.size()) : corpus.size() - 1 - below(std::min<std::size_t>(corpus.size(), 16));
    Input input = corpus[index];
    for (std::size_t n = 1 + below(4); n; --n) step(input, corpus);
    if (input.size() > max_len_) input.resize(max_len_);
    return input;
  }
  std::size_t below(std::size_t n) { return n ? static_cast<std::size_t>(random_() % n) : 0; }

 private:
  void step(Input& input, const std::vector<Input>& corpus) {
    auto at = [&](std::size_t i) { return input.begin() + static_cast<std::ptrdiff_t>(i); };
    switch (below(input.empty() ? 2 : 8)) {
      case 0:  // a byte more
        input.insert(at(below(input.size() + 1)), byte());
        return;
      case 1: {  // a piece of another input
        const Input& other = corpus[below(corpus.size())];
        std::size_t begin = below(other.size()), size = below(std::min<std::size_t>(other.size() - begin, 64) + 1);
        auto first = other.begin() + static_cast<std::ptrdiff_t>(begin);
        input.insert(at(below(input.size() + 1)), first, first + static_cast<std::ptrdiff_t>(size));
        return;
      }
      case 2:  // a byte changed
        input[below(input.size())] = byte();
        return;
      case 3:  // a bit changed
        input[below(input.size())] ^= static_cast<uint8_t>(1u << below(8));
        return;
      case 4: {  // a piece less
        std::size_t begin = below(input.size()), size = 1 + below(std::min<std::size_t>(input.size() - begin, 16));
        input.erase(at(begin), at(std::min(begin + size, input.size())));
        return;
      }
      case 5: {  // a piece twice
        std::size_t begin = below(input.size()), size = 1 + below(std::min<std::size_t>(input.size() - begin, 16));
        Input piece(at(begin), at(std::min(begin + size, input.size())));
        input.insert(at(begin), piece.begin(), piece.end());
        return;
      }
      case 6:  // two bytes exchanged
        std::swap(input[below(input.size())], input[below(input.size())]);
        return;
      default: {  // the rest of another input
        const Input& other = corpus[below(corpus.size())];
        input.resize(below(input.size()));
        std::size_t begin = below(other.size());
        input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(begin), other.end());
      }
    }
  }
  // Half of all bytes are what grammars and schemas are made of.
  uint8_t byte() {
    static constexpr std::string_view kFrequent = "()[]{}|*+?.,:\\\"'^$-=!<>/ \nabc019dwsDWSbBpu";
    return below(2) ? static_cast<uint8_t>(kFrequent[below(kFrequent.size())]) : static_cast<uint8_t>(below(256));
  }

  std::mt19937_64 random_;
  std::size_t max_len_;
};

}  // namespace

extern "C" void __sanitizer_cov_trace_pc() {
  auto place = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  uint8_t& count = edges[(place ^ place >> 17) % kEdges];
  if (count < 255) ++count;
}

int main(int argc, char** argv) {
  uint64_t runs = UINT64_MAX, seconds = UINT64_MAX, seed = 1;
  std::size_t max_len = 1024;
  std::vector<std::filesystem::path> files;
  std::filesystem::path keep;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    auto number = [&](const char* flag, auto& value) {
      if (!argument.starts_with(flag)) return false;
      value = static_cast<std::remove_reference_t<decltype(value)>>(
          std::strtoull(argument.c_str() + std::strlen(flag), nullptr, 10));
      return true;
    };
    if (number("-runs=", runs) || number("-max_total_time=", seconds) || number("-seed=", seed) ||
        number("-max_len=", max_len))
      continue;
    if (argument.starts_with("-")) {
      std::fprintf(stderr, "unknown flag %s\n", argv[i]);
      return 2;
    }
    if (std::filesystem::is_directory(argument)) {
      if (keep.empty()) keep = argument;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(argument))
        if (entry.is_regular_file()) files.push_back(entry.path());
    } else if (std::filesystem::is_regular_file(argument)) {
      files.emplace_back(argument);
    } else {
      std::fprintf(stderr, "no such file or folder: %s\n", argv[i]);
      return 2;
    }
  }
  std::sort(files.begin(), files.end());
  Reproducer here;
  reproducer = &here;
  catch_crashes();

  std::vector<Input> corpus;
  std::size_t useful = 0;
  for (const auto& path : files) {
    Input input = read(path);
    useful += run(input);
    corpus.push_back(std::move(input));
  }
  std::printf("%zu inputs replayed, %zu of them reach something the others do not\n", files.size(), useful);
  if (runs != 0 && (runs != UINT64_MAX || seconds != UINT64_MAX)) {
    if (corpus.empty()) corpus.push_back({});
    Mutator mutator(seed, max_len);
    auto start = std::chrono::steady_clock::now();
    auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
    uint64_t done = 0, found = 0;
    for (; done < runs && (seconds == UINT64_MAX || elapsed() < static_cast<double>(seconds)); ++done) {
      Input input = mutator.mutate(corpus);
      if (!run(input)) continue;
      ++found;
      if (!keep.empty()) {
        std::ofstream file(keep / ("found-" + std::to_string(seed) + "-" + std::to_string(done)), std::ios::binary);
        file.write(reinterpret_cast<const char*>(input.data()), static_cast<std::streamsize>(input.size()));
      }
      corpus.push_back(std::move(input));
    }
    auto edges_reached = std::count_if(reached.begin(), reached.end(), [](uint8_t bits) { return bits != 0; });
    std::printf("%" PRIu64 " executions in %.0f s, %" PRIu64 " reached something new, %td edges\n", done, elapsed(),
                found, edges_reached);
  }
  here.remove();
  return 0;
}
