// SIGINT, SIGTERM and programs' own ways with them. The profiler looks at both signals; the program must not be able to tell, except by what is on stderr.
#include "truth.h"
#include <sys/signalfd.h>

static pthread_mutex_t used = PTHREAD_MUTEX_INITIALIZER;
static volatile sig_atomic_t handled, handled_signal, handled_pid, handled_in_stack;

static void use(int times)
{
    for (int i = 0; i < times; i++) {
        OK(pthread_mutex_lock(&used));
        OK(pthread_mutex_unlock(&used));
    }
}

static void tell(int uses, const char *ending)
{
    truth("lock %p used kind=mutex acquisitions=%d waits=0", (void *)&used, uses);
    truth("process ending=%s", ending);
}

static void handler(int signal)
{
    handled++;
    handled_signal = signal;
}

static void handler_with_information(int signal, siginfo_t *information, void *context)
{
    handled++;
    handled_signal = signal;
    handled_pid = information->si_pid;
    // The context is the interrupted place's, and the handler may run on a stack of its own.
    CHECK(context);
}

static void expect_handled(int times, int signal)
{
    if (handled != times || (times && handled_signal != signal))
        FAIL("handled %d times, the last was %d; wanted %d times %d", (int)handled, (int)handled_signal, times, signal);
    // The test looks at what stands on stderr in front of this.
    dprintf(2, "handled %d\n", times);
}

static void set(int signal, void (*action)(int), int flags)
{
    struct sigaction a = {.sa_handler = action, .sa_flags = flags};
    CHECK(sigaction(signal, &a, NULL) == 0);
}

static void early(int argc, char **argv)
{
    (void)argc, (void)argv;
    set(SIGINT, handler, 0);
    use(3);
    raise(SIGINT);
    expect_handled(1, SIGINT);
    use(2);
    kill(getpid(), SIGINT);
    expect_handled(2, SIGINT);
    tell(5, "exit");
}

// The handler comes long after the first lock, and after a SIGTERM that was handled.
static void late(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(3);
    set(SIGTERM, handler, SA_RESTART);
    raise(SIGTERM);
    expect_handled(1, SIGTERM);
    set(SIGINT, handler, SA_RESTART);
    raise(SIGINT);
    expect_handled(2, SIGINT);
    use(4);
    tell(7, "exit");
}

static void by_signal(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(3);
    CHECK(signal(SIGINT, handler) == SIG_DFL);
    raise(SIGINT);
    raise(SIGINT);
    expect_handled(2, SIGINT);
    CHECK(signal(SIGINT, SIG_IGN) == handler);
    raise(SIGINT);
    expect_handled(2, SIGINT);
    CHECK(signal(SIGINT, handler) == SIG_IGN);
    raise(SIGINT);
    expect_handled(3, SIGINT);
    CHECK(signal(SIGINT, SIG_DFL) == handler);
    CHECK(signal(SIGINT, SIG_DFL) == SIG_DFL);
    tell(3, "exit");
}

// System V's handlers are gone after one signal: the second one kills.
static void by_sysv_signal(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(3);
    CHECK(sysv_signal(SIGINT, handler) == SIG_DFL);
    raise(SIGINT);
    expect_handled(1, SIGINT);
    tell(3, "signal:2");
    raise(SIGINT);
    FAIL("alive after a second SIGINT");
}

