// Property: one thread alone gets everything it asks for on any lock: lock, trylock, timed locks, waits that time out, on every kind. With no
// second thread even a lock that only spins answers at once.
#include "flavours.h"

int main(void)
{
    check_start();
    pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
    for (int t = 0; t < FLAVOUR_TYPES; t++) {
        struct flavour flavour = { .type = flavour_types[t] };
        pthread_mutex_t mutex;
        OK(flavour_init(&mutex, flavour));
        for (int i = 0; i < 100; i++) {
            struct timespec until = from_now(CLOCK_REALTIME, 1000);
            OK(pthread_mutex_lock(&mutex));
            CHECK(pthread_cond_timedwait(&cond, &mutex, &until) == ETIMEDOUT);
            OK(pthread_mutex_unlock(&mutex));
            OK(pthread_mutex_trylock(&mutex));
            OK(pthread_mutex_unlock(&mutex));
            until = from_now(CLOCK_REALTIME, 60000000000ll);
            OK(pthread_mutex_timedlock(&mutex, &until));
            OK(pthread_mutex_unlock(&mutex));
        }
        OK(pthread_mutex_destroy(&mutex));
        say("%s", type_name(flavour.type));
    }
    return 0;
}
