// Property: a mutex in shared memory excludes and wakes across processes, whether or not the other
// process runs under the preload; so does a process-shared condition variable beside it.
// The program executes itself twice: two processes of two threads each fight for one mutex of each
// kind and pass a token to and fro. Argument "both": each keeps the LD_PRELOAD of this run.
// "mixed": the second one runs on glibc alone.
// Catches: private futexes on a shared mutex (hang: BREAK_PRIVATE_FUTEX), state that only one side
// keeps (BREAK_FOREIGN_WAITERS), an owner that is not the thread's id.
#include "flavours.h"
#include <sys/mman.h>
#include <sys/wait.h>

enum { THREADS = 2, ROUNDS = 30000, PASSES = 1500, SIDES = 2, KINDS = 5 };

struct field {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    long count;
    int inside;
    long token;
    long padding[16];
};

struct shared {
    int ready;
    struct field fields[KINDS];
};

static struct shared *shared;
static int side;

static void *fight(void *arg)
{
    struct field *f = arg;
    for (int i = 0; i < ROUNDS; i++) {
        if (i % 5 == 0) {
            struct timespec until = from_now(CLOCK_MONOTONIC, 60000000000ll);
            OK(pthread_mutex_clocklock(&f->mutex, CLOCK_MONOTONIC, &until));
        } else if (i % 5 != 1 || pthread_mutex_trylock(&f->mutex)) {
            OK(pthread_mutex_lock(&f->mutex));
        }
        CHECK(f->inside++ == 0);
        CHECK(f->mutex.__data.__owner == tid());
        f->count++;
        if (i % 128 == 0)
            sched_yield();
        else
            burn(20);
        CHECK(--f->inside == 0);
        OK(pthread_mutex_unlock(&f->mutex));
    }
    return NULL;
}

static void pass_the_token(struct field *f)
{
    for (int i = 0; i < PASSES; i++) {
        OK(pthread_mutex_lock(&f->mutex));
        while (f->token % SIDES != side)
            OK(pthread_cond_wait(&f->cond, &f->mutex));
        f->token++;
        OK(pthread_cond_signal(&f->cond));
        OK(pthread_mutex_unlock(&f->mutex));
    }
}

static void run_side(void)
{
    ADD(shared->ready, 1);
    WAIT_UNTIL(LOAD(shared->ready) == SIDES);
    for (int k = 0; k < KINDS; k++) {
        struct field *f = &shared->fields[k];
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++)
            threads[i] = spawn(fight, f);
        for (int i = 0; i < THREADS; i++)
            join(threads[i]);
        pass_the_token(f);
    }
}

static pid_t start_side(int fd, int number, int without_preload)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child)
        return child;
    char fd_text[16], side_text[16];
    snprintf(fd_text, sizeof fd_text, "%d", fd);
    snprintf(side_text, sizeof side_text, "%d", number);
    if (without_preload) {
        unsetenv("LD_PRELOAD");
        setenv("TEST_PRELOAD", "no", 1);
    }
    execl("/proc/self/exe", "process_shared", "side", fd_text, side_text, NULL);
    FAIL("exec: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    check_start();
    int is_side = argc == 4 && !strcmp(argv[1], "side");
    int fd = is_side ? atoi(argv[2]) : memfd_create("process_shared", 0);
    CHECK(fd >= 0);
    if (!is_side)
        CHECK(ftruncate(fd, sizeof *shared) == 0);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(shared != MAP_FAILED);
    if (is_side) {
        side = atoi(argv[3]);
        run_side();
        return 0;
    }
    CHECK(argc == 2);
    pthread_condattr_t attr;
    OK(pthread_condattr_init(&attr));
    OK(pthread_condattr_setpshared(&attr, PTHREAD_PROCESS_SHARED));
    for (int k = 0; k < KINDS; k++) {
        struct flavour f = {.type = flavour_types[k], .pshared = 1};
        OK(flavour_init(&shared->fields[k].mutex, f));
        OK(pthread_cond_init(&shared->fields[k].cond, &attr));
    }
    int mixed = !strcmp(argv[1], "mixed");
    pid_t sides[SIDES];
    for (int i = 0; i < SIDES; i++)
        sides[i] = start_side(fd, i, mixed && i == 1);
    for (int i = 0; i < SIDES; i++) {
        int status;
        // Whichever ends first: after a failure the other one may wait for ever.
        pid_t ended = waitpid(-1, &status, 0);
        CHECK(ended == sides[0] || ended == sides[1]);
        if (status)
            FAIL("side %d ended with status %#x", ended == sides[1], (unsigned)status);
    }
    for (int k = 0; k < KINDS; k++) {
        struct field *f = &shared->fields[k];
        CHECK(f->count == (long)SIDES * THREADS * ROUNDS);
        CHECK(f->token == (long)SIDES * PASSES);
        CHECK(word(&f->mutex) == 0 && f->mutex.__data.__nusers == 0);
        OK(pthread_mutex_destroy(&f->mutex));
    }
    return 0;
}
