// One call in several threads, which meet at spinning barriers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace {

typedef void (*Parallel)(void (*)(void*), void*, unsigned, unsigned);
Parallel parallel_regions = nullptr;
int (*region_thread)() = nullptr;
int (*region_threads)() = nullptr;

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

struct Barrier {
    alignas(128) std::atomic<int> waiting{0};
    alignas(128) std::atomic<int> round{0};

    void meet(int threads) {
        if (threads == 1) return;
        int now = round.load(std::memory_order_relaxed);
        if (waiting.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
            waiting.store(0, std::memory_order_relaxed);
            round.store(now + 1, std::memory_order_release);
            round.notify_all();
            return;
        }
        for (int spins = 0; spins < 2048; spins++) {
            if (round.load(std::memory_order_acquire) != now) return;
            relax();
        }
        // the others were sent away from their processors: they may have this one
        round.wait(now, std::memory_order_acquire);
    }
};

struct Job {
    void (*run)(void*, int, int);
    void* data;
};

// Where the process has no OpenMP whose threads could be shared: threads of our own.
class Pool {
    std::mutex one, lock;
    std::condition_variable wake;
    std::atomic<int> round{0}, left{0};
    int count = 1, team = 1;
    Job job{};

    void serve(int index, int seen) {
        for (;;) {
            for (int spins = 0; round.load(std::memory_order_acquire) == seen && spins < 2048; spins++) relax();
            if (round.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> held(lock);
                wake.wait(held, [&] { return round.load() != seen; });
            }
            seen = round.load(std::memory_order_acquire);
            if (index < team) job.run(job.data, index, team);
            left.fetch_sub(1, std::memory_order_release);
        }
    }

  public:
    void run(Job wanted, int threads) {
        std::lock_guard<std::mutex> only(one);
        for (; count < threads; count++) {
            int now = round.load(), index = count;
            std::thread([this, index, now] { serve(index, now); }).detach();
        }
        {
            std::lock_guard<std::mutex> held(lock);
            job = wanted, team = threads;
            left.store(count - 1);
            round.fetch_add(1, std::memory_order_release);
        }
        wake.notify_all();
        job.run(job.data, 0, threads);
        while (left.load(std::memory_order_acquire)) std::this_thread::yield();
    }
};

void enter(void* data) {
    Job* job = static_cast<Job*>(data);
    job->run(job->data, region_thread(), region_threads());
}

void together(void (*run)(void*, int, int), void* data, int64_t threads) {
    Job job{run, data};
    if (threads <= 1) {
        run(data, 0, 1);
    } else if (parallel_regions) {
        parallel_regions(enter, &job, unsigned(threads), 0);
    } else {
        static Pool* pool = new Pool;  // never ends: its threads outlive whoever would join them
        pool->run(job, int(threads));
    }
}

}  // namespace
