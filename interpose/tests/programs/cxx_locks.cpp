// Property: the C++ library's mutexes and condition variables work on ours: std::mutex,
// recursive_mutex, timed_mutex, recursive_timed_mutex (clocklock on both clocks), locks taken in
// thread_local and static destructors, condition_variable and condition_variable_any.
// Transcript: equal with and without the preload.
// Catches: a timeout on the wrong clock, a wait that hangs (BREAK_FOREIGN_WAITERS), a lock that
// fails in a destructor.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            std::fprintf(stderr, "cxx_locks.cpp:%d: expected: %s\n", __LINE__, #condition);  \
            std::_Exit(1);                                                                   \
        }                                                                                    \
    } while (0)

using namespace std::chrono_literals;

template <class Mutex> static void count(const char *name)
{
    Mutex mutex;
    long value = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 6; t++)
        threads.emplace_back([&] {
            for (int i = 0; i < 10000; i++) {
                std::lock_guard<Mutex> guard(mutex);
                value++;
            }
        });
    for (auto &t : threads)
        t.join();
    CHECK(value == 60000);
    std::printf("%s: %ld\n", name, value);
}

template <class Mutex> static void timeouts(const char *name, bool recursive)
{
    Mutex mutex;
    bool steady, system, tried, own;
    mutex.lock();
    std::thread([&] {
        auto start = std::chrono::steady_clock::now();
        steady = mutex.try_lock_for(3ms);
        CHECK(std::chrono::steady_clock::now() - start >= 3ms);
        system = mutex.try_lock_until(std::chrono::system_clock::now() + 3ms);
        tried = mutex.try_lock();
    }).join();
    CHECK(!steady && !system && !tried);
    own = mutex.try_lock();
    CHECK(own == recursive);
    if (own)
        mutex.unlock();
    // A waiter with time enough gets it.
    std::atomic<int> ready{0};
    std::thread waiter([&] {
        ready = 1;
        CHECK(mutex.try_lock_for(60s));
        mutex.unlock();
    });
    while (!ready)
        std::this_thread::yield();
    mutex.unlock();
    waiter.join();
    std::printf("%s: steady %d system %d try %d own %d\n", name, steady, system, tried, own);
}

template <class Mutex, class Condition> static void hand_over(const char *name)
{
    Mutex mutex;
    Condition changed;
    int turn = 0;
    long passes = 0;
    std::vector<std::thread> threads;
    for (int me = 0; me < 4; me++)
        threads.emplace_back([&, me] {
            for (int i = 0; i < 1500; i++) {
                std::unique_lock<Mutex> lock(mutex);
                auto mine = [&] { return turn == me; };
                if (i % 3 == 0)
                    changed.wait(lock, mine);
                else if (i % 3 == 1)
                    CHECK(changed.wait_for(lock, 60s, mine));
                else
                    CHECK(changed.wait_until(lock, std::chrono::system_clock::now() + 60s, mine));
                turn = (turn + 1) % 4;
                passes++;
                changed.notify_all();
            }
        });
    for (auto &t : threads)
        t.join();
    CHECK(passes == 6000);
    std::printf("%s: %ld\n", name, passes);
}

static std::mutex log_mutex;
static long logged;

struct Logs {
    ~Logs()
    {
        for (int i = 0; i < 50; i++) {
            std::lock_guard<std::mutex> guard(log_mutex);
            logged++;
        }
    }
};
static thread_local Logs logs_at_thread_exit;

static void thread_locals()
{
    for (int round = 0; round < 50; round++) {
        std::vector<std::thread> threads;
        for (int t = 0; t < 8; t++)
            threads.emplace_back([] { (void)&logs_at_thread_exit; });
        for (auto &t : threads)
            t.join();
    }
    CHECK(logged == 50L * 8 * 50);
    std::printf("thread_local destructors: %ld\n", logged);
}

// Both locked at process exit, by a static object's destructor.
struct AtExit {
    std::recursive_mutex mutex;
    ~AtExit()
    {
        std::lock_guard<std::recursive_mutex> once(mutex), twice(mutex);
        std::lock_guard<std::mutex> other(log_mutex);
        std::printf("static destructor\n");
    }
};
static AtExit at_exit;

int main()
{
    count<std::mutex>("mutex");
    count<std::recursive_mutex>("recursive_mutex");
    count<std::timed_mutex>("timed_mutex");
    count<std::recursive_timed_mutex>("recursive_timed_mutex");
    timeouts<std::timed_mutex>("timed_mutex", false);
    timeouts<std::recursive_timed_mutex>("recursive_timed_mutex", true);
    hand_over<std::mutex, std::condition_variable>("condition_variable");
    hand_over<std::recursive_mutex, std::condition_variable_any>("condition_variable_any");
    thread_locals();
    return 0;
}
