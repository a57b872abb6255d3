// A preload that uses the kernel's slots as they are to be used, in as few lines as that takes, or with one thing wrong, chosen by -DBROKEN=...: the tests on a
// patched kernel can fail. A futex lock of three states for plain private mutexes; whoever waits spins armed for a while before it sleeps, without time-outs.
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BREAK_NONE 0
#define BREAK_FORGETS 1     // who was parked acquires as if nobody slept
#define BREAK_STAYS_ARMED 2 // who has acquired is still armed
#define BREAK_NEVER_ARMS 3  // nobody is ever parked

#ifndef BROKEN
#define BROKEN BREAK_NONE
#endif
#define IS_BROKEN(what) (BROKEN == (what))

enum { LOOKS = 20000 };

// include/uapi/linux/auto-lock.h
struct slot {
    uint32_t state, cpu, tid, parks, wakes, reserved0[11];
    uint64_t addr;
    uint32_t mask, value, leave_mask, leave, flags, timeout_us, reserved1[8];
};
struct create {
    uint32_t flags, slot;
    uint64_t area, area_size;
    uint32_t slot_size, slot_offset, features, reserved;
};

static __thread volatile struct slot *mine __attribute__((tls_model("initial-exec")));

static volatile struct slot *slot(void)
{
    struct create made = {0};
    int saved = errno;
    if (!mine && syscall(1000, &made, sizeof made, 0) == 0)
        mine = (void *)(uintptr_t)(made.area + made.slot_offset + made.slot * (uint64_t)made.slot_size);
    errno = saved;
    return mine;
}

#define BARRIER() __asm__ volatile("" ::: "memory")

static int try(int *word, int value)
{
    int unlocked = 0;
    return __atomic_compare_exchange_n(word, &unlocked, value, 0, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
    int *word = &m->__data.__lock, value = 1;
    if (try(word, value))
        return 0;
    volatile struct slot *s = slot();
    for (;;) {
        uint32_t parks = s ? s->parks : 0;
        for (int looks = 0; looks < LOOKS; looks++) {
            if (s && !IS_BROKEN(BREAK_NEVER_ARMS)) {
                s->mask = ~0u, s->value = 0, s->flags = 0, s->timeout_us = 0;
                s->leave_mask = ~0u, s->leave = 2;
                BARRIER();
                s->addr = (uintptr_t)word;
            }
            while (__atomic_load_n(word, __ATOMIC_RELAXED) && ++looks < LOOKS)
                __builtin_ia32_pause();
            if (s && !IS_BROKEN(BREAK_STAYS_ARMED)) {
                s->addr = 0;
                BARRIER();
            }
            // Parked: others may sleep, too.
            if (s && s->parks != parks && !IS_BROKEN(BREAK_FORGETS))
                value = 2;
            if (try(word, value))
                return 0;
        }
        if (s)
            s->addr = 0;
        value = 2;
        if (__atomic_exchange_n(word, 2, __ATOMIC_ACQUIRE) == 0)
            return 0;
        int saved = errno;
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 2, 0, 0, 0);
        errno = saved;
    }
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    int *word = &m->__data.__lock, saved = errno;
    if (__atomic_exchange_n(word, 0, __ATOMIC_RELEASE) == 2)
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
    errno = saved;
    return 0;
}

// As libautolock.so says it.
__attribute__((destructor)) static void say(void)
{
    uint64_t figures[13] = {0};
    char text[200];
    if (syscall(1002, figures, sizeof figures, 0))
        return;
    int length = snprintf(text, sizeof text, "autolock: kernel creates=%lu parks=%lu wakes=%lu timeouts=%lu\n",
                          (unsigned long)figures[3], (unsigned long)figures[4],
                          (unsigned long)figures[5], (unsigned long)figures[6]);
    if (write(2, text, length) < 0)
        _exit(1);
}
