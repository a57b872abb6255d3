// Property: after each operation the five fields that glibc reads (__lock, __count, __owner,
// __nusers, __kind) are what glibc would have left: single thread, several threads, with a
// blocked waiter, through condition variables, and after contended hand-overs.
// Transcript: equal with and without the preload.
// Catches: a count of users that is off by one (destroy would give EBUSY for ever), an owner
// left behind, a word that is not 0 when free, a kind rewritten by init
// (broken_preload: BREAK_NUSERS).
#include "flavours.h"
#include "other.h"

static pid_t self;

static void show(const char *when, pthread_mutex_t *m)
{
    say("  %-42s %s", when, fields(m, self));
}

static pthread_cond_t cond;
static int waiting, woken;
static char seen[200];

static int lock(pthread_mutex_t *m) { return pthread_mutex_lock(m); }
static int trylock(pthread_mutex_t *m) { return pthread_mutex_trylock(m); }
static int unlock(pthread_mutex_t *m) { return pthread_mutex_unlock(m); }

static int lock_look_unlock(pthread_mutex_t *m)
{
    int result = pthread_mutex_lock(m);
    snprintf(seen, sizeof seen, "owner=%s count=%u nusers=%u",
             m->__data.__owner == tid() ? "self" : "not self", m->__data.__count,
             m->__data.__nusers);
    OK(pthread_mutex_unlock(m));
    return result;
}

static int wait_for_signal(pthread_mutex_t *m)
{
    OK(pthread_mutex_lock(m));
    STORE(waiting, 1);
    while (!woken)
        OK(pthread_cond_wait(&cond, m));
    snprintf(seen, sizeof seen, "owner=%s count=%u nusers=%u",
             m->__data.__owner == tid() ? "self" : "not self", m->__data.__count,
             m->__data.__nusers);
    return pthread_mutex_unlock(m);
}

static void script(struct flavour f, int with_other)
{
    pthread_mutex_t m;
    struct timespec past = {1, 0};
    OK(flavour_init(&m, f));
    say("%s%s", flavour_name(f), with_other ? "" : ", alone in the process");
    show("init", &m);
    for (int round = 0; round < 2; round++) {
        OK(pthread_mutex_lock(&m));
        show("lock", &m);
        OK(pthread_mutex_unlock(&m));
        show("unlock", &m);
        OK(pthread_mutex_trylock(&m));
        show("trylock", &m);
        OK(pthread_mutex_unlock(&m));
        show("unlock", &m);
        OK(pthread_mutex_timedlock(&m, &past));
        show("timedlock", &m);
        OK(pthread_mutex_unlock(&m));
        show("unlock", &m);
        OK(pthread_mutex_clocklock(&m, CLOCK_MONOTONIC, &past));
        show("clocklock", &m);
        OK(pthread_mutex_unlock(&m));
        show("unlock", &m);
    }
    if (f.type == PTHREAD_MUTEX_RECURSIVE) {
        OK(pthread_mutex_lock(&m));
        OK(pthread_mutex_trylock(&m));
        show("lock, trylock", &m);
        OK(pthread_mutex_timedlock(&m, &past));
        show("and timedlock", &m);
        for (int i = 0; i < 3; i++) {
            OK(pthread_mutex_unlock(&m));
            show("unlock one", &m);
        }
    }
    if (with_other) {
        OK(other_does(lock, &m));
        show("other locks", &m);
        RETURNS(pthread_mutex_trylock(&m), EBUSY);
        show("trylock fails", &m);
        OK(other_does(unlock, &m));
        show("other unlocks", &m);
        OK(pthread_mutex_lock(&m));
        RETURNS(other_does(trylock, &m), EBUSY);
        show("other's trylock fails", &m);
        other_begins(lock_look_unlock, &m);
        WAIT_UNTIL(is_contended(&m));
        show("other waits", &m);
        OK(pthread_mutex_unlock(&m));
        OK(other_ends());
        say("  the waiter saw %s", seen);
        show("both done", &m);

        // The condition variable leaves and re-takes the mutex inside libc, which goes on counting the waiter among the users, and expects contention. A
        // glibc that does so through the preload leaves both to it.
        int is_inside = getenv("TEST_GLIBC") == NULL;
        OK(pthread_cond_init(&cond, NULL));
        waiting = woken = 0;
        other_begins(wait_for_signal, &m);
        WAIT_UNTIL(LOAD(waiting) && word(&m) == 0);
        if (is_inside) {
            OK(pthread_mutex_lock(&m));
            show("locked while other is in cond_wait", &m);
            OK(pthread_mutex_unlock(&m));
            show("unlocked while other is in cond_wait", &m);
            say("  destroy under a cond waiter: %s", err(pthread_mutex_destroy(&m)));
        }
        OK(pthread_mutex_lock(&m));
        woken = 1;
        OK(pthread_cond_broadcast(&cond));
        OK(pthread_mutex_unlock(&m));
        OK(other_ends());
        say("  the cond waiter saw %s", seen);
        show("cond waiter done", &m);
        OK(pthread_cond_destroy(&cond));

        // One that times out inside the wait.
        OK(pthread_cond_init(&cond, NULL));
        OK(pthread_mutex_lock(&m));
        RETURNS(pthread_cond_timedwait(&cond, &m, &past), ETIMEDOUT);
        if (is_inside)
            show("cond_timedwait timed out", &m);
        OK(pthread_mutex_unlock(&m));
        show("unlock", &m);
        OK(pthread_cond_destroy(&cond));
    }
    OK(pthread_mutex_destroy(&m));
    show("destroy", &m);
}

// After a crowd has fought for it, a mutex is as good as new.
static pthread_mutex_t crowded;
static long total;
static void *crowd(void *unused)
{
    (void)unused;
    for (int i = 0; i < 5000; i++) {
        OK(pthread_mutex_lock(&crowded));
        total++;
        OK(pthread_mutex_unlock(&crowded));
    }
    return NULL;
}

int main(void)
{
    check_start();
    self = tid();
    for (int t = 0; t < FLAVOUR_TYPES; t++)
        for (int pshared = 0; pshared < 2; pshared++)
            script((struct flavour){.type = flavour_types[t], .pshared = pshared}, 0);
    other_start();
    for (int t = 0; t < FLAVOUR_TYPES; t++)
        for (int pshared = 0; pshared < 2; pshared++)
            script((struct flavour){.type = flavour_types[t], .pshared = pshared}, 1);
    other_stop();
    for (int t = 0; t < FLAVOUR_TYPES; t++) {
        pthread_t threads[6];
        OK(flavour_init(&crowded, (struct flavour){.type = flavour_types[t]}));
        total = 0;
        for (int i = 0; i < 6; i++)
            threads[i] = spawn(crowd, NULL);
        for (int i = 0; i < 6; i++)
            join(threads[i]);
        say("%s after a crowd: total %ld", type_name(flavour_types[t]), total);
        show("", &crowded);
        OK(pthread_mutex_destroy(&crowded));
    }
    return 0;
}
