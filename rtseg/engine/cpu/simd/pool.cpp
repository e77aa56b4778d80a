#include "pool.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

namespace rt {
namespace {

thread_local int allowed = 1;

// How long a worker looks out for the next kernel: waking one that sleeps takes longer than most kernels do. Where cores
// are shared, as a feed says by OMP_WAIT_POLICY, hardly at all.
std::chrono::microseconds patience() {
    const char* policy = std::getenv("OMP_WAIT_POLICY");
    const bool passive = policy && (policy[0] == 'p' || policy[0] == 'P');
    return std::chrono::microseconds(passive ? 20 : 100);
}
const auto SPIN = patience();

// One job at a time. A worker that comes late finds it closed, and nobody waits for it.
struct Pool {
    std::mutex owner, sleep;
    std::condition_variable wake;
    std::atomic<unsigned> jobs{0};
    std::atomic<bool> open{false};
    std::atomic<int> inside{0}, next{0}, seats{0};
    void (*f)(void*, int) = nullptr;
    void* context = nullptr;
    int n = 0, workers = 0;

    void take() {
        for (int i; (i = next.fetch_add(1)) < n;) f(context, i);
    }

    void work() {
        unsigned seen = jobs.load();
        for (;;) {
            inside.fetch_add(1);
            if (open.load() && seats.fetch_sub(1) > 0) take();
            inside.fetch_sub(1);
            const auto until = std::chrono::steady_clock::now() + SPIN;
            while (jobs.load() == seen && std::chrono::steady_clock::now() < until)
                for (int i = 0; i < 16; i++) _mm_pause();
            if (jobs.load() == seen) {
                std::unique_lock<std::mutex> lock(sleep);
                wake.wait(lock, [&] { return jobs.load() != seen; });
            }
            seen = jobs.load();
        }
    }

    void begin(int wanted) {
        for (; workers < wanted; workers++) std::thread([this] { work(); }).detach();
        {
            std::lock_guard<std::mutex> lock(sleep);
            next = 0, seats = wanted;
            open = true;
            jobs.fetch_add(1);
        }
        wake.notify_all();
    }

    void end() {
        open = false;
        for (int turns = 0; inside.load(); turns++) turns < 2000 ? _mm_pause() : (void)sched_yield();
    }
};

Pool* pool = new Pool;  // never freed: its threads end with the process

// A child has none of the parent's threads.
const int at_fork = pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });

}  // namespace

int threads() { return allowed; }

void set_threads(int n) { allowed = n < 1 ? 1 : n; }

void run(int n, void (*f)(void*, int), void* context) {
    std::unique_lock<std::mutex> mine(pool->owner, std::try_to_lock);
    if (!mine) {  // another engine's kernel has the workers
        for (int i = 0; i < n; i++) f(context, i);
        return;
    }
    pool->f = f, pool->context = context, pool->n = n;
    pool->begin((n < allowed ? n : allowed) - 1);
    pool->take();
    pool->end();
}

}  // namespace rt
