// A preload that stands in for a kernel with autolocks (linux-patches/), on one that has none: a seccomp filter turns the three system calls
// into SIGSYS, whose handler does what the kernel would; a timer of each registered thread's CPU time interrupts it now and then, at any instruction, as a scheduler would, and
// then the handler either parks it (it is armed, and the word is still waited for) or keeps it off its CPU for a while.
//
// It differs from the real one: the area is one of shared memory that fork does not copy (MADV_DONTFORK); the state is "on a CPU" but for the times in which this file itself
// keeps the thread from it; a slot is given back when somebody needs one and its thread is gone; other signals do not disarm.
//
// FAKE_KERNEL=, with commas between:
//   off         the sysctl is 0: EPERM
//   slots=N     that many
//   strange     an area that no version of the library knows
//   lies        states at random
//   silent      nobody is ever interrupted
//   storm       everybody is, every 700 microseconds of time, asleep or not
//   report      says at exit what it did
#include <errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { CREATE = 1000, DESTROY = 1001, STATS = 1002, ON_CPU = 1, OFF_CPU = 2 };
enum { HEADER = 128, SLOTS_MAX = 4096 };

struct slot {
    uint32_t state, cpu, tid, parks, wakes, reserved0[11];
    uint64_t addr;
    uint32_t mask, value, leave_mask, leave, flags, timeout_us, reserved1[8];
};
_Static_assert(sizeof(struct slot) == 128 && offsetof(struct slot, addr) == 64, "the ABI");

struct create {
    uint32_t flags, slot;
    uint64_t area, area_size;
    uint32_t slot_size, slot_offset, features, reserved;
};

static struct {
    uint64_t slots, peak, max, creates, parks, wakes, timeouts, signals, spurious, changed, refused, hints, ns;
} stats;
static struct slot *slots;
static char *area;
static pid_t owner;
// Cleared in children of fork, but for those of vfork.
static int *lives;
static int is_off, is_strange, lies, is_silent, is_storm, reports, limit = SLOTS_MAX;
static int preempt_signal;

#define LOAD(object) __atomic_load_n(&(object), __ATOMIC_SEQ_CST)
#define STORE(object, value) __atomic_store_n(&(object), (value), __ATOMIC_SEQ_CST)
#define COUNT(object) __atomic_fetch_add(&(object), 1, __ATOMIC_RELAXED)

