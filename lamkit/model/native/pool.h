// Threads that share the rows of one operator, and the memory that operators borrow.
#pragma once
#include <sched.h>
#include <algorithm>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace lamkit {

// One task runs at a time; its pieces are taken from a counter by the caller and by the workers. Which thread
// takes which piece never changes a result: a piece writes what no other piece writes.
class Pool {
 public:
  static Pool& instance() {
    static Pool* pool = new Pool();  // never destroyed: workers may outlive static destructors
    return *pool;
  }

  std::mutex& turn() { return turn_; }  // held by the operator that is running
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // work(piece, thread) for piece = 0 ... n-1.
  void run(long n, const std::function<void(long, int)>& work) {
    if (n <= 0) return;
    if (n == 1 || workers_.empty()) {
      for (long i = 0; i < n; i++) work(i, 0);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      n_ = n;
      next_.store(0, std::memory_order_relaxed);
      busy_ = static_cast<int>(workers_.size());
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take(work, n, 0);
    // The others finish the piece they are at: shorter than going to sleep.
    while (busy_.load(std::memory_order_acquire) != 0) std::this_thread::yield();
  }

 private:
  Pool() {
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    if (const char* given = std::getenv("LAMKIT_NUM_THREADS")) count = std::atoi(given);
    for (int t = 1; t < count; t++) {
      workers_.emplace_back([this, t] { serve(t); });
      workers_.back().detach();
    }
  }

  void take(const std::function<void(long, int)>& work, long n, int thread) {
    for (long i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n;) work(i, thread);
  }

  void serve(int thread) {
    unsigned long seen = 0;
    for (;;) {
      // Operators follow one another within microseconds: look for the next one a while before sleeping.
      for (int spin = 0; spin < 2000 && generation_.load(std::memory_order_acquire) == seen; spin++)
        __builtin_ia32_pause_or_nop();
      if (generation_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
      }
      const std::function<void(long, int)>* work;
      long n;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        seen = generation_.load(std::memory_order_relaxed);
        work = work_;
        n = n_;
      }
      take(*work, n, thread);
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  static void __builtin_ia32_pause_or_nop() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  std::vector<std::thread> workers_;
  std::mutex turn_, mutex_;
  std::condition_variable wake_;
  const std::function<void(long, int)>* work_ = nullptr;
  long n_ = 0;
  std::atomic<long> next_{0};
  std::atomic<int> busy_{0};
  std::atomic<unsigned long> generation_{0};
};

// Scratch memory that lasts for one operator and is kept for the next one. Slots are told apart by a name.
class Arena {
 public:
  static Arena& instance() {
    static Arena* arena = new Arena();
    return *arena;
  }

  template <typename T>
  T* get(size_t slot, size_t count) {
    if (slot >= slots_.size()) slots_.resize(slot + 1);
    auto& [memory, size] = slots_[slot];
    const size_t bytes = (count * sizeof(T) + 4095) / 4096 * 4096;
    if (bytes > size) {
      std::free(memory);
      memory = std::aligned_alloc(4096, bytes);
      if (!memory) { size = 0; throw std::bad_alloc(); }
      size = bytes;
    }
    return static_cast<T*>(memory);
  }

 private:
  std::vector<std::pair<void*, size_t>> slots_;
};

}  // namespace lamkit
