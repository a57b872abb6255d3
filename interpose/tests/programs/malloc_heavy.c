// Property: mutexes and an allocator that itself uses mutexes get on, whichever is loaded first:
// threads allocate, write, hand blocks to each other through locked lists, check and free them.
// Run with jemalloc, tcmalloc and malloc_preload.c before and after the preload under test.
// Catches: a deadlock between the preload's start and the allocator's, an allocation inside a lock
// that comes back to the same lock (hang).
#include "check.h"

enum { THREADS = 6, LISTS = 4, ROUNDS = 30000 };

struct block {
    struct block *next;
    size_t size;
    unsigned char seed, bytes[];
};

static struct {
    pthread_mutex_t mutex;
    struct block *first;
    long length;
    char pad[64];
} lists[LISTS];
static long made[THREADS], ended[THREADS];

static void check_and_free(struct block *b)
{
    for (size_t i = 0; i < b->size; i += 37)
        CHECK(b->bytes[i] == (unsigned char)(b->seed + i));
    free(b);
}

static void *body(void *arg)
{
    intptr_t me = (intptr_t)arg;
    uint64_t seed = 4711 + me;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t random = next_random(&seed);
        int k = random % LISTS;
        if (random >> 8 & 1) {
            size_t size = random >> 16 & (random >> 9 & 15 ? 255 : 16383);
            struct block *b = malloc(sizeof *b + size);
            CHECK(b != NULL);
            b->size = size;
            b->seed = (unsigned char)(random >> 32);
            for (size_t j = 0; j < size; j += 37)
                b->bytes[j] = (unsigned char)(b->seed + j);
            OK(pthread_mutex_lock(&lists[k].mutex));
            b->next = lists[k].first;
            lists[k].first = b;
            lists[k].length++;
            OK(pthread_mutex_unlock(&lists[k].mutex));
            made[me]++;
        } else {
            OK(pthread_mutex_lock(&lists[k].mutex));
            struct block *b = lists[k].first;
            if (b) {
                lists[k].first = b->next;
                lists[k].length--;
            }
            // Under the lock: the allocator's locks inside ours.
            if (b && random >> 9 & 1) {
                b = realloc(b, sizeof *b + b->size + 64);
                CHECK(b != NULL);
            }
            OK(pthread_mutex_unlock(&lists[k].mutex));
            if (b) {
                check_and_free(b);
                ended[me]++;
            }
        }
    }
    return NULL;
}

int main(void)
{
    check_start();
    for (int i = 0; i < LISTS; i++)
        OK(pthread_mutex_init(&lists[i].mutex, NULL));
    // Twice, so that threads also end and begin among the locks.
    for (int generation = 0; generation < 2; generation++) {
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++)
            threads[i] = spawn(body, (void *)(intptr_t)i);
        for (int i = 0; i < THREADS; i++)
            join(threads[i]);
    }
    long left = 0;
    for (int i = 0; i < THREADS; i++)
        left += made[i] - ended[i];
    for (int i = 0; i < LISTS; i++) {
        left -= lists[i].length;
        for (struct block *b = lists[i].first, *next; b; b = next) {
            next = b->next;
            check_and_free(b);
        }
    }
    CHECK(left == 0);
    return 0;
}
