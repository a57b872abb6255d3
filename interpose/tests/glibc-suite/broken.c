/* Deliberately broken mutexes, one fault a build, to prove that the suite notices a wrong
   lock under LD_PRELOAD. Built by the harness with one of:

     FAULT_TRYLOCK      trylock says "yours" whether or not it is
     FAULT_NO_WAKE      unlock frees the word and never wakes a sleeper
     FAULT_NO_EXCLUSION lock returns at once

   Without any of them it is the control: a plain futex mutex on glibc's own word (0 free,
   1 locked, above 1 contended) that passes the same tests, condition variables included.
   Normal mutexes only: no owner checks, no recursion. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <threads.h>
#include <unistd.h>

static int *
word (pthread_mutex_t *mutex)
{
  return &mutex->__data.__lock;
}

/* glibc's kind has bit 7 set in a process-shared mutex; its own wakes of a private one
   would miss a sleeper on the shared futex key. */
static long
futex (pthread_mutex_t *mutex, int op, int value)
{
  if ((mutex->__data.__kind & 128) == 0)
    op |= FUTEX_PRIVATE_FLAG;
  return syscall (SYS_futex, word (mutex), op, value, NULL, NULL, 0);
}

static int
acquire (pthread_mutex_t *mutex)
{
#ifndef FAULT_NO_EXCLUSION
  int expected = 0;
  if (!__atomic_compare_exchange_n (word (mutex), &expected, 1, 0, __ATOMIC_ACQUIRE,
                                    __ATOMIC_RELAXED))
    while (__atomic_exchange_n (word (mutex), 2, __ATOMIC_ACQUIRE) != 0)
      futex (mutex, FUTEX_WAIT, 2);
#endif
  mutex->__data.__owner = gettid ();
  ++mutex->__data.__nusers;
  return 0;
}

static int
try_acquire (pthread_mutex_t *mutex)
{
#ifdef FAULT_TRYLOCK
  __atomic_exchange_n (word (mutex), 1, __ATOMIC_ACQUIRE);
#else
  int expected = 0;
  if (!__atomic_compare_exchange_n (word (mutex), &expected, 1, 0, __ATOMIC_ACQUIRE,
                                    __ATOMIC_RELAXED))
    return EBUSY;
#endif
  mutex->__data.__owner = gettid ();
  ++mutex->__data.__nusers;
  return 0;
}

static int
release (pthread_mutex_t *mutex)
{
  mutex->__data.__owner = 0;
  --mutex->__data.__nusers;
  int before = __atomic_exchange_n (word (mutex), 0, __ATOMIC_RELEASE);
#ifndef FAULT_NO_WAKE
  if (before > 1)
    futex (mutex, FUTEX_WAKE, 1);
#endif
  (void) before;
  return 0;
}

int pthread_mutex_lock (pthread_mutex_t *mutex) { return acquire (mutex); }
int pthread_mutex_trylock (pthread_mutex_t *mutex) { return try_acquire (mutex); }
int pthread_mutex_unlock (pthread_mutex_t *mutex) { return release (mutex); }

int
mtx_lock (mtx_t *mutex)
{
  return acquire ((pthread_mutex_t *) mutex) == 0 ? thrd_success : thrd_error;
}

int
mtx_trylock (mtx_t *mutex)
{
  return try_acquire ((pthread_mutex_t *) mutex) == 0 ? thrd_success : thrd_busy;
}

int
mtx_unlock (mtx_t *mutex)
{
  return release ((pthread_mutex_t *) mutex) == 0 ? thrd_success : thrd_error;
}
