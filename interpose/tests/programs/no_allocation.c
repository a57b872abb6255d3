// Property: lock and unlock never allocate, on any path. The program brings its own malloc, which
// counts; threads that have never touched a mutex before lock, wait, time out and unlock, of every
// plain kind; from the first to the last of it no call may be counted.
// Catches: an allocation on the slow path or at a thread's first lock (BREAK_MALLOC).
#include "flavours.h"

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void __libc_free(void *);

static int counting;
static long allocations;
static void *first_caller;

static void count_one(void *caller)
{
    if (LOAD(counting) && ADD(allocations, 1) == 0)
        first_caller = caller;
}

void *malloc(size_t size)
{
    count_one(__builtin_return_address(0));
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    count_one(__builtin_return_address(0));
    return __libc_calloc(n, size);
}

void *realloc(void *block, size_t size)
{
    count_one(__builtin_return_address(0));
    return __libc_realloc(block, size);
}

void free(void *block)
{
    if (block)
        count_one(__builtin_return_address(0));
    __libc_free(block);
}

enum { THREADS = 6, ROUNDS = 2000 };
static pthread_mutex_t locks[FLAVOUR_TYPES];
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t begin, end;
static long counts[FLAVOUR_TYPES];

static void *body(void *unused)
{
    pthread_barrier_wait(&begin);
    for (int i = 0; i < ROUNDS; i++) {
        int t = i % FLAVOUR_TYPES;
        struct timespec until = from_now(CLOCK_MONOTONIC, i % 7 ? 10000 : -1);
        int result = i % 3 ? pthread_mutex_lock(&locks[t])
                           : pthread_mutex_clocklock(&locks[t], CLOCK_MONOTONIC, &until);
        if (result == ETIMEDOUT)
            continue;
        OK(result);
        counts[t]++;
        if (i % 16 == 0) {
            result = pthread_cond_clockwait(&cond, &locks[t], CLOCK_MONOTONIC, &until);
            CHECK(result == 0 || result == ETIMEDOUT);
        } else if (i % 4 == 0) {
            sched_yield();
        }
        OK(pthread_mutex_unlock(&locks[t]));
    }
    pthread_barrier_wait(&end);
    return unused;
}

int main(void)
{
    check_start();
    pthread_t threads[THREADS];
    for (int t = 0; t < FLAVOUR_TYPES; t++)
        OK(flavour_init(&locks[t], (struct flavour){.type = flavour_types[t]}));
    OK(pthread_barrier_init(&begin, NULL, THREADS + 1));
    OK(pthread_barrier_init(&end, NULL, THREADS + 1));
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(body, NULL);
    // The count works at all.
    STORE(counting, 1);
    free(malloc(1));
    STORE(counting, 0);
    CHECK(allocations == 2);
    allocations = 0;

    STORE(counting, 1);
    pthread_barrier_wait(&begin);
    pthread_barrier_wait(&end);
    STORE(counting, 0);
    if (allocations) {
        Dl_info where = {0};
        dladdr(first_caller, &where);
        FAIL("%ld calls of malloc and free, the first from %s", allocations,
             where.dli_fname ? where.dli_fname : "?");
    }
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    return 0;
}
