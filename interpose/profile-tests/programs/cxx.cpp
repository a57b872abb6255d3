// The locks of C++'s standard library, which call pthread's functions from headers and from libstdc++.
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include "truth.h"

using namespace std::chrono_literals;

static std::mutex plain;
static std::condition_variable changed;
static std::condition_variable_any changed_any;
static std::timed_mutex timed;
static std::recursive_mutex deep;
static std::recursive_timed_mutex deep_timed;
static std::shared_mutex shared;
static std::shared_timed_mutex shared_timed;
static bounds held, idle;

// Once per wait: nobody signals, so each ends by its time.
static void waits_for()
{
    for (int i = 0; i < 5; i++) {
        ns before = now();
        std::unique_lock<std::mutex> lock(plain);
        ns from = now();
        bool signalled = changed.wait_for(lock, 100ms, [] { return false; });
        ns in = now();
        CHECK(!signalled);
        spend(5 * MS);
        ns out = now();
        lock.unlock();
        ns after = now();
        add(&idle, (in - from) * 9 / 10, in - from);
        add(&held, out - in, (from - before) + (after - in) + 1 * MS);
    }
    for (int i = 0; i < 5; i++) {
        std::unique_lock<std::mutex> lock(plain);
        ns from = now();
        CHECK(changed.wait_until(lock, std::chrono::system_clock::now() + 10ms, [] { return false; }) == false);
        ns in = now();
        add(&idle, (in - from) / 2, in - from);
        add(&held, 0, 10 * MS);
    }
}

int main()
{
    check_start();
    waits_for();

    bounds timed_held = {0, 0}, timed_out = {0, 0};
    {
        ns before = now();
        std::unique_lock<std::timed_mutex> lock(timed);
        ns in = now();
        std::thread([&] {
            ns start = now();
            for (int i = 0; i < 3; i++)
                CHECK(!timed.try_lock());
            CHECK(!timed.try_lock_for(10ms));
            CHECK(!timed.try_lock_until(std::chrono::system_clock::now() + 10ms));
            timed_out.most = now() - start;
            timed_out.least = 10 * MS;
        }).join();
        ns out = now();
        lock.unlock();
        add(&timed_held, out - in, now() - before);
    }
    CHECK(timed.try_lock_for(1s));
    timed.unlock();

    bounds deep_held = {0, 0};
    {
        ns before = now();
        deep.lock();
        ns in = now();
        for (int i = 0; i < 6; i++)
            deep.lock();
        for (int i = 0; i < 6; i++)
            deep.unlock();
        spend(20 * MS);
        ns out = now();
        deep.unlock();
        add(&deep_held, out - in, now() - before);
    }
    {
        std::lock_guard<std::recursive_timed_mutex> one(deep_timed);
        CHECK(deep_timed.try_lock_for(1s));
        deep_timed.unlock();
    }

    bounds read = {0, 0}, written = {0, 0};
    for (int i = 0; i < 4; i++) {
        ns before = now();
        shared.lock_shared();
        ns in = now();
        std::thread([] {
            CHECK(!shared.try_lock());
            CHECK(shared.try_lock_shared());
            shared.unlock_shared();
        }).join();
        ns out = now();
        shared.unlock_shared();
        add(&read, out - in, 2 * (now() - before));
    }
    for (int i = 0; i < 3; i++) {
        ns before = now();
        std::lock_guard<std::shared_mutex> lock(shared);
        ns in = now();
        std::thread([] { CHECK(!shared.try_lock_shared()); }).join();
        spend(5 * MS);
        ns out = now();
        add(&written, out - in, out - before + 1 * MS);
    }
    {
        std::lock_guard<std::shared_timed_mutex> lock(shared_timed);
        std::thread([] {
            CHECK(!shared_timed.try_lock_for(5ms));
            CHECK(!shared_timed.try_lock_shared_for(5ms));
        }).join();
    }
    CHECK(shared_timed.try_lock_shared_for(1s));
    shared_timed.unlock_shared();

    truth("lock %p plain kind=mutex symbol=plain acquisitions=20 conds=10 failed=0 timeouts=0 waits=0 cond=" BOUNDS
          " hold=" BOUNDS,
          (void *)plain.native_handle(), BOTH(idle), BOTH(held));
    truth("lock %p timed kind=mutex symbol=timed acquisitions=2 failed=3 timeouts=2 waits=0 timeout=" BOUNDS " hold=%lld..%lld",
          (void *)timed.native_handle(), BOTH(timed_out), timed_held.least, timed_held.most + 5 * MS);
    truth("lock %p deep kind=recursive symbol=deep acquisitions=1 recursions=6 waits=0 holds=1 hold=" BOUNDS,
          (void *)deep.native_handle(), BOTH(deep_held));
    truth("lock %p deep_timed kind=recursive symbol=deep_timed acquisitions=1 recursions=1 waits=0", (void *)deep_timed.native_handle());
    truth("lock %p shared kind=readers symbol=shared acquisitions=8 failed=3 waits=0 hold=" BOUNDS, (void *)shared.native_handle(),
          BOTH(read));
    truth("lock %p shared kind=writers symbol=shared acquisitions=3 failed=4 waits=0 holds=3 hold=" BOUNDS, (void *)shared.native_handle(),
          BOTH(written));
    truth("lock %p shared_timed kind=readers acquisitions=1 timeouts=1 failed=0 waits=0", (void *)&shared_timed);
    truth("lock %p shared_timed kind=writers acquisitions=1 timeouts=1 failed=0 waits=0", (void *)&shared_timed);
    return 0;
}
