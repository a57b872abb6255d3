// Property: after its releasing store, unlock does not touch the mutex, in no kind and on no path.
// The unlocking thread runs under the processor's trap flag; a handler looks at the word after
// every instruction, and once it is released takes all access to the page away. Whatever unlock
// then still reads or writes there faults. (Waiters that fault meanwhile wait for the page to come
// back.) Paths: nobody waits, waiters that sleep, a waiter that has just arrived, a thread on its
// way back from pthread_cond_wait.
// x86-64 only.
// Catches: one load or store after the release, or after the wake-up (BREAK_TOUCH,
// BREAK_TOUCH_LATE), with certainty.
#include "flavours.h"
#include <signal.h>
#include <sys/mman.h>
#include <threads.h>
#include <ucontext.h>
#include <linux/futex.h>

enum { PAGE = 4096, WAITERS = 3, REPEATS = 20 };

static struct {
    pthread_mutex_t mutex;
    char rest[PAGE - sizeof(pthread_mutex_t)];
} __attribute__((aligned(PAGE))) page;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

static pid_t unlocker;
static volatile sig_atomic_t stepping;
static int taken_away, releases, steps;

static void on_step(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    if (!stepping || taken_away)
        return;
    steps++;
    // Released, or taken by the next one already.
    int owner = LOAD(page.mutex.__data.__owner);
    if (word(&page.mutex) != 0 && (owner == 0 || owner == unlocker))
        return;
    releases++;
    STORE(taken_away, 1);
    if (mprotect(&page, PAGE, PROT_NONE))
        _exit(2);
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    ptrdiff_t offset = (char *)info->si_addr - (char *)&page;
    if (offset < 0 || offset >= PAGE)
        FAIL("SIGSEGV at %p", info->si_addr);
    if (tid() == unlocker && stepping) {
        Dl_info where = {0};
        void *ip = (void *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
        dladdr(ip, &where);
        FAIL("unlock touched offset %d of the mutex after the release, at %s+%#lx", (int)offset,
             where.dli_fname ? where.dli_fname : "?",
             (unsigned long)((char *)ip - (char *)where.dli_fbase));
    }
    WAIT_UNTIL(!LOAD(taken_away));
}

static void trap_flag(int on)
{
    if (on)
        __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
    else
        __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc");
}

static int mtx_unlock_plain(pthread_mutex_t *m)
{
    return mtx_unlock((mtx_t *)m) == thrd_success ? 0 : EINVAL;
}

static void unlock_stepwise(int (*unlock)(pthread_mutex_t *), int pshared)
{
    unlocker = tid();
    releases = 0;
    stepping = 1;
    trap_flag(1);
    int result = unlock(&page.mutex);
    trap_flag(0);
    stepping = 0;
    CHECK(mprotect(&page, PAGE, PROT_READ | PROT_WRITE) == 0);
    STORE(taken_away, 0);
    OK(result);
    CHECK(releases == 1);
    // A shared futex is found by its page: the kernel could not wake anybody on this one.
    if (pshared)
        syscall(SYS_futex, &page.mutex.__data.__lock, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static pid_t waiters[WAITERS];
static int in_wait;

static void *wait_for_lock(void *arg)
{
    STORE(waiters[(intptr_t)arg], tid());
    OK(pthread_mutex_lock(&page.mutex));
    OK(pthread_mutex_unlock(&page.mutex));
    return NULL;
}

static void *wait_for_cond(void *arg)
{
    OK(pthread_mutex_lock(&page.mutex));
    STORE(waiters[(intptr_t)arg], tid());
    STORE(in_wait, 1);
    OK(pthread_cond_wait(&cond, &page.mutex));
    OK(pthread_mutex_unlock(&page.mutex));
    return NULL;
}

static int is_asleep(int i)
{
    pid_t id = LOAD(waiters[i]);
    return id && thread_state(getpid(), id) == 'S';
}

enum path { NOBODY, ASLEEP, ARRIVING, FROM_COND, PATHS };

static void try_path(enum path path, struct flavour f, int (*unlock)(pthread_mutex_t *),
                     unsigned delay)
{
    pthread_t threads[WAITERS];
    int n = path == NOBODY ? 0 : path == ASLEEP ? WAITERS : 1;
    OK(flavour_init(&page.mutex, f));
    memset(waiters, 0, sizeof waiters);
    in_wait = 0;
    if (path == FROM_COND) {
        threads[0] = spawn(wait_for_cond, (void *)0);
        WAIT_UNTIL(LOAD(in_wait) && word(&page.mutex) == 0 && is_asleep(0));
    }
    OK(pthread_mutex_lock(&page.mutex));
    if (path == FROM_COND) {
        OK(pthread_cond_signal(&cond));
        WAIT_UNTIL(is_contended(&page.mutex) && is_asleep(0));
    } else {
        for (intptr_t i = 0; i < n; i++)
            threads[i] = spawn(wait_for_lock, (void *)i);
        for (int i = 0; i < n; i++)
            WAIT_UNTIL(path == ARRIVING ? LOAD(waiters[i]) != 0 : is_asleep(i));
        if (path == ARRIVING)
            burn(delay);
    }
    unlock_stepwise(unlock, f.pshared);
    for (int i = 0; i < n; i++)
        join(threads[i]);
    OK(pthread_mutex_destroy(&page.mutex));
}

int main(void)
{
    check_start();
    struct sigaction trap = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    CHECK(sigaction(SIGTRAP, &trap, NULL) == 0 && sigaction(SIGSEGV, &fault, NULL) == 0);
    // With and without other threads in the process: glibc has a path for each.
    for (int t = 0; t < FLAVOUR_TYPES; t++)
        try_path(NOBODY, (struct flavour){.type = flavour_types[t]}, pthread_mutex_unlock, 0);
    for (int t = 0; t < FLAVOUR_TYPES; t++)
        for (int pshared = 0; pshared < 2; pshared++)
            for (enum path path = NOBODY; path < PATHS; path++)
                for (int i = 0; i < REPEATS; i++) {
                    struct flavour f = {.type = flavour_types[t], .pshared = pshared};
                    int plain = f.type == PTHREAD_MUTEX_NORMAL && i % 2;
                    try_path(path, f, plain ? mtx_unlock_plain : pthread_mutex_unlock, i * i * 50);
                }
    CHECK(steps > 0);
    return 0;
}
