// An append-only array whose elements never move, read without a lock while one writer appends.
//
// Elements live in chunks of doubling size (64, 128, 256, ...), so an index maps to (chunk, offset) by the position of the
// highest bit of index + 64, and a chunk, once published, is never reallocated. A writer (who holds the owner's growth lock) constructs
// the element first and publishes the new size with a release store; a reader that got the index from any
// acquire-published place may read the element for the vector's whole life.
#pragma once

#include <atomic>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace guiderail {

template <typename T>
class StableVector {
 public:
  StableVector() = default;
  StableVector(const StableVector&) = delete;
  StableVector& operator=(const StableVector&) = delete;
  ~StableVector() {
    std::size_t n = size_.load(std::memory_order_relaxed);
    for (std::size_t i = 0; i < n; ++i) std::destroy_at(&(*this)[i]);
    std::allocator<T> allocator;
    for (unsigned c = 0; c < kChunks; ++c)
      if (T* chunk = chunks_[c].load(std::memory_order_relaxed)) allocator.deallocate(chunk, chunk_size(c));
  }

  std::size_t size() const { return size_.load(std::memory_order_acquire); }

  T& operator[](std::size_t i) {
    auto [chunk, offset] = place(i);
    return chunks_[chunk].load(std::memory_order_acquire)[offset];
  }
  const T& operator[](std::size_t i) const {
    auto [chunk, offset] = place(i);
    return chunks_[chunk].load(std::memory_order_acquire)[offset];
  }

  // Only under the owner's growth lock. Returns the index of the new element.
  template <typename... Args>
  std::size_t emplace_back(Args&&... args) {
    std::size_t i = size_.load(std::memory_order_relaxed);
    auto [chunk, offset] = place(i);
    T* data = chunks_[chunk].load(std::memory_order_relaxed);
    if (!data) {
      data = std::allocator<T>().allocate(chunk_size(chunk));
      chunks_[chunk].store(data, std::memory_order_release);
    }
    std::construct_at(data + offset, std::forward<Args>(args)...);
    size_.store(i + 1, std::memory_order_release);
    return i;
  }

 private:
  static constexpr unsigned kFirstBits = 6;
  static constexpr unsigned kChunks = 64 - kFirstBits;
  static constexpr std::size_t chunk_size(unsigned chunk) { return std::size_t{1} << (kFirstBits + chunk); }
  static std::pair<unsigned, std::size_t> place(std::size_t i) {
    uint64_t shifted = uint64_t{i} + (uint64_t{1} << kFirstBits);
    unsigned top = 63u - static_cast<unsigned>(std::countl_zero(shifted));
    return {top - kFirstBits, static_cast<std::size_t>(shifted - (uint64_t{1} << top))};
  }

  std::atomic<T*> chunks_[kChunks]{};
  std::atomic<std::size_t> size_{0};
};

}  // namespace guiderail
