// Work shared out on a thread pool, that of XLA, in phases of pieces. Whoever is there claims
// the next piece; nobody waits for a task that has not started, so that calls cannot block
// one another.
#pragma once
#include <atomic>
#include <chrono>
#include <memory>
#include <new>
#include <thread>

#include "plan.h"

namespace jaxseq {

inline void rest(int64_t turn) {
  // a thread that yields still keeps the processor from those of less priority
  if (turn >= 5000) return std::this_thread::sleep_for(std::chrono::microseconds(50));
  if (turn >= 1000) return std::this_thread::yield();
#ifdef __x86_64__
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// What the threads of a call share. A helper may come when the call is over: it finds it
// closed, in memory that it owns too.
class Desk {
 public:
  explicit Desk(int64_t threads)
      : threads_(threads), piece_(new Word[PIECES * threads]), helper_(new Word[threads]) {}

  // Begins a phase; all pieces of the one before are done.
  void begin(int64_t n, void (*f)(void*, int64_t), void* argument) {
    pieces_ = n < PIECES * threads_ ? n : PIECES * threads_;
    done_.store(0, std::memory_order_relaxed);
    n_.store(n, std::memory_order_relaxed);
    f_.store(f, std::memory_order_relaxed);
    argument_.store(argument, std::memory_order_relaxed);
    phase_.store(++phases_ << SHIFT | uint64_t(pieces_), std::memory_order_release);
  }
  // Whether a helper has to be sent for.
  bool misses(int64_t helper) { return helper_[helper].word.exchange(1, std::memory_order_acq_rel) == 0; }
  bool finished() const { return done_.load(std::memory_order_acquire) == pieces_; }
  void close() { closed_.store(true, std::memory_order_release); }

  void help(int64_t who) {
    for (int64_t turn = 0; turn < 1200 && !closed_.load(std::memory_order_acquire);)
      if (work(who)) turn = 0;
      else rest(turn++);
    helper_[who].word.store(0, std::memory_order_release);
  }

  // Does what pieces it can claim: first those that are its own in every phase, so that
  // what they read stays in its cache, then those of others, from their ends. A piece is
  // claimed by the number of the phase in its word; as long as one can be claimed, the
  // phase is on, and what belongs to it does not change.
  bool work(int64_t who) {
    const uint64_t word = phase_.load(std::memory_order_acquire), phase = word >> SHIFT;
    const int64_t pieces = word & ((uint64_t(1) << SHIFT) - 1);
    const int64_t people = pieces < threads_ ? pieces : threads_;
    const int64_t n = n_.load(std::memory_order_relaxed);
    auto f = f_.load(std::memory_order_relaxed);
    void* argument = argument_.load(std::memory_order_relaxed);
    bool any = false;
    if (who >= people) return false;
    const int64_t first = who * pieces / people, last = (who + 1) * pieces / people;
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t own = last - first, k = i < own ? first + i : first - 1 - (i - own);
      const int64_t p = k < 0 ? k + pieces : k;
      uint64_t old = piece_[p].word.load(std::memory_order_relaxed);
      if (old >= phase || !piece_[p].word.compare_exchange_strong(old, phase, std::memory_order_acq_rel)) continue;
      for (int64_t j = p * n / pieces; j < (p + 1) * n / pieces; ++j) f(argument, j);
      done_.fetch_add(1, std::memory_order_release);
      any = true;
    }
    return any;
  }

 private:
  static constexpr int64_t PIECES = 8;  // of a thread, at most
  static constexpr int SHIFT = 20;

  struct alignas(64) Word {
    std::atomic<uint64_t> word{0};
  };
  const int64_t threads_;
  const std::unique_ptr<Word[]> piece_, helper_;
  int64_t pieces_ = 0;  // of the caller alone, as is the next
  uint64_t phases_ = 0;
  alignas(64) std::atomic<uint64_t> phase_{0};  // its number, and how many pieces it has
  std::atomic<int64_t> n_{0};
  std::atomic<void (*)(void*, int64_t)> f_{nullptr};
  std::atomic<void*> argument_{nullptr};
  std::atomic<bool> closed_{false};
  alignas(64) std::atomic<int64_t> done_{0};
};

template <class Pool>
class Crew {
 public:
  explicit Crew(Pool& pool) : pool_(pool), threads_(pool.num_threads()) {}
  ~Crew() {
    if (desk_) desk_->close();
  }

  // All f(argument, i) for i below n have returned when this does.
  void all(int64_t n, void (*f)(void*, int64_t), void* argument) {
    const int64_t people = n < threads_ ? n : threads_;
    if (people < 2) {
      for (int64_t i = 0; i < n; ++i) f(argument, i);
      return;
    }
    if (!desk_) desk_ = std::make_shared<Desk>(threads_);
    desk_->begin(n, f, argument);
    for (int64_t i = 1; i < people; ++i)
      if (desk_->misses(i)) send_for(i);
    desk_->work(0);
    for (int64_t turn = 0; !desk_->finished(); ++turn) rest(turn);
  }

 private:
  // Without memory for it there is no helper, and others do its pieces.
  void send_for(int64_t helper) {
    try {
      pool_.Schedule([desk = desk_, helper] { desk->help(helper); });
    } catch (const std::bad_alloc&) {
    }
  }

  Pool& pool_;
  const int64_t threads_;
  std::shared_ptr<Desk> desk_;
};

}  // namespace jaxseq
