// A second thread that does one mutex operation when told, so that a transcript can say
// "the other thread does this" in program order.
#ifndef OTHER_H
#define OTHER_H

#include "check.h"

typedef int (*mutex_op)(pthread_mutex_t *);

struct other {
    pthread_t thread;
    sem_t go, done;
    mutex_op op;
    pthread_mutex_t *mutex;
    int result;
};

static struct other other;

static void *other_body(void *unused)
{
    (void)unused;
    for (;;) {
        while (sem_wait(&other.go)) {
        }
        if (!other.op)
            return NULL;
        other.result = other.op(other.mutex);
        sem_post(&other.done);
    }
}

__attribute__((unused)) static void other_start(void)
{
    CHECK(sem_init(&other.go, 0, 0) == 0 && sem_init(&other.done, 0, 0) == 0);
    other.thread = spawn(other_body, NULL);
}

// Tells the other thread and does not wait: for operations that block.
__attribute__((unused)) static void other_begins(mutex_op op, pthread_mutex_t *mutex)
{
    other.op = op;
    other.mutex = mutex;
    sem_post(&other.go);
}

__attribute__((unused)) static int other_ends(void)
{
    while (sem_wait(&other.done)) {
    }
    return other.result;
}

__attribute__((unused)) static int other_does(mutex_op op, pthread_mutex_t *mutex)
{
    other_begins(op, mutex);
    return other_ends();
}

__attribute__((unused)) static void other_stop(void)
{
    other.op = NULL;
    sem_post(&other.go);
    join(other.thread);
}

#endif