static void once(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(3);
    set(SIGTERM, handler, SA_RESETHAND);
    raise(SIGTERM);
    expect_handled(1, SIGTERM);
    struct sigaction now;
    CHECK(sigaction(SIGTERM, NULL, &now) == 0);
    CHECK(now.sa_handler == SIG_DFL);
    tell(3, "signal:15");
    raise(SIGTERM);
    FAIL("alive after a second SIGTERM");
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static void by_sigset(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(3);
    CHECK(sigset(SIGINT, handler) == SIG_DFL);
    raise(SIGINT);
    expect_handled(1, SIGINT);
    CHECK(sigset(SIGINT, SIG_HOLD) == handler);
    raise(SIGINT);
    expect_handled(1, SIGINT);
    CHECK(sigset(SIGINT, handler) == SIG_HOLD);
    expect_handled(2, SIGINT);
    CHECK(sigignore(SIGINT) == 0);
    raise(SIGINT);
    expect_handled(2, SIGINT);
    tell(3, "exit");
}
#pragma GCC diagnostic pop

static void with_information(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(3);
    struct sigaction a = {.sa_sigaction = handler_with_information, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaddset(&a.sa_mask, SIGUSR1);
    CHECK(sigaction(SIGINT, &a, NULL) == 0);
    struct sigaction seen;
    CHECK(sigaction(SIGINT, NULL, &seen) == 0);
    CHECK(seen.sa_sigaction == handler_with_information);
    CHECK((seen.sa_flags & (SA_SIGINFO | SA_RESTART | SA_RESETHAND | SA_NODEFER)) == (SA_SIGINFO | SA_RESTART));
    CHECK(sigismember(&seen.sa_mask, SIGUSR1) == 1 && sigismember(&seen.sa_mask, SIGUSR2) == 0);
    kill(getpid(), SIGINT);
    expect_handled(1, SIGINT);
    CHECK(handled_pid == getpid());
    tell(3, "exit");
}

static char other_stack[1 << 16];
static void on_its_stack(int signal)
{
    (void)signal;
    char here;
    handled++;
    handled_signal = signal;
    handled_in_stack = &here >= other_stack && &here < other_stack + sizeof other_stack;
}

static void on_other_stack(int argc, char **argv)
{
    (void)argc, (void)argv;
    stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
    use(3);
    CHECK(sigaltstack(&stack, NULL) == 0);
    set(SIGINT, on_its_stack, SA_ONSTACK);
    raise(SIGINT);
    expect_handled(1, SIGINT);
    CHECK(handled_in_stack);
    tell(3, "exit");
}

// Nobody has set anything: what a program asks it must be told, and the signal must kill.
static void by_default(int argc, char **argv)
{
    CHECK(argc == 1);
    int number = atoi(argv[0]);
    char ending[32];
    struct sigaction seen;
    use(3);
    CHECK(sigaction(number, NULL, &seen) == 0);
    CHECK(seen.sa_handler == SIG_DFL);
    snprintf(ending, sizeof ending, "signal:%d", number);
    tell(3, ending);
    kill(getpid(), number);
    FAIL("alive after signal %d", number);
}

// The same while every thread is in a lock operation.
static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER;

static void *never_stops(void *unused)
{
    (void)unused;
    for (;;) {
        OK(pthread_mutex_lock(&busy));
        OK(pthread_mutex_unlock(&busy));
    }
}

static void by_default_busy(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < 4; i++)
        spawn(never_stops, NULL);
    use(3);
    tell(3, "signal:2");
    truth("lock %p busy acquisitions=0..1000000000000", (void *)&busy);
    kill(getpid(), SIGINT);
    never_stops(NULL);
}

// Started with SIGINT ignored, as behind nohup or in a shell's background.
static void inherited_ignore(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(3);
    raise(SIGINT);
    struct sigaction seen;
    CHECK(sigaction(SIGINT, NULL, &seen) == 0);
    CHECK(seen.sa_handler == SIG_IGN);
    CHECK(signal(SIGINT, handler) == SIG_IGN);
    raise(SIGINT);
    expect_handled(1, SIGINT);
    tell(3, "exit");
}

static void ignored_then_default(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(3);
    set(SIGINT, SIG_IGN, 0);
    raise(SIGINT);
    use(1);
    set(SIGINT, SIG_DFL, 0);
    tell(4, "signal:2");
    raise(SIGINT);
    FAIL("alive after SIGINT");
}

// Programs that take signals without handlers: blocked, by sigwait and by a descriptor.
static void waited_for(int argc, char **argv)
{
    (void)argc, (void)argv;
    sigset_t set;
    int got;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    use(3);
    kill(getpid(), SIGINT);
    CHECK(sigwait(&set, &got) == 0 && got == SIGINT);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    CHECK(fd >= 0);
    kill(getpid(), SIGTERM);
    struct signalfd_siginfo information;
    CHECK(read(fd, &information, sizeof information) == sizeof information);
    CHECK(information.ssi_signo == SIGTERM);
    use(2);
    tell(5, "exit");
}

// What is not ours: other signals behave as ever, and sigaction's errors are the system's.
static void others(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(3);
    set(SIGUSR1, handler, 0);
    raise(SIGUSR1);
    expect_handled(1, SIGUSR1);
    struct sigaction a = {.sa_handler = handler};
    CHECK(sigaction(SIGKILL, &a, NULL) == -1 && errno == EINVAL);
    CHECK(sigaction(0, &a, NULL) == -1 && errno == EINVAL);
    CHECK(sigaction(1000, NULL, &a) == -1 && errno == EINVAL);
    CHECK(signal(SIGSTOP, handler) == SIG_ERR && errno == EINVAL);
    tell(3, "exit");
}

// A handler that itself locks, on a signal that hits a thread in the middle of its own lock operations.
static pthread_mutex_t in_handler = PTHREAD_MUTEX_INITIALIZER;
static long by_handler;

static void locks_too(int signal)
{
    (void)signal;
    if (pthread_mutex_trylock(&in_handler) == 0) {
        by_handler++;
        pthread_mutex_unlock(&in_handler);
    }
}

static int stop;
static long by_thread;

static void *works(void *unused)
{
    (void)unused;
    while (!LOAD(stop)) {
        OK(pthread_mutex_lock(&busy));
        by_thread++;
        OK(pthread_mutex_unlock(&busy));
    }
    return NULL;
}

static void handler_locks(int argc, char **argv)
{
    (void)argc, (void)argv;
    set(SIGUSR1, locks_too, SA_RESTART);
    set(SIGINT, locks_too, SA_RESTART);
    pthread_t thread = spawn(works, NULL);
    for (int i = 0; i < 3000; i++) {
        pthread_kill(thread, i % 100 ? SIGUSR1 : SIGINT);
        burn(2000);
    }
    STORE(stop, 1);
    join(thread);
    use(1);
    // What a handler does inside the profiler may be dropped, and is then counted as dropped; what the thread does, never.
    truth("lock %p busy kind=mutex acquisitions=%ld waits=0", (void *)&busy, by_thread);
    truth("lock %p in_handler acquisitions=%ld..%ld", (void *)&in_handler, 0l, by_handler);
    tell(1, "exit");
    truth("process dropped=any acquisitions-and-dropped=%ld", by_thread + by_handler + 1);
}

// A handler that leaves by siglongjmp, and one that ends the process: neither returns to the profiler.
#include <setjmp.h>
static sigjmp_buf back;

static void jumps(int signal)
{
    handled++;
    handled_signal = signal;
    siglongjmp(back, 1);
}

static void jumps_out(int argc, char **argv)
{
    (void)argc, (void)argv;
    static volatile int round;
    use(3);
    set(SIGINT, jumps, 0);
    if (sigsetjmp(back, 1) == 0 || round < 5) {
        round++;
        use(1);
        if (round < 6)
            raise(SIGINT);
    }
    expect_handled(5, SIGINT);
    tell(3 + 5, "exit");
}

static void ends(int signal)
{
    (void)signal;
    _exit(0);
}

static void handler_exits(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(3);
    set(SIGTERM, ends, 0);
    tell(3, "underscore-exit:0");
    raise(SIGTERM);
    FAIL("alive");
}

static const struct named_mode modes[] = {
    {"early", early},
    {"late", late},
    {"signal", by_signal},
    {"sysv-signal", by_sysv_signal},
    {"once", once},
    {"sigset", by_sigset},
    {"information", with_information},
    {"other-stack", on_other_stack},
    {"default", by_default},
    {"default-busy", by_default_busy},
    {"inherited-ignore", inherited_ignore},
    {"ignored-then-default", ignored_then_default},
    {"waited-for", waited_for},
    {"others", others},
    {"handler-locks", handler_locks},
    {"jumps-out", jumps_out},
    {"handler-exits", handler_exits},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_mode(modes, argc, argv);
}
