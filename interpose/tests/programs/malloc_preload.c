// An allocator to preload that takes mutexes of every kind in every call. The loader itself calls
// malloc before any constructor has run, and dlsym may call it: so a mutex preload meets its first
// lock earlier than anywhere else, robust ones, which it has to pass on, included.
#include "check.h"
#include <sys/mman.h>

enum { KINDS = 6, ARENA = 1 << 30 };

static struct {
    pthread_mutex_t mutex;
    long count, check;
} locks[KINDS] = {
    {.mutex = PTHREAD_MUTEX_INITIALIZER},
    {.mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP},
    {.mutex = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP},
    {.mutex = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP},
    {.mutex = {{.__kind = 16}}}, // robust
    {.mutex = {{.__kind = 32}}}, // priority-inheriting
};
static char *arena;
static size_t used;
static unsigned calls;
static __thread int depth __attribute__((tls_model("initial-exec")));

struct header {
    size_t size, unused;
};

static void lock_one(void)
{
    unsigned k = __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED) % KINDS;
    // A call from inside a lock or unlock, for instance by dlsym: no second lock from here.
    if (depth)
        return;
    depth++;
    if (pthread_mutex_lock(&locks[k].mutex))
        _exit(90);
    if (locks[k].count++ != locks[k].check++)
        _exit(91);
    if (pthread_mutex_unlock(&locks[k].mutex))
        _exit(92);
    depth--;
}

void *malloc(size_t size)
{
    lock_one();
    char *base = __atomic_load_n(&arena, __ATOMIC_ACQUIRE);
    if (!base) {
        char *expected = NULL;
        base = mmap(NULL, ARENA, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED)
            return NULL;
        if (!__atomic_compare_exchange_n(&arena, &expected, base, 0, __ATOMIC_ACQ_REL,
                                         __ATOMIC_ACQUIRE)) {
            munmap(base, ARENA);
            base = expected;
        }
    }
    size_t room = (size + sizeof(struct header) + 15) & ~(size_t)15;
    size_t at = __atomic_fetch_add(&used, room, __ATOMIC_RELAXED);
    if (room < size || at + room > ARENA)
        return NULL;
    struct header *h = (struct header *)(base + at);
    h->size = size;
    return h + 1;
}

// Nothing is used twice.
void free(void *block)
{
    if (block)
        lock_one();
}

void *calloc(size_t n, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(n, size, &total))
        return NULL;
    return malloc(total); // fresh from mmap: zero
}

void *realloc(void *block, size_t size)
{
    if (!block)
        return malloc(size);
    size_t old = ((struct header *)block - 1)->size;
    if (size <= old)
        return block;
    void *bigger = malloc(size);
    return bigger ? memcpy(bigger, block, old) : NULL;
}

void *memalign(size_t alignment, size_t size)
{
    char *block = malloc(size + alignment);
    uintptr_t at = ((uintptr_t)block + alignment - 1) & ~(alignment - 1);
    if (!block)
        return NULL;
    if (at != (uintptr_t)block)
        ((struct header *)at - 1)->size = size;
    return (void *)at;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size)
{
    *result = memalign(alignment, size);
    return *result ? 0 : ENOMEM;
}
