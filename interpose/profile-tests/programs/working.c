// Threads that lock all the time and note each step in a file that outlives them, to be killed or interrupted at any moment by the test.
//
// argv: the file; how SIGINT is met: `finish` (a handler, after which the program ends in good order) or `default`; then `crash` to die by SIGSEGV after a
// while, or nothing.
#include "truth.h"

enum { THREADS = 4, LOCKS = 3 };

// What the test reads (`src/page.rs`).
static struct page {
    uint64_t prepared;                                // the handler is set, or none is wanted
    uint64_t addresses[LOCKS];                        // of the locks
    uint64_t begun[LOCKS], over[LOCKS];               // sums of the slots, by the test
    struct {
        uint64_t begun[LOCKS], over[LOCKS], unused[10];
    } slots[THREADS];
} *page;

static pthread_mutex_t locks[LOCKS] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP};
static volatile sig_atomic_t finish;

static void interrupted(int signal)
{
    (void)signal;
    finish = 1;
}

static void *works(void *arg)
{
    int me = (int)(intptr_t)arg;
    uint64_t random = 77777 + me;
    for (unsigned n = 0; !finish; n++) {
        int which = next_random(&random) % LOCKS;
        STORE(page->slots[me].begun[which], page->slots[me].begun[which] + 1);
        OK(pthread_mutex_lock(&locks[which]));
        STORE(page->slots[me].over[which], page->slots[me].over[which] + 1);
        burn(next_random(&random) % 200);
        OK(pthread_mutex_unlock(&locks[which]));
    }
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3);
    int fd = open(argv[1], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && ftruncate(fd, sizeof *page) == 0);
    page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(page != MAP_FAILED);
    for (int i = 0; i < LOCKS; i++)
        page->addresses[i] = (uintptr_t)&locks[i];
    if (strcmp(argv[2], "finish") == 0) {
        struct sigaction action = {.sa_handler = interrupted, .sa_flags = SA_RESTART};
        CHECK(sigaction(SIGINT, &action, NULL) == 0);
    }
    STORE(page->prepared, 1);
    check_start();
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(works, (void *)(intptr_t)i);
    if (argc > 3) {
        static int *volatile nowhere;
        spend(5 * MS);
        *nowhere = 1;
    }
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    for (int i = 0; i < LOCKS; i++) {
        uint64_t sum = 0;
        for (int t = 0; t < THREADS; t++)
            sum += page->slots[t].over[i];
        truth("lock %p locks[%d] acquisitions=%llu", (void *)&locks[i], i, (unsigned long long)sum);
    }
    truth("process ending=exit");
    return 0;
}
