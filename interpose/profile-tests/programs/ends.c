// Every way in which a process and its threads may end: the record is complete, and says which way it was.
#include "truth.h"

static pthread_mutex_t used = PTHREAD_MUTEX_INITIALIZER;
static int uses;
static void *late_library;

static void use(int times)
{
    for (int i = 0; i < times; i++) {
        OK(pthread_mutex_lock(&used));
        uses++;
        OK(pthread_mutex_unlock(&used));
    }
}

static void tell(const char *ending, int still_to_come)
{
    truth("lock %p used kind=mutex symbol=used acquisitions=%d waits=0", (void *)&used, uses + still_to_come);
    truth("process ending=%s", ending);
}

static void returns(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(7);
    tell("exit", 0);
}

static void exits(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(7);
    tell("exit", 0);
    exit(3);
}

static void underscore_exits(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(7);
    tell("underscore-exit:5", 0);
    _exit(5);
}

static void upper_exits(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(7);
    tell("underscore-exit:6", 0);
    _Exit(6);
}

static void uses_twice(void)
{
    use(2);
}

static void quickly_exits(int argc, char **argv)
{
    (void)argc, (void)argv;
    CHECK(at_quick_exit(uses_twice) == 0);
    use(7);
    tell("quick-exit", 2);
    quick_exit(4);
}

static void aborts(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(7);
    tell("none", 0);
    abort();
}

static void crashes(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(7);
    tell("none", 0);
    static int *volatile nowhere;
    *nowhere = 1;
}

static void is_killed(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(7);
    tell("none", 0);
    kill(getpid(), SIGKILL);
}

// exit from another thread, while main waits for it and others lock.
static int stop;
static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER;

static void *never_stops(void *unused)
{
    (void)unused;
    for (;;) {
        OK(pthread_mutex_lock(&busy));
        OK(pthread_mutex_unlock(&busy));
    }
}

static void *exits_for_all(void *unused)
{
    (void)unused;
    use(3);
    tell("exit", 2);
    exit(0);
}

static void other_thread_exits(int argc, char **argv)
{
    (void)argc, (void)argv;
    CHECK(atexit(uses_twice) == 0);
    for (int i = 0; i < 3; i++)
        spawn(never_stops, NULL);
    truth("lock %p busy acquisitions=0..1000000000000", (void *)&busy);
    use(4);
    join(spawn(exits_for_all, NULL));
}

static void main_leaves_first(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(4);
    spawn(exits_for_all, NULL);
    pthread_exit(NULL);
}

// Threads that come and go: their counts stay, and their places are used again.
enum { GENERATIONS = 1000, AT_ONCE = 8 };
static long by_threads;
static pthread_mutex_t by_many = PTHREAD_MUTEX_INITIALIZER;

static void *uses_and_ends(void *how)
{
    for (int i = 0; i < 10; i++) {
        OK(pthread_mutex_lock(&by_many));
        by_threads++;
        OK(pthread_mutex_unlock(&by_many));
    }
    if (how)
        pthread_exit(NULL);
    return NULL;
}

static void threads_come_and_go(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < GENERATIONS; i++) {
        pthread_t threads[AT_ONCE];
        for (int n = 0; n < AT_ONCE; n++)
            threads[n] = spawn(uses_and_ends, n % 2 ? "exit" : NULL);
        for (int n = 0; n < AT_ONCE; n++)
            join(threads[n]);
    }
    truth("lock %p by_many kind=mutex acquisitions=%ld", (void *)&by_many, by_threads);
    // A record of 8000 threads that did not use places again would have 40 KiB for each.
    truth("process bytes=0..%d ending=exit", 4 << 20);
}

// Locks where programs hardly expect to run: constructors, destructors, atexit handlers, the destructors of thread keys and of threads' variables.
static pthread_key_t key;
static int rounds_of_key;

static void key_ends(void *value)
{
    use(1);
    if (++rounds_of_key < PTHREAD_DESTRUCTOR_ITERATIONS)
        pthread_setspecific(key, value);
}

static void *has_a_key(void *unused)
{
    (void)unused;
    pthread_setspecific(key, &key);
    use(1);
    return NULL;
}

static int destructor_uses;

__attribute__((constructor)) static void early(void)
{
    if (getenv("TRUTH_EARLY"))
        use(2);
}

__attribute__((destructor)) static void late(void)
{
    if (destructor_uses)
        use(destructor_uses);
}

static void odd_places(int argc, char **argv)
{
    (void)argc, (void)argv;
    CHECK(uses == (getenv("TRUTH_EARLY") ? 2 : 0));
    OK(pthread_key_create(&key, key_ends));
    CHECK(atexit(uses_twice) == 0);
    destructor_uses = 3;
    for (int i = 0; i < 3; i++) {
        rounds_of_key = 0;
        join(spawn(has_a_key, NULL));
    }
    // Of the destructor, which may run after the library's own, the lock's use may be counted or not.
    truth("lock %p used kind=mutex symbol=used acquisitions=%d..%d waits=0", (void *)&used, uses + 2, uses + 5);
    truth("process ending=exit");
}

// A library that is opened late and whose locks are used before it is closed.
static void opened_late(int argc, char **argv)
{
    CHECK(argc == 1);
    long total = 0;
    void *addresses[2];
    for (int i = 0; i < 20; i++) {
        late_library = dlopen(argv[0], RTLD_NOW);
        CHECK(late_library);
        void (*work)(void **) = (void (*)(void **))dlsym(late_library, "library_work");
        CHECK(work);
        work(addresses);
        CHECK(dlclose(late_library) == 0);
        total += 6;
    }
    use(1);
    // Wherever the library was each time: the sum is known.
    truth("process acquisitions=%ld ending=exit", total + 1);
    (void)stop;
}

static const struct named_mode modes[] = {
    {"return", returns},
    {"exit", exits},
    {"_exit", underscore_exits},
    {"_Exit", upper_exits},
    {"quick_exit", quickly_exits},
    {"abort", aborts},
    {"crash", crashes},
    {"kill", is_killed},
    {"other-thread", other_thread_exits},
    {"main-leaves", main_leaves_first},
    {"threads", threads_come_and_go},
    {"odd-places", odd_places},
    {"opened-late", opened_late},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_mode(modes, argc, argv);
}
