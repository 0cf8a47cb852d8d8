// A few worker threads for batches of independent work. Started on first use, and again in a child process after fork().
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace guiderail {

class ThreadPool {
 public:
  static ThreadPool& shared();

  // Calls f(0) .. f(count - 1), some of them in other threads, and returns when all are done. The first exception thrown
  // is rethrown here after that. Small batches run in the calling thread alone.
  void for_each(std::size_t count, const std::function<void(std::size_t)>& f);

 private:
  struct Impl;
  std::shared_ptr<Impl> workers();
  std::shared_ptr<Impl> impl_;
};

}  // namespace guiderail
