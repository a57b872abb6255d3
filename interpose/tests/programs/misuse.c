// Property: undefined use never hangs, never harms another mutex, and leaves what glibc leaves:
// unlock of a free NORMAL mutex, unlock by a thread that does not hold it, twice, under waiters;
// operations on a destroyed mutex or one of a kind that does not exist. Afterwards the mutex, made
// free, works for a crowd. The bytes around each mutex stay as they were.
// Transcript: equal with and without the preload.
// Catches: a stray wake-up or owner that confuses later users, a write past the end
// (BREAK_NEIGHBOUR), a hang on rubbish.
#include "flavours.h"
#include "other.h"

enum { THREADS = 4, ROUNDS = 3000, CANARY = 64 };

static struct {
    unsigned char before[CANARY];
    pthread_mutex_t mutex;
    unsigned char after[CANARY];
} guarded;
#define M (&guarded.mutex)

static pid_t self;
static long count;

static int lock(pthread_mutex_t *m) { return pthread_mutex_lock(m); }
static int trylock(pthread_mutex_t *m) { return pthread_mutex_trylock(m); }
static int unlock(pthread_mutex_t *m) { return pthread_mutex_unlock(m); }

static void line(const char *what, int result)
{
    say("  %-34s %-9s %s", what, err(result), fields_after_waits(M, self));
}

static void begin(const char *what, struct flavour f)
{
    memset(&guarded, 0x5c, sizeof guarded);
    OK(flavour_init(M, f));
    say("%s: %s", flavour_name(f), what);
}

static void *crowd(void *unused)
{
    for (int i = 0; i < ROUNDS; i++) {
        OK(pthread_mutex_lock(M));
        count++;
        OK(pthread_mutex_unlock(M));
    }
    return unused;
}

// Free again, the mutex must serve a crowd as a new one does.
static void end(void)
{
    pthread_t threads[THREADS];
    count = 0;
    line("before the crowd", 0);
    CHECK(word(M) == 0);
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(crowd, NULL);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    line("after the crowd", 0);
    CHECK(count == THREADS * ROUNDS);
    for (int i = 0; i < CANARY; i++)
        CHECK(guarded.before[i] == 0x5c && guarded.after[i] == 0x5c);
}

static void unlocks_too_often(struct flavour f)
{
    begin("unlock a free one", f);
    line("unlock", unlock(M));
    line("lock", lock(M));
    line("other trylock", other_does(trylock, M));
    line("unlock", unlock(M));
    end();

    begin("unlock twice", f);
    line("lock", lock(M));
    line("unlock", unlock(M));
    line("unlock", unlock(M));
    line("unlock", unlock(M));
    end();

    begin("unlock by another thread", f);
    line("lock", lock(M));
    line("other unlocks", other_does(unlock, M));
    line("other locks", other_does(trylock, M));
    line("unlock what other holds", unlock(M));
    line("unlock", unlock(M));
    end();
}

// Somebody else's lock is unlocked while threads wait for it. Each waiter gets it once, unlocks,
// and nobody is left behind.
static int waiting;
static void *wait_once(void *unused)
{
    ADD(waiting, 1);
    OK(pthread_mutex_lock(M));
    OK(pthread_mutex_unlock(M));
    return unused;
}

static void unlocked_under_waiters(struct flavour f)
{
    pthread_t threads[THREADS];
    begin("unlock by another thread under waiters", f);
    waiting = 0;
    line("lock", lock(M));
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(wait_once, NULL);
    WAIT_UNTIL(LOAD(waiting) == THREADS && is_contended(M));
    // From here on the waiters have it, in turn.
    say("  other unlocks: %s", err(other_does(unlock, M)));
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    line("waiters are through", 0);
    end();
}

static void destroyed(struct flavour f)
{
    struct timespec past = {1, 0};
    begin("use after destroy", f);
    line("destroy", pthread_mutex_destroy(M));
    line("destroy again", pthread_mutex_destroy(M));
    line("lock", lock(M));
    line("trylock", trylock(M));
    line("timedlock", pthread_mutex_timedlock(M, &past));
    line("clocklock", pthread_mutex_clocklock(M, CLOCK_MONOTONIC, &past));
    line("unlock", unlock(M));
    line("consistent", pthread_mutex_consistent(M));
    OK(pthread_mutex_init(M, NULL));
    end();
}

// Kinds that no init makes. (256 asks for lock elision, which depends on the processor.)
static void rubbish(int kind)
{
    struct timespec past = {1, 0};
    int old = -77;
    begin("rubbish", (struct flavour){.type = NO_SETTYPE});
    M->__data.__kind = kind;
    say(" kind %#x", (unsigned)kind);
    line("lock", lock(M));
    line("trylock", trylock(M));
    line("timedlock", pthread_mutex_timedlock(M, &past));
    line("clocklock", pthread_mutex_clocklock(M, CLOCK_MONOTONIC, &past));
    line("unlock", unlock(M));
    line("consistent", pthread_mutex_consistent(M));
    line("getprioceiling", pthread_mutex_getprioceiling(M, &old));
    line("destroy", pthread_mutex_destroy(M));
    OK(pthread_mutex_init(M, NULL));
    end();
}

int main(void)
{
    check_start();
    self = tid();
    static const int types[] = {NO_SETTYPE, PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ADAPTIVE_NP};
    for (int with_other = 0; with_other < 2; with_other++) {
        if (with_other)
            other_start();
        for (int t = 0; with_other && t < 3; t++)
            for (int pshared = 0; pshared < 2; pshared++) {
                struct flavour f = {.type = types[t], .pshared = pshared};
                unlocks_too_often(f);
                unlocked_under_waiters(f);
            }
        for (int t = 0; t < FLAVOUR_TYPES; t++)
            destroyed((struct flavour){.type = flavour_types[t]});
        // Every low value that is no kind, alone and process-shared; then stray high bits.
        for (int kind = 4; kind < 16; kind++) {
            rubbish(kind);
            rubbish(kind | 128);
        }
        static const int stray[] = {0x400, 0x401, 0x1000, 0x10000, 0x40000000, INT_MIN};
        for (size_t i = 0; i < sizeof stray / sizeof stray[0]; i++)
            rubbish(stray[i]);
    }
    other_stop();
    return 0;
}
