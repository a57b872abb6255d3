// Property: after its releasing store, unlock does not touch the mutex. POSIX lets the next owner
// destroy and free it at once (the reference count in the rationale of pthread_mutex_destroy): here
// every object is a page of its own, and whoever drops the last reference unmaps it for good, so
// that any later touch is a SIGSEGV. All threads share one CPU in one half of the run, where a
// wake-up often lets the woken thread finish before its waker goes on.
// Arguments: a kind, and "pshared" if wanted. release_is_final.c looks at the same rule one
// instruction at a time; this one adds real threads, waiters and wake-ups.
// Catches: an unlock that comes back to the mutex after the release (BREAK_LINGER).
#include "flavours.h"
#include <sys/mman.h>

enum { THREADS = 3, OBJECTS = 40000, PAGE = 4096 };

struct object {
    pthread_mutex_t mutex;
    int references;
};

static struct object *objects[OBJECTS];
static long arrived, unmapped;
static struct flavour flavour;

// A page for every object: none is ever mapped again.
static char *pages;

static struct object *make(int i)
{
    struct object *o = (struct object *)(pages + (size_t)i * PAGE);
    OK(flavour_init(&o->mutex, flavour));
    o->references = THREADS;
    return o;
}

// `meet`: the others get a chance to come and wait meanwhile.
static void drop(struct object *o, int destroy, int meet)
{
    OK(pthread_mutex_lock(&o->mutex));
    int left = --o->references;
    if (meet)
        sched_yield();
    OK(pthread_mutex_unlock(&o->mutex));
    if (left)
        return;
    if (destroy)
        OK(pthread_mutex_destroy(&o->mutex));
    CHECK(munmap(o, PAGE) == 0);
    ADD(unmapped, 1);
}

static void run_on_one_cpu(void)
{
    cpu_set_t allowed;
    int cpu = 0;
    CHECK(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
    while (!CPU_ISSET(cpu, &allowed))
        cpu++;
    CPU_ZERO(&allowed);
    CPU_SET(cpu, &allowed);
    CHECK(sched_setaffinity(0, sizeof allowed, &allowed) == 0);
}

static void *body(void *arg)
{
    intptr_t me = (intptr_t)arg;
    for (int i = 0; i < OBJECTS; i++) {
        if (i == OBJECTS / 2)
            run_on_one_cpu();
        // All start on an object together.
        if (me == 0) {
            WAIT_UNTIL(LOAD(arrived) == (THREADS - 1) * (i + 1l));
            STORE(objects[i], make(i));
        } else {
            ADD(arrived, 1);
            WAIT_UNTIL(LOAD(objects[i]));
        }
        drop(objects[i], i % 2, i % 4 / 2);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    check_start();
    CHECK(argc >= 2);
    flavour.type = 77;
    flavour.pshared = argc > 2;
    for (int t = 0; t < FLAVOUR_TYPES; t++)
        if (!strcmp(type_name(flavour_types[t]), argv[1]))
            flavour.type = flavour_types[t];
    CHECK(flavour.type != 77);
    pages = mmap(NULL, (size_t)OBJECTS * PAGE, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(pages != MAP_FAILED);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(body, (void *)(intptr_t)i);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    CHECK(unmapped == OBJECTS);
    return 0;
}
