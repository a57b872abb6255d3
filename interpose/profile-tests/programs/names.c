// What locks are called, and that it is the same in every run: static ones in the program and in a library that is opened and closed, ones on the heap
// by their first use.
#include "truth.h"

pthread_mutex_t visible_everywhere = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t only_here = PTHREAD_MUTEX_INITIALIZER;
static struct {
    long padding[3];
    pthread_mutex_t first, second;
} inside_a_struct = {.first = PTHREAD_MUTEX_INITIALIZER, .second = PTHREAD_MUTEX_INITIALIZER};

OUT_OF_LINE static void use(pthread_mutex_t *m, int times)
{
    for (int i = 0; i < times; i++) {
        OK(pthread_mutex_lock(m));
        OK(pthread_mutex_unlock(m));
    }
    NO_TAIL_CALL();
}

OUT_OF_LINE static pthread_mutex_t *made_in_one_place(void)
{
    pthread_mutex_t *m = malloc(sizeof *m);
    OK(pthread_mutex_init(m, NULL));
    use(m, 5);
    return m;
}

OUT_OF_LINE static pthread_mutex_t *made_in_another(void)
{
    pthread_mutex_t *m = malloc(sizeof *m);
    OK(pthread_mutex_init(m, NULL));
    use(m, 6);
    return m;
}

// argv: the library.
static void all_sorts(int argc, char **argv)
{
    CHECK(argc == 1);
    use(&visible_everywhere, 1);
    use(&only_here, 2);
    use(&inside_a_struct.first, 3);
    use(&inside_a_struct.second, 4);
    pthread_mutex_t *one = made_in_one_place(), *other = made_in_another();
    void *in_library[2];
    void *library = dlopen(argv[0], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        FAIL("dlopen: %s", dlerror());
    void (*library_work)(void **) = (void (*)(void **))dlsym(library, "library_work");
    CHECK(library_work);
    library_work(in_library);
    CHECK(dlclose(library) == 0);
    truth("lock %p visible_everywhere kind=mutex symbol=visible_everywhere acquisitions=1", (void *)&visible_everywhere);
    truth("lock %p only_here kind=mutex symbol=only_here acquisitions=2", (void *)&only_here);
    truth("lock %p first symbol=inside_a_struct acquisitions=3", (void *)&inside_a_struct.first);
    truth("lock %p second symbol=inside_a_struct acquisitions=4", (void *)&inside_a_struct.second);
    truth("lock %p one kind=mutex first=made_in_one_place acquisitions=5", (void *)one);
    truth("lock %p other kind=mutex first=made_in_another acquisitions=6", (void *)other);
    truth("lock %p in_the_library kind=mutex symbol=in_the_library acquisitions=5", in_library[0]);
    truth("lock %p made_here kind=mutex first=library_makes_one acquisitions=1", in_library[1]);
}

static const struct named_mode modes[] = {{"all", all_sorts}, {NULL, NULL}};

int main(int argc, char **argv)
{
    return run_mode(modes, argc, argv);
}