// Past libc: no errno, and no function of another preload.
static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static pid_t tid(void)
{
    return (pid_t)call(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

static pid_t pid(void)
{
    return (pid_t)call(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

static int has_area(void)
{
    return lives && *lives;
}

static long map(size_t bytes, int kind)
{
    return call(SYS_mmap, 0, bytes, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static struct slot *own_slot(pid_t me)
{
    if (has_area())
        for (int i = 0; i < limit; i++)
            if (LOAD(slots[i].tid) == (uint32_t)me)
                return &slots[i];
    return NULL;
}

static int is_gone(uint32_t thread)
{
    return call(SYS_tgkill, owner, thread, 0, 0, 0, 0) == -ESRCH;
}

static struct slot *new_slot(pid_t me)
{
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < limit; i++) {
            uint32_t had = LOAD(slots[i].tid);
            if (had && !(pass && is_gone(had)))
                continue;
            if (!__atomic_compare_exchange_n(&slots[i].tid, &had, me, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
                continue;
            STORE(slots[i].addr, 0);
            STORE(slots[i].parks, 0);
            STORE(slots[i].state, ON_CPU);
            return &slots[i];
        }
    return NULL;
}

static void start_timer(pid_t me)
{
    if (is_silent)
        return;
    int timer;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = preempt_signal};
    event._sigev_un._tid = me;
    // Kernel ticks are about all that a clock of CPU time resolves.
    long ns = is_storm ? 700000 : 1000000;
    struct itimerspec often = {{0, ns}, {0, ns}};
    long clock = is_storm ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID;
    if (call(SYS_timer_create, clock, (long)&event, (long)&timer, 0, 0, 0) == 0)
        call(SYS_timer_settime, timer, 0, (long)&often, 0, 0, 0);
}

static long do_create(struct create *made, size_t size, unsigned flags)
{
    if (flags || size < sizeof *made || made->flags || made->reserved)
        return -EINVAL;
    if (is_off)
        return -EPERM;
    if (!has_area()) {
        // The first one of this process. (Of two at once one would win; there is one thread then.)
        size_t bytes = HEADER + (size_t)limit * sizeof(struct slot);
        long at = map(bytes, MAP_SHARED);
        if (!lives) {
            lives = (int *)map(4096, MAP_PRIVATE);
            call(SYS_madvise, (long)lives, 4096, MADV_WIPEONFORK, 0, 0, 0);
        }
        call(SYS_madvise, at, bytes, MADV_DONTFORK, 0, 0, 0);
        area = (char *)at;
        slots = (struct slot *)(area + HEADER);
        memset(&stats, 0, sizeof stats);
        owner = pid();
        *lives = 1;
    }
    pid_t me = tid();
    struct slot *mine = own_slot(me);
    if (!mine) {
        mine = new_slot(me);
        if (!mine)
            return -ENOSPC;
        COUNT(stats.creates);
        start_timer(me);
    }
    made->slot = (uint32_t)(mine - slots);
    made->area = (uint64_t)area + (is_strange ? 4 : 0);
    made->area_size = HEADER + (uint64_t)limit * sizeof(struct slot);
    made->slot_size = sizeof(struct slot);
    made->slot_offset = HEADER;
    made->features = 1;
    return 0;
}

static void on_sigsys(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    int saved = errno;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    long result = -ENOSYS;
    struct slot *mine;
    switch (info->si_syscall) {
    case CREATE:
        result = do_create((void *)registers[REG_RDI], registers[REG_RSI], registers[REG_RDX]);
        break;
    case DESTROY:
        mine = own_slot(tid());
        result = mine ? 0 : -ENOENT;
        if (mine) {
            STORE(mine->state, 0);
            STORE(mine->tid, 0);
        }
        break;
    case STATS:
        stats.max = limit;
        memcpy((void *)registers[REG_RDI], &stats, sizeof stats);
        result = 0;
        break;
    default:
        dprintf(2, "fake kernel: SIGSYS for %d\n", info->si_syscall);
        _exit(3);
    }
    registers[REG_RAX] = result;
    errno = saved;
}

// As the kernel does on its way back to user mode.
static void park(struct slot *slot)
{
    uint32_t *word = (uint32_t *)slot->addr, seen = LOAD(*word), left;
    do {
        if ((seen & slot->mask) == slot->value) {
            COUNT(stats.changed);
            return;
        }
        left = (seen & ~slot->leave_mask) | slot->leave;
    } while (!__atomic_compare_exchange_n(word, &seen, left, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    COUNT(stats.parks);
    STORE(slot->parks, slot->parks + 1);
    STORE(slot->state, OFF_CPU);
    uint32_t us = slot->timeout_us && slot->timeout_us < 50000 ? slot->timeout_us : 50000;
    struct timespec limit = {0, us * 1000l};
    long woken = call(SYS_futex, (long)word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, left, (long)&limit, 0, 0);
    if (woken == 0)
        COUNT(stats.wakes);
    else if (woken == -ETIMEDOUT)
        COUNT(stats.timeouts);
    else
        COUNT(stats.spurious);
    STORE(slot->state, ON_CPU);
}

static void on_preempt(int signal)
{
    (void)signal;
    pid_t me = tid();
    struct slot *slot = own_slot(me);
    if (!slot)
        return;
    static uint32_t random = 1;
    uint32_t drawn = random = random * 1664525 + 1013904223;
    if (lies)
        STORE(slots[drawn % (limit < 32 ? limit : 32)].state, drawn >> 16 & 3);
    // A park outlasts the timer: the next signal is here already, and would park the thread again before it has run at all. Who was parked has a time slice.
    static __thread int slice;
    if (slot->addr && slice) {
        slice = 0;
    } else if (slot->addr) {
        park(slot);
        slice = 1;
    } else if (!is_storm || drawn >> 28 == 0) {
        struct timespec while_others_run = {0, drawn >> 12 & 0xfffff};
        STORE(slot->state, OFF_CPU);
        call(SYS_nanosleep, (long)&while_others_run, 0, 0, 0, 0, 0);
        STORE(slot->state, ON_CPU);
    }
}

static void handle(int signal, void (*handler)(int), void (*with_info)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_flags = SA_RESTART};
    if (with_info) {
        action.sa_flags |= SA_SIGINFO;
        action.sa_sigaction = with_info;
    } else {
        action.sa_handler = handler;
    }
    // Nothing in the middle of what a kernel does at once.
    sigaddset(&action.sa_mask, preempt_signal);
    sigaddset(&action.sa_mask, SIGSYS);
    if (sigaction(signal, &action, NULL))
        abort();
}

#define TRAP(number)                                     \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP)

// Before all others (-z initfirst), and so before libc has its environment.
__attribute__((constructor)) static void start(int argc, char **argv, char **environment)
{
    (void)argc, (void)argv;
    const char *manner = NULL;
    for (char **entry = environment; *entry; entry++)
        if (!strncmp(*entry, "FAKE_KERNEL=", 12))
            manner = *entry + 12;
    if (manner) {
        is_off = strstr(manner, "off") != NULL;
        is_strange = strstr(manner, "strange") != NULL;
        lies = strstr(manner, "lies") != NULL;
        is_silent = strstr(manner, "silent") != NULL;
        is_storm = strstr(manner, "storm") != NULL;
        reports = strstr(manner, "report") != NULL;
        const char *number = strstr(manner, "slots=");
        if (number)
            limit = atoi(number + 6);
    }
    preempt_signal = SIGRTMAX - 1;
    handle(SIGSYS, NULL, on_sigsys);
    handle(preempt_signal, on_preempt, NULL);
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        TRAP(CREATE),
        TRAP(DESTROY),
        TRAP(STATS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof program[0], program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) {
        dprintf(2, "fake kernel: no seccomp filter here\n");
        _exit(77);
    }
}

__attribute__((destructor)) static void end(void)
{
    if (reports && has_area())
        dprintf(2, "fake kernel: creates=%lu parks=%lu wakes=%lu timeouts=%lu spurious=%lu changed=%lu\n", stats.creates,
                stats.parks, stats.wakes, stats.timeouts, stats.spurious, stats.changed);
}
