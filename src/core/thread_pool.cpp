#include "core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace guiderail {

namespace {

constexpr std::size_t kSmallBatch = 8;
constexpr std::size_t kMaxWorkers = 16;

long process_id() {
#if defined(__unix__) || defined(__APPLE__)
  return static_cast<long>(getpid());
#else
  return 0;
#endif
}

// One batch: indices are handed out by a counter; whoever finishes the last one wakes the caller.
struct Batch {
  const std::function<void(std::size_t)>* f;
  std::size_t count;
  std::atomic<std::size_t> next{0}, done{0};
  std::mutex mutex;
  std::condition_variable finished;
  std::exception_ptr error;

  void run() {
    for (std::size_t i; (i = next.fetch_add(1)) < count;) {
      try {
        (*f)(i);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
      }
      if (done.fetch_add(1) + 1 == count) {
        std::lock_guard lock(mutex);
        finished.notify_all();
      }
    }
  }
};

}  // namespace

struct ThreadPool::Impl {
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<std::shared_ptr<Batch>> batches;
  long owner = process_id();

  void work() {
    while (true) {
      std::shared_ptr<Batch> batch;
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [this] { return !batches.empty(); });
        batch = batches.front();
        if (batch->next.load() >= batch->count) {
          batches.pop_front();
          continue;
        }
      }
      batch->run();
    }
  }
};

ThreadPool& ThreadPool::shared() {
  static ThreadPool* pool = new ThreadPool;  // never destroyed: its threads may outlive static destruction
  return *pool;
}

std::shared_ptr<ThreadPool::Impl> ThreadPool::workers() {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  if (!impl_ || impl_->owner != process_id()) {
    // In a forked child the parent's threads do not exist; its pool is left behind as it is.
    if (impl_) new std::shared_ptr<Impl>(impl_);
    impl_ = std::make_shared<Impl>();
    std::size_t count = std::clamp<std::size_t>(std::thread::hardware_concurrency(), 1, kMaxWorkers);
    for (std::size_t i = 1; i < count; ++i) std::thread([impl = impl_] { impl->work(); }).detach();
  }
  return impl_;
}

void ThreadPool::for_each(std::size_t count, const std::function<void(std::size_t)>& f) {
  if (count < kSmallBatch || std::thread::hardware_concurrency() < 2) {
    for (std::size_t i = 0; i < count; ++i) f(i);
    return;
  }
  auto batch = std::make_shared<Batch>();
  batch->f = &f;
  batch->count = count;
  auto impl = workers();
  {
    std::lock_guard lock(impl->mutex);
    impl->batches.push_back(batch);
  }
  impl->wake.notify_all();
  batch->run();
  std::unique_lock lock(batch->mutex);
  batch->finished.wait(lock, [&] { return batch->done.load() == batch->count; });
  lock.unlock();
  {
    std::lock_guard queue(impl->mutex);
    std::erase(impl->batches, batch);
  }
  if (batch->error) std::rethrow_exception(batch->error);
}

}  // namespace guiderail
