// So many threads and locks that the record must keep to its bounds.
#include "truth.h"

enum { THREADS = 64, LOCKS = 100000 };
static pthread_barrier_t all_here;
static pthread_mutex_t *shared;

// Kilobytes of memory of its own that the process has (RssAnon).
static long own_memory(void)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    CHECK(n > 0);
    text[n] = 0;
    const char *at = strstr(text, "RssAnon:");
    CHECK(at);
    return atol(at + 8);
}

static void *map(size_t bytes)
{
    void *place = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    CHECK(place != MAP_FAILED);
    return place;
}

// Each of 64 threads takes each of 100,000 locks once.
static void *takes_each(void *arg)
{
    int me = (int)(intptr_t)arg;
    pthread_barrier_wait(&all_here);
    for (int i = 0; i < LOCKS; i++) {
        pthread_mutex_t *m = &shared[(i + me * (LOCKS / THREADS)) % LOCKS];
        OK(pthread_mutex_lock(m));
        OK(pthread_mutex_unlock(m));
    }
    return NULL;
}

static void in_a_crowd(void *(*body)(void *))
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&all_here, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(body, (void *)(intptr_t)i);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
}

static void each(int argc, char **argv)
{
    (void)argc, (void)argv;
    shared = map(LOCKS * sizeof *shared);
    long before = own_memory();
    in_a_crowd(takes_each);
    for (int i = 0; i < LOCKS; i += 997)
        truth("lock %p shared[%d] acquisitions=%d", (void *)&shared[i], i, THREADS);
    truth("process acquisitions-and-dropped=%d bytes=0..%d", THREADS * LOCKS, 64 << 20);
    truth("own-memory-kb=%ld", own_memory() - before);
}

// Each of 64 threads takes one of 16 locks, 100,000 times.
static void *takes_often(void *arg)
{
    int me = (int)(intptr_t)arg;
    pthread_barrier_wait(&all_here);
    for (int i = 0; i < LOCKS; i++) {
        OK(pthread_mutex_lock(&shared[me % 16]));
        OK(pthread_mutex_unlock(&shared[me % 16]));
    }
    return NULL;
}

static void often(int argc, char **argv)
{
    (void)argc, (void)argv;
    shared = map(16 * sizeof *shared);
    long before = own_memory();
    in_a_crowd(takes_often);
    for (int i = 0; i < 16; i++)
        truth("lock %p shared[%d] acquisitions=%d", (void *)&shared[i], i, THREADS / 16 * LOCKS);
    truth("process acquisitions=%d bytes=0..%d", THREADS * LOCKS, 64 << 20);
    truth("own-memory-kb=%ld", own_memory() - before);
}

// Far more locks than the record has room for, never destroyed: some of 64 threads' own 100,000 share their places in it, or are dropped and counted as that.
static void *takes_its_own(void *arg)
{
    int me = (int)(intptr_t)arg;
    pthread_barrier_wait(&all_here);
    for (int i = 0; i < LOCKS; i++) {
        pthread_mutex_t *m = &shared[me * LOCKS + i];
        OK(pthread_mutex_lock(m));
        OK(pthread_mutex_unlock(m));
    }
    return NULL;
}

static void own(int argc, char **argv)
{
    (void)argc, (void)argv;
    shared = map((size_t)THREADS * LOCKS * sizeof *shared);
    long before = own_memory();
    in_a_crowd(takes_its_own);
    truth("process acquisitions-and-dropped=%d bytes=0..%d", THREADS * LOCKS, 64 << 20);
    truth("own-memory-kb=%ld", own_memory() - before);
}

// A million locks that live for a moment, each at an address of its own; destroyed or, as many programs have it, just forgotten.
static void short_lived(int argc, char **argv)
{
    CHECK(argc == 1);
    enum { MILLION = 1000000 };
    int forgets = strcmp(argv[0], "forgotten") == 0;
    shared = map(MILLION * sizeof *shared);
    long before = own_memory();
    for (int i = 0; i < MILLION; i++) {
        OK(pthread_mutex_init(&shared[i], NULL));
        OK(pthread_mutex_lock(&shared[i]));
        OK(pthread_mutex_unlock(&shared[i]));
        if (!forgets)
            OK(pthread_mutex_destroy(&shared[i]));
    }
    truth("process acquisitions-and-dropped=%d bytes=0..%d", MILLION, forgets ? 64 << 20 : 2 << 20);
    truth("own-memory-kb=%ld", own_memory() - before);
}

static const struct named_mode modes[] = {
    {"each", each}, {"often", often}, {"own", own}, {"short-lived", short_lived}, {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_mode(modes, argc, argv);
}
