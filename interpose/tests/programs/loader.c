// Property: mutexes work while dlopen holds the loader's lock: in constructors and destructors of
// the opened library, in threads that these start and wait for, and when such a thread is the
// first in the process to call a mutex function at all.
// Argument: the library; then nothing, or "first" to try every function as the first call.
// Catches: a look-up of the real functions at the first call, which waits for the loader's lock
// for ever (hang: BREAK_LATE_DLSYM).
#include "check.h"
#include <sys/wait.h>

enum { FIGHTERS = 3, OPENINGS = 60 };

pthread_mutex_t contended = PTHREAD_MUTEX_INITIALIZER;
long contended_count;
static int stop;
static long by_fighters[FIGHTERS];

static const char *const first_calls[] = {
    "init",           "destroy",         "lock",           "trylock",       "timedlock",
    "clocklock",      "unlock",          "consistent",     "getprioceiling", "setprioceiling",
    "robust-lock",    "robust-trylock",  "robust-timedlock", "robust-clocklock",
    "robust-unlock",  "inherit-lock",    "mtx_init",       "mtx_destroy",   "mtx_lock",
    "mtx_trylock",    "mtx_timedlock",   "mtx_unlock",
};

static void open_library(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    if (!library)
        FAIL("dlopen: %s", dlerror());
    CHECK(dlclose(library) == 0);
}

static void try_first_calls(const char *path)
{
    for (size_t i = 0; i < sizeof first_calls / sizeof first_calls[0]; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            setenv("FIRST_CALL", first_calls[i], 1);
            open_library(path);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        if (status)
            FAIL("first call %s: status %#x", first_calls[i], (unsigned)status);
    }
}

static void *fight(void *arg)
{
    long *mine = arg;
    while (!LOAD(stop)) {
        OK(pthread_mutex_lock(&contended));
        contended_count++;
        OK(pthread_mutex_unlock(&contended));
        ++*mine;
        burn(500);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    check_start();
    CHECK(argc >= 2);
    if (argc > 2) {
        try_first_calls(argv[1]);
        return 0;
    }
    pthread_t threads[FIGHTERS];
    for (int i = 0; i < FIGHTERS; i++)
        threads[i] = spawn(fight, &by_fighters[i]);
    for (int i = 0; i < OPENINGS; i++)
        open_library(argv[1]);
    STORE(stop, 1);
    long sum = OPENINGS * 2L * 3 * 50;
    for (int i = 0; i < FIGHTERS; i++) {
        join(threads[i]);
        sum += by_fighters[i];
    }
    CHECK(contended_count == sum);
    return 0;
}
