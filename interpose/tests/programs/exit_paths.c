// Property: mutexes work when the process ends: in atexit handlers, in destructors, after main has
// returned while detached threads still fight for the same locks, and when main has left by
// pthread_exit and the threads outlive it.
// Argument: "return" or "outlive". With a second preload (early_preload.c) in either place, whose
// constructor and destructor use mutexes too, main checks that its constructor ran.
// Transcript: equal with and without the preload.
// Catches: state torn down by a destructor of the preload (BREAK_DESTRUCTOR) or not there before
// its constructor (BREAK_NEEDS_CONSTRUCTOR).
#include "check.h"

enum { THREADS = 3, ROUNDS = 400 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER,
                       recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static long count;
static int inside, finished, running;

static void one_round(void)
{
    OK(pthread_mutex_lock(&mutex));
    CHECK(inside++ == 0);
    count++;
    CHECK(--inside == 0);
    OK(pthread_mutex_unlock(&mutex));
}

static void *fight_for_ever(void *unused)
{
    ADD(running, 1);
    for (;;) {
        one_round();
        burn(500);
    }
    return unused;
}

static void *fight_and_finish(void *unused)
{
    for (int i = 0; i < ROUNDS; i++) {
        one_round();
        if (i % 16 == 0)
            sched_yield();
    }
    // The last one ends the process.
    if (ADD(finished, 1) == THREADS - 1) {
        CHECK(count == THREADS * ROUNDS);
        say("last thread");
        exit(0);
    }
    return unused;
}

static void use(const char *where)
{
    for (int i = 0; i < ROUNDS; i++)
        one_round();
    OK(pthread_mutex_lock(&recursive));
    OK(pthread_mutex_lock(&recursive));
    OK(pthread_mutex_unlock(&recursive));
    OK(pthread_mutex_unlock(&recursive));
    say("%s done", where);
}

static void in_atexit(void) { use("atexit"); }
__attribute__((destructor)) static void in_destructor(void) { use("destructor"); }
__attribute__((destructor(101))) static void in_last_destructor(void) { use("last destructor"); }

static void detach(void *(*body)(void *))
{
    for (int i = 0; i < THREADS; i++)
        OK(pthread_detach(spawn(body, NULL)));
}

int main(int argc, char **argv)
{
    check_start();
    CHECK(argc == 2);
    const char *second = getenv("EARLY_PRELOAD");
    int *ran = dlsym(RTLD_DEFAULT, "early_constructor_ran");
    if (second)
        CHECK(ran && *ran);
    CHECK(atexit(in_atexit) == 0);
    if (!strcmp(argv[1], "outlive")) {
        detach(fight_and_finish);
        pthread_exit(NULL);
    }
    detach(fight_for_ever);
    WAIT_UNTIL(LOAD(running) == THREADS);
    use("main");
    return 0;
}
