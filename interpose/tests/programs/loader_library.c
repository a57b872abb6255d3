// The library that loader.c opens. Its constructor runs while dlopen holds the loader's lock.
//
// With FIRST_CALL set, a new thread calls the named mutex function, the first such call in the
// process, and the constructor waits for it. Without, constructor and destructor fight with threads
// of their own, and with the program's, for a mutex of the program.
#include "check.h"
#include <threads.h>

// By kind: neither robust nor priority-inheriting mutexes have a static initialiser.
static pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER,
                       errorcheck = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP,
                       robust = {{.__kind = 16}}, inherit = {{.__kind = 32}};
static union {
    pthread_mutex_t mutex;
    mtx_t mtx;
} c11 = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void *first_call(void *arg)
{
    const char *name = arg;
    struct timespec past = {1, 0};
    int old;
    if (!strcmp(name, "init")) {
        OK(pthread_mutex_init(&plain, NULL));
    } else if (!strcmp(name, "destroy")) {
        OK(pthread_mutex_destroy(&plain));
    } else if (!strcmp(name, "lock")) {
        OK(pthread_mutex_lock(&plain));
    } else if (!strcmp(name, "trylock")) {
        OK(pthread_mutex_trylock(&plain));
    } else if (!strcmp(name, "timedlock")) {
        OK(pthread_mutex_timedlock(&plain, &past));
    } else if (!strcmp(name, "clocklock")) {
        OK(pthread_mutex_clocklock(&plain, CLOCK_MONOTONIC, &past));
    } else if (!strcmp(name, "unlock")) {
        RETURNS(pthread_mutex_unlock(&errorcheck), EPERM);
    } else if (!strcmp(name, "consistent")) {
        RETURNS(pthread_mutex_consistent(&plain), EINVAL);
    } else if (!strcmp(name, "getprioceiling")) {
        RETURNS(pthread_mutex_getprioceiling(&plain, &old), EINVAL);
    } else if (!strcmp(name, "setprioceiling")) {
        RETURNS(pthread_mutex_setprioceiling(&plain, 1, &old), EINVAL);
    } else if (!strcmp(name, "robust-lock")) {
        OK(pthread_mutex_lock(&robust));
        OK(pthread_mutex_unlock(&robust));
    } else if (!strcmp(name, "robust-trylock")) {
        OK(pthread_mutex_trylock(&robust));
    } else if (!strcmp(name, "robust-timedlock")) {
        OK(pthread_mutex_timedlock(&robust, &past));
    } else if (!strcmp(name, "robust-clocklock")) {
        OK(pthread_mutex_clocklock(&robust, CLOCK_MONOTONIC, &past));
    } else if (!strcmp(name, "robust-unlock")) {
        RETURNS(pthread_mutex_unlock(&robust), EPERM);
    } else if (!strcmp(name, "inherit-lock")) {
        OK(pthread_mutex_lock(&inherit));
        OK(pthread_mutex_unlock(&inherit));
    } else if (!strcmp(name, "mtx_init")) {
        CHECK(mtx_init(&c11.mtx, mtx_plain) == thrd_success);
    } else if (!strcmp(name, "mtx_destroy")) {
        mtx_destroy(&c11.mtx);
    } else if (!strcmp(name, "mtx_lock")) {
        CHECK(mtx_lock(&c11.mtx) == thrd_success);
    } else if (!strcmp(name, "mtx_trylock")) {
        CHECK(mtx_trylock(&c11.mtx) == thrd_success);
    } else if (!strcmp(name, "mtx_timedlock")) {
        CHECK(mtx_timedlock(&c11.mtx, &past) == thrd_success);
    } else if (!strcmp(name, "mtx_unlock")) {
        c11.mutex = errorcheck;
        CHECK(mtx_unlock(&c11.mtx) == thrd_error);
    } else {
        FAIL("no such call: %s", name);
    }
    return NULL;
}

// The program's, found at run time: this library is opened, not linked.
static pthread_mutex_t *contended;
static long *count;

static void *fight(void *unused)
{
    for (int i = 0; i < 50; i++) {
        OK(pthread_mutex_lock(contended));
        ++*count;
        OK(pthread_mutex_unlock(contended));
    }
    return unused;
}

static void fight_with_threads(void)
{
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        threads[i] = spawn(fight, NULL);
    fight(NULL);
    for (int i = 0; i < 2; i++)
        join(threads[i]);
}

__attribute__((constructor)) static void opened(void)
{
    char *name = getenv("FIRST_CALL");
    if (name) {
        join(spawn(first_call, name));
        return;
    }
    contended = dlsym(RTLD_DEFAULT, "contended");
    count = dlsym(RTLD_DEFAULT, "contended_count");
    CHECK(contended && count);
    fight_with_threads();
}

__attribute__((destructor)) static void closed(void)
{
    if (contended)
        fight_with_threads();
}
