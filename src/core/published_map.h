// A map from 64-bit keys to 32-bit values for memoised answers: written under the owner's lock, read without one.
//
// Open addressing. A slot's value is stored before its key is published with release, an entry never changes once it is
// in, and a table that has grown is kept until the map dies, so a reader sees either an entry complete or not at all;
// who sees nothing takes the lock and looks again. All the tables kept together are less than twice the size of the
// last one.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace guiderail {

class PublishedMap {
 public:
  static constexpr uint32_t kUnknown = UINT32_MAX;

  PublishedMap() { grow(kFirstSize); }
  PublishedMap(const PublishedMap&) = delete;
  PublishedMap& operator=(const PublishedMap&) = delete;

  // kUnknown if the key is not there.
  uint32_t find(uint64_t key) const {
    const Table& table = *current_.load(std::memory_order_acquire);
    for (std::size_t slot = hash(key) & table.mask;; slot = (slot + 1) & table.mask) {
      uint64_t found = table.slots[slot].key.load(std::memory_order_acquire);
      if (found == key) return table.slots[slot].value.load(std::memory_order_relaxed);
      if (found == kEmpty) return kUnknown;
    }
  }
  // Under the owner's lock; a key that is there keeps its value. Returns the bytes by which the map has grown.
  std::size_t insert(uint64_t key, uint32_t value) {
    Table* table = tables_.back().get();
    std::size_t grown = 0;
    if ((size_ + 1) * 2 > table->mask) {
      grown = grow((table->mask + 1) * 2);
      table = tables_.back().get();
    }
    if (put(*table, key, value)) ++size_;
    return grown;
  }
  std::size_t size() const { return size_; }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static constexpr std::size_t kFirstSize = 64;
  struct Slot {
    std::atomic<uint64_t> key{kEmpty};
    std::atomic<uint32_t> value{0};
  };
  struct Table {
    std::size_t mask;
    std::unique_ptr<Slot[]> slots;
    explicit Table(std::size_t size) : mask(size - 1), slots(std::make_unique<Slot[]>(size)) {}
  };

  static std::size_t hash(uint64_t key) {
    key *= 0x9E3779B97F4A7C15ull;
    return static_cast<std::size_t>(key ^ (key >> 32));
  }
  static bool put(Table& table, uint64_t key, uint32_t value) {
    std::size_t slot = hash(key) & table.mask;
    for (;; slot = (slot + 1) & table.mask) {
      uint64_t found = table.slots[slot].key.load(std::memory_order_relaxed);
      if (found == key) return false;
      if (found == kEmpty) break;
    }
    table.slots[slot].value.store(value, std::memory_order_relaxed);
    table.slots[slot].key.store(key, std::memory_order_release);
    return true;
  }
  std::size_t grow(std::size_t size) {
    auto larger = std::make_unique<Table>(size);
    if (!tables_.empty()) {
      const Table& old = *tables_.back();
      for (std::size_t slot = 0; slot <= old.mask; ++slot) {
        uint64_t key = old.slots[slot].key.load(std::memory_order_relaxed);
        if (key != kEmpty) put(*larger, key, old.slots[slot].value.load(std::memory_order_relaxed));
      }
    }
    tables_.push_back(std::move(larger));
    current_.store(tables_.back().get(), std::memory_order_release);
    return size * sizeof(Slot);
  }

  std::vector<std::unique_ptr<Table>> tables_;
  std::atomic<const Table*> current_{nullptr};
  std::size_t size_ = 0;
};

}  // namespace guiderail
