// Property: code that is bound to glibc's own functions shares a mutex with code that is bound to
// ours. A library opened with RTLD_DEEPBIND locks, tries, waits and unlocks the program's mutexes
// with glibc's functions, while other threads do the same with ours, and sometimes one locks and
// the other unlocks. Every kind.
// Argument: the library. Under a preload its functions must differ from the program's.
// Catches: a word or an owner that glibc does not understand, a glibc waiter that our unlock
// leaves asleep (BREAK_FOREIGN_WAITERS), one of ours that glibc's unlock leaves asleep.
#include "deepbind.h"
#include "flavours.h"

enum { THREADS = 6, ROUNDS = 60000 };

static const struct deepbind_calls ours = {
    .init = pthread_mutex_init,
    .destroy = pthread_mutex_destroy,
    .lock = pthread_mutex_lock,
    .trylock = pthread_mutex_trylock,
    .timedlock = pthread_mutex_timedlock,
    .clocklock = pthread_mutex_clocklock,
    .unlock = pthread_mutex_unlock,
};
static const struct deepbind_calls *theirs;

static struct {
    pthread_mutex_t mutex;
    char pad[64];
    long count;
    int inside;
} shared;
static int mixes_within_a_pair;

static void *body(void *arg)
{
    intptr_t me = (intptr_t)arg;
    uint64_t random = 77 + me;
    for (int i = 0; i < ROUNDS; i++) {
        // Half of the threads live in the library; with mixing, each call is drawn by itself.
        const struct deepbind_calls *locks = me % 2 ? theirs : &ours, *unlocks = locks;
        struct timespec until;
        if (mixes_within_a_pair) {
            locks = next_random(&random) >> 32 & 1 ? theirs : &ours;
            unlocks = next_random(&random) >> 32 & 1 ? theirs : &ours;
        }
        switch (next_random(&random) >> 32 & 7) {
        case 0:
            until = from_now(CLOCK_REALTIME, 60000000000ll);
            OK(locks->timedlock(&shared.mutex, &until));
            break;
        case 1:
            until = from_now(CLOCK_MONOTONIC, 60000000000ll);
            OK(locks->clocklock(&shared.mutex, CLOCK_MONOTONIC, &until));
            break;
        case 2:
            if (locks->trylock(&shared.mutex) == 0)
                break; // else fall through and wait
            // fallthrough
        default:
            OK(locks->lock(&shared.mutex));
        }
        CHECK(shared.inside++ == 0);
        shared.count++;
        if (i % 64 == 0)
            sched_yield();
        else
            burn(20);
        CHECK(--shared.inside == 0);
        OK(unlocks->unlock(&shared.mutex));
        burn(30);
    }
    return NULL;
}

static void contend(struct flavour f, int mixes)
{
    pthread_t threads[THREADS];
    OK(flavour_init(&shared.mutex, f));
    shared.count = 0;
    mixes_within_a_pair = mixes;
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(body, (void *)(intptr_t)i);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    CHECK(shared.count == (long)THREADS * ROUNDS);
    CHECK(word(&shared.mutex) == 0 && shared.mutex.__data.__nusers == 0);
    OK((mixes ? theirs->destroy : ours.destroy)(&shared.mutex));
}

// What one side holds, the other knows of.
static void see_each_other(struct flavour f, const struct deepbind_calls *a,
                           const struct deepbind_calls *b)
{
    pthread_mutex_t m;
    OK(flavour_init(&m, f));
    OK(a->lock(&m));
    int recursive = f.type == PTHREAD_MUTEX_RECURSIVE;
    RETURNS(b->trylock(&m), recursive ? 0 : EBUSY);
    if (recursive)
        OK(a->unlock(&m));
    if (f.type == PTHREAD_MUTEX_ERRORCHECK)
        RETURNS(b->lock(&m), EDEADLK);
    RETURNS(b->destroy(&m), EBUSY);
    OK(b->unlock(&m));
    if (f.type == PTHREAD_MUTEX_RECURSIVE || f.type == PTHREAD_MUTEX_ERRORCHECK)
        RETURNS(a->unlock(&m), EPERM);
    OK(b->destroy(&m));
}

int main(int argc, char **argv)
{
    check_start();
    CHECK(argc == 2);
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_DEEPBIND);
    if (!library)
        FAIL("dlopen: %s", dlerror());
    theirs = dlsym(library, "deepbind_calls");
    CHECK(theirs != NULL);
    int interposed = is_interposed("pthread_mutex_lock");
    CHECK((dlsym(RTLD_DEFAULT, "pthread_mutex_lock") != (void *)theirs->lock) == interposed);
    CHECK((dlsym(RTLD_DEFAULT, "pthread_mutex_unlock") != (void *)theirs->unlock) == interposed);

    for (int t = 0; t < FLAVOUR_TYPES; t++) {
        struct flavour f = {.type = flavour_types[t]};
        see_each_other(f, &ours, theirs);
        see_each_other(f, theirs, &ours);
        contend(f, 0);
        contend(f, 1);
    }
    {
        struct flavour f = {.type = NO_SETTYPE, .pshared = 1};
        contend(f, 0);
        contend(f, 1);
    }
    return 0;
}
