// A library with a static lock of its own, one that its constructor makes and one that its destructor uses.
#include "truth.h"

static pthread_mutex_t in_the_library = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t *made_here;

OUT_OF_LINE static void library_makes_one(void)
{
    made_here = malloc(sizeof *made_here);
    OK(pthread_mutex_init(made_here, NULL));
    OK(pthread_mutex_lock(made_here));
    OK(pthread_mutex_unlock(made_here));
    NO_TAIL_CALL();
}

__attribute__((constructor)) static void start(void)
{
    library_makes_one();
}

__attribute__((destructor)) static void end(void)
{
    OK(pthread_mutex_lock(&in_the_library));
    OK(pthread_mutex_unlock(&in_the_library));
}

void library_work(void **addresses)
{
    for (int i = 0; i < 4; i++) {
        OK(pthread_mutex_lock(&in_the_library));
        OK(pthread_mutex_unlock(&in_the_library));
    }
    addresses[0] = &in_the_library;
    addresses[1] = made_here;
}
