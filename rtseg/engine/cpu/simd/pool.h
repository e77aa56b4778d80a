// The kernels' own threads: one pool a process, asleep while nobody asks. A worker looks out for the next kernel of a
// frame, which comes at once, for a tenth of a millisecond at most, and then sleeps, because other processes want the core.
#pragma once

namespace rt {

// How many threads the kernels that this thread calls may use, itself included.
int threads();
void set_threads(int n);

// Call f(context, i) for i in 0..n-1, each once, by this thread and up to threads() - 1 workers.
void run(int n, void (*f)(void*, int), void* context);

template <class Work>
inline void parallel(int n, Work work) {
    if (n == 1 || threads() == 1) {
        for (int i = 0; i < n; i++) work(i);
        return;
    }
    run(n, [](void* context, int i) { (*static_cast<Work*>(context))(i); }, &work);
}

}  // namespace rt
